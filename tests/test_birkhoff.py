"""The set of doubly stochastic matrices, its coordinates and its members."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import xlogy

import homojax as hj
import oracles

FAMILY = oracles.birkhoff_family(np.random.default_rng(1), 6)
entropy_of_each = jax.jit(jax.vmap(hj.entropy))
deficit_of_each = jax.jit(jax.vmap(hj.entropy_deficit))
marginal_errors = jax.jit(hj.marginal_errors)
projective_diameter = jax.jit(hj.birkhoff.projective_diameter)
logit_spread = jax.jit(hj.birkhoff.logit_spread)


def test_detail_is_the_explicit_product_and_m_minus_j_on_the_polytope(rng):
    p, m = oracles.centring(6), rng.normal(size=(6, 6))
    np.testing.assert_allclose(hj.birkhoff.detail(m), p @ m @ p, atol=1e-14)
    np.testing.assert_allclose(hj.center(m), p @ m, atol=1e-14)
    np.testing.assert_allclose(
        jax.vmap(hj.birkhoff.detail)(FAMILY), FAMILY - hj.uniform(6), atol=1e-14
    )


@pytest.mark.parametrize("n", [2, 3, 17])
def test_detail_basis_is_orthonormal_and_blind_to_the_mean(n, dtype):
    basis = np.asarray(hj.birkhoff.detail_basis(n, dtype))
    eps = np.finfo(dtype).eps
    assert basis.dtype == dtype and basis.shape == (n, n - 1)
    np.testing.assert_allclose(basis.T @ basis, np.eye(n - 1), atol=4 * eps)
    np.testing.assert_allclose(basis.sum(0), 0, atol=4 * n * eps)


def test_entropy_runs_from_zero_at_permutations_to_n_log_n_at_uniform(rng):
    assert hj.entropy(oracles.permutation(rng, 6)) == 0
    assert hj.entropy(hj.uniform(6)) == pytest.approx(6 * np.log(6), rel=1e-14)
    entropies = entropy_of_each(FAMILY)
    assert (entropies >= 0).all() and (entropies <= 6 * np.log(6) + 1e-13).all()


def test_entropy_deficit_is_n_log_n_minus_entropy_on_the_polytope():
    deficits = deficit_of_each(FAMILY)
    np.testing.assert_allclose(deficits, 6 * np.log(6) - entropy_of_each(FAMILY), atol=1e-13)
    np.testing.assert_allclose(deficits, [oracles.entropy_deficit(m) for m in FAMILY], atol=1e-13)


@pytest.mark.parametrize("t", [1e-2, 1e-5])
def test_entropy_deficit_keeps_its_digits_near_uniform(t):
    """Σ (x log x − x + 1)/n, exactly: the difference n log n − H has lost eps/t² of its digits."""
    m = oracles.isolated(5, t)
    with mp.workdps(40):
        x = [5 * mp.mpf(float(entry)) for entry in m.ravel()]
        exact = float(mp.fsum(v * mp.log(v) - v + 1 for v in x) / 5)
    assert hj.entropy_deficit(m) == pytest.approx(exact, rel=1e-9)
    assert hj.entropy_deficit(m) == pytest.approx(
        5 * t**2 / 2, rel=5 * t
    )  # theory.md 2.3, small deficits


@given(oracles.squares(4), st.sampled_from([1, 20]))
def test_entropy_deficit_is_a_sum_of_non_negative_terms_whatever_the_sums(x, scale):
    m = abs(x) / scale
    deficit = deficit_of_each(m[None])[0]
    assert deficit >= -1e-13
    assert deficit == pytest.approx(
        (xlogy(4 * m, 4 * m) - 4 * m + 1).sum() / 4, rel=1e-12, abs=1e-12
    )


@pytest.mark.parametrize("function", [hj.entropy, hj.entropy_deficit])
def test_entropies_are_nan_for_a_negative_entry_and_have_finite_gradients_at_zeros(function):
    assert np.isnan(function(np.array([[1.1, -0.1], [-0.1, 1.1]])))
    assert np.isfinite(jax.grad(function)(jnp.eye(3))).all()


@pytest.mark.parametrize(("n", "figure"), [(64, 0.981), (1024, 0.9989)])
def test_an_isolated_unit_has_nearly_maximal_entropy(n, figure):
    m = hj.birkhoff.isolated_unit(n)
    assert hj.entropy(m) / (n * np.log(n)) == pytest.approx(figure, abs=5e-4 if n == 64 else 5e-5)
    assert hj.entropy_deficit(m) == pytest.approx(
        n * np.log(n) - (n - 1) * np.log(n - 1), rel=1e-10
    )


@given(oracles.squares(4))
def test_projective_diameter_is_the_greatest_cross_difference(logits):
    assert projective_diameter(logits) == pytest.approx(
        oracles.projective_diameter(logits), abs=1e-12
    )


@given(oracles.squares(4), oracles.squares(4))
def test_row_and_column_shifts_change_neither_diameter_nor_spread(logits, shifts):
    shifted = logits + shifts[0][:, None] + shifts[1]
    for function in (projective_diameter, logit_spread):
        assert function(shifted) == pytest.approx(float(function(logits)), abs=1e-12)


def test_logit_spread_is_the_rms_of_the_coordinates_that_matter(rng):
    basis, coordinates = np.linalg.svd(oracles.centring(6))[0][:, :-1], rng.normal(size=(5, 5))
    logits = basis @ coordinates @ basis.T + rng.normal(size=6) + rng.normal(size=(6, 1))
    assert hj.birkhoff.logit_spread(logits) == pytest.approx(
        np.sqrt((coordinates**2).mean()), rel=1e-12
    )


@given(oracles.squares(5))
def test_marginal_errors_are_rows_then_columns(matrix):
    row, col = marginal_errors(matrix)
    assert row == pytest.approx(max(abs(sum(r) - 1) for r in matrix.tolist()), abs=1e-13)
    assert col == pytest.approx(max(abs(sum(c) - 1) for c in matrix.T.tolist()), abs=1e-13)


def _rounding_cost(matrix):
    return matrix - oracles.round_to_birkhoff(matrix)


@given(oracles.squares(4), st.floats(0, 1))
def test_birkhoff_distance_pays_for_rounding_to_the_polytope_in_three_norms(x, t):
    """Random matrices ≥ 0, interpolated to a random member, so that every size of error is met."""
    matrix = t * abs(x) / 4 + (1 - t) * oracles.permutation_mixture(
        np.random.default_rng(int(t * 1e6)), 4, 3
    )
    nearest = oracles.round_to_birkhoff(matrix)
    assert (
        nearest.min() >= -1e-14 and max(abs(nearest.sum(axis) - 1).max() for axis in (0, 1)) < 1e-13
    )
    bound = hj.birkhoff.birkhoff_distance(*hj.marginal_errors(matrix)) + 1e-13
    assert all(np.linalg.norm(matrix - nearest, order) <= bound for order in (1, 2, np.inf))


def test_birkhoff_distance_pays_for_truncated_projections(rng):
    for n, epsilon, num_iters in [
        (2, 0.05, 1),
        (4, 0.05, 1),
        (4, 0.02, 10),
        (8, 0.1, 3),
        (8, 0.02, 20),
    ]:
        for last in ("rows", "columns"):
            matrix = oracles.alternate(rng.normal(size=(n, n)), epsilon, num_iters, last)
            bound = hj.birkhoff.birkhoff_distance(*hj.marginal_errors(matrix)) + 1e-13
            assert all(
                np.linalg.norm(_rounding_cost(matrix), order) <= bound for order in (1, 2, np.inf)
            )


def test_birkhoff_distance_cannot_be_improved_for_small_errors_in_the_1_norm():
    r = 1e-4
    matrix = np.array([[1, r], [0, 1 - r]])
    assert np.linalg.norm(_rounding_cost(matrix), 1) / hj.birkhoff.birkhoff_distance(
        r, 0.0
    ) == pytest.approx(1, abs=2 * r)


@pytest.mark.parametrize("num_permutations", [1, 3])
def test_random_birkhoff_mixes_at_most_so_many_permutations(num_permutations):
    draws = np.asarray(
        jax.vmap(lambda k: hj.birkhoff.random_birkhoff(k, 6, num_permutations))(
            jax.random.split(jax.random.key(3), 20)
        )
    )
    np.testing.assert_allclose([draws.sum(1), draws.sum(2)], 1, atol=1e-14)
    assert (draws >= 0).all() and (draws > 0).sum(2).max() <= num_permutations
    assert len(np.unique(draws.round(12), axis=0)) == 20


def test_families_are_doubly_stochastic(rng):
    weights = rng.dirichlet(np.ones(5))
    for m in (
        hj.uniform(5),
        hj.birkhoff.isolated_unit(5, 0.3),
        hj.birkhoff.circulant(weights),
        hj.birkhoff.lazy_cycle(5, 0.2),
        hj.birkhoff.lazy_hypercube(3, 0.4),
        hj.birkhoff.de_bruijn(3),
    ):
        assert (m >= 0).all()
        np.testing.assert_allclose([m.sum(0), m.sum(1)], 1, atol=1e-15)


def test_circulant_is_the_weighted_sum_of_cyclic_shifts(rng):
    weights, x = rng.dirichlet(np.ones(5)), rng.normal(size=5)
    expected = sum(weight * np.roll(x, k) for k, weight in enumerate(weights))
    np.testing.assert_allclose(hj.birkhoff.circulant(weights) @ x, expected, atol=1e-15)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_cycle_of_fewer_than_three_is_refused(n):
    with pytest.raises(ValueError, match=f"n must be a whole number of at least 3, got {n}"):
        hj.birkhoff.lazy_cycle(n)


@pytest.mark.parametrize("of", [hj.entropy, hj.entropy_deficit, hj.bounds.pinsker_bound])
def test_of_a_nan_there_is_no_entropy(of):
    assert jnp.isnan(of([[np.nan, 0.5], [0.5, 0.5]])) and jnp.isnan(of(np.full((3, 3), np.nan)))
