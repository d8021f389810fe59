"""Layer normalisation against noise: the exact laws against Monte Carlo, their limits and bounds, and practice. theory.md §4.

A law about a distribution can be violated by chance. Every margin of sampling here is a proved inequality at a stated rate: a
true law is called violated in at most one case of 10⁹, whatever the number of samples; with too few of them it is undecidable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.birkhoff import center
from homojax.layernorm import (
    asymptotic_cosine,
    cosine_bound,
    cosine_cdf,
    cosine_range,
    critical_cosine,
    critical_snr,
    expected_cosine,
    normalise,
    overlap,
    retained_cosine,
    token_detail_bound,
)
from homojax.numerics import as_float, rounding, sqrt
from homojax.theory.claim import Claim, Comparison

FALSE_ALARM = 1e-9  # the probability of a violation by chance, for each claim on each case
LEVEL, POWER = 0.05, 0.95  # of the test of 4.5
COSINE_RATE, OVERLAP_RATE, CRITICAL_RATE = (
    0.0704,
    0.1244,
    1.812,
)  # least constants of the limits, found by search, rounded up
_LAYERS, _FEATURES, _POINTS = 2, 16, 32
_WITHIN = 0.1  # what = and ~ are decided to: 4096 samples suffice but for the broadest laws


class NoiseCase(NamedTuple):
    """Samples of normalised outputs at one SNR, and tokens of as many units, with what the laws of theory.md §4 need of them."""

    snr: jax.Array
    cosines: jax.Array  # [N] cos θ of signal + noise, normalised
    input_overlap: jax.Array  # cosine of a second signal to the first
    overlaps: jax.Array  # [N] cosines of the two normalised outputs, of independent noise
    critical_snr: jax.Array  # of the test of level LEVEL and power POWER
    threshold: jax.Array  # that test's: the cosine above which it detects
    critical_cosines: jax.Array  # [N] cos θ at the critical SNR
    kept: jax.Array  # [L] σ₂ of each layer; the SNR of the first is ``snr``, and the noise stays
    layer_cosines: jax.Array  # [N] after L layers that mix, add noise and normalise
    tokens: (
        jax.Array
    )  # [n, D] mean token plus detail, of which token 0 all but cancels it, plus noise
    gain: jax.Array  # [D]
    shift: jax.Array  # [D]
    unit_gain: jax.Array  # [n]


def noise_case(key: jax.Array, n: int, snr: ArrayLike, *, num_samples: int = 4096) -> NoiseCase:
    """Draws what the laws of theory.md §4 are about: n ≥ 3 units, signals of this SNR, ``num_samples`` of each output.

    The simulation adds noise, centres, normalises and compares; it knows nothing of the laws. Two arrays [num_samples, n] of
    noise serve every sample. NaN samples, hence no verdict, where the SNR is negative or not finite.

    >>> noise_case(jax.random.key(0), 8, 0.5, num_samples=10).cosines.shape
    (10,)
    """
    snr = as_float(snr)
    dtype, d = snr.dtype, n - 1
    normal_key, uniform_key = jax.random.split(key)
    draws = jax.random.normal(normal_key, (_LAYERS * num_samples + 2 + _FEATURES, n), dtype)
    noise, signals, scatter = jnp.split(draws, (_LAYERS * num_samples, _LAYERS * num_samples + 2))
    noise = noise.reshape(_LAYERS, num_samples, n)
    uniform = jax.random.uniform(uniform_key, (_LAYERS + 2 * _FEATURES + n,), dtype, -1, 1)
    kept, gain, shift, unit_gain = jnp.split(
        uniform, (_LAYERS, _LAYERS + _FEATURES, _LAYERS + 2 * _FEATURES)
    )

    first, other = _unit(signals)
    second = _unit(0.8 * first + 0.6 * _unit(other - (other * first).sum() * first))
    length = jnp.sqrt(d * snr)
    one, two = _unit(length * first + noise[0]), _unit(length * second + noise[1])
    with jax.ensure_compile_time_eval():  # they depend on n alone
        least, threshold = _critical(jnp.asarray(d, dtype))

    kept = 0.75 + 0.25 * kept
    state, target = first, first
    for sigma2, layer_noise in zip(kept, noise, strict=True):
        state, target = (
            _unit(length * sigma2 / kept[0] * _mix(state, 1.0) + layer_noise),
            _mix(target, 1.0),
        )

    # Detail is designed as it shall be after mixing: token 0 at −0.1 of the mean, the others just beyond it, and noise on all.
    pattern = jnp.where(jnp.arange(n) == 0, -1.1, 1.1 / d).astype(dtype)
    mean = math.sqrt(_FEATURES) * jnp.eye(_FEATURES, dtype=dtype)[0]
    tokens = mean + (pattern[:, None] * mean + scatter.T / jnp.sqrt(snr)) / kept[0]
    return NoiseCase(
        snr,
        _cosine(one, first),
        (first * second).sum(),
        (one * two).sum(-1),
        least,
        threshold,
        _cosine(_unit(jnp.sqrt(d * least) * first + noise[0]), first),
        kept,
        _cosine(state, target),
        tokens,
        gain.at[0].set(1.5),
        shift,
        jnp.sign(unit_gain) * (1 + 0.3 * unit_gain),
    )


@jax.jit
def _critical(d: jax.Array) -> tuple[jax.Array, jax.Array]:
    level = jnp.asarray(LEVEL, d.dtype)
    return critical_snr(d, level=level, power=POWER), critical_cosine(d, level=level)


def _unit(x: jax.Array) -> jax.Array:
    """Layer norm of each row over its units, to norm 1."""
    return normalise(x) / math.sqrt(x.shape[-1])


def _mix(x: jax.Array, sigma2: ArrayLike, axis: int = -1) -> jax.Array:
    """M x with M = σ₂Π + (1 − σ₂)J, Π cyclic: ‖PMx‖ = σ₂‖Px‖ for every x."""
    mean = x.mean(axis, keepdims=True)
    return mean + jnp.asarray(sigma2, x.dtype) * (jnp.roll(x, 1, axis) - mean)


def _cosine(u: jax.Array, v: jax.Array) -> jax.Array:
    """⟨u, v⟩ of unit vectors, from their chord: as accurate as a rounded number can be near 1."""
    return jnp.clip(1 - ((u - v) ** 2).sum(-1) / 2, -1, 1)


# ---------------------------------------------------------------- sampling errors


def _dkw_margin(num_samples: int, false_alarm: float = FALSE_ALARM) -> float:
    """sup |F_N − F| exceeds it with at most this probability: √(log(2/α)/(2N)) (Dvoretzky, Kiefer, Wolfowitz; Massart)."""
    return math.sqrt(math.log(2 / false_alarm) / (2 * num_samples))


def _mean_margin(samples: jax.Array, width: float, false_alarm: float = FALSE_ALARM) -> jax.Array:
    """|sample mean − mean| exceeds it with at most this probability, for independent samples in an interval of this width.

    Empirical Bernstein, both sides: √(2V log(4/α)/N) + 7w log(4/α)/(3(N − 1)), V the sample variance (Maurer and Pontil 2009).
    """
    count, log_rate = samples.shape[0], math.log(4 / false_alarm)
    spread = sqrt(2 * samples.var(ddof=1) * log_rate / count)
    return spread + 7 * width * log_rate / (3 * max(count - 1, 1))


def _dimension(case: NoiseCase) -> int:
    return case.tokens.shape[0] - 1


def _rounding(case: NoiseCase) -> jax.Array:
    return jnp.asarray(rounding(case.tokens.shape[0], case.tokens.dtype), case.tokens.dtype)


def _mean(samples: jax.Array, predicted: jax.Array, width: float, case: NoiseCase) -> Comparison:
    return Comparison(samples.mean(), predicted, _mean_margin(samples, width) + _rounding(case))


def _limit(exact: jax.Array, limit: jax.Array, rate: ArrayLike, case: NoiseCase) -> Comparison:
    return Comparison(abs(exact - limit), jnp.asarray(rate, exact.dtype), 2 * _rounding(case))


# ---------------------------------------------------------------- noise


def _cosine_law(
    case: NoiseCase, cdf: Callable[[jax.Array, jax.Array, int], jax.Array] = cosine_cdf
) -> Comparison:
    # The distance at some points is at most the supremum, wherever they are: quantiles of a part of the sample serve. Cosines off
    # by ``off`` put F_N(t) between its true values that far away; F there, and the rounding of √κ and τ, bound the harm.
    d, count = _dimension(case), case.cosines.shape[0]
    ordered = jnp.sort(case.cosines[: 16 * _POINTS])
    t = ordered[jnp.arange(1, _POINTS + 1) * len(ordered) // (_POINTS + 1)]
    found = (case.cosines <= t[:, None]).mean(1, dtype=t.dtype)
    eps = jnp.finfo(t.dtype).eps
    off = _rounding(case) * sqrt((1 - t) * (1 + t)) + 2 * eps
    ends = jnp.clip(jnp.stack([t - off, t + off]), -1, 1)
    low, high = jax.vmap(jax.vmap(lambda t: cdf(t, case.snr, d)))(ends)
    distance = abs(found - (low + high) / 2).max()
    off = ((high - low) / 2).max() + 8 * eps * (1 + jnp.sqrt(d * case.snr))
    return Comparison(distance, jnp.zeros_like(distance), _dkw_margin(count) + off)


def _expected_cosine(case: NoiseCase) -> Comparison:
    return _mean(case.cosines, expected_cosine(case.snr, _dimension(case)), 2, case)


def _cosine_range(end: int, case: NoiseCase) -> Comparison:
    exact, bound = (
        expected_cosine(case.snr, _dimension(case)),
        cosine_range(case.snr, _dimension(case))[end],
    )
    return Comparison(*((bound, exact) if end == 0 else (exact, bound)), 2 * _rounding(case))


def _cosine_limit(case: NoiseCase) -> Comparison:
    d = _dimension(case)
    return _limit(expected_cosine(case.snr, d), asymptotic_cosine(case.snr), COSINE_RATE / d, case)


def _overlap(case: NoiseCase) -> Comparison:
    # Reflections that fix the signal fix E u: it is (E cos θ) times the unit signal, and E⟨u₁, u₂⟩ = ⟨E u₁, E u₂⟩.
    return _mean(
        case.overlaps,
        case.input_overlap * expected_cosine(case.snr, _dimension(case)) ** 2,
        2,
        case,
    )


def _overlap_limit(case: NoiseCase) -> Comparison:
    d = _dimension(case)
    exact = case.input_overlap * expected_cosine(case.snr, d) ** 2
    return _limit(
        exact,
        overlap(case.input_overlap, case.snr),
        OVERLAP_RATE * abs(case.input_overlap) / d,
        case,
    )


def _finite_bound(bound: Callable[..., jax.Array], case: NoiseCase) -> Comparison:
    """Of several u the one with the least slack."""
    u = jnp.asarray([1.0, 2.0, 4.0], case.snr.dtype)
    limits = bound(case.snr, _dimension(case), u)
    applies = limits < 1
    below = jax.vmap(lambda t: cosine_cdf(t, case.snr, _dimension(case)))(
        jnp.where(applies, limits, 0)
    )
    promised = 1 - 2 * jnp.exp(-u)
    worst = jnp.argmin(jnp.where(applies, below - promised, jnp.inf))
    error = 8 * jnp.finfo(u.dtype).eps * (1 + jnp.sqrt(_dimension(case) * case.snr))
    return Comparison(promised[worst], below[worst], _rounding(case) + error, applies.any())


def _without_noise_along(snr: jax.Array, d: int, u: jax.Array) -> jax.Array:
    return cosine_bound(snr, d, u) * jnp.sqrt(d * snr) / (jnp.sqrt(d * snr) + jnp.sqrt(2 * u))


def _critical_power(
    case: NoiseCase, threshold: Callable[[NoiseCase], jax.Array] = lambda case: case.threshold
) -> Comparison:
    limit, off = threshold(case), 2 * _rounding(case)
    detected = jnp.where(
        jnp.isnan(case.critical_cosines),
        jnp.nan,
        (case.critical_cosines > limit).astype(limit.dtype),
    )
    comparison = _mean(detected, jnp.asarray(POWER, limit.dtype), 1, case)
    near = (abs(case.critical_cosines - limit) <= off).mean(dtype=limit.dtype)
    return comparison._replace(margin=comparison.margin + near)


def _threshold_of_next_dimension(case: NoiseCase) -> jax.Array:
    """With √d for the √(d − 1) of Student's ratio."""
    d, ratio = _dimension(case), case.threshold / jnp.sqrt(1 - case.threshold**2)
    return ratio * math.sqrt((d - 1) / d) / jnp.sqrt(1 + ratio**2 * (d - 1) / d)


