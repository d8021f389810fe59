"""Entries that no doubly stochastic matrix uses, and numbers that stand for −inf."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

import homojax as hj
import oracles
from homojax.projection.masks import drop_stand_ins, total_support


@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def dtype(request):
    """In float32 where there is time: test_convergence.py has large numbers beside masks in it."""
    return np.dtype(request.param)


support = jax.jit(total_support)
support_of_each = jax.jit(jax.vmap(total_support))


def has_perfect_matching(mask):
    if not mask.any():
        return mask.size == 0
    return bool((maximum_bipartite_matching(csr_matrix(mask.astype(int))) >= 0).all())


def by_minors(mask):
    """An entry is on a perfect matching if the mask without its row and its column has one."""
    n = len(mask)
    minors = [[np.delete(np.delete(mask, i, 0), j, 1) for j in range(n)] for i in range(n)]
    return np.array(
        [[mask[i, j] and has_perfect_matching(minors[i][j]) for j in range(n)] for i in range(n)]
    )


@pytest.mark.parametrize("n", [4, 8])
def test_entries_kept_are_those_whose_minor_has_a_perfect_matching(n):
    rng = np.random.default_rng(n)
    masks = rng.random((100, n, n)) < rng.uniform(0.2, 0.8, (100, 1, 1))
    expected = np.array([by_minors(mask) for mask in masks])
    np.testing.assert_array_equal(support_of_each(masks), expected)
    kept, whole = expected.any((1, 2)), (expected == masks).all((1, 2))
    # None, some and all of the entries.
    assert min((~kept).sum(), (kept & ~whole).sum(), (whole & kept).sum()) >= 5


@given(st.sampled_from([4, 64]), st.integers(0, 2**32 - 1))
def test_a_union_of_permutations_is_its_own_support_and_no_entry_off_a_block_triangle_is_used(
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


# ---------------------------------------------------------------- numbers for −inf

dropped = jax.jit(drop_stand_ins)


def drops_replaced(logits, epsilon=1.0):
    logits = np.asarray(logits)
    return np.isneginf(dropped(logits, np.asarray(epsilon, logits.dtype))) & ~np.isneginf(logits)


def test_a_number_that_costs_digits_and_counts_for_nothing_stands_for_minus_infinity(dtype):
    costly = 1e4 * float(np.finfo(dtype).eps) ** -0.25
    off_diagonal = ~np.eye(2, dtype=bool)
    for drop in costly * np.array([0.01, 0.99, 1.01, 100]):
        for epsilon in (0.05, 1.0):
            two = np.array([[0, -drop], [-drop, 0]], dtype) * dtype.type(epsilon)
            expected = (drop > costly) & off_diagonal
            np.testing.assert_array_equal(drops_replaced(two, epsilon), expected)
    # The other entries carry no matching.
    assert not drops_replaced(np.array([[0, -1e30], [0, -1e30]], dtype)).any()
    # Nor is −inf a drop.
    assert not drops_replaced(np.array([[0, -np.inf], [-np.inf, 0]], dtype)).any()
    # And large entries off the diagonal are on no matching.
    off = np.array([[0, 1, -1e30], [-1e30, 0, -1e30], [-1e30, 1, 0]], dtype)
    np.testing.assert_array_equal(drops_replaced(off), ~np.eye(3, dtype=bool))


def test_what_is_taken_for_minus_infinity_is_below_the_smallest_normal_number_in_many_digits():
    """Random drops at a rate of S/ε where the proof binds, not the cost of digits."""
    tiny, rng = float(np.finfo(np.float32).tiny), np.random.default_rng(3)
    balance = jax.jit(hj.balance)
    seen = {True: 0, False: 0}
    for _ in range(12):
        n = int(rng.integers(2, 4))
        allowed = np.eye(n)[[rng.permutation(n) for _ in range(2)]].sum(0) > 0
        spread = rng.choice([1.0, 4e5])  # of those allowed: the larger prove nothing
        far = -rng.uniform(6e5, 12e5)
        logits = np.where(allowed, spread * rng.normal(size=(n, n)), far).astype(np.float32)
        replaced = drops_replaced(logits)
        seen[bool(replaced.any())] += 1
        # In float64 these numbers are not costly, and none is replaced.
        logs = np.asarray(balance(np.asarray(logits, np.float64)).log_matrix)
        assert (logs[replaced] < np.log(tiny)).all() and np.isfinite(logs).all()
        assert not (replaced & allowed).any() or spread > 1
    assert min(seen.values()) >= 3


# ---------------------------------------------------------------- projections of masked logits


@pytest.mark.parametrize("n", [4, 16])
@pytest.mark.parametrize("epsilon", [1.0, 0.05])
def test_masked_logits_project_onto_the_face_that_their_support_allows(
    n, epsilon, dtype, masked_logits, project_each
):
    """The sums, the form diag(e^f) exp(S/ε) diag(e^g) and the support leave only one matrix."""
    logits = masked_logits(n, 100, dtype)
    result = project_each(logits, np.asarray(epsilon, dtype))
    tol = hj.numerics.marginal_tolerance(n, dtype)
    assert result.converged.all() and np.max(oracles.marginal_errors(result.matrix)) <= tol
    used = np.asarray(result.log_matrix) > -np.inf
    np.testing.assert_array_equal(used, support_of_each(logits > -np.inf))
    assert (used != (logits > -np.inf)).any() and (np.asarray(result.matrix)[~used] == 0).all()
    f, g = np.asarray(result.row_potential), np.asarray(result.col_potential)
    used_logits = np.where(used, logits, 0)
    missed = used_logits / epsilon + f[:, :, None] + g[:, None, :] - result.log_matrix
    rounded = 200 * np.finfo(dtype).eps * abs(used_logits).max() / epsilon
    assert abs(np.where(used, missed, 0)).max() <= rounded


def test_a_block_diagonal_mask_projects_block_by_block(project_each):
    logits = np.full((16, 16), -np.inf)
    for block in (slice(0, 4), slice(4, 16)):
        logits[block, block] = np.random.default_rng(2).normal(size=logits[block, block].shape)
    whole = project_each(logits[None], 0.1, tol=1e-13).matrix[0]
    np.testing.assert_allclose(whole[:4, :4], oracles.project(logits[:4, :4], 0.1), atol=1e-11)
    np.testing.assert_allclose(whole[4:, 4:], oracles.project(logits[4:, 4:], 0.1), atol=1e-11)


def test_a_batch_is_told_lane_by_lane_whether_its_mask_can_be(masked_logits, project_each):
    """With stand-ins beside masks, so that both turns of the loop are taken."""
    logits = masked_logits(16, 100)
    logits[1::2][np.isneginf(logits[1::2])] = -1e9
    logits[::5, 0] = -np.inf
    status = np.asarray(project_each(logits, 0.5).status)
    expected = np.where(np.arange(100) % 5, hj.Status.CONVERGED, hj.Status.INFEASIBLE)
    np.testing.assert_array_equal(status, expected)
