"""The Cholesky factor of a symmetric positive definite matrix, and systems solved by it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.decompositions.triangular import backward, forward
from homojax.loops import repeat
from homojax.numerics import matmul, wide

_BLOCK = 32  # columns that are eliminated one by one; beyond, products of matrices do the work


def cholesky(matrix: jax.Array) -> jax.Array:
    """Return the lower L with LLᵀ = A, [n, n], with a NaN in it unless A is positive definite.

    The backward error is that of any Cholesky factorisation, about n·eps of A's norm: a matrix that
    has a factor is positive definite to that.

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), theorem 10.3.

    >>> cholesky(jnp.array([[4.0, 2.0], [2.0, 2.0]])).tolist()
    [[2.0, 0.0], [1.0, 1.0]]
    """
    n = len(matrix)
    if n <= _BLOCK:
        return _by_columns(matrix)
    blocks = -(-n // _BLOCK)
    rows, unit = jnp.arange(blocks * _BLOCK), jnp.eye(_BLOCK, dtype=matrix.dtype)
    padded = jnp.eye(len(rows), dtype=matrix.dtype).at[:n, :n].set(matrix)

    def eliminate(k, left):
        """Put the columns of L of block k in their place, and take their product off the rest."""
        start = k * _BLOCK
        panel = jax.lax.dynamic_slice(left, (0, start), (len(rows), _BLOCK))
        factor = _by_columns(jax.lax.dynamic_slice(panel, (start, 0), (_BLOCK, _BLOCK)))
        below = matmul(panel, forward(factor, unit).T)
        below = jnp.where((rows >= start + _BLOCK)[:, None], below, 0)
        left = left - matmul(below, below.T)
        columns = jax.lax.dynamic_update_slice(below, factor, (start, 0))
        return jax.lax.dynamic_update_slice(left, columns, (0, start))

    return jnp.tril(repeat(blocks, eliminate, padded))[:n, :n]


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


def _by_columns(matrix: jax.Array) -> jax.Array:
    """Return the lower factor, column by column."""
    index = jnp.arange(len(matrix))

    def eliminate(j, left):
        pivot = jnp.sqrt(left[j, j])
        column = jnp.where(index > j, left[:, j] / pivot, 0)
        left = left - column[:, None] * column[None, :]
        return jnp.where(index == j, jnp.where(index == j, pivot, column)[:, None], left)

    return jnp.tril(repeat(len(matrix), eliminate, matrix))
