"""What a function is given, as arrays; what it cannot take is refused by a sentence."""

from __future__ import annotations

from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike


def as_float(x: ArrayLike) -> jax.Array:
    """Return ``x`` as a floating-point array; what is no float gets JAX's default dtype.

    Raises:
        TypeError: it is complex, or not an array of numbers.

    >>> as_float([1, 2]).dtype == as_float(1.0).dtype
    True
    """
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"all quantities here are real, got {x.dtype}")
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def as_square(matrix: ArrayLike, name: str = "matrix") -> jax.Array:
    """Return ``matrix`` as a floating-point [n, n] array with n ≥ 2.

    Raises:
        ValueError: it is not square, or n < 2: one unit has no detail to mix.
        TypeError: it is not an array, but a result, or a matrix or logits given by factors.

    >>> as_square([[0, 1], [1, 0]]).shape
    (2, 2)
    """
    _refuse_results(matrix, name)
    matrix = as_float(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"{name} must have shape [n, n], got {list(matrix.shape)}; batch with jax.vmap"
        )
    if matrix.shape[0] < 2:
        shape = list(matrix.shape)
        raise ValueError(f"{name} must be at least 2 x 2, got {shape}: one unit has no detail")
    return matrix


def as_stack(matrices: ArrayLike, name: str = "matrices") -> jax.Array:
    """Return ``matrices`` as a floating-point [L, n, n] array, one matrix a layer.

    Raises:
        ValueError: any other shape, or L < 1 or n < 2.

    >>> as_stack([[[0, 1], [1, 0]]]).shape
    (1, 2, 2)
    """
    _refuse_results(matrices, name)
    matrices = as_float(matrices)
    if matrices.ndim != 3 or matrices.shape[0] < 1:
        shape = list(matrices.shape)
        raise ValueError(f"{name} must have shape [layers, n, n], layers >= 1, got {shape}")
    as_square(matrices[0], f"each layer of {name}")
    return matrices


def as_scalar(x: ArrayLike, name: str, dtype: DTypeLike | None = None) -> jax.Array:
    """Return ``x`` as a floating-point scalar, of ``dtype`` if that is given.

    Raises:
        ValueError: it is not a scalar.

    >>> float(as_scalar(2, "d"))
    2.0
    """
    x = as_float(x) if dtype is None else jnp.asarray(x, dtype)
    if x.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {list(x.shape)}; batch with jax.vmap")
    return x


def as_epsilon(epsilon: ArrayLike, dtype: DTypeLike) -> jax.Array:
    """Return an entropy weight ε as a scalar of ``dtype``, NaN unless positive.

    Raises:
        ValueError: it is not a scalar.

    >>> float(as_epsilon(2, "float32"))
    2.0
    """
    epsilon = as_scalar(epsilon, "epsilon", dtype)
    return jnp.where(epsilon > 0, epsilon, jnp.nan)


def require_count(name: str, value: SupportsIndex, least: int) -> int:
    """Return ``value`` as an int; ValueError unless it is a whole number of at least ``least``.

    >>> require_count("depth", 3, 1)
    3
    """
    if not isinstance(value, SupportsIndex) or int(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def _refuse_results(x: Any, name: str) -> None:
    given = f"{name} must be an array, got a {type(x).__name__}"
    if hasattr(x, "dense"):
        raise TypeError(f"{given}: where n is small, dense() makes an array of these factors")
    for field in ("matrix", "log_matrix"):
        if hasattr(x, field):
            raise TypeError(f"{given}: pass result.{field}")
