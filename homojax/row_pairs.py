"""The largest of a quantity over all pairs of rows of a matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp

from homojax.batching import in_buckets
from homojax.loops import scan

# Columns of a matrix in one pass over all pairs of its rows: what compilers keep in registers.
_COLUMNS_TOGETHER = 8


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def max_over_row_pairs(
    merge: Any, term: Callable[[jax.Array], jax.Array], matrix: jax.Array
) -> jax.Array:
    """Return max over rows i, j of s(i, j) + s(j, i), with s merged over the columns.

    s(i, j) merges all ``term(matrix[i, k] − matrix[j, k])``. O(n³) time, O(n²) memory. The
    derivative is that of one pair that attains the maximum.

    Args:
        merge: jnp.add or jnp.maximum.
        term: elementwise function of a difference.
        matrix: [n, n].

    >>> float(max_over_row_pairs(jnp.maximum, lambda x: x, jnp.array([[0.0, 3.0], [1.0, 1.0]])))
    3.0
    """
    # ``max`` can lose a NaN (``numerics.max_or_nan``), and ∞ − ∞ is one.
    largest = _over_matrices(lambda matrix: _of_pairs(merge, term, matrix).max())(matrix)
    return jnp.where(jnp.isfinite(matrix).all(), largest, jnp.nan)


@max_over_row_pairs.defjvp
def _max_over_row_pairs_jvp(merge, term, primals, tangents):
    (matrix,), (dmatrix,) = primals, tangents

    def farthest(matrix):
        scores = _of_pairs(merge, term, matrix)
        return jnp.unravel_index(scores.argmax(), scores.shape)

    # Only a derivative asks for the pair: it takes four times as long to find as the maximum.
    i, j = _over_matrices(farthest)(jax.lax.stop_gradient(matrix))

    def of_pair(matrix):
        difference = matrix[i] - matrix[j]
        return merge.reduce(term(difference)) + merge.reduce(term(-difference))

    slope = jax.jvp(of_pair, (matrix,), (dmatrix,))[1]
    return max_over_row_pairs(merge, term, matrix), slope


def _of_pairs(merge: Any, term: Callable, matrix: jax.Array) -> jax.Array:
    """Return s(i, j) + s(j, i), [n, n]."""
    n = matrix.shape[0]

    def merged(columns):
        return reduce(merge, [term(column[:, None] - column[None, :]) for column in columns])

    first = n % _COLUMNS_TOGETHER or min(n, _COLUMNS_TOGETHER)
    rest = matrix.T[first:].reshape(-1, _COLUMNS_TOGETHER, n)
    scores = merged(matrix.T[:first])
    if len(rest):
        scores, _ = scan(lambda s, columns: (merge(s, merged(columns)), None), scores, rest)
    return scores + scores.T


def _over_matrices(function: Callable) -> Callable:
    """Return ``function``, one matrix at a time where they are large."""
    return in_buckets(jax.vmap(function), lambda matrices: matrices[:, 0, 0])
