"""Matchings are SciPy's."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from homojax.projection.matching import heaviest_permutation, perfect_matching

heaviest = jax.jit(heaviest_permutation)
match_each = jax.jit(jax.vmap(perfect_matching))


@pytest.mark.parametrize("n", [3, 8, 20])
def test_heaviest_permutation_is_scipys(n, rng):
    for _ in range(15):
        score = rng.normal(size=(n, n)) * 100
        score[rng.uniform(size=(n, n)) < 0.4] = -np.inf
        score[range(n), rng.permutation(n)] = rng.normal(size=n)
        chosen = np.asarray(heaviest(score))
        rows, cols = linear_sum_assignment(np.where(np.isneginf(score), 1e6, -score))
        assert sorted(chosen) == list(range(n))
        assert score[range(n), chosen].sum() == pytest.approx(score[rows, cols].sum(), rel=1e-12)


@pytest.mark.parametrize("n", [3, 12])
def test_a_perfect_matching_is_found_where_scipy_finds_one(n):
    rng = np.random.default_rng(n)
    masks = rng.random((200, n, n)) < {3: 0.5, 12: 0.25}[n]
    sizes = [(maximum_bipartite_matching(csr_matrix(m.astype(int))) >= 0).sum() for m in masks]
    perfect = np.array(sizes) == n
    row_of, column_of = (np.asarray(x) for x in match_each(masks))
    np.testing.assert_array_equal((row_of >= 0).all(1), perfect)
    np.testing.assert_array_equal((column_of >= 0).all(1), perfect)
    assert 20 < perfect.sum() < 180
    for mask, rows, columns in zip(
        masks[perfect], row_of[perfect], column_of[perfect], strict=True
    ):
        assert mask[rows, range(n)].all() and (columns[rows] == range(n)).all()
