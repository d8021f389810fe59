"""The exact law of the cosine that layer norm leaves between a noisy signal and itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_float, as_key, as_scalar, as_vector, require_count
from homojax.birkhoff import center
from homojax.layernorm.noncentral_t import gauss_legendre, ratio_cdf
from homojax.numerics import matmul, norm, power_of_two, sqrt
from homojax.programs import compiled


@compiled()
def signal_to_noise(signal: ArrayLike, noise_std: ArrayLike) -> jax.Array:
    """Return SNR = ‖s⊥‖²/(dν²), d = n − 1.

    Args:
        signal: s, [n], n ≥ 2; only its detail s⊥ counts.
        noise_std: ν > 0, a scalar.

    Raises:
        ValueError: ``signal`` is not such a vector, or ``noise_std`` is not a scalar.

    Source: theory.md §4.

    >>> float(signal_to_noise([1.0, -1.0, 0.0], 1.0))
    1.0
    """
    signal = as_vector(signal, "signal", 2)
    noise_std = as_scalar(noise_std, "noise_std", signal.dtype)
    unit = power_of_two(abs(signal).max())  # no square of the signal leaves the range of floats
    return (center(signal / unit) ** 2).sum() / (len(signal) - 1) * (unit / noise_std) ** 2


@compiled("num_samples")
def sample_cosine(
    key: jax.Array, signal: ArrayLike, *, noise_std: ArrayLike, num_samples: int
) -> jax.Array:
    """Return simulated cos θ: add noise to the signal, centre, normalise, compare.

    It shares nothing with ``cosine_cdf`` and ``expected_cosine``, which predict it.

    Args:
        key: a JAX random key.
        signal: s, [n].
        noise_std: ν ≥ 0, a scalar.
        num_samples: how many draws, a Python int.

    Returns:
        [num_samples]; NaN where there is no detail to compare.

    Raises:
        ValueError: ``signal`` is not [n] with n ≥ 1, or ``num_samples`` is no count.

    Source: theory.md §4.

    >>> key = jax.random.key(0)
    >>> bool((sample_cosine(key, [1.0, -1.0, 0.0], noise_std=1e-3, num_samples=5) > 0.99).all())
    True
    """
    key, num_samples = as_key(key), require_count("num_samples", num_samples, 1)
    signal = as_vector(signal, "signal")
    noise_std = as_scalar(noise_std, "noise_std", signal.dtype)
    unit = power_of_two(jnp.maximum(abs(signal).max(), noise_std))  # the angle has no scale
    signal, noise_std = center(signal / unit), noise_std / unit
    noise = jax.random.normal(key, (num_samples, *signal.shape), signal.dtype)
    output = center((signal[None, :] + noise_std * noise).T)
    norms = norm(signal) * sqrt((output**2).sum(0))
    return jnp.where(norms > 0, matmul(signal, output) / jnp.where(norms > 0, norms, 1), jnp.nan)


@compiled("num_nodes")
def cosine_cdf(t: ArrayLike, *, snr: ArrayLike, d: ArrayLike, num_nodes: int = 64) -> jax.Array:
    """Return P(cos θ ≤ t), exactly.

    √(d−1) cos θ/√(1 − cos² θ) is noncentral t with d − 1 degrees of freedom and noncentrality
    √(d·SNR).

    Args:
        t: a scalar in [−1, 1].
        snr: SNR ≥ 0, a scalar.
        d: the dimension of the detail, a scalar, 1 or at least 2.
        num_nodes: of the quadrature, a Python int. 22 take a third of the time and add an error of
            1e-8.

    Returns:
        A scalar; NaN outside the ranges. The absolute error is near 1e-14 in float64 for whole d,
        and 1e-7 between 2 and 3. In float32 it is what the rounding of t and SNR leaves: 1e-5
        where the law is not steep.

    Raises:
        ValueError: an argument is not a scalar.

    Source: law 4.1, cosine_law.

    >>> round(float(cosine_cdf(0.0, snr=0.0, d=7)), 6)
    0.5
    """
    t = as_scalar(t, "t")
    snr, d = as_scalar(snr, "snr", t.dtype), as_scalar(d, "d", t.dtype)
    valid = (abs(t) <= 1) & (snr >= 0) & ((d == 1) | (d >= 2))
    inside = jnp.where(valid & (abs(t) < 1), t, 0)
    ratio = inside / jnp.sqrt((1 - inside) * (1 + inside))
    root_kappa = jnp.sqrt(jnp.where(valid, snr * d, 0))
    cdf = ratio_cdf(ratio, root_kappa, d=jnp.where(valid, d, 2), num_nodes=num_nodes)
    cdf = jnp.where(t == 1, 1, jnp.where((t == -1) & (d > 1), 0, cdf))
    return jnp.where(valid, cdf, jnp.nan)


@compiled()
def expected_cosine(snr: ArrayLike, *, d: ArrayLike) -> jax.Array:
    """Return E cos θ = √(κ/2) Γ((d+1)/2)/Γ(d/2 + 1) ₁F₁(½; d/2 + 1; −κ/2), κ = d·SNR.

    Args:
        snr: SNR ≥ 0, a scalar.
        d: the dimension of the detail, a scalar ≥ 1.

    Returns:
        A scalar; NaN outside the ranges.

    Raises:
        ValueError: an argument is not a scalar.

    Notes:
        Computed as √(2κ/π) ∫ exp(−κ sin²φ/2) cosᵈφ dφ over [0, π/2]. That is the same function, by
        Euler's integral with w = sin φ, and free of the cancellation between Gamma functions.

    Source: law 4.2, expected_cosine.

    >>> round(float(expected_cosine(1.0, d=1000)), 3)  # near √(1/2), its limit for large d
    0.707
    """
    snr = as_scalar(snr, "snr")
    d = as_scalar(d, "d", snr.dtype)
    valid = (snr >= 0) & (d >= 1)
    kappa = jnp.where(valid & (snr < jnp.inf), snr * d, 0)
    nodes, weights = gauss_legendre(snr.dtype)
    top = jnp.minimum(jnp.pi / 2, 14 / jnp.sqrt(kappa + d))  # beyond it all is below rounding
    sine = jnp.sin(top * nodes)
    integrand = jnp.exp(-kappa * sine**2 / 2 + d / 2 * jnp.log1p(-(sine**2)))
    mean = sqrt(2 * kappa / jnp.pi) * top * matmul(weights, integrand)
    return jnp.where(valid, jnp.where(snr == jnp.inf, 1, mean), jnp.nan)


@compiled()
def cosine_range(snr: ArrayLike, *, d: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return (√(κ/(κ + d + 2)), √(κ/(κ + d − 1))), which enclose E cos θ, κ = d·SNR.

    Equality as κ grows. So E cos θ is within 2/(3√3 d) of √(SNR/(1 + SNR)).

    Args:
        snr: SNR ≥ 0, an array.
        d: the dimension of the detail, an array alike, ≥ 2.

    Returns:
        Two arrays alike, lower and upper; NaN for SNR < 0.

    Notes:
        Both come from the integral in ``expected_cosine``. Above, 1 − w² ≤ exp(−w²), w = sin φ.
        Below, in w = tan φ, (1 + w²)⁻¹ ≥ exp(−w²) and w²/(1 + w²) ≤ w².

    Source: law 4.3, cosine_floor and cosine_ceiling.

    >>> [round(float(end), 3) for end in cosine_range(1.0, d=10)]
    [0.674, 0.725]
    """
    snr = as_float(snr)
    return sqrt(_share(snr * d, d + 2)), sqrt(_share(snr * d, d - 1))


