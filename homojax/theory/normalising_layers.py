"""Claims about layers that normalise: through depth, and in practice. theory.md 4.6, 4.7."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from homojax.birkhoff import center
from homojax.layernorm import normalise, retained_cosine, token_detail_bound
from homojax.numerics import rounding, sqrt
from homojax.theory.cases.noise import FEATURES, NoiseCase, mix
from homojax.theory.claim import Compare, Comparison, claim, predicting, scaled
from homojax.theory.noise import (
    DETAIL,
    MIXING,
    NOISE,
    ONE_DIMENSION_MORE,
    OVERLAP_RATE,
    SEARCHED,
    WITHIN,
    limit_comparison,
    mean_comparison,
)
from homojax.theory.sampling import BERNSTEIN

Kind = Literal["layer", "rms"]


# ---------------------------------------------------------------- 4.6


@claim(
    "4.6",
    name="layers",
    scope="noise",
    direction="=",
    statement="E cos θ = Π E cos θ(κ_l) after layers that mix, add noise and normalise, to within "
    "0.1",
    latex=r"\mathbb E\cos\theta_L = \prod_l \mathbb E\cos\theta(\kappa_l)",
    source=f"theory.md 4.6, by symmetry; {BERNSTEIN}",
    assumptions=(DETAIL, NOISE, MIXING),
    resolution=WITHIN,
    mutants={
        "direction restored: the last layer counts": predicting(lambda case, _: case.expected[-1])
    },
)
def layers(case: NoiseCase) -> Comparison:
    """Return law 4.6 (layers).

    Given x, all of E[normalised (Mx + noise)] is (E cos θ) times unit Mx, by the same symmetry.
    M = σ₂Π + (1 − σ₂)J keeps σ₂ of every x, and so the factors multiply.
    """
    return mean_comparison(case.layer_cosines, case.expected.prod(), case)


@claim(
    "4.6",
    name="layers_limit",
    scope="noise",
    direction="→",
    statement=f"|Π E cos θ(κ_l) − Π (σ_l²/(σ_l² + dν²))^½| ≤ {OVERLAP_RATE}/d, two layers",
    latex=r"\mathbb E\cos\theta_L \to \prod_l \sqrt{\frac{\sigma_l^2}{\sigma_l^2 + d\nu^2}}",
    source=f"theory.md 4.6 (mean field); {SEARCHED}",
    assumptions=(DETAIL, NOISE, MIXING),
    status="conjecture",
    mutants=ONE_DIMENSION_MORE,
)
def layers_limit(case: NoiseCase) -> Comparison:
    """Return law 4.6 (limit of layers)."""
    d = case.dimension
    noise_std = case.kept[0] / jnp.sqrt(d * case.snr)
    limit = retained_cosine(case.kept, noise_std=noise_std, d=d, depth=1).prod()
    return limit_comparison(case.expected.prod(), limit, OVERLAP_RATE / d, case)


# ---------------------------------------------------------------- 4.7, over features


def _norm(x: jax.Array) -> jax.Array:
    return sqrt((x**2).sum())


def token_detail(case: NoiseCase, kind: Kind, affine: bool) -> Comparison:
    """Return law 4.7 (norm of tokens): the share of detail that is left after mixing and norm.

    A normalised row is off by the rounding of its row before over its norm, which may be small
    against the rest.
    """
    sigma2 = case.kept[0]
    gain, shift = (case.gain, case.shift) if affine else (None, None)
    mixed = mix(case.tokens, sigma2, 0)
    detail = center(normalise(mixed, kind=kind, gain=gain, shift=shift))
    share = _norm(detail) / math.sqrt(mixed.size)
    bound = token_detail_bound(case.tokens, sigma2, kind=kind, gain=gain)
    rows = center(mixed.T) if kind == "layer" else mixed.T
    shortest = sqrt((rows**2).sum(0)).min()
    off = 2 * rounding(FEATURES, mixed.dtype) + case.rounding
    return Comparison(share, bound, off * (2 + bound + _norm(case.tokens) / shortest))


def _root_mean_square_gain(compare: Compare, case: NoiseCase) -> Comparison:
    comparison, gain = compare(case), abs(case.gain)
    return comparison._replace(greater=comparison.greater * sqrt((gain**2).mean()) / gain.max())


def _declare_token_claim(kind: Kind, affine: bool) -> None:
    """Declare one of the four claims about norms of tokens."""
    norm, centred = ("RMSNorm", "") if kind == "rms" else ("LayerNorm", ", centred over features")
    gain, gain_latex = (" max|gain|", r"\,\max_k |g_k|") if affine else ("", "")
    mutants = {
        "√2 for 2": scaled(lambda case: math.sqrt(0.5)),
        "σ₂² for σ₂": scaled(lambda case: case.kept[0]),
    }
    if affine:
        mutants["root mean square of the gain for its maximum"] = _root_mean_square_gain
    claim(
        "4.7",
        name=f"token_{kind}_norm{'_affine' * affine}",
        scope="noise",
        direction="≤",
        statement=f"{norm} of tokens: ‖PN(MX)‖/√(nD) ≤ 2σ₂‖PX‖{gain}/(√n‖mean‖){centred}",
        latex=r"\frac{\lVert P\,N(MX)\rVert_F}{\sqrt{nD}} "
        r"\le \frac{2\sigma_2\lVert PX\rVert_F}{\sqrt n\,\lVert m\rVert}" + gain_latex,
        source="theory.md 4.7, from Dunkl and Williams (1964); a token that all but cancels comes "
        "within a factor 1 − 1/n",
        assumptions=(MIXING,),
        mutants=mutants,
    )(partial(token_detail, kind=kind, affine=affine))


for _kind in ("layer", "rms"):
    for _affine in (False, True):
        _declare_token_claim(_kind, _affine)


# ---------------------------------------------------------------- 4.7, over the mixed axis


def _over_units(
    case: NoiseCase, kind: Kind, gain: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return σ₂, the norm/√n of the detail of one feature after mixing and norm, and rounding.

    The feature is mixed with σ₂ = kept⁸, and normalised over units.
    """
    x, sigma2 = case.tokens[:, 0], case.kept[0] ** 8
    mixed = mix(x, sigma2)
    out = normalise(mixed, axis="units", kind=kind, gain=gain)
    norm = _norm(center(out) if kind == "rms" else out) / math.sqrt(len(x))
    return sigma2, norm, 2 * case.rounding * (1 + _norm(mixed) / _norm(center(mixed)))


