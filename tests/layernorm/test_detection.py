"""Critical cosine, SNR and depth: those of the t-test, by SciPy and in many digits."""

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

import oracles
from homojax import layernorm

critical = jax.jit(lambda d, level, power: layernorm.critical_snr(d, level=level, power=power))
cosine = jax.jit(lambda d, level: layernorm.critical_cosine(d, level=level))
depth_of = jax.jit(layernorm.critical_depth)


@pytest.mark.parametrize("level", [0.2, 0.05, 1e-4])
@pytest.mark.parametrize("d", [2.0, 3.0, 15.0, 1000.0])
def test_critical_cosine_is_the_quantile_of_the_t_distribution(d, level):
    quantile = stats.t.isf(level, d - 1) / np.sqrt(d - 1)
    expected = quantile / np.sqrt(1 + quantile**2)
    assert cosine(d, level) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("d", "level"), [(1.0, 0.05), (5.0, 0.0), (5.0, 1.0), (np.nan, 0.05), (5.0, np.nan)]
)
def test_critical_cosine_at_its_edges(d, level):
    assert np.isnan(cosine(d, level))


@pytest.mark.parametrize("d", [2.0, 3.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize(("level", "power"), [(0.05, 0.95), (0.01, 0.5), (0.2, 0.99)])
def test_critical_snr_is_that_of_the_t_test(d, level, power):
    expected = oracles.critical_snr(d, level, power)
    assert critical(d, level, power) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("d", [2.0, 7.0, 200.0])
def test_critical_snr_has_the_level_and_the_power_it_promises(d):
    level, power = 0.03, 0.9
    snr = critical(d, level, power)

    def missing(t):
        return oracles.cosine_cdf(t, 0.0, int(d)) - (1 - level)

    threshold = brentq(missing, -0.999999, 0.999999, xtol=1e-15)
    assert 1 - oracles.cosine_cdf(threshold, snr, int(d)) == pytest.approx(power, abs=1e-11)


def test_critical_snr_tends_to_the_gaussian_rule():
    rule = (stats.norm.isf(0.05) + stats.norm.ppf(0.95)) ** 2
    assert critical(1e6, 0.05, 0.95) * 1e6 == pytest.approx(rule, rel=1e-4)


@pytest.mark.parametrize(
    ("d", "level", "power", "snr"),
    [
        (1.0, 0.05, 0.95, np.inf),
        (10.0, 0.3, 0.3, 0.0),
        (10.0, 0.3, 0.2, 0.0),
        (10.0, 0.0, 0.95, np.nan),
        (10.0, 1.0, 0.95, np.nan),
        (10.0, 0.05, 0.0, np.nan),
        (10.0, 0.05, 1.0, np.nan),
        (0.5, 0.05, 0.95, np.nan),
        (np.nan, 0.05, 0.95, np.nan),
    ],
)
def test_critical_snr_at_its_edges(d, level, power, snr):
    np.testing.assert_array_equal(critical(d, level, power), snr)


def test_thresholds_next_to_a_pole_are_not_cut_off():
    """In the plane √κ + z > τ|y| with √κ = 1.96 τ has the power 0.95; τ = cot(πα) the level α."""
    level = 1e-12
    expected = (stats.norm.isf(0.025) / np.tan(np.pi * level)) ** 2 / 2
    assert abs(critical(2.0, level, 0.95) / expected - 1) < 1e-6


@pytest.mark.parametrize(("snr", "sigma2", "d"), [(1.0, 0.5, 1000.0), (10.0, 0.9, 20.0)])
def test_at_the_critical_depth_the_snr_has_fallen_to_the_critical_one(snr, sigma2, d):
    depth = float(depth_of(snr, sigma2=sigma2, d=d, level=0.1, power=0.8))
    expected = oracles.critical_snr(d, 0.1, 0.8)
    assert depth > 1 and snr * sigma2 ** (2 * depth) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("snr", "sigma2", "d", "depth"),
    [
        (1e-6, 0.5, 100.0, 0.0),  # already below
        (1e-6, 1.0, 100.0, 0.0),
        (1.0, 1.0, 100.0, np.inf),
        (1.0, 0.0, 100.0, 0.0),
        (1.0, 0.5, 1.0, 0.0),  # no test exists
        (1.0, -0.5, 100.0, np.nan),
        (np.nan, 0.5, 100.0, np.nan),
        (1.0, np.nan, 100.0, np.nan),
    ],
)
def test_critical_depth_at_its_edges(snr, sigma2, d, depth):
    found = depth_of(snr, sigma2=sigma2, d=d, level=0.05, power=0.95)
    np.testing.assert_array_equal(found, depth)