def _critical_limit(case: NoiseCase) -> Comparison:
    d, normal = (
        _dimension(case),
        jax.scipy.special.ndtri(jnp.asarray([1 - LEVEL, POWER], case.snr.dtype)),
    )
    ratio = case.critical_snr * d / normal.sum() ** 2
    rate = jnp.asarray(CRITICAL_RATE / max(d - 2, 1), ratio.dtype)
    return Comparison(abs(ratio - 1), rate, 16 * _rounding(case), d >= 3)


def _layer_factors(case: NoiseCase) -> jax.Array:
    snrs = case.snr * (case.kept / case.kept[0]) ** 2
    return jax.vmap(lambda snr: expected_cosine(snr, _dimension(case)))(snrs)


def _layers(case: NoiseCase) -> Comparison:
    # Given x, all of E[normalised (Mx + noise)] is (E cos θ) times unit Mx, by the same symmetry; M = σ₂Π + (1 − σ₂)J keeps σ₂ of
    # every x, and so the factors multiply.
    return _mean(case.layer_cosines, _layer_factors(case).prod(), 2, case)


def _layers_limit(case: NoiseCase) -> Comparison:
    d = _dimension(case)
    noise_std = case.kept[0] / jnp.sqrt(d * case.snr)
    limit = retained_cosine(case.kept, noise_std, d, 1).prod()
    return _limit(_layer_factors(case).prod(), limit, OVERLAP_RATE / d, case)


