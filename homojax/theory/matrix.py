"""Bounds on σ₂ of one matrix, each with the error that its two sides can carry. theory.md §2."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax import bounds, spectrum
from homojax.birkhoff import (
    birkhoff_distance,
    center,
    entropy_deficit,
    marginal_errors,
    projective_diameter,
)
from homojax.numerics import as_square, rounding, sqrt
from homojax.projection.errors import entropy_error
from homojax.spectrum.singular_value import spectral_norm
from homojax.theory.claim import Claim, Comparison


class MatrixCase(NamedTuple):
    """One projected matrix with what the single-matrix laws need of it."""

    logits: jax.Array  # [n, n]
    epsilon: jax.Array
    matrix: jax.Array  # [n, n]
    sigma2: jax.Array
    lambda2: jax.Array
    row_error: jax.Array  # of the matrix
    col_error: jax.Array
    distance: jax.Array  # ≥ ‖M − M'‖ for some M' ∈ 𝔅ₙ, rounding included
    rounding: jax.Array  # absolute error of a norm or a sum of M


def matrix_case(
    logits: ArrayLike,
    epsilon: ArrayLike,
    matrix: ArrayLike,
    sigma2: ArrayLike | None = None,
    lambda2: ArrayLike | None = None,
) -> MatrixCase:
    """Collects what the laws of theory.md §2 compare, for a (nearly) doubly stochastic ``matrix`` projected from ``logits``.

    ``sigma2`` and ``lambda2`` are computed unless they are known already.

    >>> case = matrix_case([[1.0, 0.0], [0.0, 1.0]], 1.0, [[0.75, 0.25], [0.25, 0.75]])
    >>> round(float(case.sigma2), 6)
    0.5
    """
    logits, matrix = as_square(logits, "logits"), as_square(matrix)
    error = jnp.asarray(rounding(matrix.shape[0], matrix.dtype), matrix.dtype)
    row_error, col_error = marginal_errors(matrix)
    distance = birkhoff_distance(row_error, col_error) + error
    sigma2 = spectrum.sigma2(matrix) if sigma2 is None else jnp.asarray(sigma2, matrix.dtype)
    lambda2 = spectrum.lambda2(matrix) if lambda2 is None else jnp.asarray(lambda2, matrix.dtype)
    epsilon = jnp.asarray(epsilon, logits.dtype)
    return MatrixCase(
        logits, epsilon, matrix, sigma2, lambda2, row_error, col_error, distance, error
    )


def _hilbert(case: MatrixCase) -> Comparison:
    # The Hopf bound s₂ ≤ ‖M‖ tanh(Δ/4ε) holds for every positive matrix diag(·)exp(S/ε)diag(·), whatever its sums; to put
    # σ₂ for s₂ and 1 for ‖M‖ costs 3 distances. Δ/4ε carries the rounding of logits, of S/ε and of the logarithm of M.
    exponent = projective_diameter(case.logits) / (
        4 * case.epsilon
    )  # bounds.hilbert_bound is its tanh
    largest = abs(case.logits).max() / case.epsilon
    off = 8 * jnp.finfo(case.logits.dtype).eps * (1 + largest)
    bound = jnp.tanh(exponent)
    return Comparison(case.sigma2, bound, 3 * case.distance + bound - jnp.tanh(exponent - off))


def _dobrushin(case: MatrixCase) -> Comparison:
    rows, cols = (
        bounds.dobrushin_coefficient(case.matrix),
        bounds.dobrushin_coefficient(case.matrix.T),
    )
    bound = sqrt(rows * cols)
    least = sqrt(jnp.maximum(rows - case.distance, 0) * jnp.maximum(cols - case.distance, 0))
    most = sqrt((rows + case.distance) * (cols + case.distance))
    return Comparison(case.sigma2, bound, case.distance + jnp.maximum(bound - least, most - bound))


def _doeblin(case: MatrixCase) -> Comparison:
    # No entry moves by more than the distance to 𝔅ₙ, so n min M moves by n of them at most.
    n = case.matrix.shape[0]
    return Comparison(case.sigma2, bounds.doeblin_bound(case.matrix), (n + 1) * case.distance)


def _schatten(k: int, side: int) -> Callable[[MatrixCase], Comparison]:
    def compare(case: MatrixCase) -> Comparison:
        # In terms of PMP both sides are facts about any matrix: only rounding can be at fault.
        bound = bounds.schatten_bounds(case.matrix, k)[side]
        lesser, greater = (bound, case.sigma2) if side == 0 else (case.sigma2, bound)
        return Comparison(lesser, greater, 2 * case.rounding)

    return compare


def _eigenvalue(case: MatrixCase) -> Comparison:
    # Computed eigenvalues are exact for a matrix within rounding of PMP, however non-normal, and its norm is the greater side.
    return Comparison(case.lambda2, case.sigma2, 2 * case.rounding)


def _pinsker(case: MatrixCase) -> Comparison:
    deficit, off = entropy_deficit(case.matrix), entropy_error(case.matrix.shape[0], case.distance)
    bound = bounds.pinsker_bound(case.matrix)
    least = sqrt(2 * jnp.maximum(deficit - off, 0))
    most = sqrt(2 * (jnp.maximum(deficit, 0) + off))
    return Comparison(case.sigma2, bound, case.distance + jnp.maximum(bound - least, most - bound))


def _logit_budget(case: MatrixCase) -> Comparison:
    # Only differences of logits count: R is half their range once rows and columns are centred as far as that narrows it.
    # Where σ₂ is within its error of 1, artanh σ₂ may be anything.
    needed = jnp.arctanh(jnp.clip(case.sigma2, 0, 1 - case.rounding))
    least, most = (
        jnp.arctanh(jnp.clip(case.sigma2 + off, 0, 1))
        for off in (-3 * case.distance, 3 * case.distance)
    )
    largest = (
        jnp.minimum(_half_range(case.logits), _half_range(center(center(case.logits).T).T))
        / case.epsilon
    )
    off = 8 * jnp.finfo(case.logits.dtype).eps * (1 + abs(case.logits).max() / case.epsilon)
    return Comparison(needed, largest, jnp.maximum(needed - least, most - needed) + off)


def _half_range(x: jax.Array) -> jax.Array:
    return (x.max() - x.min()) / 2


def _normalised_entropy(case: MatrixCase) -> Comparison:
    n = case.matrix.shape[0]
    share = jnp.clip(entropy_deficit(case.matrix) / (n * math.log(n)), 0, 1)
    off = entropy_error(n, case.distance) / (n * math.log(n))
    return Comparison(
        case.sigma2,
        sqrt(share),
        case.distance + sqrt(share + off) - sqrt(jnp.maximum(share - off, 0)),
    )


def _frontier(case: MatrixCase) -> Comparison:
    n, deficit = case.matrix.shape[0], entropy_deficit(case.matrix)
    off = entropy_error(n, case.distance)
    bound = bounds.isolated_unit_frontier(deficit, n=n)
    most = bounds.isolated_unit_frontier(deficit + off, n=n)
    least = bounds.isolated_unit_frontier(jnp.maximum(deficit - off, 0), n=n)
    return Comparison(
        case.sigma2,
        bound,
        case.distance + jnp.maximum(most - bound, bound - least) + 2 * case.rounding,
    )


def _member(case: MatrixCase) -> jax.Array:
    """No entry negative, and near enough to 𝔅ₙ for a margin to mean anything."""
    return (case.distance < 0.5) & (case.matrix.min() >= -case.rounding)


def _non_negative(case: MatrixCase) -> jax.Array:
    return case.matrix.min() >= 0


def _has_logits(case: MatrixCase) -> jax.Array:
    return jnp.isfinite(case.logits).all()


def _columns_exact(case: MatrixCase) -> jax.Array:
    return case.col_error <= case.rounding


def _truncated_norm(case: MatrixCase) -> Comparison:
    # ‖M‖₂² ≤ ‖M‖₁‖M‖∞, largest column sum times largest row sum, whatever the matrix M ≥ 0.
    return Comparison(
        spectral_norm(case.matrix),
        jnp.sqrt((1 + case.col_error) * (1 + case.row_error)),
        2 * case.rounding,
    )


_IN_POLYTOPE = ("M ∈ 𝔅ₙ, but for its marginal errors", _member)
_PROJECTED = ("M is the projection of finite logits", _has_logits)


def _of_wrong(
    change: Callable[[Comparison, int], Comparison], compare: Callable[[MatrixCase], Comparison]
):
    """A mutant that puts another power or dimension of n into a claim."""
    return lambda case: change(compare(case), case.matrix.shape[0])


def _lambda_for_sigma(
    compare: Callable[[MatrixCase], Comparison],
) -> tuple[str, Callable[[MatrixCase], Comparison]]:
    return "λ₂ for σ₂", lambda case: compare(case._replace(sigma2=case.lambda2))


def _eighth(case: MatrixCase) -> Comparison:
    return _hilbert(case._replace(logits=case.logits / 2))


_lower1, _upper1, _lower4, _upper4 = (
    _schatten(1, 0),
    _schatten(1, 1),
    _schatten(4, 0),
    _schatten(4, 1),
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "1.7",
        "truncated_norm",
        "‖M‖₂ ≤ √(1 + r), r the row error, columns normalised last",
        r"\lVert M\rVert_2 \le \sqrt{1 + r}",
        "theory.md 1.7; interpolation of the 1- and ∞-norms (Riesz)",
        "matrix",
        "≤",
        _truncated_norm,
        (("columns sum to 1 to rounding", _columns_exact), ("no entry is negative", _non_negative)),
        attained_by="uniform",
    ),
    Claim(
        "2",
        "hilbert",
        "σ₂ ≤ tanh(Δ(S)/4ε)",
        r"\sigma_2 \le \tanh\frac{\Delta(S)}{4\varepsilon}",
        "Birkhoff (1957), Hopf (1963)",
        "matrix",
        "≤",
        _hilbert,
        (_IN_POLYTOPE, _PROJECTED),
        attained_by="two-by-two",
        mutants=(("Δ/8 for Δ/4", _eighth),),
    ),
    Claim(
        "2",
        "dobrushin",
        "σ₂ ≤ √(δ(M) δ(Mᵀ))",
        r"\sigma_2^2 \le \delta(M)\,\delta(M^\top)",
        "Dobrushin (1956)",
        "matrix",
        "≤",
        _dobrushin,
        (_IN_POLYTOPE,),
        attained_by="cyclic",
    ),
    Claim(
        "2",
        "doeblin",
        "σ₂ ≤ 1 − n min M",
        r"\sigma_2 \le 1 - n \min_{ij} M_{ij}",
        "Doeblin (1937)",
        "matrix",
        "≤",
        _doeblin,
        (_IN_POLYTOPE,),
        attained_by="two-by-two",
    ),
    Claim(
        "2",
        "frobenius_lower",
        "√(‖PMP‖²_F/(n−1)) ≤ σ₂",
        r"\frac{\lVert M\rVert_F^2 - 1}{n-1} \le \sigma_2^2",
        "theory.md §2 frobenius",
        "matrix",
        "≥",
        _lower1,
        attained_by="lazy-permutation",
        mutants=(
            _lambda_for_sigma(_lower1),
            (
                "n − 2 for n − 1",
                _of_wrong(
                    lambda c, n: c._replace(lesser=c.lesser * ((n - 1) / max(n - 2, 1)) ** 0.5),
                    _lower1,
                ),
            ),
        ),
    ),
    Claim(
        "2",
        "frobenius_upper",
        "σ₂ ≤ ‖PMP‖_F",
        r"\sigma_2^2 \le \lVert M\rVert_F^2 - 1",
        "theory.md §2 frobenius",
        "matrix",
        "≤",
        _upper1,
        attained_by="isolated-unit",
    ),
    Claim(
        "2",
        "schatten_lower",
        "(tr(AᵀA)⁴/(n−1))^⅛ ≤ σ₂",
        r"\frac{\operatorname{tr}((M^\top M)^k - J)}{n-1} \le \sigma_2^{2k},\ k = 4",
        "theory.md §2 schatten-k",
        "matrix",
        "≥",
        _lower4,
        attained_by="lazy-permutation",
        mutants=(_lambda_for_sigma(_lower4),),
    ),
    Claim(
        "2",
        "schatten_upper",
        "σ₂ ≤ (tr(AᵀA)⁴)^⅛",
        r"\sigma_2^{2k} \le \operatorname{tr}((M^\top M)^k - J),\ k = 4",
        "theory.md §2 schatten-k",
        "matrix",
        "≤",
        _upper4,
        attained_by="isolated-unit",
    ),
    Claim(
        "2",
        "eigenvalue",
        "λ₂ ≤ σ₂",
        r"\lambda_2 \le \sigma_2",
        "Weyl (1949)",
        "matrix",
        "≥",
        _eigenvalue,
        attained_by="circulant",
    ),
    Claim(
        "2",
        "pinsker",
        "σ₂ ≤ √(2ΔH)",
        r"\sigma_2 \le \sqrt{2\,\Delta H}",
        "Pinsker (1960), Csiszár (1967)",
        "matrix",
        "≤",
        _pinsker,
        (_IN_POLYTOPE,),
        attained_by="uniform",
    ),
    Claim(
        "2.1",
        "logit_budget",
        "R/ε ≥ artanh σ₂, |Sᵢⱼ| ≤ R",
        r"R/\varepsilon \ge \operatorname{artanh} \sigma_2",
        "theory.md 2.1, from hilbert",
        "matrix",
        "≥",
        _logit_budget,
        (_IN_POLYTOPE, _PROJECTED),
        attained_by="symmetric-pair",
    ),
    Claim(
        "2.2",
        "normalised_entropy",
        "σ₂ ≤ √(1 − H/(n log n)): high normalised entropy forces collapse",
        r"\sigma_2 \le \sqrt{1 - H/(n \log n)}",
        "arXiv 2601.02080 as read literally; theory.md 2.2",
        "matrix",
        "≤",
        _normalised_entropy,
        (_IN_POLYTOPE,),
        status="refuted",
    ),
    Claim(
        "2.3",
        "frontier",
        "σ₂ ≤ that of (1−t)J + t(1 ⊕ J) at the same ΔH",
        r"\sigma_2 \le t \text{ where } \Delta H((1-t)J + t(1 \oplus J_{n-1})) = \Delta H(M)",
        "theory.md 2.3",
        "matrix",
        "≤",
        _frontier,
        (_IN_POLYTOPE,),
        attained_by="isolated-unit",
        status="conjecture",
    ),
)

# name -> (statement, comparison) of those that a sweep draws: the theorems of the table in theory.md §2.
MATRIX_LAWS: dict[str, tuple[str, Callable[[MatrixCase], Comparison]]] = {
    claim.name: (claim.statement, claim.compare) for claim in CLAIMS if claim.number == "2"
}
