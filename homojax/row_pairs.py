"""The largest of a quantity over all pairs of rows of a matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp

from homojax.batching import in_buckets
from homojax.loops import scan

# Columns of a matrix in one pass over all pairs of its rows: what compilers keep in registers.
_COLUMNS_TOGETHER = 8


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
    n = matrix.shape[0]

    def merged(columns):
        return reduce(merge, [term(column[:, None] - column[None, :]) for column in columns])

    def farthest(matrix):
        first = n % _COLUMNS_TOGETHER or min(n, _COLUMNS_TOGETHER)
        rest = matrix.T[first:].reshape(-1, _COLUMNS_TOGETHER, n)
        scores = merged(matrix.T[:first])
        if len(rest):
            scores, _ = scan(lambda s, columns: (merge(s, merged(columns)), None), scores, rest)
        return jnp.unravel_index((scores + scores.T).argmax(), scores.shape)

    # A matrix at a time where they are large.
    search = in_buckets(jax.vmap(farthest), lambda matrices: matrices[:, 0, 0])
    i, j = search(jax.lax.stop_gradient(matrix))
    difference = matrix[i] - matrix[j]
    largest = merge.reduce(term(difference)) + merge.reduce(term(-difference))
    # Both maxima can lose a NaN (``numerics.max_or_nan``).
    lost = jnp.isnan(matrix).any() | jnp.isnan(difference).any()
    return jnp.where(lost, jnp.nan, largest)
