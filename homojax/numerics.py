"""What a floating-point type can deliver, and primitives that stay finite at their edges."""

from __future__ import annotations

import math
from functools import reduce

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jax.typing import ArrayLike, DTypeLike

_UNROLLED_TO = 8  # n, up to which a batch of products is faster as sums


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the product of matrices or vectors, in all the digits that the dtype has.

    GPUs and TPUs multiply float32 in fewer bits by default, and the laws here are about the last
    ones. Small matrices are multiplied by sums: in batches of 512, 4 × 4 products took 8 to 25
    times as long as one dot (XLA for CPUs).

    >>> matmul(jnp.ones((2, 2)), jnp.ones((2, 2))).tolist()
    [[2.0, 2.0], [2.0, 2.0]]
    """
    if a.ndim == b.ndim == 2 and max(a.shape) <= _UNROLLED_TO:
        terms = [a[:, k : k + 1] * b[k : k + 1] for k in range(a.shape[1])]
        return reduce(jnp.add, terms)
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def scaled_logits(logits: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Return S/ε, whose derivative with respect to ε is 0, not infinite, where S is −inf.

    >>> scaled_logits(jnp.array([1, -jnp.inf]), jnp.array(2.0)).tolist()
    [0.5, -inf]
    """
    allowed = logits != -jnp.inf
    return jnp.where(allowed, jnp.where(allowed, logits, 0) / epsilon, -jnp.inf)


def marginal_tolerance(n: int, dtype: DTypeLike) -> float:
    """Return the largest |row or column sum − 1| with which a projection counts as converged.

    ``eps ** 0.75`` leaves a quarter of the digits for the cancellation in S/ε + f + g. No sum can
    promise less than four times ``sum_rounding``. About 1.8e-12 in float64, 6.4e-6 in float32.

    >>> marginal_tolerance(4, "float64") < 2e-12 < 1e-6 < marginal_tolerance(4, "float32") < 1e-5
    True
    """
    return max(float(jnp.finfo(dtype).eps) ** 0.75, 4 * sum_rounding(n, dtype))


def sum_rounding(n: int, dtype: DTypeLike) -> float:
    """Return the typical rounding error of a sum near 1 of n entries: ``√n eps``.

    >>> sum_rounding(4, "float32") == 2.0 ** -22
    True
    """
    return n**0.5 * float(jnp.finfo(dtype).eps)


def rounding(n: int, dtype: DTypeLike) -> float:
    """Return the absolute error allowed to a norm, singular value, eigenvalue or sum.

    4(n + 24) eps, of an [n, n] matrix of norm about 1. The backward error of a factorisation grows
    with n. It does not vanish at small n, where iterations end a few eps away: LAPACK's leave up to
    16 eps in a singular value and 55 eps in an eigenvalue (measured, n = 3 and 4).

    >>> rounding(2, "float32") == 104 * 2.0 ** -23
    True
    """
    return 4 * (n + 24) * float(jnp.finfo(dtype).eps)


def gram(matrix: jax.Array) -> jax.Array:
    """Return AᵀA. A copy of Aᵀ is multiplied in a quarter of the time of A transposed (XLA, CPU).

    >>> gram(jnp.array([[1.0, 2.0]])).tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """
    return matmul(jax.lax.optimization_barrier(matrix.T), matrix)


def ascending(x: jax.Array) -> jax.Array:
    """Return a vector sorted, NaN at an end: by the integers of its bits.

    XLA for CPUs sorts integers five times as quickly as floats.

    >>> ascending(jnp.asarray([0.5, -1.0, -2.0, 0.25])).tolist()
    [-2.0, -1.0, 0.25, 0.5]
    """
    whole = as_ordered_integers(x)
    return jax.lax.bitcast_convert_type(_swap_negative(jnp.sort(whole)), x.dtype)


def as_ordered_integers(x: jax.Array) -> jax.Array:
    """Return integers in the order of ``x``, of as many bits; NaN at an end.

    >>> as_ordered_integers(jnp.asarray([0.0, -1.0, 1.0], "float32")).argsort().tolist()
    [1, 0, 2]
    """
    whole = jnp.dtype(f"int{8 * x.dtype.itemsize}")
    return _swap_negative(jax.lax.bitcast_convert_type(x, whole))


