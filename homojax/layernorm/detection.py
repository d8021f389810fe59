"""The SNR, and the depth, at which a test of the cosine no longer detects a signal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_float, as_scalar
from homojax.layernorm.noncentral_t import bisect, critical_ratio, ratio_cdf
from homojax.programs import compiled


@compiled()
def critical_cosine(d: ArrayLike, *, level: ArrayLike = 0.05) -> jax.Array:
    """Return the cosine that a random direction exceeds with probability α.

    A test of level α detects a signal there: √(d−1) cos θ/√(1 − cos² θ) of a random direction is
    Student's t with d − 1 degrees of freedom.

    Args:
        d: the dimension of the detail, a scalar ≥ 2.
        level: α, a scalar in (0, 1).

    Returns:
        A scalar; NaN outside the ranges.

    Raises:
        ValueError: an argument is not a scalar.

    Source: law 4.5, critical_power.

    >>> round(float(critical_cosine(3, level=0.1)), 6)  # uniform height on the sphere
    0.8
    """
    level = as_scalar(level, "level")
    d = as_scalar(d, "d", level.dtype)
    valid = (level > 0) & (level < 1) & (d >= 2)
    ratio = critical_ratio(jnp.where(valid, level, 0.05), d=jnp.where(valid, d, 2))
    return jnp.where(valid, ratio / jnp.sqrt(1 + ratio**2), jnp.nan)


@compiled()
def critical_snr(d: ArrayLike, *, level: ArrayLike = 0.05, power: ArrayLike = 0.95) -> jax.Array:
    """Return the least SNR at which a test of cos θ against a random direction has this power.

    Exact, from the law of the cosine (law 4.1, cosine_law); about (z_{1−α} + z_power)²/d for
    large d. Below it the test misses the signal more often than 1 − power.

    Args:
        d: the dimension of the detail, a scalar, 1 or at least 2.
        level: α of the test, a scalar in (0, 1).
        power: a scalar in (0, 1).

    Returns:
        A scalar, by bisection to the last bits but a few; NaN outside the ranges. 0 if power ≤
        level. ∞ for d = 1, where the cosine is ±1 and no test of level α < ½ exists.

    Raises:
        ValueError: an argument is not a scalar.

    Source: law 4.5, critical_power.

    >>> round(float(critical_snr(1000)), 4)
    0.0108
    """
    level = as_scalar(level, "level")
    d, power = as_scalar(d, "d", level.dtype), as_scalar(power, "power", level.dtype)
    valid = (level > 0) & (level < 1) & (power > 0) & (power < 1) & ((d == 1) | (d >= 2))
    safe_d = jnp.where(valid & (d > 1), d, 2)
    safe_level, safe_power = jnp.where(valid, level, 0.05), jnp.where(valid, power, 0.95)
    threshold = critical_ratio(safe_level, d=safe_d)

    def missing_power(log_root_kappa):
        return safe_power - 1 + ratio_cdf(threshold, jnp.exp(log_root_kappa), d=safe_d)

    root_kappa = jnp.exp(bisect(missing_power, -14.0, 44.0, level.dtype))
    snr = jnp.where(d > 1, jnp.where(power <= level, 0, root_kappa**2 / safe_d), jnp.inf)
    return jnp.where(valid, snr, jnp.nan)


@compiled()
def critical_depth(
    snr: ArrayLike,
    *,
    sigma2: ArrayLike,
    d: ArrayLike,
    level: ArrayLike = 0.05,
    power: ArrayLike = 0.95,
) -> jax.Array:
    """Return log(SNR₀/SNR_c)/(2 log 1/σ₂): layers until the SNR is down to the critical one.

    Of the best-kept detail, under noise that does not change with depth.

    Args:
        snr: SNR₀ ≥ 0 at the input, an array.
        sigma2: σ₂ of every layer, an array alike.
        d: the dimension of the detail, a scalar, as for ``critical_snr``.
        level: as for ``critical_snr``.
        power: as for ``critical_snr``.

    Returns:
        A real number of layers, an array alike: 0 if the input is below the critical SNR, ∞ at
        σ₂ = 1.

    Raises:
        ValueError: ``d``, ``level`` or ``power`` is not a scalar.

    Source: law 4.5, critical_power.

    >>> round(float(critical_depth(1.0, sigma2=0.5, d=1000)), 2)
    3.26
    """
    sigma2 = as_float(sigma2)
    least = critical_snr(d, level=as_float(level, "level").astype(sigma2.dtype), power=power)
    ratio = as_float(snr, "snr").astype(sigma2.dtype) / least
    inside = (sigma2 > 0) & (sigma2 < 1)
    above = ratio > 1
    depth = jnp.log(jnp.where(above, ratio, 1)) / (-2 * jnp.log(jnp.where(inside, sigma2, 0.5)))
    edge = jnp.where(sigma2 == 0, 0, jnp.full_like(sigma2, jnp.nan))
    edge = jnp.where(sigma2 >= 1, jnp.where(above, jnp.full_like(ratio, jnp.inf), 0), edge)
    return jnp.where(jnp.isnan(ratio), jnp.nan, jnp.where(inside, depth, edge))
