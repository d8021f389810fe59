"""How σ₂ of a projection, and the effective depth, depend on the logits and on ε."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_epsilon, as_float, as_scalar, as_square
from homojax.depth import effective_depth
from homojax.numerics import sqrt
from homojax.programs import compiled
from homojax.projection.balance import balance
from homojax.projection.summary import has_numbers, shapes_of
from homojax.spectrum.gap import log_contraction_gap


class Sensitivity(NamedTuple):
    """What a projection keeps at one ε, and how that depends on the logits and on ε.

    >>> at_half = sensitivity([[1.0, 0.0], [0.0, 1.0]], 0.5)
    >>> round(float(at_half.sigma2), 4), bool(at_half.epsilon_slope < 0)
    (0.7616, True)
    """

    sigma2: jax.Array
    log_gap: jax.Array  # log(1 − σ₂)
    gradient: jax.Array  # [n, n], ∂σ₂/∂S
    gradient_norm: jax.Array  # ‖∂σ₂/∂S‖_F
    gradient_bound: jax.Array  # √(max M (1 − 1/n)(1 − σ₂²))/ε ≥ gradient_norm
    epsilon_slope: jax.Array  # ∂σ₂/∂ε
    depth: jax.Array  # effective depth, log ρ/log σ₂, in layers
    depth_slope: jax.Array  # ∂depth/∂ε

    def __repr__(self) -> str:
        """Return one line: σ₂, the size of its derivatives, the depth; of a batch, counts."""
        if not has_numbers(self):
            return shapes_of(self)
        *batch, n, _ = self.gradient.shape
        if batch:
            sigma2 = jax.device_get(self.sigma2)
            return f"Sensitivity: {batch} of {n} x {n}, {int((sigma2 != sigma2).sum())} NaN"
        return (
            f"Sensitivity: {n} x {n}, σ₂ = {self.sigma2:.6g}, "
            f"‖∂σ₂/∂S‖ = {self.gradient_norm:.3g}, ∂σ₂/∂ε = {self.epsilon_slope:.3g}, "
            f"depth = {self.depth:.4g}"
        )


@compiled()
def sensitivity(
    logits: ArrayLike, epsilon: ArrayLike, *, retention: ArrayLike = 0.1
) -> Sensitivity:
    """Return σ₂ of M_ε(S) and its derivatives, to relative accuracy however near 1 σ₂ is.

    Args:
        logits: S, [n, n], n ≥ 2, finite or −inf.
        epsilon: scalar > 0.
        retention: ρ, scalar in (0, 1), for the effective depth.

    Returns:
        A Sensitivity. All of it is NaN where the projection does not converge or ε is not
        positive; the depth and its slope are NaN where ρ is not in (0, 1). ``depth`` is ∞ where
        it overflows. Where σ₂ is tied, the derivatives are a subgradient's.

    Raises:
        ValueError: ``logits`` is not [n, n] with n ≥ 2.

    Notes:
        By ``balance`` and ``log_contraction_gap``, so a gradient of 1e-78 is right, too. A model
        that differentiates its own projection gets the same with an absolute error of about
        eps/ε, and does not see a gradient below that (law 6.2, gradient_trap).

    Source: laws 1.6 (differential) and 6.2 (gradient_trap).

    >>> result = sensitivity([[100.0, 0.0], [0.0, 100.0]], 0.5)  # 1 − σ₂ = 2/(1 + e²⁰⁰)
    >>> round(float(result.log_gap), 3), bool(result.gradient_norm <= result.gradient_bound)
    (-199.307, True)
    """
    logits = as_square(logits, "logits")
    epsilon = as_epsilon(epsilon, logits.dtype)
    retention = as_scalar(retention, "retention", logits.dtype)
    (log_gap, log_matrix), (slopes, slope) = jax.value_and_grad(
        _log_gap_and_matrix, (0, 1), has_aux=True
    )(logits, epsilon)
    gap, sigma2 = jnp.exp(log_gap), -jnp.expm1(log_gap)

    # Divided by the largest entry first: squares of a tiny gradient would underflow.
    largest = abs(slopes).max()
    norm = jnp.sqrt(((slopes / jnp.where(largest > 0, largest, 1)) ** 2).sum())
    room = jnp.exp(log_matrix.max()) * (1 - 1 / logits.shape[0]) * (1 + sigma2)

    depth = effective_depth(sigma2, retention=retention, gap=gap)
    return Sensitivity(
        sigma2=sigma2,
        log_gap=log_gap,
        gradient=-gap * slopes,
        gradient_norm=gap * largest * norm,
        gradient_bound=jnp.exp(log_gap / 2) * sqrt(room) / epsilon,
        epsilon_slope=-gap * slope,
        depth=depth,
        depth_slope=depth * _log_depth_slope(gap) * slope,
    )


def _log_gap_and_matrix(logits: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return log(1 − σ₂) and log M of the projection; NaN where it does not converge."""
    allowed = logits != -jnp.inf  # a NaN stays one
    balanced = balance(jnp.where(allowed, jnp.where(allowed, logits, 0) / epsilon, -jnp.inf))
    log_matrix = jnp.where(balanced.converged, balanced.log_matrix, jnp.nan)
    return log_contraction_gap(log_matrix), log_matrix