# ---------------------------------------------------------------- practice


def _norm(x: jax.Array) -> jax.Array:
    return sqrt((x**2).sum())


def _token_detail(kind: Literal["layer", "rms"], affine: bool, case: NoiseCase) -> Comparison:
    # A normalised row is off by the rounding of its row before over its norm, which may be small against the rest.
    sigma2, gain, shift = case.kept[0], *((case.gain, case.shift) if affine else (None, None))
    mixed = _mix(case.tokens, sigma2, 0)
    share = _norm(center(normalise(mixed, kind=kind, gain=gain, shift=shift))) / math.sqrt(
        mixed.size
    )
    bound = token_detail_bound(case.tokens, sigma2, kind=kind, gain=gain)
    rows = center(mixed.T) if kind == "layer" else mixed.T
    shortest = sqrt((rows**2).sum(0)).min()
    off = 2 * rounding(_FEATURES, mixed.dtype) + _rounding(case)
    return Comparison(share, bound, off * (2 + bound + _norm(case.tokens) / shortest))


def _root_mean_square_gain(
    compare: Callable[[NoiseCase], Comparison],
) -> Callable[[NoiseCase], Comparison]:
    def mutant(case: NoiseCase) -> Comparison:
        comparison, gain = compare(case), abs(case.gain)
        return comparison._replace(greater=comparison.greater * sqrt((gain**2).mean()) / gain.max())

    return mutant


