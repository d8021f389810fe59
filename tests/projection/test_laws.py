"""What theory.md §1 proves of projections, seen in them."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import homojax as hj
import oracles

ASYMMETRIC = np.random.default_rng(7).normal(size=(4, 4))
project = partial(hj.sinkhorn, tol=1e-13)


def test_hot_projections_are_uniform_plus_centred_logits_over_n_epsilon_to_second_order():
    epsilons = np.array([1e2, 2e2, 4e2])
    centred = oracles.centring(4) @ ASYMMETRIC @ oracles.centring(4)
    first_order = 0.25 + centred / (4 * epsilons[:, None, None])
    matrices = np.array([project(ASYMMETRIC, e).matrix for e in epsilons])
    left = np.linalg.norm(matrices - first_order, axis=(1, 2))
    np.testing.assert_allclose(left[:-1] / left[1:], 4, rtol=0.05)
    predicted = oracles.sigma2(ASYMMETRIC) / (4 * epsilons)
    np.testing.assert_allclose(oracles.sigma2(matrices), predicted, rtol=0.02)


def test_cold_projections_are_the_optimal_assignment_where_it_is_unique(rng, project_all):
    logits = rng.normal(size=(10, 16, 16))
    optimal = np.array([np.eye(16)[linear_sum_assignment(s, maximize=True)[1]] for s in logits])
    matrices = project_all(logits, np.array([1e-5])).matrix[:, 0]
    np.testing.assert_allclose(matrices, optimal, atol=1e-5)


P = (3 - np.sqrt(5)) / 2


@pytest.mark.parametrize(
    ("logits", "limit"),
    [
        ([[1, 1, 0], [1, 1, 0], [0, 0, 1]], [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]),
        ([[1, 1, 0], [0, 1, 1], [1, 0, 1]], [[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]]),
        # Three assignments are optimal. M₀₀M₁₁ = M₀₁M₁₀ gives (1 − p)(1 − 2p) = p², so p = 1 − 1/φ.
        ([[1, 1, 0], [1, 1, 1], [0, 1, 1]], [[1 - P, P, 0], [P, 1 - 2 * P, P], [0, P, 1 - P]]),
    ],
)
def test_cold_projections_are_the_most_entropic_point_of_the_optimal_face_where_it_is_not(
    logits, limit
):
    np.testing.assert_allclose(project(np.array(logits, float), 0.02).matrix, limit, atol=1e-11)


def test_entropy_never_falls_as_epsilon_rises(normal, project_all):
    matrices = project_all(normal, np.geomspace(0.03, 30, 25)).matrix
    assert (np.diff(jax.vmap(jax.vmap(hj.entropy))(matrices), axis=1) > 0).all()


def test_sigma2_can_rise_with_epsilon_while_entropy_rises_too(slopes, of_matrix):
    """theory.md 1.4. Logits found by gradient ascent on σ₂(1.5) − σ₂(1)."""
    logits = np.array(
        [
            [2.7, 2.7, 9.3, -14.7],
            [5.2, 3.2, -11.5, 3.1],
            [2.7, -14.7, 9.3, 2.7],
            [-10.6, 8.9, -7.1, 8.8],
        ]
    )
    matrices = np.array([oracles.project(logits, epsilon) for epsilon in (1.0, 1.5)])
    kept, deficits = oracles.sigma2(matrices), [oracles.entropy_deficit(m) for m in matrices]
    assert kept[1] > kept[0] + 0.025 and deficits[1] < deficits[0]
    ours = [project(logits, epsilon).matrix for epsilon in (1.0, 1.5)]
    np.testing.assert_allclose(ours, matrices, atol=1e-12)
    # ∂σ₂/∂ε = ⟨u vᵀ, ∂M/∂ε⟩, with the top pair of NumPy's decomposition.
    u, _, vt = np.linalg.svd(oracles.centring(4) @ matrices[0] @ oracles.centring(4))
    by_epsilon = slopes(logits, 1.0, of_matrix(np.outer(u[:, 0], vt[0])))[1][1]
    assert by_epsilon == pytest.approx(0.0727, abs=1e-4)


def test_alternation_shrinks_the_error_by_sigma2_squared_a_step(normal):
    epsilon = 0.5
    truncate = jax.jit(hj.truncated_sinkhorn, static_argnums=2)
    spectra = oracles.singular_values(np.array([project(s, epsilon).matrix for s in normal]))
    kept, second = spectra[:, 0], spectra[:, 1]
    clear = (kept > 0.5) & (second / kept < 0.85)  # after 30 steps the leading direction is alone
    assert clear.sum() >= 3
    for s, rate in zip(normal[clear], kept[clear] ** 2, strict=True):
        start = 30 if rate**45 > 1e-9 else 15
        errors = [truncate(s, epsilon, k).row_error for k in (start, start + 5)]
        assert (errors[1] / errors[0]) ** 0.2 == pytest.approx(rate, rel=2e-2)
        coarse, fine = (
            hj.sinkhorn(s, epsilon, method="alternating", tol=tol).num_steps
            for tol in (1e-4, 1e-10)
        )
        assert fine - coarse == pytest.approx(np.log(1e-6) / np.log(rate), abs=1.5)