def _log_depth_slope(gap: jax.Array) -> jax.Array:
    """Return d log L/d log g = g/((1 − g) log(1 − g)) of the depth L = log ρ/log(1 − g).

    It tends to −1 as g → 0.
    """
    info = jnp.finfo(gap.dtype)
    small = gap < info.eps / 4
    safe = jnp.where(small, 0.5, jnp.minimum(gap, 1 - info.epsneg))
    return jnp.where(small, -1, safe / ((1 - safe) * jnp.log1p(-safe)))


@compiled()
def trainable_band(
    epsilons: ArrayLike, *, gradient_norms: ArrayLike, share: ArrayLike = 0.1
) -> tuple[jax.Array, jax.Array]:
    """Return (low, high): the ε around the best one that keep ``share`` of its gradient norm.

    Below the band ∂σ₂/∂S underflows, and above it falls as 1/(nε) (law 6.2, gradient_trap).

    Args:
        epsilons: [K], ascending and > 0.
        gradient_norms: [K], of ``sensitivity`` at each ε; log-linear between them.
        share: scalar in (0, 1], of the largest gradient norm.

    Returns:
        Two scalars: low = 0 and high = ∞ where the grid ends before the band does. NaN where an
        input is NaN, no norm is positive, the ε do not ascend, or the share is outside (0, 1].

    Raises:
        ValueError: the two are not vectors of one length, or the share is not a scalar.

    >>> low, high = trainable_band([0.01, 0.1, 1.0, 10.0], gradient_norms=[1e-9, 1e-1, 1.0, 0.1])
    >>> round(float(low), 6), float(high)
    (0.1, inf)
    """
    norms, share = as_float(gradient_norms, "gradient_norms"), as_scalar(share, "share")
    epsilons, share = as_float(epsilons, "epsilons").astype(norms.dtype), share.astype(norms.dtype)
    if norms.ndim != 1 or norms.shape != epsilons.shape or not len(norms):
        raise ValueError(
            "epsilons and gradient_norms must be vectors of one length, at least 1, got shapes "
            f"{list(epsilons.shape)} and {list(norms.shape)}"
        )
    top, k = norms.argmax(), jnp.arange(len(norms))
    log_level, log_norms, x = jnp.log(share * norms[top]), jnp.log(norms), jnp.log(epsilons)
    below = log_norms < log_level

    def crossing(outside, inside):
        underflows = jnp.isneginf(log_norms[outside])  # then the band ends where the norm is
        fall = jnp.where(underflows, 0, log_norms[inside] - log_level)
        full = log_norms[inside] - jnp.where(underflows, -1, log_norms[outside])
        part = fall / jnp.where(full > 0, full, 1)
        return jnp.exp(x[inside] + (x[outside] - x[inside]) * part)

    last = jnp.where(below & (k < top), k, -1).max()
    first = jnp.where(below & (k > top), k, len(k)).min()
    low = jnp.where(last >= 0, crossing(last, last + 1), 0)
    end = jnp.minimum(first, len(k) - 1)
    high = jnp.where(first < len(k), crossing(end, first - 1), jnp.inf)
    possible = (norms[top] > 0) & (share > 0) & (share <= 1)
    ascending = (epsilons[0] > 0) & (epsilons[1:] > epsilons[:-1]).all()
    valid = possible & ~jnp.isnan(norms).any() & ascending
    return jnp.where(valid, low, jnp.nan), jnp.where(valid, high, jnp.nan)
