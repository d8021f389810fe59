"""Claims about detecting a signal: a bound, and the critical SNR. theory.md 4.4, 4.5."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from homojax.layernorm import cosine_bound, cosine_cdf
from homojax.theory.cases.noise import LEVEL, POWER, NoiseCase
from homojax.theory.claim import Comparison, claim, scaled
from homojax.theory.noise import DETAIL, NOISE, WITHIN, mean_comparison
from homojax.theory.sampling import BERNSTEIN

# The value at d = 3, found by search to be the greatest, rounded up.
CRITICAL_RATE = 1.812

# ---------------------------------------------------------------- 4.4


def _finite_bound(case: NoiseCase, bound: Callable[..., jax.Array]) -> Comparison:
    """Return, of several u, the comparison with the least slack."""
    u = jnp.asarray([1.0, 2.0, 4.0], case.snr.dtype)
    limits = bound(case.snr, d=case.dimension, u=u)
    applies = limits < 1
    below = jax.vmap(lambda t: cosine_cdf(t, snr=case.snr, d=case.dimension))(
        jnp.where(applies, limits, 0)
    )
    promised = 1 - 2 * jnp.exp(-u)
    worst = jnp.argmin(jnp.where(applies, below - promised, jnp.inf))
    error = 8 * jnp.finfo(u.dtype).eps * (1 + jnp.sqrt(case.dimension * case.snr))
    return Comparison(promised[worst], below[worst], case.rounding + error, applies.any())


def _without_noise_along(snr: jax.Array, d: int, u: jax.Array) -> jax.Array:
    return cosine_bound(snr, d=d, u=u) * jnp.sqrt(d * snr) / (jnp.sqrt(d * snr) + jnp.sqrt(2 * u))


@claim(
    "4.4",
    name="cosine_bound",
    scope="noise",
    direction="≥",
    statement="P(cos θ ≤ (√(d·SNR) + √(2u))/√(d − 1 − 2√((d−1)u))) ≥ 1 − 2e^{−u}, where defined "
    "and below 1; u = 1, 2, 4",
    latex=r"P\Bigl(\cos\theta \le "
    r"\frac{\sqrt{d\,\mathrm{SNR}}+\sqrt{2u}}{\sqrt{d-1-2\sqrt{(d-1)u}}}\Bigr) \ge 1 - 2e^{-u}",
    source="theory.md 4.4; Laurent and Massart (2000)",
    assumptions=(DETAIL, NOISE),
    mutants={
        "half the bound": lambda _, case: _finite_bound(
            case, lambda snr, d, u: cosine_bound(snr, d=d, u=u) / 2
        ),
        "√(2u) left out": lambda _, case: _finite_bound(case, _without_noise_along),
    },
)
def finite_bound(case: NoiseCase) -> Comparison:
    """Return law 4.4 (bound on the cosine at finite d)."""
    return _finite_bound(case, cosine_bound)


# ---------------------------------------------------------------- 4.5


def _critical_power(case: NoiseCase, threshold: jax.Array) -> Comparison:
    """Return the share of cosines above a threshold against the power that is promised."""
    cosines, off = case.critical_cosines, 2 * case.rounding
    detected = (cosines > threshold).astype(threshold.dtype)
    detected = jnp.where(jnp.isnan(cosines), jnp.nan, detected)
    comparison = mean_comparison(detected, jnp.asarray(POWER, threshold.dtype), case, width=1)
    near = (abs(cosines - threshold) <= off).mean(dtype=threshold.dtype)
    return comparison._replace(margin=comparison.margin + near)


def _threshold_of_next_dimension(case: NoiseCase) -> jax.Array:
    """Return the threshold with √d for the √(d − 1) of Student's ratio."""
    d, ratio = case.dimension, case.threshold / jnp.sqrt(1 - case.threshold**2)
    return ratio * math.sqrt((d - 1) / d) / jnp.sqrt(1 + ratio**2 * (d - 1) / d)


@claim(
    "4.5",
    name="critical_power",
    scope="noise",
    direction="=",
    statement="at the critical SNR the test of cos θ of level 0.05 has power 0.95, to within 0.1",
    latex=r"P_{\mathrm{SNR}_c}(\cos\theta > c_{0.05}) = 0.95",
    source=f"theory.md 4.5; {BERNSTEIN}",
    assumptions=(DETAIL, NOISE),
    resolution=WITHIN,
    mutants={
        "√d for √(d − 1) in the test": lambda _, case: _critical_power(
            case, _threshold_of_next_dimension(case)
        )
    },
)
def critical_power(case: NoiseCase) -> Comparison:
    """Return law 4.5 (power at the critical SNR)."""
    return _critical_power(case, case.threshold)


@claim(
    "4.5",
    name="critical_limit",
    scope="noise",
    direction="→",
    statement=f"|d·SNR_c/(z₁₋α + z_power)² − 1| ≤ {CRITICAL_RATE}/(d − 2), d ≥ 3",
    latex=r"\mathrm{SNR}_c \to \frac{(z_{1-\alpha}+z_{1-\beta})^2}{d}",
    source="theory.md 4.5; the constant is the value at d = 3, found by search to be the greatest, "
    "not proved",
    assumptions=(NOISE,),
    status="conjecture",
    mutants={"1/(d−2)² for 1/(d−2)": scaled(lambda case: 1 / max(case.dimension - 2, 1))},
)
def critical_limit(case: NoiseCase) -> Comparison:
    """Return law 4.5 (limit of the critical SNR)."""
    d, ends = case.dimension, jnp.asarray([1 - LEVEL, POWER], case.snr.dtype)
    ratio = case.critical_snr * d / jax.scipy.special.ndtri(ends).sum() ** 2
    rate = jnp.asarray(CRITICAL_RATE / max(d - 2, 1), ratio.dtype)
    return Comparison(abs(ratio - 1), rate, 16 * case.rounding, d >= 3)