def _over_units(
    case: NoiseCase, kind: Literal["layer", "rms"], gain: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of one feature, mixed with σ₂ = kept⁸ and normalised over units: σ₂, the norm/√n of its detail, and rounding."""
    x, sigma2 = case.tokens[:, 0], case.kept[0] ** 8
    mixed = _mix(x, sigma2)
    out = normalise(mixed, axis="units", kind=kind, gain=gain)
    norm = _norm(center(out) if kind == "rms" else out) / math.sqrt(len(x))
    return sigma2, norm, 2 * _rounding(case) * (1 + _norm(mixed) / _norm(center(mixed)))


def _unit_layer_norm(case: NoiseCase) -> Comparison:
    _, norm, off = _over_units(case, "layer")
    return Comparison(norm, jnp.ones_like(norm), off)


def _unit_layer_norm_affine(case: NoiseCase) -> Comparison:
    _, norm, off = _over_units(case, "layer", case.unit_gain)
    return Comparison(abs(case.unit_gain).min(), norm, 2 * off)


def _unit_rms_norm(case: NoiseCase) -> Comparison:
    sigma2, share, off = _over_units(case, "rms")
    x = case.tokens[:, 0]
    bound = sigma2 * _norm(center(x)) / (math.sqrt(len(x)) * abs(x.mean()))
    return Comparison(share, bound, off * (1 + bound))


# ---------------------------------------------------------------- claims


_DETAIL = ("n ≥ 3: detail has directions to turn to", lambda case: case.tokens.shape[0] >= 3)
_NOISE = (
    "noise isotropic and Gaussian, independent of the signal: drawn so",
    lambda case: case.snr >= 0,
)
_RATES = (
    "the constant is the least, found by search over d ≥ 2 and SNR from 1e-6 to 1e6, not proved"
)
_BERNSTEIN = "empirical Bernstein at a false-alarm rate of 1e-9 (Maurer and Pontil 2009)"
_MIXING = (
    "M = σ₂Π + (1 − σ₂)J: keeps σ₂ of every detail",
    lambda case: ((case.kept >= 0) & (case.kept <= 1)).all(),
)


def _predicted(
    change: Callable[[NoiseCase, Comparison], jax.Array], compare: Callable[[NoiseCase], Comparison]
):
    """A mutant that predicts something else."""

    def mutant(case: NoiseCase) -> Comparison:
        comparison = compare(case)
        return comparison._replace(greater=change(case, comparison))

    return mutant


def _scaled(factor: Callable[[NoiseCase], ArrayLike], compare: Callable[[NoiseCase], Comparison]):
    return _predicted(lambda case, comparison: comparison.greater * factor(case), compare)


def _token_claim(kind: Literal["layer", "rms"], affine: bool) -> Claim:
    compare = partial(_token_detail, kind, affine)
    centred = ", centred over features" if kind == "layer" else ""
    gain, gain_latex = (" max|gain|", r"\,\max_k |g_k|") if affine else ("", "")
    mutants = [
        ("√2 for 2", _scaled(lambda case: math.sqrt(0.5), compare)),
        ("σ₂² for σ₂", _scaled(lambda c: c.kept[0], compare)),
    ]
    mutants += (
        [("root mean square of the gain for its maximum", _root_mean_square_gain(compare))]
        if affine
        else []
    )
    return Claim(
        "4.7",
        f"token_{kind}_norm{'_affine' * affine}",
        f"{'LayerNorm' if kind == 'layer' else 'RMSNorm'} of tokens: ‖PN(MX)‖/√(nD) ≤ 2σ₂‖PX‖{gain}/(√n‖mean‖){centred}",
        r"\frac{\lVert P\,N(MX)\rVert_F}{\sqrt{nD}} \le \frac{2\sigma_2\lVert PX\rVert_F}{\sqrt n\,\lVert m\rVert}"
        + gain_latex,
        "theory.md 4.7, from Dunkl and Williams (1964); a token that all but cancels comes within a factor 1 − 1/n",
        "noise",
        "≤",
        compare,
        (_MIXING,),
        mutants=tuple(mutants),
    )


_lower, _upper, _bounded = (
    partial(_cosine_range, 0),
    partial(_cosine_range, 1),
    partial(_finite_bound, cosine_bound),
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "4.1",
        "cosine_law",
        "√(d−1) cos θ/sin θ is noncentral t, d − 1 degrees of freedom, noncentrality √(d·SNR), to within 0.1 in probability",
        r"\frac{\sqrt{d-1}\,\cos\theta}{\sin\theta} \sim t_{d-1}\bigl(\sqrt{d\,\mathrm{SNR}}\bigr)",
        "theory.md 4.1; Dvoretzky, Kiefer and Wolfowitz (1956), Massart (1990), at a false-alarm rate of 1e-9",
        "noise",
        "~",
        _cosine_law,
        (_DETAIL, _NOISE),
        resolution=_WITHIN,
        mutants=(
            (
                "d for d − 1 degrees of freedom",
                partial(_cosine_law, cdf=lambda t, snr, d: cosine_cdf(t, snr * d / (d + 1), d + 1)),
            ),
            (
                "d·SNR for √(d·SNR)",
                partial(_cosine_law, cdf=lambda t, snr, d: cosine_cdf(t, d * snr**2, d)),
            ),
        ),
    ),
    Claim(
        "4.2",
        "expected_cosine",
        "E cos θ = √(κ/2) Γ((d+1)/2)/Γ(d/2+1) ₁F₁(½; d/2+1; −κ/2), κ = d·SNR, to within 0.1",
        r"\mathbb E\cos\theta = \sqrt{\tfrac{\kappa}{2}}\,\frac{\Gamma(\frac{d+1}{2})}{\Gamma(\frac d2+1)}"
        r"\,{}_1F_1\bigl(\tfrac12;\tfrac d2+1;-\tfrac\kappa2\bigr)",
        f"theory.md 4.2; {_BERNSTEIN}",
        "noise",
        "=",
        _expected_cosine,
        (_DETAIL, _NOISE),
        resolution=_WITHIN,
        mutants=(
            (
                "SNR for d·SNR",
                _predicted(
                    lambda c, _: expected_cosine(c.snr / _dimension(c), _dimension(c)),
                    _expected_cosine,
                ),
            ),
            (
                "SNR² for SNR",
                _predicted(lambda c, _: expected_cosine(c.snr**2, _dimension(c)), _expected_cosine),
            ),
        ),
    ),
    Claim(
        "4.3",
        "cosine_floor",
        "E cos θ ≥ √(κ/(κ + d + 2)), κ = d·SNR",
        r"\mathbb E\cos\theta \ge \sqrt{\frac{\kappa}{\kappa + d + 2}}",
        "theory.md 4.2, 4.3; proved at cosine_range",
        "noise",
        "≥",
        _lower,
        (_DETAIL, _NOISE),
        mutants=(
            ("d for d + 2", lambda case: _lower(case)._replace(lesser=asymptotic_cosine(case.snr))),
        ),
    ),
    Claim(
        "4.3",
        "cosine_ceiling",
        "E cos θ ≤ √(κ/(κ + d − 1)), κ = d·SNR",
        r"\mathbb E\cos\theta \le \sqrt{\frac{\kappa}{\kappa + d - 1}}",
        "theory.md 4.2, 4.3; proved at cosine_range",
        "noise",
        "≤",
        _upper,
        (_DETAIL, _NOISE),
        mutants=(("d for d − 1", _predicted(lambda case, _: asymptotic_cosine(case.snr), _upper)),),
    ),
    Claim(
        "4.3",
        "cosine_limit",
        f"|E cos θ − √(SNR/(1 + SNR))| ≤ {COSINE_RATE}/d",
        r"\mathbb E\cos\theta \to \sqrt{\frac{\mathrm{SNR}}{1+\mathrm{SNR}}}",
        f"theory.md 4.3; {_RATES}; 2/(3√3) = 0.385 is, by cosine_range",
        "noise",
        "→",
        _cosine_limit,
        (_DETAIL, _NOISE),
        status="conjecture",
        mutants=(("1/d² for 1/d", _scaled(lambda case: 1 / _dimension(case), _cosine_limit)),),
    ),
    Claim(
        "4.3",
        "overlap",
        "E⟨u₁, u₂⟩ = ρ (E cos θ)² of two outputs of inputs at overlap ρ, to within 0.1",
        r"\mathbb E\langle u_1, u_2\rangle = \rho\,(\mathbb E\cos\theta)^2",
        f"theory.md 4.3, by symmetry; {_BERNSTEIN}",
        "noise",
        "=",
        _overlap,
        (_DETAIL, _NOISE),
        resolution=_WITHIN,
        mutants=(
            (
                "E cos θ for its square",
                _predicted(lambda c, p: sqrt(c.input_overlap * p.greater), _overlap),
            ),
            ("overlap kept", _predicted(lambda c, _: c.input_overlap, _overlap)),
        ),
    ),
    Claim(
        "4.3",
        "overlap_limit",
        f"|E⟨u₁, u₂⟩ − ρ·SNR/(1 + SNR)| ≤ {OVERLAP_RATE} ρ/d",
        r"\mathbb E\langle u_1, u_2\rangle \to \frac{\rho\,\mathrm{SNR}}{1+\mathrm{SNR}}",
        f"theory.md 4.3 (orthogonal collapse); {_RATES}",
        "noise",
        "→",
        _overlap_limit,
        (_DETAIL, _NOISE),
        status="conjecture",
        mutants=(("1/d² for 1/d", _scaled(lambda case: 1 / _dimension(case), _overlap_limit)),),
    ),
    Claim(
        "4.4",
        "cosine_bound",
        "P(cos θ ≤ (√(d·SNR) + √(2u))/√(d − 1 − 2√((d−1)u))) ≥ 1 − 2e^{−u}, where defined and below 1; u = 1, 2, 4",
        r"P\Bigl(\cos\theta \le \frac{\sqrt{d\,\mathrm{SNR}}+\sqrt{2u}}{\sqrt{d-1-2\sqrt{(d-1)u}}}\Bigr) \ge 1 - 2e^{-u}",
        "theory.md 4.4; Laurent and Massart (2000)",
        "noise",
        "≥",
        _bounded,
        (_DETAIL, _NOISE),
        mutants=(
            (
                "half the bound",
                partial(_finite_bound, lambda snr, d, u: cosine_bound(snr, d, u) / 2),
            ),
            ("√(2u) left out", partial(_finite_bound, _without_noise_along)),
        ),
    ),
    Claim(
        "4.5",
        "critical_power",
        "at the critical SNR the test of cos θ of level 0.05 has power 0.95, to within 0.1",
        r"P_{\mathrm{SNR}_c}(\cos\theta > c_{0.05}) = 0.95",
        f"theory.md 4.5; {_BERNSTEIN}",
        "noise",
        "=",
        _critical_power,
        (_DETAIL, _NOISE),
        resolution=_WITHIN,
        mutants=(
            (
                "√d for √(d − 1) in the test",
                partial(_critical_power, threshold=_threshold_of_next_dimension),
            ),
        ),
    ),
    Claim(
        "4.5",
        "critical_limit",
        f"|d·SNR_c/(z₁₋α + z_power)² − 1| ≤ {CRITICAL_RATE}/(d − 2), d ≥ 3",
        r"\mathrm{SNR}_c \to \frac{(z_{1-\alpha}+z_{1-\beta})^2}{d}",
        "theory.md 4.5; the constant is the value at d = 3, found by search to be the greatest, not proved",
        "noise",
        "→",
        _critical_limit,
        (_NOISE,),
        status="conjecture",
        mutants=(
            (
                "1/(d−2)² for 1/(d−2)",
                _scaled(lambda case: 1 / max(_dimension(case) - 2, 1), _critical_limit),
            ),
        ),
    ),
    Claim(
        "4.6",
        "layers",
        "E cos θ = Π E cos θ(κ_l) after layers that mix, add noise and normalise, to within 0.1",
        r"\mathbb E\cos\theta_L = \prod_l \mathbb E\cos\theta(\kappa_l)",
        f"theory.md 4.6, by symmetry; {_BERNSTEIN}",
        "noise",
        "=",
        _layers,
        (_DETAIL, _NOISE, _MIXING),
        resolution=_WITHIN,
        mutants=(
            (
                "direction restored: the last layer counts",
                _predicted(lambda c, _: _layer_factors(c)[-1], _layers),
            ),
        ),
    ),
    Claim(
        "4.6",
        "layers_limit",
        f"|Π E cos θ(κ_l) − Π (σ_l²/(σ_l² + dν²))^½| ≤ {OVERLAP_RATE}/d, two layers",
        r"\mathbb E\cos\theta_L \to \prod_l \sqrt{\frac{\sigma_l^2}{\sigma_l^2 + d\nu^2}}",
        f"theory.md 4.6 (mean field); {_RATES}",
        "noise",
        "→",
        _layers_limit,
        (_DETAIL, _NOISE, _MIXING),
        status="conjecture",
        mutants=(("1/d² for 1/d", _scaled(lambda case: 1 / _dimension(case), _layers_limit)),),
    ),
    _token_claim("layer", False),
    _token_claim("layer", True),
    _token_claim("rms", False),
    _token_claim("rms", True),
    Claim(
        "4.7",
        "unit_layer_norm",
        "LayerNorm over the mixed axis restores the norm of detail to √n whatever σ₂ is; its direction is that of 4.1",
        r"\lVert N(Mx)\rVert = \sqrt n",
        "theory.md 4.6, 4.7",
        "noise",
        "=",
        _unit_layer_norm,
        (_DETAIL, _MIXING),
        resolution=1e-2,
        mutants=(("shrunk by σ₂", _scaled(lambda case: case.kept[0] ** 8, _unit_layer_norm)),),
    ),
    Claim(
        "4.7",
        "unit_layer_norm_affine",
        "with a gain for each unit, that norm is at least √n min|gain|, whatever σ₂ is",
        r"\lVert g \circ N(Mx)\rVert \ge \sqrt n\,\min_i |g_i|",
        "theory.md 4.7",
        "noise",
        "≥",
        _unit_layer_norm_affine,
        (_DETAIL, _MIXING),
    ),
    Claim(
        "4.7",
        "unit_rms_norm",
        "RMSNorm over the mixed axis does not: ‖PN(Mx)‖/√n ≤ σ₂‖Px‖/(√n|mean|)",
        r"\frac{\lVert P\,N(Mx)\rVert}{\sqrt n} \le \frac{\sigma_2\lVert Px\rVert}{\sqrt n\,|\bar x|}",
        "theory.md 4.7: the norm divided by is at least √n|mean|, which M keeps; nearly attained by small detail",
        "noise",
        "≤",
        _unit_rms_norm,
        (_DETAIL, _MIXING),
        mutants=(("σ₂² for σ₂", _scaled(lambda case: case.kept[0] ** 8, _unit_rms_norm)),),
    ),
)
