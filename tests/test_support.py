import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from homojax.support import total_support

support = jax.jit(total_support)
support_of_each = jax.jit(jax.vmap(total_support))


def has_perfect_matching(mask):
    return bool((maximum_bipartite_matching(csr_matrix(mask.astype(int))) >= 0).all()) if mask.any() else mask.size == 0


def by_minors(mask):
    """An entry is on a perfect matching if the mask without its row and its column still has one."""
    n = len(mask)
    minors = [[np.delete(np.delete(mask, i, 0), j, 1) for j in range(n)] for i in range(n)]
    return np.array([[mask[i, j] and has_perfect_matching(minors[i][j]) for j in range(n)] for i in range(n)])


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_entries_kept_are_those_whose_minor_has_a_perfect_matching(n):
    rng = np.random.default_rng(n)
    masks = rng.random((100, n, n)) < rng.uniform(0.2, 0.8, (100, 1, 1))
    found, expected = np.asarray(support_of_each(masks)), np.array([by_minors(mask) for mask in masks])
    np.testing.assert_array_equal(found, expected)
    kept, whole = expected.any((1, 2)), (expected == masks).all((1, 2))
    assert min((~kept).sum(), (kept & ~whole).sum(), (whole & kept).sum()) >= 5  # none, some and all of the entries


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_a_union_of_permutations_is_its_own_support_and_whatever_lies_outside_a_block_triangle_is_lost(n, seed):
    rng = np.random.default_rng(seed)
    union = np.eye(n, dtype=bool)[[rng.permutation(n) for _ in range(2)]].any(0)
    np.testing.assert_array_equal(support(union), union)
    k = rng.integers(1, n)
    triangular = np.ones((n, n), bool)
    triangular[k:, :k] = False
    expected = np.zeros((n, n), bool)
    expected[:k, :k] = expected[k:, k:] = True
    rows, columns = rng.permutation(n), rng.permutation(n)
    np.testing.assert_array_equal(support(triangular[rows][:, columns]), expected[rows][:, columns])


def test_a_long_augmenting_path_is_found():
    """A staircase whose greedy matching is wrong at every step."""
    n = 64
    mask = np.eye(n, dtype=bool) | np.eye(n, k=1, dtype=bool)
    mask[-1, :] = True
    np.testing.assert_array_equal(support(mask[::-1]), mask[::-1])
    mask[-1, :] = mask[0, 0] = False
    assert not support(mask).any()
