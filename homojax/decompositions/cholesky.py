"""The Cholesky factor of a symmetric positive definite matrix, and systems solved by it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.decompositions.triangular import backward, forward
from homojax.loops import repeat
from homojax.numerics import matmul, wide

_SMALL = 64  # up to this n rows are found one by one; beyond, products of matrices find
_BLOCK = 16  # so many at a time


def cholesky(matrix: jax.Array) -> jax.Array:
    """Return the lower L with LLᵀ = A, [n, n], with a NaN in it unless A is positive definite.

    The backward error is that of any Cholesky factorisation, about n·eps of A's norm: a matrix that
    has a factor is positive definite to that.

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), theorem 10.3.

    >>> cholesky(jnp.array([[4.0, 2.0], [2.0, 2.0]])).tolist()
    [[2.0, 0.0], [1.0, 1.0]]
    """
    n = len(matrix)
    if n <= _SMALL:
        return _by_rows(matrix)
    blocks = -(-n // _BLOCK)
    columns, unit = jnp.arange(blocks * _BLOCK), jnp.eye(_BLOCK, dtype=matrix.dtype)
    padded = jnp.eye(len(columns), dtype=matrix.dtype).at[:n, :n].set(matrix)

    def find(k, upper):
        """Put block k of the rows of Lᵀ in its place: the matrix less what the rows above make."""
        start, size = k * _BLOCK, (_BLOCK, len(columns))
        above = jax.lax.dynamic_slice(upper, (0, start), size[::-1])
        rest = jax.lax.dynamic_slice(padded, (start, 0), size) - matmul(above.T, upper)
        factor = _by_rows(jax.lax.dynamic_slice(rest, (0, start), (_BLOCK, _BLOCK)))
        rows = jnp.where(columns >= start, matmul(forward(factor, unit), rest), 0)
        rows = jax.lax.dynamic_update_slice(rows, factor.T, (0, start))
        return jax.lax.dynamic_update_slice(upper, rows, (start, 0))

    return repeat(blocks, find, jnp.zeros_like(padded)).T[:n, :n]


def solve_positive(matrix: jax.Array, b: jax.Array) -> jax.Array:
    """Return x with A x = b for a symmetric positive definite A [n, n] and b [n] or [n, k].

    NaN where A is not positive definite. Differentiable to any order. In float32 at least; the
    result has the dtype of b.

    >>> solve_positive(jnp.array([[4.0, 0.0], [0.0, 16.0]]), jnp.array([1.0, 1.0])).tolist()
    [0.25, 0.0625]
    """
    matrix, right = (x.astype(wide(b.dtype)) for x in (matrix, b))

    def solve(_, right):
        return substitute(cholesky(jax.lax.stop_gradient(matrix)), right)

    found = jax.lax.custom_linear_solve(lambda x: matmul(matrix, x), right, solve, symmetric=True)
    return found.astype(b.dtype)


def substitute(factor: jax.Array, b: jax.Array) -> jax.Array:
    """Return x with LLᵀx = b, for b [n] or [n, k].

    >>> substitute(jnp.array([[2.0]]), jnp.array([4.0])).tolist()
    [1.0]
    """
    return backward(factor, forward(factor, b))


def _by_rows(matrix: jax.Array) -> jax.Array:
    """Return the lower factor, found row by row of its transpose: each reads those above it."""
    index = jnp.arange(len(matrix))

    def find(j, upper):
        rest = matrix[j] - matmul(upper[:, j], upper)
        return upper.at[j].set(jnp.where(index >= j, rest / jnp.sqrt(rest[j]), 0))

    return repeat(len(matrix), find, jnp.zeros_like(matrix)).T
