"""Layer normalisation against noise: it restores the norm of a signal, never its direction. theory.md §4.

Setting: signal s in V⊥ (dimension d), isotropic Gaussian noise of standard deviation ν in every coordinate, and layer norm
without affine part = centring, then projection on the unit sphere of V⊥. SNR = ‖s‖²/(dν²), and θ is the angle between
s and the normalised output. With κ = d·SNR, cos θ = (√κ + z)/√((√κ + z)² + R²), z ~ N(0, 1), R² ~ χ²_{d−1} independent.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, xlogy
from jax.typing import ArrayLike

from homojax.birkhoff import center
from homojax.numerics import as_float, as_scalar, matmul, power_of_two, sqrt


def signal_to_noise(signal: ArrayLike, noise_std: ArrayLike) -> jax.Array:
    """SNR = ‖s⊥‖²/(dν²) of a signal [n], d = n − 1, under noise of standard deviation ν > 0. theory.md §4.

    >>> float(signal_to_noise([1.0, -1.0, 0.0], 1.0))
    1.0
    """
    signal = as_float(signal)
    if signal.ndim != 1 or len(signal) < 2:
        raise ValueError(
            f"signal must be a vector [n] with n >= 2, got shape {list(signal.shape)}; batch with jax.vmap"
        )
    detail = center(signal)
    return (detail**2).sum() / (
        (len(detail) - 1) * as_scalar(noise_std, "noise_std", detail.dtype) ** 2
    )


def normalise(
    x: ArrayLike,
    *,
    axis: Literal["features", "units"] = "features",
    kind: Literal["layer", "rms"] = "layer",
    gain: ArrayLike | None = None,
    shift: ArrayLike | None = None,
    eps: ArrayLike = 0.0,
) -> jax.Array:
    """Layer or RMS normalisation of x [n, D], n units with D features each, or of one vector; the shape stays. theory.md 4.7.

    Along "features", as networks do, each unit by itself; along "units", as the paper has it, each feature over the mixed axis.
    "layer" subtracts the mean and divides by √(variance + eps), "rms" divides by √(mean square + eps): with eps = 0 the norms
    become √D or √n. Then times ``gain`` plus ``shift``, scalars or vectors along the normalised axis. NaN where all is 0.

    Raises:
        ValueError: no such axis or kind, or x is neither a matrix nor a vector.

    >>> normalise([[3.0, 1.0], [5.0, 5.5]]).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    >>> [round(x, 5) for x in normalise([1.0, -7.0], kind="rms", gain=5.0, shift=[0.0, 1.0]).tolist()]
    [1.0, -6.0]
    """
    x = as_float(x)
    if axis not in ("features", "units") or kind not in ("layer", "rms"):
        raise ValueError(
            f'axis must be "features" or "units" and kind "layer" or "rms", got {axis!r} and {kind!r}'
        )
    if x.ndim not in (1, 2):
        raise ValueError(
            f"x must have shape [n, D] or be one vector, got {list(x.shape)}; batch with jax.vmap"
        )
    along_first = x.T if axis == "features" else x
    eps = jnp.asarray(eps, x.dtype)
    unit = power_of_two(jnp.maximum(abs(along_first).max(0), jnp.sqrt(eps)))
    along_first = along_first / unit
    along_first = center(along_first) if kind == "layer" else along_first
    scale = sqrt((along_first**2).mean(0) + eps / unit / unit)
    along_last = (along_first / jnp.where(scale > 0, scale, jnp.nan)).T
    along_last = along_last if gain is None else along_last * jnp.asarray(gain, x.dtype)
    along_last = along_last if shift is None else along_last + jnp.asarray(shift, x.dtype)
    return along_last if axis == "features" else along_last.T


def token_detail_bound(
    tokens: ArrayLike,
    sigma2: ArrayLike,
    *,
    kind: Literal["layer", "rms"] = "layer",
    gain: ArrayLike | None = None,
) -> jax.Array:
    """‖PN(MX)‖_F/√(nD) ≤ 2σ₂‖PX‖_F max|gain|/(√n ‖m‖): detail left once M ∈ 𝔅ₙ has mixed tokens and N normalised each.

    X = ``tokens`` [n, D], m their mean, both centred over features for "layer"; N is ``normalise`` along "features", and P
    removes its shift. For a row a of MX, ‖a/‖a‖ − m/‖m‖‖ ≤ 2‖a − m‖/(‖a‖ + ‖m‖) (Dunkl and Williams, 1964); M keeps m; and no
    constant rows are nearer than the mean that P takes away. A share, no unit; without gain it says nothing above 1; ∞ at m = 0.
    A token that all but cancels m reaches 1 − 1/n of it. theory.md 4.7.

    >>> float(token_detail_bound([[1.0, 0.0], [3.0, 0.0]], 0.5, kind="rms"))  # 2 · ½ · √2/(√2 · 2)
    0.5
    """
    tokens = as_float(tokens)
    tokens = center(tokens.T).T if kind == "layer" else tokens
    mean = sqrt((tokens.mean(0) ** 2).sum())
    spread = sqrt((center(tokens) ** 2).mean(0).sum())
    largest = 1 if gain is None else abs(jnp.asarray(gain, tokens.dtype)).max()
    share = 2 * jnp.asarray(sigma2, tokens.dtype) * spread * largest / jnp.where(mean > 0, mean, 1)
    return jnp.where(mean == 0, jnp.inf, share)


def sample_cosine(
    key: jax.Array, signal: ArrayLike, noise_std: ArrayLike, num_samples: int
) -> jax.Array:
    """Monte Carlo of cos θ, [num_samples]: add noise to the signal [n], centre, normalise, compare. theory.md §4.

    The simulation that ``cosine_cdf`` and ``expected_cosine`` predict; it knows nothing of them.

    >>> cosines = sample_cosine(jax.random.key(0), [1.0, -1.0, 0.0], 1e-3, 5)
    >>> bool((cosines > 0.99).all())
    True
    """
    signal = center(signal)
    noise = jax.random.normal(key, (num_samples, *signal.shape), signal.dtype)
    output = center((signal + jnp.asarray(noise_std, signal.dtype) * noise).T)
    norms = sqrt((signal**2).sum()) * sqrt((output**2).sum(0))
    return jnp.where(norms > 0, matmul(signal, output) / jnp.where(norms > 0, norms, 1), jnp.nan)


def cosine_cdf(t: ArrayLike, snr: ArrayLike, d: ArrayLike) -> jax.Array:
    """P(cos θ ≤ t), exactly: √(d−1) cos θ/√(1 − cos² θ) is noncentral t with d − 1 degrees of freedom and
    noncentrality √(d·SNR). Scalars; t in [−1, 1], SNR ≥ 0, d the dimension of the detail, 1 or from 2 on; NaN outside.
    theory.md 4.1.

    Computed as the mean of Φ(τR − √κ) over R ~ χ_{d−1}, τ = t/√(1 − t²), by Gauss-Legendre panels split where Φ rises:
    absolute error near 1e-14 in float64 for whole d (1e-7 between 2 and 3); in float32 what the rounding of t and SNR leaves,
    1e-5 where the law is not steep.

    >>> round(float(cosine_cdf(0.0, 0.0, 7)), 6)
    0.5
    """
    t = as_scalar(t, "t")
    snr, d = as_scalar(snr, "snr", t.dtype), as_scalar(d, "d", t.dtype)
    valid = (abs(t) <= 1) & (snr >= 0) & ((d == 1) | (d >= 2))
    inside = jnp.where(valid & (abs(t) < 1), t, 0)
    tau = inside / jnp.sqrt((1 - inside) * (1 + inside))
    cdf = _ray_cdf(tau, jnp.sqrt(jnp.where(valid, snr * d, 0)), jnp.where(valid, d, 2))
    cdf = jnp.where(t == 1, 1, jnp.where((t == -1) & (d > 1), 0, cdf))
    return jnp.where(valid, cdf, jnp.nan)


def expected_cosine(snr: ArrayLike, d: ArrayLike) -> jax.Array:
    """E cos θ = √(κ/2) Γ((d+1)/2)/Γ(d/2 + 1) ₁F₁(½; d/2 + 1; −κ/2), κ = d·SNR. Scalars; NaN for SNR < 0 or d < 1. theory.md 4.2.

    Computed as √(2κ/π) ∫ exp(−κ sin²φ/2) cosᵈφ dφ over [0, π/2], which is the same function (Euler's integral, w = sin φ)
    and free of the Gamma functions' cancellation.

    >>> round(float(expected_cosine(1.0, 1000)), 3)  # near √(1/2), its limit for large d
    0.707
    """
    snr = as_scalar(snr, "snr")
    d = as_scalar(d, "d", snr.dtype)
    valid = (snr >= 0) & (d >= 1)
    kappa = jnp.where(valid & (snr < jnp.inf), snr * d, 0)
    nodes, weights = _gauss_legendre(snr.dtype)
    top = jnp.minimum(
        jnp.pi / 2, 14 / jnp.sqrt(kappa + d)
    )  # the rest of the integrand is below rounding
    sine = jnp.sin(top * nodes)
    integrand = jnp.exp(-kappa * sine**2 / 2 + d / 2 * jnp.log1p(-(sine**2)))
    mean = sqrt(2 * kappa / jnp.pi) * top * matmul(weights, integrand)
    return jnp.where(valid, jnp.where(snr == jnp.inf, 1, mean), jnp.nan)


def cosine_range(snr: ArrayLike, d: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """√(κ/(κ + d + 2)) ≤ E cos θ ≤ √(κ/(κ + d − 1)), κ = d·SNR: (lower, upper), at every d ≥ 2; tends to equality for large κ.

    Both from the integral in ``expected_cosine``: 1 − w² ≤ exp(−w²), w = sin φ, above; in w = tan φ, (1 + w²)⁻¹ ≥ exp(−w²) and
    w²/(1 + w²) ≤ w², below. So E cos θ is within 2/(3√3 d) of √(SNR/(1 + SNR)). Scalars; NaN for SNR < 0. theory.md 4.3.

    >>> [round(float(end), 3) for end in cosine_range(1.0, 10)]
    [0.674, 0.725]
    """
    snr = as_float(snr)
    return sqrt(_share(snr * d, d + 2)), sqrt(_share(snr * d, d - 1))


def asymptotic_cosine(snr: ArrayLike) -> jax.Array:
    """√(SNR/(1 + SNR)): the limit of E cos θ as d grows. theory.md 4.3.

    >>> float(asymptotic_cosine(0.0))
    0.0
    """
    return sqrt(_share(as_float(snr), 1))


def _share(signal: jax.Array, noise: ArrayLike) -> jax.Array:
    """signal/(signal + noise): 1 where the signal is infinite, NaN where it is negative."""
    finite = (signal >= 0) & (signal < jnp.inf)
    used = jnp.where(finite, signal, 1)
    return jnp.where(finite, used / (used + noise), jnp.where(signal == jnp.inf, 1, jnp.nan))


def overlap(input_overlap: ArrayLike, snr: ArrayLike) -> jax.Array:
    """ρ·SNR/(1 + SNR): cosine left between two inputs of cosine ρ after independent noise and layer norm, large d. theory.md 4.3.

    Of ρ in [−1, 1] and SNR ≥ 0, arrays alike. It tends to 0 with the SNR: all normalised outputs become orthogonal ("orthogonal
    collapse"), whatever layer norm does.

    >>> float(overlap(0.5, 1.0))
    0.25
    """
    snr = as_float(snr)
    return jnp.asarray(input_overlap, snr.dtype) * _share(snr, 1)


def cosine_bound(snr: ArrayLike, d: ArrayLike, u: ArrayLike) -> jax.Array:
    """cos θ ≤ (√(d·SNR) + √(2u))/√(d − 1 − 2√((d−1)u)) with probability at least 1 − 2e^{−u}. theory.md 4.4.

    ∞, no bound, where the root is not defined (d − 1 ≤ 4u); says nothing above 1.

    >>> round(float(cosine_bound(0.01, 1001, 2.0)), 4)
    0.1711
    """
    snr = as_float(snr)
    d, u = jnp.asarray(d, snr.dtype), jnp.asarray(u, snr.dtype)
    least_radius = d - 1 - 2 * jnp.sqrt((d - 1) * u)
    defined = least_radius > 0
    bound = (sqrt(d * snr) + jnp.sqrt(2 * u)) / jnp.sqrt(jnp.where(defined, least_radius, 1))
    return jnp.where(defined, bound, jnp.inf)


def critical_cosine(d: ArrayLike, *, level: ArrayLike = 0.05) -> jax.Array:
    """The cosine that a random direction exceeds with probability α = ``level``: where a level-α test detects. theory.md 4.5.

    Scalars; √(d−1) cos θ/√(1 − cos² θ) is then Student's t with d − 1 degrees of freedom. NaN unless 0 < α < 1 and d ≥ 2.

    >>> round(float(critical_cosine(3, level=0.1)), 6)  # uniform height on the sphere
    0.8
    """
    level = as_scalar(level, "level")
    d = as_scalar(d, "d", level.dtype)
    valid = (level > 0) & (level < 1) & (d >= 2)
    tau = _critical_ratio(jnp.where(valid, level, 0.05), jnp.where(valid, d, 2))
    return jnp.where(valid, tau / jnp.sqrt(1 + tau**2), jnp.nan)


def critical_snr(d: ArrayLike, *, level: ArrayLike = 0.05, power: ArrayLike = 0.95) -> jax.Array:
    """Least SNR at which a level-α test of cos θ against a random direction has this power; exact from 4.1. theory.md 4.5.

    About (z_{1−α} + z_power)²/d for large d: below it the test
    misses the signal more often than 1 − power. Scalars, ``level`` and
    ``power`` in (0, 1), NaN outside; 0 if power ≤ level; ∞ for d = 1, where the cosine is ±1 and no such test exists
    (for α < ½). Solved by bisection to the last bit but a few.

    >>> round(float(critical_snr(1000)), 4)
    0.0108
    """
    level = as_scalar(level, "level")
    d, power = as_scalar(d, "d", level.dtype), as_scalar(power, "power", level.dtype)
    valid = (level > 0) & (level < 1) & (power > 0) & (power < 1) & ((d == 1) | (d >= 2))
    safe_d = jnp.where(valid & (d > 1), d, 2)
    safe_level, safe_power = jnp.where(valid, level, 0.05), jnp.where(valid, power, 0.95)
    threshold = _critical_ratio(safe_level, safe_d)
    root_kappa = jnp.exp(
        _bisect(
            lambda y: safe_power - 1 + _ray_cdf(threshold, jnp.exp(y), safe_d),
            -14.0,
            44.0,
            level.dtype,
        )
    )
    snr = jnp.where(d > 1, jnp.where(power <= level, 0, root_kappa**2 / safe_d), jnp.inf)
    return jnp.where(valid, snr, jnp.nan)


def critical_depth(
    snr: ArrayLike,
    sigma2: ArrayLike,
    d: ArrayLike,
    *,
    level: ArrayLike = 0.05,
    power: ArrayLike = 0.95,
) -> jax.Array:
    """log(SNR₀/SNR_c)/(2 log 1/σ₂): layers after which the SNR of the best-kept detail has fallen to the critical one.

    Fixed noise, SNR₀ = ``snr`` at the input. 0 if already below; ∞ at σ₂ = 1. theory.md 4.5.

    >>> round(float(critical_depth(1.0, 0.5, 1000)), 2)
    3.26
    """
    sigma2 = as_float(sigma2)
    ratio = jnp.asarray(snr, sigma2.dtype) / critical_snr(
        d, level=jnp.asarray(level, sigma2.dtype), power=power
    )
    inside = (sigma2 > 0) & (sigma2 < 1)
    above = ratio > 1
    depth = jnp.log(jnp.where(above, ratio, 1)) / (-2 * jnp.log(jnp.where(inside, sigma2, 0.5)))
    edge = jnp.where(sigma2 >= 1, jnp.where(above, jnp.inf, 0), jnp.where(sigma2 == 0, 0, jnp.nan))
    return jnp.where(jnp.isnan(ratio), jnp.nan, jnp.where(inside, depth, edge))


def retained_cosine(
    sigma2: ArrayLike, noise_std: ArrayLike, d: ArrayLike, depth: ArrayLike
) -> jax.Array:
    """(σ²/(σ² + dν²))^{L/2}: cos θ left after L layers that each mix, add noise and layer-norm to unit norm. theory.md 4.6.

    Of σ₂ in [0, 1], the noise's standard deviation ν ≥ 0 on each of d entries of a unit vector, and L ≥ 0 layers, arrays alike;
    NaN for σ₂ = ν = 0. Mean field, for large d. Layer norm at every layer restores the norm each time, and the direction never.

    >>> round(float(retained_cosine(0.5, 0.05, 100, 2)), 6)
    0.5
    """
    sigma2 = as_float(sigma2)
    noise_std, d, depth = (jnp.asarray(x, sigma2.dtype) for x in (noise_std, d, depth))
    return (sigma2**2 / (sigma2**2 + d * noise_std**2)) ** (depth / 2)


@lru_cache
def _legendre_rule(num_nodes: int) -> tuple[list[float], list[float]]:
    """Gauss-Legendre nodes and weights on [0, 1], by Newton's method on the three-term recurrence."""
    nodes, weights = [], []
    for i in range(num_nodes):
        x, slope = math.cos(math.pi * (i + 0.75) / (num_nodes + 0.5)), 1.0
        for _ in range(6):
            previous, value = 1.0, x
            for k in range(2, num_nodes + 1):
                previous, value = value, ((2 * k - 1) * x * value - (k - 1) * previous) / k
            slope = num_nodes * (x * value - previous) / (x * x - 1)
            x -= value / slope
        nodes.append((x + 1) / 2)
        weights.append(1 / ((1 - x * x) * slope**2))
    return nodes, weights


def _gauss_legendre(dtype) -> tuple[jax.Array, jax.Array]:
    """Nodes and weights on [0, 1]; 64 of them resolve a Gaussian on ±12 of its standard deviations."""
    nodes, weights = _legendre_rule(64)
    return jnp.asarray(nodes, dtype), jnp.asarray(weights, dtype)


def _ray_cdf(
    tau: jax.Array, root_kappa: ArrayLike, d: jax.Array, *, beyond: bool = False
) -> jax.Array:
    """P(√κ + z ≤ τR) = E Φ(τR − √κ), R ~ χ_{d−1}; for d = 1, R = 0. ``beyond``: one minus that, to relative accuracy."""
    sign = -1 if beyond else 1
    root_kappa = jnp.asarray(root_kappa, tau.dtype)
    nodes, weights = _gauss_legendre(tau.dtype)
    mode = jnp.sqrt(jnp.maximum(d - 2, 0))
    low, high = (
        jnp.maximum(mode - 6.5, 0),
        mode + 9,
    )  # the density is below 1e-17 of its peak outside,
    far = jnp.maximum(mode - 14, 0)  # but of a rare cosine, small radii are a part
    steepness = jnp.where(abs(tau) > 1e-30, tau, 1e-30)
    rise, width = root_kappa / steepness, 8.3 / abs(steepness)
    edges = jnp.stack(
        [far, low, *(jnp.clip(rise + k * width, low, high) for k in (-1, 0, 1)), high]
    )
    edges = jax.lax.stop_gradient(edges)  # where the panels meet does not matter to the integral
    lengths = jnp.diff(edges)
    empty = (lengths == 0)[
        :, None
    ]  # a panel of no length, perhaps at radius 0, where the density has no derivative in d
    radius = jnp.where(empty, 1, edges[:-1, None] + lengths[:, None] * nodes)
    offset = radius - mode
    log_density = xlogy(
        d - 2, jnp.where(mode > 0, radius / jnp.where(mode > 0, mode, 1), 1)
    ) - offset * (mode + offset / 2)
    density = jnp.exp(log_density) * lengths[:, None] * weights
    cdf = (density * ndtr(sign * (tau * radius - root_kappa))).sum() / density.sum()
    return jnp.where(d > 1, cdf, ndtr(-sign * root_kappa))


def _critical_ratio(level: jax.Array, d: jax.Array) -> jax.Array:
    """τ = t/√(1 − t²) of the cosine t that a random direction exceeds with this probability; d > 1."""
    # sinh spans all directions but those within 1e-19 radians of a pole, with even relative resolution
    return jnp.sinh(
        _bisect(
            lambda y: _ray_cdf(jnp.sinh(y), 0, d, beyond=True) - level, -44.0, 44.0, level.dtype
        )
    )


def _bisect(decreasing, low: float, high: float, dtype) -> jax.Array:
    """Root of a scalar function that falls through 0 on [low, high]; its first derivative by the implicit function theorem."""

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        positive = frozen(middle) > 0
        return jnp.where(positive, middle, low), jnp.where(positive, high, middle)

    def frozen(y):
        return jax.lax.stop_gradient(decreasing(y))

    bracket = jnp.asarray(low, dtype), jnp.asarray(high, dtype)
    low_end, high_end = jax.lax.fori_loop(0, jnp.finfo(dtype).nmant + 6, halve, bracket)
    root = jax.lax.stop_gradient((low_end + high_end) / 2)
    slope = jax.lax.stop_gradient(jax.grad(decreasing)(root))
    value = decreasing(root)
    return root - jnp.where(slope < 0, (value - jax.lax.stop_gradient(value)) / slope, 0)