def _swap_negative(bits: jax.Array) -> jax.Array:
    """Return integers of which the negative ones are in the opposite order."""
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def max_or_nan(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """Return the largest entry, along axes if they are given; NaN where there is a NaN.

    ``x.max()`` promises the same. But XLA's programs for CPUs lose a NaN in it, at sizes that
    depend on what is compiled with it (openxla/xla issue 21461).

    >>> float(max_or_nan(jnp.array([1.0, 3.0, 2.0])))
    3.0
    """
    return jnp.where(jnp.isnan(x).any(axis), jnp.nan, x.max(axis))


def min_or_nan(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """Return the least entry as ``max_or_nan`` returns the largest.

    >>> float(min_or_nan(jnp.array([1.0, 3.0, 2.0])))
    1.0
    """
    return -max_or_nan(-x, axis)


def sqrt(x: ArrayLike) -> jax.Array:
    """Return the square root, with derivative 0 at 0: a norm then has a subgradient where it is 0.

    >>> float(jax.grad(sqrt)(0.0))
    0.0
    """
    x = jnp.asarray(x)
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def wide(dtype: DTypeLike) -> DTypeLike:
    """Return ``dtype``, or float32 where that has more digits: a system needs as many to solve.

    >>> wide("bfloat16") == jnp.float32, wide("float64")
    (True, 'float64')
    """
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def power_of_two(size: jax.Array) -> jax.Array:
    """Return the power of two next below ``size`` > 0, to divide by without rounding.

    Squares then stay in range. 1 for 0, ∞ and NaN; never so far out that its own inverse would be
    subnormal. It has no derivative.

    >>> power_of_two(jnp.array([5.0, 0.3, 0.0])).tolist()
    [4.0, 0.25, 1.0]
    """
    tiny = jnp.finfo(size.dtype).tiny
    size = jax.lax.stop_gradient(
        jnp.where((size > 0) & (size < jnp.inf), jnp.clip(size, tiny, 1 / tiny), 1)
    )
    return jnp.ldexp(jnp.ones_like(size), jnp.frexp(size)[1] - 1)


def arbitrary(shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Return numbers in (−½, ½) that look random and are always the same: where a search starts.

    A quadratic Weyl sequence. ``jax.random`` would compile the rounds of a cipher for them.

    >>> [round(x, 3) for x in arbitrary((3,), "float64").tolist()]
    [0.118, -0.028, 0.062]
    """
    k = jnp.arange(1, math.prod(shape) + 1, dtype=jnp.uint32)
    bits = k * k * jnp.uint32(0x9E3779B9)
    return (bits.astype(dtype) * 2.0**-32 - 0.5).reshape(shape)


def norm(x: jax.Array) -> jax.Array:
    """Return √Σx² of all entries, of any size: no square leaves the range of the dtype.

    Its derivative at 0 is 0, as that of ``sqrt``.

    >>> float(norm(jnp.array([3e-30, 4e-30], "float32"))) == float(jnp.float32(5e-30))
    True
    """
    unit = power_of_two(abs(x).max())
    return unit * sqrt(((x / unit) ** 2).sum())


def normalised(x: jax.Array) -> jax.Array:
    """Return ``x`` over its 2-norm (a matrix's Frobenius norm), 0 if it is 0. Sizes are near 1.

    >>> [round(y, 6) for y in normalised(jnp.array([3.0, 4.0])).tolist()]
    [0.6, 0.8]
    """
    size = jnp.linalg.norm(x)
    return x / jnp.where(size > 0, size, 1)


def log_gram(log_matrix: jax.Array) -> jax.Array:
    """Return log MᵀM, [n, n], of M = exp(log_matrix).

    >>> log_gram(jnp.zeros((1, 1))).tolist()
    [[0.0]]
    """

    @jax.checkpoint  # or a gradient would keep all n³ terms
    def row(column):
        terms = column[:, None] + log_matrix
        vanishes = terms.max(0) == -jnp.inf
        return jnp.where(vanishes, -jnp.inf, logsumexp(jnp.where(vanishes, 0, terms), axis=0))

    return jax.lax.map(row, log_matrix.T)
