"""The Cholesky factor of a symmetric positive definite matrix, and systems solved by it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.decompositions.triangular import forward, substitute
from homojax.loops import repeat
from homojax.numerics import gram, matmul, wide

_SMALL = 64  # up to this n rows are found one by one; beyond, products of matrices find
_BLOCK = 16  # so many at a time
_PANELS = 4  # what a quarter of the rows takes off the others is one product


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
    size = -(-n // _BLOCK) * _BLOCK
    rest = jnp.eye(size, dtype=matrix.dtype).at[:n, :n].set(matrix)
    height = -(-size // (_PANELS * _BLOCK)) * _BLOCK
    panels = []
    while len(rest):
        panels.append(_panel(rest[:height]))
        right = panels[-1][:, height:]
        rest = rest[height:, height:] - gram(right)
    upper = [jnp.pad(panel, [(0, 0), (size - panel.shape[1], 0)]) for panel in panels]
    return jnp.concatenate(upper).T[:n, :n]


def _panel(matrix: jax.Array) -> jax.Array:
    """Return the first rows of Lᵀ for A = LLᵀ, from those of A, a block at a time."""
    height, width = matrix.shape
    columns, unit = jnp.arange(width), jnp.eye(_BLOCK, dtype=matrix.dtype)

    def find(k, upper):
        """Put block k of the rows of Lᵀ in its place: the matrix less what the rows above make."""
        start = k * _BLOCK
        above = jax.lax.dynamic_slice(upper, (0, start), (height, _BLOCK))
        rest = jax.lax.dynamic_slice(matrix, (start, 0), (_BLOCK, width)) - matmul(above.T, upper)
        factor = _by_rows(jax.lax.dynamic_slice(rest, (0, start), (_BLOCK, _BLOCK)))
        rows = jnp.where(columns >= start, matmul(forward(factor, unit), rest), 0)
        rows = jax.lax.dynamic_update_slice(rows, factor.T, (0, start))
        return jax.lax.dynamic_update_slice(upper, rows, (start, 0))

    return repeat(height // _BLOCK, find, jnp.zeros_like(matrix))


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


def _by_rows(matrix: jax.Array) -> jax.Array:
    """Return the lower factor, found row by row of its transpose: each reads those above it."""
    index = jnp.arange(len(matrix))

    def find(j, upper):
        rest = matrix[j] - matmul(upper[:, j], upper)
        return upper.at[j].set(jnp.where(index >= j, rest / jnp.sqrt(rest[j]), 0))

    return repeat(len(matrix), find, jnp.zeros_like(matrix)).T
