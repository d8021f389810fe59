"""The noncentral t distribution by quadrature, in the ratio of a cosine to its sine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from homojax.layernorm.noncentral_t import critical_ratio, gauss_legendre, ratio_cdf

threshold = jax.jit(critical_ratio)
tails = jax.jit(
    lambda ratio, root_kappa, d: [
        ratio_cdf(ratio, root_kappa, d=d, above=above) for above in (False, True)
    ]
)


@pytest.mark.parametrize("level", [1e-12, 1e-9, 1e-7])
@pytest.mark.parametrize("d", [2, 3, 10, 100, 1000])
def test_rare_false_alarms_have_their_own_threshold_in_either_precision(d, level, dtype):
    ratio = stats.t.isf(level, d - 1) / np.sqrt(d - 1)
    found = threshold(jnp.asarray(level, dtype), d=jnp.asarray(d, dtype))
    assert abs(found / ratio - 1) < (1e-9 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("d", [2.0, 9.0, 300.0])
def test_both_tails_are_those_of_scipy_and_small_ones_keep_their_digits(d):
    for ratio, root_kappa in ((0.2, 0.0), (1.5, 2.0), (5.0, 0.5)):
        below, above = tails(ratio, root_kappa, d)
        t = np.sqrt(d - 1) * ratio
        assert below == pytest.approx(stats.nct.cdf(t, d - 1, root_kappa), abs=1e-10)
        expected = stats.nct.sf(t, d - 1, root_kappa) if root_kappa else stats.t.sf(t, d - 1)
        assert above == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_the_rule_is_numpys(dtype):
    nodes, weights = np.polynomial.legendre.leggauss(64)
    found = gauss_legendre(dtype)
    order = np.argsort(found[0])
    tolerance = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(found[0][order], (nodes + 1) / 2, atol=tolerance)
    np.testing.assert_allclose(found[1][order], weights / 2, atol=tolerance)