@compiled()
def asymptotic_cosine(snr: ArrayLike) -> jax.Array:
    """Return √(SNR/(1 + SNR)), the limit of E cos θ as d grows; ``snr`` ≥ 0, an array.

    Source: law 4.3, cosine_limit.

    >>> float(asymptotic_cosine(0.0))
    0.0
    """
    return sqrt(_share(as_float(snr), 1))


@compiled()
def overlap(input_overlap: ArrayLike, *, snr: ArrayLike) -> jax.Array:
    """Return ρ·SNR/(1 + SNR): the cosine left between two inputs after noise and layer norm.

    The noise is independent, and d is large. As SNR → 0 all normalised outputs become orthogonal
    ("orthogonal collapse"), whatever layer norm does.

    Args:
        input_overlap: ρ in [−1, 1], the cosine between the inputs, an array.
        snr: SNR ≥ 0, an array alike.

    Source: law 4.3, overlap_limit.

    >>> float(overlap(0.5, snr=1.0))
    0.25
    """
    snr = as_float(snr)
    return as_float(input_overlap, "input_overlap").astype(snr.dtype) * _share(snr, 1)


@compiled()
def cosine_bound(snr: ArrayLike, *, d: ArrayLike, u: ArrayLike) -> jax.Array:
    """Return (√(d·SNR) + √(2u))/√(d − 1 − 2√((d−1)u)), which cos θ exceeds with 2e^{−u} at most.

    Args:
        snr: SNR ≥ 0, an array.
        d: the dimension of the detail, an array alike.
        u: > 0, an array alike: the bound holds with probability at least 1 − 2e^{−u}.

    Returns:
        An array alike. ∞ where the root is not defined (d − 1 ≤ 4u); nothing is said above 1.

    Source: law 4.4, cosine_bound; Laurent and Massart (2000).

    >>> round(float(cosine_bound(0.01, d=1001, u=2.0)), 4)
    0.1711
    """
    snr = as_float(snr)
    d, u = as_float(d, "d").astype(snr.dtype), as_float(u, "u").astype(snr.dtype)
    least_radius = d - 1 - 2 * jnp.sqrt((d - 1) * u)
    defined = least_radius > 0
    bound = (sqrt(d * snr) + jnp.sqrt(2 * u)) / jnp.sqrt(jnp.where(defined, least_radius, 1))
    return jnp.where(defined, bound, jnp.inf)


