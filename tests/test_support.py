import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from homojax.balance import balance
from homojax.support import negligible, total_support

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


def test_what_is_called_negligible_is_below_the_smallest_normal_number_and_the_rest_is_what_a_mask_leaves(dtype):
    """Two by twos, where entry and bound differ by two in the logarithm; others by logarithms that do not underflow."""
    log_tiny = float(np.log(np.finfo(dtype).tiny))
    for drop in -log_tiny * np.array([0.5, 0.99, 2.1, 4.0]):
        logits = np.array([[0, -drop], [-drop, 0]], dtype)
        assert bool(negligible(logits, 1.0)[0, 1]) == (drop > -2 * log_tiny)
    rng = np.random.default_rng(3)
    seen = {True: 0, False: 0}
    for _ in range(60):
        n = int(rng.integers(2, 6))
        allowed = np.eye(n)[[rng.permutation(n) for _ in range(2)]].sum(0) > 0
        drops = -log_tiny * rng.uniform(0.2, 4 * n, (n, n))
        logits = np.where(allowed, rng.normal(size=(n, n)), -drops.min() if rng.random() < 0.3 else -drops)
        flagged = np.asarray(negligible(logits.astype(dtype), 1.0))
        seen[bool(flagged.any())] += 1
        small = np.asarray(balance(logits).log_matrix) < log_tiny
        assert small[flagged].all() and not flagged[allowed].any()
    assert min(seen.values()) > 5
    assert not negligible(np.array([[0, -1e9], [0, -1e9]], dtype), 1.0).any()  # the others carry no matching
    assert not negligible(np.array([[0, -np.inf], [-np.inf, 0]], dtype), 1.0).any()  # nor is −inf a drop
