import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from homojax.projection.entrywise import balance
from homojax.projection.masks import total_support, without_stand_ins

support = jax.jit(total_support)
support_of_each = jax.jit(jax.vmap(total_support))


def has_perfect_matching(mask):
    return (
        bool((maximum_bipartite_matching(csr_matrix(mask.astype(int))) >= 0).all())
        if mask.any()
        else mask.size == 0
    )


def by_minors(mask):
    """An entry is on a perfect matching if the mask without its row and column still has one."""
    n = len(mask)
    minors = [[np.delete(np.delete(mask, i, 0), j, 1) for j in range(n)] for i in range(n)]
    return np.array(
        [[mask[i, j] and has_perfect_matching(minors[i][j]) for j in range(n)] for i in range(n)]
    )


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_entries_kept_are_those_whose_minor_has_a_perfect_matching(n):
    rng = np.random.default_rng(n)
    masks = rng.random((100, n, n)) < rng.uniform(0.2, 0.8, (100, 1, 1))
    found, expected = (
        np.asarray(support_of_each(masks)),
        np.array([by_minors(mask) for mask in masks]),
    )
    np.testing.assert_array_equal(found, expected)
    kept, whole = expected.any((1, 2)), (expected == masks).all((1, 2))
    assert (
        min((~kept).sum(), (kept & ~whole).sum(), (whole & kept).sum()) >= 5
    )  # none, some and all of the entries


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_a_union_of_permutations_is_its_own_support_and_what_is_outside_a_block_triangle_is_lost(
    n, seed
):
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


def drops_replaced(logits, epsilon=1.0):
    return np.isneginf(without_stand_ins(np.asarray(logits), epsilon)) & ~np.isneginf(logits)


def test_a_number_that_costs_digits_and_counts_for_nothing_stands_for_minus_infinity(dtype):
    costly = 1e4 * float(np.finfo(dtype).eps) ** -0.25
    for drop in costly * np.array([0.01, 0.99, 1.01, 100]):
        for epsilon in (0.05, 1.0):
            two = np.array([[0, -drop], [-drop, 0]], dtype) * dtype.type(epsilon)
            assert (
                drops_replaced(two, epsilon) == ((drop > costly) & ~np.eye(2, dtype=bool))
            ).all()
    far = np.array([[0, -1e30], [0, -1e30]], dtype)
    assert not drops_replaced(far).any()  # the others carry no matching
    assert not drops_replaced(
        np.array([[0, -np.inf], [-np.inf, 0]], dtype)
    ).any()  # nor is −inf a drop
    off = np.array(
        [[0, 1, -1e30], [-1e30, 0, -1e30], [-1e30, 1, 0]], dtype
    )  # and ones off the diagonal are on no matching
    np.testing.assert_array_equal(drops_replaced(off), ~np.eye(3, dtype=bool))


def test_what_is_taken_for_minus_infinity_is_below_the_smallest_normal_number_in_many_digits():
    """Random drops at a rate of S/ε where the proof binds, not the cost of digits, which is the
    same at any rate.
    """
    tiny, rng = float(np.finfo(np.float32).tiny), np.random.default_rng(3)
    seen = {True: 0, False: 0}
    for _ in range(12):
        n = int(rng.integers(2, 4))
        allowed = np.eye(n)[[rng.permutation(n) for _ in range(2)]].sum(0) > 0
        spread = rng.choice(
            [1.0, 4e5]
        )  # of those allowed: beside the larger the drops prove nothing
        logits = np.where(
            allowed, spread * rng.normal(size=(n, n)), -rng.uniform(6e5, 12e5)
        ).astype(np.float32)
        replaced = drops_replaced(logits)
        seen[bool(replaced.any())] += 1
        logs = np.asarray(
            balance(np.asarray(logits, np.float64)).log_matrix
        )  # from no replacement: in float64 it is not costly
        assert (logs[replaced] < np.log(tiny)).all() and np.isfinite(logs).all()
        assert not (replaced & allowed).any() or spread > 1
    assert min(seen.values()) >= 3
