"""Claims about one matrix: bounds on σ₂, with the error of both sides. theory.md 1.7, §2."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from homojax import bounds
from homojax.birkhoff import detail, entropy_deficit, projective_diameter
from homojax.numerics import sqrt
from homojax.projection.errors import entropy_error
from homojax.spectrum.singular_value import spectral_norm
from homojax.theory.cases.matrix import MatrixCase
from homojax.theory.claim import Compare, Comparison, claim, lambda_for_sigma

# ---------------------------------------------------------------- assumptions


def _is_member(case: MatrixCase) -> jax.Array:
    """Return whether no entry is negative, and 𝔅ₙ near enough for a margin to mean anything."""
    return (case.distance < 0.5) & (case.matrix.min() >= -case.rounding)


IN_POLYTOPE = ("M ∈ 𝔅ₙ, but for its marginal errors", _is_member)
PROJECTED = ("M is the projection of finite logits", lambda case: jnp.isfinite(case.logits).all())
COLUMNS_EXACT = (
    "columns sum to 1 to rounding",
    lambda case: case.col_error <= case.rounding,
)
NON_NEGATIVE = ("no entry is negative", lambda case: case.matrix.min() >= 0)

# ---------------------------------------------------------------- 1.7


@claim(
    "1.7",
    name="truncated_norm",
    scope="matrix",
    direction="≤",
    statement="‖M‖₂ ≤ √(1 + r), r the row error, columns normalised last",
    latex=r"\lVert M\rVert_2 \le \sqrt{1 + r}",
    source="theory.md 1.7; interpolation of the 1- and ∞-norms (Riesz)",
    attained_by="uniform",
    assumptions=(COLUMNS_EXACT, NON_NEGATIVE),
)
def truncated_norm(case: MatrixCase) -> Comparison:
    """Return law 1.7 (truncated norm). ‖M‖₂² is at most the largest column sum times row sum."""
    bound = jnp.sqrt((1 + case.col_error) * (1 + case.row_error))
    return Comparison(spectral_norm(case.matrix), bound, 2 * case.rounding)


# ---------------------------------------------------------------- 2, the table of bounds


@claim(
    "2",
    name="hilbert",
    scope="matrix",
    direction="≤",
    statement="σ₂ ≤ tanh(Δ(S)/4ε)",
    latex=r"\sigma_2 \le \tanh\frac{\Delta(S)}{4\varepsilon}",
    source="Birkhoff (1957), Hopf (1963)",
    attained_by="two-by-two",
    assumptions=(IN_POLYTOPE, PROJECTED),
    mutants={
        "Δ/8 for Δ/4": lambda compare, case: compare(replace(case, logits=case.logits / 2)),
    },
)
def hilbert(case: MatrixCase) -> Comparison:
    """Return law 2 (Hilbert bound).

    Hopf's bound s₂ ≤ ‖M‖ tanh(Δ/4ε) holds for every positive matrix diag(·)exp(S/ε)diag(·). To put
    σ₂ for s₂ and 1 for ‖M‖ costs 3 distances. The exponent carries the rounding of S/ε.
    """
    exponent = projective_diameter(case.logits) / (4 * case.epsilon)
    bound = jnp.tanh(exponent)  # as bounds.hilbert_bound has it
    off = bound - jnp.tanh(exponent - logit_rounding(case))
    return Comparison(case.sigma2, bound, 3 * case.distance + off)


def logit_rounding(case: MatrixCase) -> jax.Array:
    """Return the error of a sum of a few S/ε, and of the logarithms of M."""
    largest = abs(case.logits).max() / case.epsilon
    return 8 * jnp.finfo(case.logits.dtype).eps * (1 + largest)


@claim(
    "2",
    name="dobrushin",
    scope="matrix",
    direction="≤",
    statement="σ₂ ≤ √(δ(M) δ(Mᵀ))",
    latex=r"\sigma_2^2 \le \delta(M)\,\delta(M^\top)",
    source="Dobrushin (1956)",
    attained_by="cyclic",
    assumptions=(IN_POLYTOPE,),
)
def dobrushin(case: MatrixCase) -> Comparison:
    """Return law 2 (Dobrushin bound)."""
    rows = bounds.dobrushin_coefficient(case.matrix)
    cols = bounds.dobrushin_coefficient(case.matrix.T)
    bound, off = sqrt(rows * cols), case.distance
    least = sqrt(jnp.maximum(rows - off, 0) * jnp.maximum(cols - off, 0))
    most = sqrt((rows + off) * (cols + off))
    return Comparison(case.sigma2, bound, off + jnp.maximum(bound - least, most - bound))


@claim(
    "2",
    name="doeblin",
    scope="matrix",
    direction="≤",
    statement="σ₂ ≤ 1 − n min M",
    latex=r"\sigma_2 \le 1 - n \min_{ij} M_{ij}",
    source="Doeblin (1937)",
    attained_by="two-by-two",
    assumptions=(IN_POLYTOPE,),
)
def doeblin(case: MatrixCase) -> Comparison:
    """Return law 2 (Doeblin bound). No entry moves by more than the distance to 𝔅ₙ."""
    n = case.matrix.shape[0]
    return Comparison(case.sigma2, bounds.doeblin_bound(case.matrix), (n + 1) * case.distance)


def schatten_lower(case: MatrixCase, k: int) -> Comparison:
    """Return law 2 (frobenius at k = 1, schatten): ‖PMP‖ of order 2k, averaged, ≤ σ₂.

    In terms of PMP both sides are facts about any matrix: only rounding can be at fault.
    """
    lower, _ = bounds.schatten_bounds(case.matrix, k)
    return Comparison(lower, case.sigma2, 2 * case.rounding)


def schatten_upper(case: MatrixCase, k: int) -> Comparison:
    """Return law 2 (frobenius at k = 1, schatten): σ₂ ≤ ‖PMP‖ of order 2k."""
    _, upper = bounds.schatten_bounds(case.matrix, k)
    return Comparison(case.sigma2, upper, 2 * case.rounding)


def _dimension_too_small(compare: Compare, case: MatrixCase) -> Comparison:
    n, comparison = case.matrix.shape[0], compare(case)
    return comparison._replace(lesser=comparison.lesser * ((n - 1) / max(n - 2, 1)) ** 0.5)


claim(
    "2",
    name="frobenius_lower",
    scope="matrix",
    direction="≥",
    statement="√(‖PMP‖²_F/(n−1)) ≤ σ₂",
    latex=r"\frac{\lVert M\rVert_F^2 - 1}{n-1} \le \sigma_2^2",
    source="theory.md §2 frobenius",
    attained_by="lazy-permutation",
    mutants={"λ₂ for σ₂": lambda_for_sigma, "n − 2 for n − 1": _dimension_too_small},
)(partial(schatten_lower, k=1))

claim(
    "2",
    name="frobenius_upper",
    scope="matrix",
    direction="≤",
    statement="σ₂ ≤ ‖PMP‖_F",
    latex=r"\sigma_2^2 \le \lVert M\rVert_F^2 - 1",
    source="theory.md §2 frobenius",
    attained_by="isolated-unit",
)(partial(schatten_upper, k=1))

claim(
    "2",
    name="schatten_lower",
    scope="matrix",
    direction="≥",
    statement="(tr(AᵀA)⁴/(n−1))^⅛ ≤ σ₂",
    latex=r"\frac{\operatorname{tr}((M^\top M)^k - J)}{n-1} \le \sigma_2^{2k},\ k = 4",
    source="theory.md §2 schatten-k",
    attained_by="lazy-permutation",
    mutants={"λ₂ for σ₂": lambda_for_sigma},
)(partial(schatten_lower, k=4))

claim(
    "2",
    name="schatten_upper",
    scope="matrix",
    direction="≤",
    statement="σ₂ ≤ (tr(AᵀA)⁴)^⅛",
    latex=r"\sigma_2^{2k} \le \operatorname{tr}((M^\top M)^k - J),\ k = 4",
    source="theory.md §2 schatten-k",
    attained_by="isolated-unit",
)(partial(schatten_upper, k=4))


@claim(
    "2",
    name="eigenvalue",
    scope="matrix",
    direction="≥",
    statement="λ₂ ≤ σ₂",
    latex=r"\lambda_2 \le \sigma_2",
    source="Weyl (1949)",
    attained_by="circulant",
)
def eigenvalue(case: MatrixCase) -> Comparison:
    """Return law 2 (eigenvalue).

    Computed eigenvalues are exact for a matrix within rounding of PMP, however far from normal it
    is, and its norm is the greater side.
    """
    return Comparison(case.lambda2, case.sigma2, 2 * case.rounding)


@claim(
    "2",
    name="pinsker",
    scope="matrix",
    direction="≤",
    statement="σ₂ ≤ √(2ΔH)",
    latex=r"\sigma_2 \le \sqrt{2\,\Delta H}",
    source="Pinsker (1960), Csiszár (1967)",
    attained_by="uniform",
    assumptions=(IN_POLYTOPE,),
)
def pinsker(case: MatrixCase) -> Comparison:
    """Return law 2 (Pinsker bound)."""
    deficit, off = entropy_deficit(case.matrix), entropy_error(case.matrix.shape[0], case.distance)
    bound = bounds.pinsker_bound(case.matrix)
    least = sqrt(2 * jnp.maximum(deficit - off, 0))
    most = sqrt(2 * (jnp.maximum(deficit, 0) + off))
    return Comparison(case.sigma2, bound, case.distance + jnp.maximum(bound - least, most - bound))


# ---------------------------------------------------------------- 2.1 to 2.3


@claim(
    "2.1",
    name="logit_budget",
    scope="matrix",
    direction="≥",
    statement="R/ε ≥ artanh σ₂, |Sᵢⱼ| ≤ R",
    latex=r"R/\varepsilon \ge \operatorname{artanh} \sigma_2",
    source="theory.md 2.1, from hilbert",
    attained_by="symmetric-pair",
    assumptions=(IN_POLYTOPE, PROJECTED),
)
def logit_budget(case: MatrixCase) -> Comparison:
    """Return law 2.1 (logit budget).

    Only differences of logits count: R is half their range, once rows and columns are centred as
    far as that narrows it. Where σ₂ is within its error of 1, artanh σ₂ may be anything.
    """
    needed = jnp.arctanh(jnp.clip(case.sigma2, 0, 1 - case.rounding))
    least, most = (
        jnp.arctanh(jnp.clip(case.sigma2 + off, 0, 1))
        for off in (-3 * case.distance, 3 * case.distance)
    )
    centred = detail(case.logits)
    largest = jnp.minimum(_half_range(case.logits), _half_range(centred)) / case.epsilon
    off = jnp.maximum(needed - least, most - needed) + logit_rounding(case)
    return Comparison(needed, largest, off)


def _half_range(x: jax.Array) -> jax.Array:
    return (x.max() - x.min()) / 2


@claim(
    "2.2",
    name="normalised_entropy",
    scope="matrix",
    direction="≤",
    statement="σ₂ ≤ √(1 − H/(n log n)): high normalised entropy forces collapse",
    latex=r"\sigma_2 \le \sqrt{1 - H/(n \log n)}",
    source="arXiv 2601.02080 as read literally; theory.md 2.2",
    assumptions=(IN_POLYTOPE,),
    status="refuted",
)
def normalised_entropy(case: MatrixCase) -> Comparison:
    """Return law 2.2 (normalised entropy), which is false: an isolated unit refutes it."""
    n = case.matrix.shape[0]
    share = jnp.clip(entropy_deficit(case.matrix) / (n * math.log(n)), 0, 1)
    off = entropy_error(n, case.distance) / (n * math.log(n))
    least, most = sqrt(jnp.maximum(share - off, 0)), sqrt(share + off)
    return Comparison(case.sigma2, sqrt(share), case.distance + most - least)


@claim(
    "2.3",
    name="frontier",
    scope="matrix",
    direction="≤",
    statement="σ₂ ≤ that of (1−t)J + t(1 ⊕ J) at the same ΔH",
    latex=r"\sigma_2 \le t \text{ where } \Delta H((1-t)J + t(1 \oplus J_{n-1})) = \Delta H(M)",
    source="theory.md 2.3",
    attained_by="isolated-unit",
    assumptions=(IN_POLYTOPE,),
    status="conjecture",
)
def frontier(case: MatrixCase) -> Comparison:
    """Return law 2.3 (frontier)."""
    n, deficit = case.matrix.shape[0], entropy_deficit(case.matrix)
    off = entropy_error(n, case.distance)
    bound = bounds.isolated_unit_frontier(deficit, n=n)
    most = bounds.isolated_unit_frontier(deficit + off, n=n)
    least = bounds.isolated_unit_frontier(jnp.maximum(deficit - off, 0), n=n)
    widest = jnp.maximum(most - bound, bound - least)
    return Comparison(case.sigma2, bound, case.distance + widest + 2 * case.rounding)