@claim(
    "4.7",
    name="unit_layer_norm",
    scope="noise",
    direction="=",
    statement="LayerNorm over the mixed axis restores the norm of detail to √n whatever σ₂ is; its "
    "direction is that of 4.1",
    latex=r"\lVert N(Mx)\rVert = \sqrt n",
    source="theory.md 4.6, 4.7",
    assumptions=(DETAIL, MIXING),
    resolution=1e-2,
    mutants={"shrunk by σ₂": scaled(lambda case: case.kept[0] ** 8)},
)
def unit_layer_norm(case: NoiseCase) -> Comparison:
    """Return law 4.7 (LayerNorm over units)."""
    _, norm, off = _over_units(case, "layer")
    return Comparison(norm, jnp.ones_like(norm), off)


@claim(
    "4.7",
    name="unit_layer_norm_affine",
    scope="noise",
    direction="≥",
    statement="with a gain for each unit, that norm is at least √n min|gain|, whatever σ₂ is",
    latex=r"\lVert g \circ N(Mx)\rVert \ge \sqrt n\,\min_i |g_i|",
    source="theory.md 4.7",
    assumptions=(DETAIL, MIXING),
)
def unit_layer_norm_affine(case: NoiseCase) -> Comparison:
    """Return law 4.7 (LayerNorm over units, with a gain)."""
    _, norm, off = _over_units(case, "layer", case.unit_gain)
    return Comparison(abs(case.unit_gain).min(), norm, 2 * off)


@claim(
    "4.7",
    name="unit_rms_norm",
    scope="noise",
    direction="≤",
    statement="RMSNorm over the mixed axis does not: ‖PN(Mx)‖/√n ≤ σ₂‖Px‖/(√n|mean|)",
    latex=r"\frac{\lVert P\,N(Mx)\rVert}{\sqrt n} "
    r"\le \frac{\sigma_2\lVert Px\rVert}{\sqrt n\,|\bar x|}",
    source="theory.md 4.7: the norm divided by is at least √n|mean|, which M keeps; nearly "
    "attained by small detail",
    assumptions=(DETAIL, MIXING),
    mutants={"σ₂² for σ₂": scaled(lambda case: case.kept[0] ** 8)},
)
def unit_rms_norm(case: NoiseCase) -> Comparison:
    """Return law 4.7 (RMSNorm over units)."""
    sigma2, share, off = _over_units(case, "rms")
    x = case.tokens[:, 0]
    bound = sigma2 * _norm(center(x)) / (math.sqrt(len(x)) * abs(x.mean()))
    return Comparison(share, bound, off * (1 + bound))
