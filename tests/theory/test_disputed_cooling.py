"""§8.8, cooling: sensitivity in closed form and by differences, and potentials that move."""

import math

import jax
import numpy as np
import pytest
from scipy import special

import homojax as hj
import oracles
from homojax.theory.cases.projection import projection_case
from homojax.theory.claim import Verdict

RNG = np.random.default_rng(88)
NAMES = ("sensitivity", "sensitivity_grows", "potential_drift")


@jax.jit
def judge(logits, epsilon):
    case = projection_case(logits, epsilon)
    return {name: hj.CLAIMS[name].judge(case) for name in NAMES}


def exact(logits, epsilon):
    """M_ε(S), by many alternations."""
    return oracles.alternate(logits, epsilon, 5000)


def norm_of_derivative(logits, epsilon):
    """ε‖∂M/∂S‖, from M∘(the rest of each direction after a weighted least-squares fit)."""
    matrix, n = exact(logits, epsilon), len(logits)
    shifts = np.stack([*np.kron(np.eye(n), np.ones(n)), *np.kron(np.ones(n), np.eye(n))], 1)
    root = np.sqrt(matrix.ravel())
    basis = np.linalg.svd(root[:, None] * shifts, full_matrices=False)[0][:, : 2 * n - 1]
    fitted = np.eye(n * n) - basis @ basis.T
    return np.linalg.norm(root[:, None] * fitted * root[None, :], 2), matrix


@pytest.mark.parametrize(("n", "epsilon"), [(2, 0.7), (3, 0.3), (4, 1.0), (4, 0.4)])
def test_the_sensitivity_is_found_and_bounded(n, epsilon):
    for _ in range(5):
        logits = RNG.normal(size=(n, n))
        norm, matrix = norm_of_derivative(logits, epsilon)
        bound = (2 * matrix * (1 - matrix)).max()
        assert norm <= bound + 1e-12 and bound <= 0.5
        comparison, _ = judge(logits, epsilon)["sensitivity"]
        assert comparison.lesser <= norm + 1e-9
        assert comparison.lesser == pytest.approx(norm, rel=0.15)
        assert comparison.greater == pytest.approx(bound, rel=1e-9)


def test_the_norm_is_that_of_differences():
    logits, direction = RNG.normal(size=(3, 3)), RNG.normal(size=(3, 3))
    direction /= np.linalg.norm(direction)
    moved = [exact(logits + way * 1e-5 * direction, 0.5) for way in (1, -1)]
    slope = 0.5 * np.linalg.norm(moved[0] - moved[1]) / 2e-5
    assert slope <= norm_of_derivative(logits, 0.5)[0] + 1e-9


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 10.0])
def test_two_units_attain_the_bound_and_a_tie_of_two_assignments_half_at_every_epsilon(epsilon):
    for size in (0.0, epsilon, 5 * epsilon):
        logits = np.array([[size, 0.0], [0.0, size]])
        p = special.expit(size / epsilon)
        comparison, verdict = judge(logits, epsilon)["sensitivity"]
        assert comparison.lesser == pytest.approx(2 * p * (1 - p), rel=1e-9)
        assert verdict == Verdict.UNDECIDABLE
    tied = np.zeros((4, 4)) + 30 * epsilon * np.kron(np.eye(2), np.ones((2, 2)))
    assert judge(tied, epsilon)["sensitivity"][0].lesser == pytest.approx(0.5, rel=1e-6)


def test_next_to_a_permutation_a_colder_projection_is_less_sensitive():
    logits = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert judge(logits, 0.2)["sensitivity_grows"][1] == Verdict.VIOLATED
    assert judge(logits, 5.0)["sensitivity_grows"][1] == Verdict.HOLDS


@pytest.mark.parametrize(("n", "epsilon"), [(3, 0.4), (5, 1.0)])
def test_potentials_move_by_the_entropies_of_rows_and_columns(n, epsilon):
    for _ in range(5):
        logits = RNG.normal(size=(n, n))
        step, matrix = 1e-4 * epsilon, exact(logits, epsilon)

        def potential(at, logits=logits):
            return (at * np.log(exact(logits, at)) - logits).mean(0)

        move = (potential(epsilon + step) - potential(epsilon - step)) / (2 * step)
        move -= move.mean()
        entropies = -special.xlogy(matrix, matrix)
        source = matrix.T @ entropies.sum(1) - entropies.sum(0)
        np.testing.assert_allclose(move - matrix.T @ (matrix @ move), source, atol=1e-6)
        comparison, verdict = judge(logits, epsilon)["potential_drift"]
        assert comparison.greater == pytest.approx(source[0], abs=1e-9)
        assert comparison.lesser == pytest.approx(source[0], abs=1e-7)
        assert verdict == Verdict.HOLDS


@pytest.mark.parametrize("ratio", [0.3, 0.8, 0.99])
def test_a_step_of_cooling_is_a_power_of_the_entries_and_bounded_by_the_number_of_units(ratio):
    n, power = 6, 1 / ratio
    for scale in (0.3, 3.0):
        logits = scale * RNG.normal(size=(n, n))
        matrix = exact(logits, 1.0)
        cooled = special.softmax(power * np.log(matrix), axis=1)
        cooled = cooled / cooled.sum(0)
        g = (np.log(matrix) - logits).mean(0)  # but for a constant
        again = special.softmax((logits + g) * power, axis=1)
        np.testing.assert_allclose(again / again.sum(0), cooled, rtol=1e-9)
        sums = cooled.sum(1)
        most = math.exp((power - 1) * math.log(n))
        assert 1 / most <= sums.min() and sums.max() <= most


def test_one_alternation_a_step_multiplies_a_lag_by_what_is_kept_over_the_ratio():
    logits, epsilon, ratio = RNG.normal(size=(5, 5)), 0.5, 0.999
    matrix = exact(logits, epsilon)
    centred = matrix - 1 / 5
    v = np.linalg.svd(centred)[2][0]
    gamma = epsilon * (np.log(matrix) - logits / epsilon).mean(0)

    def step(gamma):
        cold = ratio * epsilon
        f = -special.logsumexp((logits + gamma) / cold, axis=1)
        return -cold * special.logsumexp(logits / cold + f[:, None], axis=0)

    touch = 1e-6 * v
    apart = step(gamma + touch) - step(gamma - touch)
    grown = np.linalg.norm(apart - apart.mean()) / (ratio * epsilon) / (2e-6 / epsilon)
    assert grown == pytest.approx(np.linalg.norm(centred, 2) ** 2 / ratio, rel=0.01)