@compiled()
def retained_cosine(
    sigma2: ArrayLike, *, noise_std: ArrayLike, d: ArrayLike, depth: ArrayLike
) -> jax.Array:
    """Return (σ²/(σ² + dν²))^{L/2}: cos θ after L layers that mix, add noise and normalise.

    Mean field, for large d. Layer norm restores the norm in every layer, and never the direction.

    Args:
        sigma2: σ₂ in [0, 1] of every layer, an array.
        noise_std: ν ≥ 0 on each of the d entries of a unit vector, an array alike.
        d: the dimension of the detail, an array alike.
        depth: L ≥ 0, an array alike.

    Returns:
        An array alike; NaN for σ₂ = ν = 0.

    Source: law 4.6, layers_limit.

    >>> round(float(retained_cosine(0.5, noise_std=0.05, d=100, depth=2)), 6)
    0.5
    """
    sigma2 = as_float(sigma2)
    noise_std, d, depth = (
        as_float(x, name).astype(sigma2.dtype)
        for x, name in ((noise_std, "noise_std"), (d, "d"), (depth, "depth"))
    )
    return (sigma2**2 / (sigma2**2 + d * noise_std**2)) ** (depth / 2)


def _share(signal: jax.Array, noise: ArrayLike) -> jax.Array:
    """Return signal/(signal + noise): 1 for an infinite signal, NaN for a negative one."""
    finite = (signal >= 0) & (signal < jnp.inf)
    used = jnp.where(finite, signal, 1)
    edge = jnp.where(signal == jnp.inf, 1, jnp.full_like(signal, jnp.nan))
    return jnp.where(finite, used / (used + noise), edge)
