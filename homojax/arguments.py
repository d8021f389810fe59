"""What a function is given, as arrays; what it cannot take is refused by a sentence."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike


def as_setting(x: Any, name: str) -> Any:
    """Return a value that a program is compiled for.

    Raises:
        TypeError: it is an array, or traced.

    >>> as_setting([1, 2], "dims")
    (1, 2)
    """
    try:
        if isinstance(x, SupportsIndex) and not isinstance(x, bool):
            return operator.index(x)  # no array of floats has one
        x = tuple(x) if isinstance(x, list) else x
        hash(x)
        return x
    except TypeError:  # of an array, or of a number that is traced
        what = "an array" if hasattr(x, "shape") else f"a {type(x).__name__}"
        raise TypeError(f"{name} must be a plain Python value, got {what}") from None


def as_operand(x: Any, name: str) -> Any:
    """Return a value that a program computes with: a number as it is, all else as an array.

    >>> as_operand(1.5, "epsilon"), as_operand([1.5, 2.0], "logits").shape
    (1.5, (2,))
    """
    x = _never_wrapped(x, name)
    ours = hasattr(x, "_fields") or hasattr(x, "dense")  # results and factors
    if x is None or ours or isinstance(x, jax.Array | bool | int | float) or _is_plain(x):
        return x
    return as_array(x, name)


def _never_wrapped(x: Any, name: str) -> Any:
    """Return whole numbers beyond JAX's own, which would wrap around, as floats."""
    alone = isinstance(x, int)
    kind = "i" if alone else getattr(getattr(x, "dtype", None), "kind", "")
    if isinstance(x, jax.Array | bool) or kind not in ("i", "u") or not getattr(x, "size", 1):
        return x
    own = int if alone else x.dtype.newbyteorder("=")
    limits = jnp.iinfo(jax.dtypes.canonicalize_dtype(own))
    least, most = (x, x) if alone else (int(x.min()), int(x.max()))
    if limits.min <= least and most <= limits.max:
        return x
    try:
        return float(x) if alone else x.astype("float64")
    except OverflowError:
        raise TypeError(f"{name} is a whole number too large for a float") from None


def _is_plain(x: Any) -> bool:
    """Return whether ``x`` is a NumPy array of numbers in the machine's own bytes."""
    known = type(x).__name__ == "ndarray" and hasattr(x, "dtype")
    return known and x.dtype.kind in "fiub" and x.dtype.byteorder in "=|"


# ---------------------------------------------------------------- arrays


def as_array(x: ArrayLike, name: str) -> jax.Array:
    """Return ``x`` as a JAX array, whatever library or byte order it comes in.

    Raises:
        TypeError: it is not an array of numbers.

    >>> as_array([1.0, 2.0], "x").tolist()
    [1.0, 2.0]
    """
    if isinstance(x, jax.Array):
        return x
    given: Any = _never_wrapped(x, name)
    if hasattr(given, "filled") and hasattr(given, "mask"):
        raise TypeError(f"{name} must be plain numbers, got a masked array: fill it first")
    order = getattr(getattr(given, "dtype", None), "byteorder", "=")
    if order in "<>":  # not the machine's own
        given = given.astype(given.dtype.newbyteorder("="))
    try:
        return jnp.asarray(given)
    except (TypeError, ValueError, OverflowError):
        what = type(given).__name__
        if isinstance(given, list | tuple):
            what += ", whose rows are not equally long, or whose numbers are too large"
        elif hasattr(given, "dtype"):
            what += f" of {given.dtype}"
        raise TypeError(f"{name} must be an array of numbers, got {what}") from None


def as_float(x: ArrayLike, name: str = "an argument") -> jax.Array:
    """Return ``x`` as a floating-point array; what is no float gets JAX's default dtype.

    Raises:
        TypeError: it is complex, or not an array of numbers.

    >>> as_float([1, 2]).dtype == as_float(1.0).dtype
    True
    """
    x = as_array(x, name)
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
    matrix = as_float(matrix, name)
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
    matrices = as_float(matrices, name)
    if matrices.ndim != 3 or matrices.shape[0] < 1:
        shape = list(matrices.shape)
        raise ValueError(f"{name} must have shape [layers, n, n], layers >= 1, got {shape}")
    as_square(matrices[0], f"each layer of {name}")
    return matrices


def as_vector(x: ArrayLike, name: str, least: int = 1) -> jax.Array:
    """Return ``x`` as a floating-point [n] array with n ≥ ``least``.

    Raises:
        ValueError: any other shape.

    >>> as_vector([0, 1], "signal").shape
    (2,)
    """
    x = as_float(x, name)
    if x.ndim != 1 or len(x) < least:
        raise ValueError(
            f"{name} must have shape [n], n >= {least}, got {list(x.shape)}; batch with jax.vmap"
        )
    return x


def as_scalar(x: ArrayLike, name: str, dtype: DTypeLike | None = None) -> jax.Array:
    """Return ``x`` as a floating-point scalar, of ``dtype`` if that is given.

    Raises:
        ValueError: it is not a scalar.

    >>> float(as_scalar(2, "d"))
    2.0
    """
    x = as_float(x, name)
    if x.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {list(x.shape)}; batch with jax.vmap")
    return x if dtype is None else x.astype(dtype)


def as_epsilon(epsilon: ArrayLike, dtype: DTypeLike) -> jax.Array:
    """Return an entropy weight ε as a scalar of ``dtype``, NaN unless positive.

    Raises:
        ValueError: it is not a scalar.

    >>> float(as_epsilon(2, "float32"))
    2.0
    """
    epsilon = as_scalar(epsilon, "epsilon", dtype)
    one = jnp.ones_like(epsilon)
    return epsilon * jnp.where(epsilon > 0, one, jnp.nan)  # its derivative is NaN there, too


def require_count(name: str, value: SupportsIndex, least: int) -> int:
    """Return ``value`` as an int; ValueError unless it is a whole number from ``least`` to 2³¹ − 1.

    >>> require_count("depth", 3, 1)
    3
    """
    try:
        count = operator.index(value)
    except TypeError:  # an array of floats, too
        count = least - 1
    if count < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if count >= 2**31:
        raise ValueError(f"{name} must be a whole number of less than 2^31")
    return count


def as_key(key: jax.Array) -> jax.Array:
    """Return a JAX random key.

    Raises:
        TypeError: it is none.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        what = type(key).__name__ if dtype is None else f"an array of {dtype}"
        raise TypeError(f"key must be a JAX random key, as of jax.random.key(0), got {what}")
    return key


def as_decomposable(matrix: jax.Array) -> jax.Array:
    """Return a matrix in a precision that has decompositions.

    Raises:
        ValueError: it is in half precision.

    >>> as_decomposable(jnp.eye(2)).shape
    (2, 2)
    """
    if jnp.finfo(matrix.dtype).bits < 32:
        raise ValueError(
            f"there are no spectra in {matrix.dtype}: give the matrix as float32, which holds "
            "all of its digits"
        )
    return matrix


def _refuse_results(x: Any, name: str) -> None:
    given = f"{name} must be an array, got a {type(x).__name__}"
    if hasattr(x, "dense"):
        raise TypeError(f"{given}: where n is small, dense() makes an array of these factors")
    if hasattr(x, "log_matrix"):
        wanted = "result.matrix" if hasattr(x, "matrix") else "jnp.exp(result.log_matrix)"
        raise TypeError(f"{given}: pass {'result.log_matrix' if 'log' in name else wanted}")
    if hasattr(x, "matrix"):
        raise TypeError(f"{given}: pass result.matrix")
