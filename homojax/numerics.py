"""What a floating-point type can deliver, said once, and primitives that stay finite at their edges."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jax.typing import ArrayLike, DTypeLike

# GPUs and TPUs multiply float32 in fewer bits by default; every law here is about the last bits.
matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def as_float(x: ArrayLike) -> jax.Array:
    """``x`` as a floating-point array: floats keep their dtype, everything else gets JAX's default.

    Raises:
        TypeError: it is complex, or no array of numbers.

    >>> as_float([1, 2]).dtype == as_float(1.0).dtype
    True
    """
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"all quantities here are real, got {x.dtype}")
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def as_square(matrix: ArrayLike, name: str = "matrix") -> jax.Array:
    """``matrix`` as a floating-point [n, n] array with n ≥ 2.

    Raises:
        ValueError: it is not square, or n < 2: one unit has no detail to mix.
        TypeError: it is no array, but a FactoredMatrix, or the ``log_matrix`` that a projection of factors does not have.

    >>> as_square([[0, 1], [1, 0]]).shape
    (2, 2)
    """
    if matrix is None or hasattr(matrix, "dense"):
        raise TypeError(
            f"{name} must be an array [n, n], which factors do not have: where n is small, dense() makes one of them"
        )
    matrix = as_float(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"{name} must have shape [n, n], got {list(matrix.shape)}; batch with jax.vmap"
        )
    if matrix.shape[0] < 2:
        raise ValueError(
            f"{name} must be at least 2 x 2, got {list(matrix.shape)}: one unit has no detail to mix"
        )
    return matrix


def as_scalar(x: ArrayLike, name: str, dtype: DTypeLike | None = None) -> jax.Array:
    """``x`` as a floating-point scalar, of ``dtype`` if that is given.

    Raises:
        ValueError: it is not a scalar.

    >>> float(as_scalar(2, "d"))
    2.0
    """
    x = as_float(x) if dtype is None else jnp.asarray(x, dtype)
    if x.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {list(x.shape)}; batch with jax.vmap")
    return x


def require_count(name: str, value: SupportsIndex, least: int) -> int:
    """``value`` as an int; ValueError unless it is a whole number of at least ``least``."""
    if not isinstance(value, SupportsIndex) or int(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def as_epsilon(epsilon: ArrayLike, dtype: DTypeLike) -> jax.Array:
    """An entropy weight ε as a scalar of ``dtype``: NaN unless positive.

    Raises:
        ValueError: it is not a scalar.

    >>> float(as_epsilon(2, "float32"))
    2.0
    """
    epsilon = as_scalar(epsilon, "epsilon", dtype)
    return jnp.where(epsilon > 0, epsilon, jnp.nan)


def scaled_logits(logits: jax.Array, epsilon: jax.Array) -> jax.Array:
    """S/ε, whose derivative with respect to ε is 0, not infinite, where S is −inf.

    >>> scaled_logits(as_float([1, -jnp.inf]), as_float(2)).tolist()
    [0.5, -inf]
    """
    allowed = logits != -jnp.inf
    return jnp.where(allowed, jnp.where(allowed, logits, 0) / epsilon, -jnp.inf)


def as_stack(matrices: ArrayLike, name: str = "matrices") -> jax.Array:
    """``matrices`` as a floating-point [L, n, n] array with L ≥ 1 and n ≥ 2, one matrix a layer.

    Raises:
        ValueError: any other shape.

    >>> as_stack([[[0, 1], [1, 0]]]).shape
    (1, 2, 2)
    """
    matrices = as_float(matrices)
    if matrices.ndim != 3 or matrices.shape[0] < 1:
        raise ValueError(
            f"{name} must have shape [layers, n, n] with at least one layer, got {list(matrices.shape)}"
        )
    as_square(matrices[0], f"each layer of {name}")
    return matrices


def marginal_tolerance(n: int, dtype: DTypeLike) -> float:
    """Largest |row or column sum − 1| that a projection in ``dtype`` must reach to be called converged.

    ``eps ** 0.75`` leaves a quarter of the digits for the cancellation in S/ε + f + g; less than four times
    ``sum_rounding`` no sum can promise. About 1.8e-12 in float64 and 6.4e-6 in float32.

    >>> marginal_tolerance(4, "float64") < 2e-12 < 1e-6 < marginal_tolerance(4, "float32") < 1e-5
    True
    """
    return max(float(jnp.finfo(dtype).eps) ** 0.75, 4 * sum_rounding(n, dtype))


def sum_rounding(n: int, dtype: DTypeLike) -> float:
    """Typical rounding error of a row or column sum near 1, of n entries: ``√n eps``.

    >>> sum_rounding(4, "float32") == 2.0 ** -22
    True
    """
    return n**0.5 * float(jnp.finfo(dtype).eps)


def rounding(n: int, dtype: DTypeLike) -> float:
    """Absolute error allowed to a norm, a singular value, an eigenvalue or a sum of an [n, n] matrix of norm about 1.

    ``4 (n + 24) eps``: the backward error of a dense factorisation grows with n, and does not vanish at small n, where the
    iterations inside LAPACK leave up to 16 eps in a singular value and 55 eps in an eigenvalue (measured, n = 3 and 4).

    >>> rounding(2, "float32") == 104 * 2.0 ** -23
    True
    """
    return 4 * (n + 24) * float(jnp.finfo(dtype).eps)


def sqrt(x: ArrayLike) -> jax.Array:
    """Square root whose derivative at 0 is 0, so that a norm has a finite (sub)gradient where it vanishes.

    >>> float(jax.grad(sqrt)(0.0))
    0.0
    """
    x = as_float(x)
    positive = x > 0
    return jnp.where(
        positive, jnp.sqrt(jnp.where(positive, x, 1)), jnp.where(x == 0, 0, jnp.nan).astype(x.dtype)
    )


def repeat_while(
    unfinished: Callable[[Any], jax.Array], advance: Callable[[Any], Any], start: Any
) -> Any:
    """``advance`` from ``start`` while ``unfinished``: ``jax.lax.while_loop``, with a condition that is computed once a turn.

    Under ``vmap`` JAX computes it twice, to go on and to say which lanes do. Where two compiled copies of a comparison of
    floats round apart, a lane that only one of them calls finished stays as it is, and the loop never ends.

    >>> int(repeat_while(lambda x: x < 100, lambda x: 2 * x, jnp.asarray(3)))
    192
    """

    def turn(state):
        new = advance(state[0])
        return new, unfinished(new)

    return jax.lax.while_loop(lambda state: state[1], turn, (start, unfinished(start)))[0]


def power_of_two(size: jax.Array) -> jax.Array:
    """The power of two next below ``size`` > 0: to divide by, exactly, before squares leave the range. It has no derivative.

    1 for 0, ∞ and NaN; never so far out that its own inverse would be subnormal.

    >>> power_of_two(jnp.array([5.0, 0.3, 0.0])).tolist()
    [4.0, 0.25, 1.0]
    """
    tiny = jnp.finfo(size.dtype).tiny
    size = jax.lax.stop_gradient(
        jnp.where((size > 0) & (size < jnp.inf), jnp.clip(size, tiny, 1 / tiny), 1)
    )
    return jnp.ldexp(jnp.ones_like(size), jnp.frexp(size)[1] - 1)


def log_gram(log_matrix: jax.Array) -> jax.Array:
    """log MᵀM, [n, n]."""

    @jax.checkpoint  # or a gradient would keep all n³ terms
    def row(column):
        terms = column[:, None] + log_matrix
        vanishes = terms.max(0) == -jnp.inf
        return jnp.where(vanishes, -jnp.inf, logsumexp(jnp.where(vanishes, 0, terms), axis=0))

    return jax.lax.map(row, log_matrix.T)
