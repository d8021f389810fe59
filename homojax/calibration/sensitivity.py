"""How what a projection keeps depends on the logits and on ε."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.depth import effective_depth
from homojax.numerics import as_float, as_square, sqrt
from homojax.projection.entrywise import balance
from homojax.spectrum.gap import log_contraction_gap


class Sensitivity(NamedTuple):
    """What a projection keeps at one ε, and how that depends on the logits and on ε."""

    sigma2: jax.Array
    log_gap: jax.Array  # log(1 − σ₂)
    gradient: jax.Array  # [n, n], ∂σ₂/∂S
    gradient_norm: jax.Array  # ‖∂σ₂/∂S‖_F
    gradient_bound: jax.Array  # √(max M (1 − 1/n)(1 − σ₂²))/ε ≥ gradient_norm
    epsilon_slope: jax.Array  # ∂σ₂/∂ε
    depth: jax.Array  # effective depth, log ρ/log σ₂
    depth_slope: jax.Array  # ∂depth/∂ε


def sensitivity(logits: ArrayLike, epsilon: ArrayLike, retention: ArrayLike = 0.1) -> Sensitivity:
    """σ₂ of M_ε(S), its derivatives and those of the effective depth, right to relative accuracy however near 1 σ₂ is.

    By ``balance`` and ``log_contraction_gap``: a gradient of 1e-78 is given as such. What a model gets when it differentiates
    its own projection is this with an absolute error of about eps/ε: of a gradient below that it sees nothing (theory.md 6.2).

    Args:
        logits: S, [n, n], n ≥ 2, finite or −inf.
        epsilon: scalar > 0.
        retention: ρ in (0, 1), for the depth.

    Returns:
        A Sensitivity. All NaN where the projection does not converge or ε is not positive, what is about the depth where ρ is
        none; ``depth`` ∞ where it overflows. Derivatives at ties of σ₂ are a subgradient's.

    >>> found = sensitivity([[100.0, 0.0], [0.0, 100.0]], 0.5)  # 1 − σ₂ = 2/(1 + e²⁰⁰)
    >>> round(float(found.log_gap), 3), bool(found.gradient_norm <= found.gradient_bound)
    (-199.307, True)
    """
    logits = as_square(logits, "logits")
    n = logits.shape[0]
    epsilon = jnp.asarray(epsilon, logits.dtype)
    epsilon = jnp.where(epsilon > 0, epsilon, jnp.nan)

    def log_gap_of(logits, epsilon):
        allowed = logits > -jnp.inf
        balanced = balance(jnp.where(allowed, jnp.where(allowed, logits, 0) / epsilon, -jnp.inf))
        log_matrix = jnp.where(balanced.converged, balanced.log_matrix, jnp.nan)
        return log_contraction_gap(log_matrix), log_matrix

    (log_gap, log_matrix), (slopes, slope) = jax.value_and_grad(log_gap_of, (0, 1), has_aux=True)(
        logits, epsilon
    )
    gap, sigma2 = jnp.exp(log_gap), -jnp.expm1(log_gap)
    gradient = -gap * slopes
    largest = abs(slopes).max()
    norm = (
        gap * largest * jnp.sqrt(((slopes / jnp.where(largest > 0, largest, 1)) ** 2).sum())
    )  # no square underflows
    bound = (
        jnp.exp(log_gap / 2)
        * sqrt(jnp.exp(log_matrix.max()) * (1 - 1 / n) * (1 + sigma2))
        / epsilon
    )
    depth = effective_depth(sigma2, retention, gap=gap)
    # L = log ρ/log(1 − g), so dL/d log g = L g/((1 − g) log(1 − g)), and the fraction tends to −1 as g → 0
    small = gap < jnp.finfo(gap.dtype).eps / 4
    safe = jnp.where(small, 0.5, jnp.minimum(gap, 1 - jnp.finfo(gap.dtype).epsneg))
    per_log_gap = jnp.where(small, -1, safe / ((1 - safe) * jnp.log1p(-safe)))
    return Sensitivity(
        sigma2, log_gap, gradient, norm, bound, -gap * slope, depth, depth * per_log_gap * slope
    )


def trainable_band(
    epsilons: ArrayLike, gradient_norms: ArrayLike, share: ArrayLike = 0.1
) -> tuple[jax.Array, jax.Array]:
    """(low, high): the ε round the largest gradient norm within which it stays at or above ``share`` of that. theory.md 6.2.

    Too cold, and ∂σ₂/∂S underflows; too hot, and it falls as 1/(nε). ``epsilons`` [K] ascending and > 0, ``gradient_norms`` [K]
    of ``sensitivity`` at each; log-linear between them. low = 0 and high = ∞ where the grid ends before the band does. NaN where
    an input is NaN, no norm is positive, or the share is outside (0, 1].

    >>> low, high = trainable_band([0.01, 0.1, 1.0, 10.0], [1e-9, 1e-1, 1.0, 0.1])
    >>> round(float(low), 6), float(high)
    (0.1, inf)
    """
    norms = as_float(gradient_norms)
    epsilons, share = jnp.asarray(epsilons, norms.dtype), jnp.asarray(share, norms.dtype)
    top = norms.argmax()
    k = jnp.arange(len(norms))
    log_level = jnp.log(share * norms[top])
    log_norms, x = jnp.log(norms), jnp.log(epsilons)
    below = log_norms < log_level

    def crossing(outside, inside):
        fall = jnp.where(jnp.isneginf(log_norms[outside]), 0, (log_norms[inside] - log_level))
        way = log_norms[inside] - jnp.where(
            jnp.isneginf(log_norms[outside]), -1, log_norms[outside]
        )
        return jnp.exp(x[inside] + (x[outside] - x[inside]) * fall / jnp.where(way > 0, way, 1))

    last_before = jnp.where(below & (k < top), k, -1).max()
    first_after = jnp.where(below & (k > top), k, len(k)).min()
    low = jnp.where(last_before >= 0, crossing(last_before, last_before + 1), 0)
    high = jnp.where(
        first_after < len(k),
        crossing(jnp.minimum(first_after, len(k) - 1), first_after - 1),
        jnp.inf,
    )
    valid = (
        (norms[top] > 0)
        & (share > 0)
        & (share <= 1)
        & ~jnp.isnan(norms).any()
        & (epsilons > 0).all()
    )
    return jnp.where(valid, low, jnp.nan), jnp.where(valid, high, jnp.nan)
