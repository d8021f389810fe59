"""sensitivity and trainable_band: closed forms, derivatives by differences, edges."""

from functools import partial

import jax
import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.calibration.sensitivity import sensitivity, trainable_band

SWAP = np.array([[1.0, 0.0], [0.0, 1.0]])

one = jax.jit(sensitivity)
band = jax.jit(lambda epsilons, norms: trainable_band(epsilons, gradient_norms=norms))
over_epsilon = jax.jit(jax.vmap(partial(sensitivity, retention=0.5), (None, 0)))


def test_sensitivity_of_two_by_two_is_the_closed_form_at_any_gap():
    epsilons = np.array([10.0, 1.0, 0.1, 1 / 180])  # σ₂ = tanh(a/2ε), a = 1: 1 − σ₂ down to 1e-78
    found = over_epsilon(SWAP, epsilons)
    x = 1 / (2 * epsilons)
    log_gap = np.log(2) - 2 * x - np.log1p(np.exp(-2 * x))
    slope = 1 / np.cosh(x) ** 2 / (2 * epsilons)  # dσ₂/da, of which each entry has a half
    np.testing.assert_allclose(found.log_gap, log_gap, atol=1e-11)
    gradient = slope[:, None, None] / 2 * np.array([[1, -1], [-1, 1]])
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-9)
    np.testing.assert_allclose(found.gradient_norm, slope, rtol=1e-9)
    np.testing.assert_allclose(found.epsilon_slope, -slope / epsilons, rtol=1e-9)
    log_sigma2 = np.log1p(-np.exp(log_gap))
    depth = np.log(0.5) / log_sigma2
    np.testing.assert_allclose(found.depth, depth, rtol=1e-9)
    depth_slope = slope / epsilons * depth / (log_sigma2 * np.tanh(x))
    np.testing.assert_allclose(found.depth_slope, depth_slope, rtol=1e-9)


def test_sensitivity_of_a_bad_epsilon_is_nan():
    found = over_epsilon(SWAP, np.array([0.0, -1.0, np.nan, 1.0]))
    for field in found:
        assert np.isnan(field[:3]).all() and np.isfinite(field[3]).all()


def test_sensitivity_of_a_logit_that_is_nan_is_nan():
    found = over_epsilon(np.array([[np.nan, 0.0], [0.0, 1.0]]), np.ones(4))
    assert all(np.isnan(field).all() for field in found)


@pytest.mark.slow
def test_sensitivity_is_the_derivative_through_the_projection_and_within_its_bound(rng):
    logits = rng.normal(size=(5, 5))
    through = jax.jit(
        jax.value_and_grad(lambda s, e: hj.sigma2(hj.sinkhorn(s, e, tol=1e-13).matrix), (0, 1))
    )
    for epsilon in (0.1, 0.4, 3.0, 30.0):
        found = one(logits, epsilon)
        sigma2, (gradient, slope) = through(logits, epsilon)
        np.testing.assert_allclose(found.gradient, gradient, atol=1e-8)
        assert found.epsilon_slope == pytest.approx(float(slope), rel=1e-5)
        assert found.sigma2 == pytest.approx(float(sigma2), abs=1e-10)
        assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
        assert found.gradient_norm <= found.gradient_bound
        by_difference = oracles.difference(
            lambda x, e=epsilon: one(logits, e * np.exp(x)).depth, 0.0, 1.0
        )
        assert found.depth_slope * epsilon == pytest.approx(float(by_difference), rel=1e-6)


def test_a_sensitivity_shows_its_numbers_one_or_many_or_traced():
    found = over_epsilon(SWAP, np.array([0.5, np.nan, 1.0, 2.0]))
    assert repr(jax.tree.map(lambda x: x[0], found)) == (
        "Sensitivity: 2 x 2, σ₂ = 0.761594, ‖∂σ₂/∂S‖ = 0.42, ∂σ₂/∂ε = -0.84, depth = 2.545"
    )
    assert repr(found) == "Sensitivity: [4] of 2 x 2, 1 NaN"
    shown = []
    jax.eval_shape(lambda s: shown.append(repr(sensitivity(s, 0.5))), SWAP)
    assert shown[0].startswith("Sensitivity(sigma2=float64[], ")


def test_a_retention_is_never_taken_for_an_epsilon():
    with pytest.raises(TypeError, match="positional"):
        sensitivity(SWAP, 0.5, 0.1)  # pyright: ignore
    with pytest.raises(TypeError, match="positional"):
        trainable_band([1.0, 2.0], [0.1, 0.2])  # pyright: ignore


# ---------------------------------------------------------------- trainable_band


@pytest.mark.parametrize(
    ("first", "last", "ends"),
    [(1e-3, 1e3, (True, True)), (0.5, 1e3, (False, True)), (1e-3, 2, (True, False))],
)
def test_trainable_band_is_where_the_norm_keeps_its_share(first, last, ends):
    epsilons = np.geomspace(first, last, 600)
    norms = epsilons**2 / (1 + epsilons**4)  # ½ at 1; x/(1 + x²) = t/2 with x = ε²
    low, high = band(epsilons, norms)
    x = 10 - np.sqrt(99)
    assert low == pytest.approx(np.sqrt(x) if ends[0] else 0, rel=1e-3)
    assert high == pytest.approx(1 / np.sqrt(x) if ends[1] else np.inf, rel=1e-3)


def test_trainable_band_of_norms_that_underflow_and_of_none():
    epsilons, one = np.geomspace(1e-3, 1e3, 600), np.where(np.arange(600) == 300, 1.0, 0.0)
    assert band(epsilons, one) == (pytest.approx(epsilons[300]), pytest.approx(epsilons[300]))
    assert all(np.isnan(band(epsilons, 0 * one)))
    assert all(np.isnan(band(epsilons[::-1], one)))  # not ascending


def test_trainable_band_of_gaussian_logits_lies_between_saturation_and_the_barycentre(rng):
    """Of two units and four ε at a time, as in the tests above, whose program this is."""
    logits, epsilons = rng.normal(size=(2, 2)), np.geomspace(0.01, 100, 600)
    norms = [over_epsilon(logits, some).gradient_norm for some in epsilons.reshape(-1, 4)]
    norms = np.concatenate(norms)
    low, high = band(epsilons, norms)
    assert 0.01 < low < 1 < high < 100
