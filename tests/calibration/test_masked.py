"""Calibration of logits with −inf among them: a mask keeps detail however large ε is."""

from functools import partial

import jax
import numpy as np
import pytest

import oracles
from homojax.calibration import CalibrationStatus, calibrate_depth, calibrate_epsilon

ROOTS = ("first", "last")
LANES = 128  # of every program, as in test_epsilon.py, whose programs these are


@pytest.fixture(scope="module")
def solve():
    programs = {root: jax.jit(jax.vmap(partial(calibrate_epsilon, root=root))) for root in ROOTS}

    def solve(logits, targets, root):
        index = np.arange(LANES) % len(logits)
        result = programs[root](np.asarray(logits)[index], np.asarray(targets)[index])
        return jax.tree.map(lambda x: np.asarray(x)[: len(logits)], result)

    return solve


def two_cycles(height):
    """Height on the diagonal, 0 on the next one, −inf elsewhere: M = pI + (1 − p)C, n = 4.

    p/(1 − p) = exp(height/ε), and σ₂² = p² + (1 − p)², which is ½ as ε → ∞.
    """
    logits = np.full((4, 4), -np.inf)
    logits[range(4), range(4)], logits[range(4), [1, 2, 3, 0]] = height, 0
    return logits


def epsilon_of_two_cycles(height, target):
    p = 0.5 + np.sqrt(2 * target**2 - 1) / 2
    return height / np.log(p / (1 - p))


@pytest.mark.parametrize("root", ROOTS)
def test_epsilon_of_two_cycles_is_the_closed_form(root, solve):
    heights, targets = np.array([1.0, 5.0, 0.1, 1.0, 2.0]), np.array([0.9, 0.8, 0.99, 0.708, 0.99])
    logits = [two_cycles(height) for height in heights]
    logits[-1] += 1e9  # a shift is no spread
    result = solve(logits, targets, root)
    np.testing.assert_allclose(result.epsilon, epsilon_of_two_cycles(heights, targets), rtol=1e-6)
    assert (result.status == CalibrationStatus.FOUND).all() and result.certified.all()
    assert np.isinf(result.ceiling).all()


@pytest.mark.parametrize("root", ROOTS)
def test_what_a_mask_keeps_at_any_heat_is_always_met(root, solve):
    result = solve(
        [two_cycles(1.0), two_cycles(0.0), np.where(np.eye(4), 0, -np.inf)],
        np.array([0.6, 0.5**0.5 - 1e-9, 0.9]),
        root,
    )
    assert (result.status == CalibrationStatus.ALWAYS_MET).all()
    assert np.isnan(result.epsilon).all() and not result.certified.any()


@pytest.mark.parametrize("root", ROOTS)
def test_a_mask_that_keeps_less_at_every_heat_and_one_that_carries_no_matrix(root, solve):
    nothing = np.where(np.arange(4)[:, None] * np.arange(4) > 0, -np.inf, 0)
    result = solve([two_cycles(0.0), nothing], np.array([0.8, 0.8]), root)
    assert list(result.status) == [CalibrationStatus.UNREACHABLE, CalibrationStatus.INFEASIBLE]


def test_no_colder_epsilon_of_first_and_no_hotter_one_of_last_breaks_the_promise(solve, rng):
    """On a dense grid, by NumPy; certified, so to eps^¼ in arcsin."""
    logits = np.full((8, 4, 4), -np.inf)
    for _ in range(3):  # entries of three permutations, so that each may be used
        lanes, columns = np.arange(8)[:, None], rng.permuted([range(4)] * 8, axis=1)
        logits[lanes, range(4), columns] = rng.normal(size=(8, 4))
    targets = rng.uniform(0.75, 0.98, 8)
    grid = np.geomspace(1e3, 0.03, 120)
    found = []
    for root, sign in (("first", 1), ("last", -1)):
        results = solve(logits, targets, root)
        for lane, target in enumerate(targets):
            kept = oracles.sigma2(oracles.project_down(logits[lane], grid))
            status, epsilon = results.status[lane], results.epsilon[lane]
            slack = results.shortfall[lane] + 1e-9
            if status == CalibrationStatus.ALWAYS_MET:
                least = kept.min() if root == "first" else kept[0]
                assert least >= target - np.finfo(float).eps ** 0.25
            else:
                found.append(results.certified[lane])
                assert status == CalibrationStatus.FOUND
                assert abs(results.kept[lane] - target) < 1e-10
                promised = grid < epsilon if root == "first" else grid > epsilon
                assert (sign * (kept[promised] - target) >= -slack).all()
    assert 6 <= len(found) < 16 and np.mean(found) > 0.8


def test_gradients_are_those_of_the_closed_form_and_0_where_nothing_is_allowed():
    slopes_of = jax.jit(jax.grad(lambda s, t: calibrate_epsilon(s, t).epsilon, argnums=(0, 1)))
    by_logits, by_target = slopes_of(two_cycles(1.0), 0.8)
    step = 1e-6
    expected = epsilon_of_two_cycles(1.0, 0.8 + np.array([step, -step]))
    assert by_target == pytest.approx((expected[0] - expected[1]) / (2 * step), rel=1e-6)
    assert np.trace(by_logits) == pytest.approx(epsilon_of_two_cycles(1.0, 0.8), rel=1e-6)
    assert (np.asarray(by_logits)[np.isinf(two_cycles(1.0))] == 0).all()


@pytest.mark.slow
def test_a_masked_stack_keeps_the_share_asked_for():
    """Two layers of C-commuting matrices: σ₂ of the product is the product of σ₂."""
    logits = np.stack([two_cycles(1.0)] * 2)
    result = calibrate_depth(logits, 0.64, kept="composite")
    assert result.epsilon == pytest.approx(epsilon_of_two_cycles(1.0, 0.8), rel=1e-6)
