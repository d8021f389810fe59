"""What the entropic projection does as ε varies, with the error of each law. theory.md §1, 6.1, 6.2.

The matrices compared are computed projections. Where a law is about the exact M_ε(S), how far it is follows from the marginal
errors (``projection_distance``); where it is about a derivative, that error is divided by the step.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jax.typing import ArrayLike, DTypeLike

from homojax.birkhoff import detail, entropy, projective_diameter, uniform
from homojax.bounds import path_length_bound
from homojax.numerics import as_square
from homojax.projection.errors import entropy_error, projection_distance
from homojax.projection.matching import heaviest_permutation
from homojax.projection.sinkhorn import sinkhorn
from homojax.spectrum.singular_value import top_singular_pair
from homojax.theory.claim import Claim, Comparison

LARGEST_FOR_ALL = (
    64  # beyond, the best assignment, and four more σ₂, take longer to find than the projection
)
HOTTER = 1.25  # the second ε, over the first: a decay of the logits by a fifth


class ProjectionCase(NamedTuple):
    """Logits projected at ε, at a hotter ε, and at four near it, with derivatives by the implicit function theorem."""

    logits: jax.Array  # [n, n]
    epsilon: jax.Array
    matrix: jax.Array  # [n, n], M_ε
    log_matrix: jax.Array  # [n, n]
    diameter: jax.Array  # Δ(S), in the logits' units
    sigma2: jax.Array
    top_right: jax.Array  # [n], v of σ₂'s singular pair
    distance: jax.Array  # ≥ ‖M − M_ε(S)‖
    hotter: jax.Array  # [n, n], M at 1.25 ε
    hotter_sigma2: jax.Array
    hotter_distance: jax.Array
    slope: jax.Array  # ⟨W, dM/d log ε⟩ for the fixed W of ``_weights``
    differences: jax.Array  # [2], the same by central differences of step h and 2h
    difference_error: jax.Array  # what the projections' own errors leave in them
    sigma2_slopes: jax.Array  # [2], dσ₂/d log ε by the same differences; NaN beyond n = 64
    sigma2_slope_error: jax.Array  # what the projections' own errors leave in these
    gradient_norm: jax.Array  # ‖∂σ₂/∂S‖_F
    gradient_bound: jax.Array  # √(max M · Σ M u²v²)/ε


def _weights(n: int, dtype: DTypeLike) -> jax.Array:
    """A fixed W, [n, n], ‖W‖_F = 1, with no part along row or column shifts: ⟨W, dM⟩ stands for a matrix-valued derivative."""
    unit = jnp.arange(n)
    weights = detail(jnp.cos(unit[:, None] + 2.0 * unit + 0.5 * unit**2))
    return (weights / jnp.sqrt((weights**2).sum())).astype(dtype)


def projection_case(logits: ArrayLike, epsilon: ArrayLike) -> ProjectionCase:
    """Collects what the laws of theory.md §1 compare, for logits [n, n] and ε > 0: six projections, one pulled back.

    >>> case = projection_case([[1.0, 0.0], [0.0, 1.0]], 1.0)
    >>> round(float(case.sigma2), 4)
    0.4621
    """
    logits = as_square(logits, "logits")
    dtype, n = logits.dtype, logits.shape[0]
    epsilon = jnp.asarray(epsilon, dtype)
    eps = float(jnp.finfo(dtype).eps)

    def project(logits, log_ratio, start=None):
        result = sinkhorn(logits, epsilon * jnp.exp(log_ratio), init=start)
        matrix = cast(jax.Array, result.matrix)  # no factors here
        return matrix, (
            matrix,
            cast(jax.Array, result.log_matrix),
            result.row_error,
            result.col_error,
            result.col_potential,
        )

    diameter = projective_diameter(logits)
    step = eps**0.25 / (1 + diameter / epsilon)
    _, pull_back, (cold, log_matrix, row_error, col_error, g) = jax.vjp(
        project, logits, jnp.zeros((), dtype), has_aux=True
    )
    ratios = jnp.stack([jnp.asarray(math.log(HOTTER), dtype), *(k * step for k in (-2, -1, 1, 2))])
    # from the cold potential, which is inverse to ε where that matters
    matrices, (_, _, row_errors, col_errors, _) = jax.vmap(project, (None, 0, 0))(
        logits, ratios, g * jnp.exp(-ratios)[:, None]
    )
    decomposed = jnp.concatenate([cold[None], matrices if n <= LARGEST_FOR_ALL else matrices[:1]])
    tops, (u, *_), (v, *_) = jax.vmap(top_singular_pair)(jax.vmap(detail)(decomposed))
    sigma2, hotter_sigma2 = tops[:2]
    distance = projection_distance(cold, row_error, col_error, sigma2)

    weights = _weights(n, dtype)
    at = (weights * matrices[1:]).sum((1, 2))
    differences = jnp.stack([(at[2] - at[1]) / (2 * step), (at[3] - at[0]) / (4 * step)])
    difference_error = (math.sqrt(n) * distance + 8 * eps * abs(logits).max() / epsilon) / step
    sigma2_slopes = jnp.full((2,), jnp.nan, dtype)
    if n <= LARGEST_FOR_ALL:
        nearby = tops[2:]
        sigma2_slopes = jnp.stack(
            [(nearby[2] - nearby[1]) / (2 * step), (nearby[3] - nearby[0]) / (4 * step)]
        )
    gradient, _ = pull_back(jnp.outer(u, v))
    _, slope = pull_back(weights)
    weight = (cold * jnp.outer(u, v) ** 2).sum()
    return ProjectionCase(
        logits,
        epsilon,
        cold,
        log_matrix,
        diameter,
        sigma2,
        v,
        distance,
        matrices[0],
        hotter_sigma2,
        projection_distance(matrices[0], row_errors[0], col_errors[0], hotter_sigma2),
        slope,
        differences,
        difference_error,
        sigma2_slopes,
        4 * distance / step,
        jnp.sqrt((gradient**2).sum()),
        jnp.sqrt(cold.max() * weight) / epsilon,
    )


def _size(case: ProjectionCase) -> jax.Array:
    """max |PSP|/ε: how far from the barycentre the logits are."""
    return abs(detail(case.logits)).max() / case.epsilon


def _barycentre_limit(case: ProjectionCase) -> Comparison:
    n = case.matrix.shape[0]
    linear = detail(case.logits) / (n * case.epsilon)
    deviation = jnp.sqrt(((case.matrix - uniform(n, case.matrix.dtype) - linear) ** 2).sum())
    off = (
        math.sqrt(n) * case.distance
        + 4 * jnp.finfo(case.matrix.dtype).eps * abs(case.logits).max() / case.epsilon
    )
    size = _size(case)
    rate = jnp.where(size > 0, (jnp.expm1(size) - size) / jnp.where(size > 0, size, 1), 0)
    return Comparison(deviation, rate * jnp.sqrt((linear**2).sum()), off)


def _assignment_limit(case: ProjectionCase) -> Comparison:
    centred = detail(case.logits) / case.epsilon
    if len(centred) > LARGEST_FOR_ALL:
        return Comparison(*jnp.full((3,), jnp.nan, centred.dtype), applies=False)
    best = centred[jnp.arange(len(centred)), heaviest_permutation(centred)].sum()
    spread = centred.max() - centred.min()
    off = entropy_error(len(centred), case.distance) + len(centred) * spread * case.distance
    return Comparison(best - (centred * case.matrix).sum(), entropy(case.matrix), off)


def _entropy_rises(case: ProjectionCase) -> Comparison:
    n = case.matrix.shape[0]
    off = entropy_error(n, case.distance) + entropy_error(n, case.hotter_distance)
    return Comparison(entropy(case.matrix), entropy(case.hotter), off)


def _sigma2_falls(case: ProjectionCase) -> Comparison:
    return Comparison(case.hotter_sigma2, case.sigma2, case.distance + case.hotter_distance)


def _sigma2_slope(case: ProjectionCase) -> Comparison:
    finer, coarser = (
        case.sigma2_slopes
    )  # off by four times as much, but for higher orders, and kinks
    known = jnp.isfinite(finer)
    return Comparison(
        finer, jnp.zeros_like(finer), abs(coarser - finer) + case.sigma2_slope_error, known
    )


def _alternation_rate(case: ProjectionCase) -> Comparison:
    """The rate along v, by a small disturbance of the column potential to both sides: what is odd in it has no second order."""
    n, eps = case.matrix.shape[0], float(jnp.finfo(case.matrix.dtype).eps)
    step = eps ** (1 / 3)

    def after_one(disturbance):
        f = -logsumexp(case.log_matrix + disturbance[None, :], axis=1)
        return -logsumexp(case.log_matrix + f[:, None], axis=0)

    back, forth = after_one(-step * case.top_right), after_one(step * case.top_right)
    rate = case.top_right @ (forth - back) / (2 * step)
    return Comparison(rate, case.sigma2**2, 8 * step**2 + 8 * n * eps / step + 4 * case.distance)


def _differential(case: ProjectionCase) -> Comparison:
    finer, coarser = (
        case.differences
    )  # the coarser one is off by four times as much, but for higher orders
    return Comparison(finer, case.slope, abs(coarser - finer) + 2 * case.difference_error)


def _path(case: ProjectionCase) -> Comparison:
    n = case.matrix.shape[0]
    rise = entropy(case.hotter) - entropy(case.matrix)
    off = entropy_error(n, case.distance) + entropy_error(n, case.hotter_distance)
    bound, most = (
        path_length_bound(x, log_ratio=math.log(HOTTER), n=n) for x in (rise, rise + off)
    )

    def angle(sigma2, distance):  # least, as it is, most
        return [jnp.arcsin(jnp.clip(sigma2 + sign * distance, 0, 1)) for sign in (-1, 0, 1)]

    (low, at, high), (hot_low, hot, hot_high) = (
        angle(case.sigma2, case.distance),
        angle(case.hotter_sigma2, case.hotter_distance),
    )
    return Comparison(abs(at - hot), bound, most - bound + high - low + hot_high - hot_low)


def _decay(case: ProjectionCase) -> Comparison:
    exponent = case.diameter / (4 * HOTTER * case.epsilon)
    off = 8 * jnp.finfo(case.logits.dtype).eps * (1 + abs(case.logits).max() / case.epsilon)
    bound = jnp.tanh(exponent)
    return Comparison(
        case.hotter_sigma2, bound, case.hotter_distance + bound - jnp.tanh(exponent - off)
    )


def _gradient_trap(case: ProjectionCase) -> Comparison:
    # u, v and the linear solve carry errors of distance/(1 − σ₂²); the bound on ‖∂σ₂/∂S‖ε is at most 1.
    off = 4 * case.distance / jnp.maximum(1 - case.sigma2**2, jnp.finfo(case.matrix.dtype).tiny)
    return Comparison(case.gradient_norm, case.gradient_bound, off / case.epsilon)


_CONVERGED = ("the projection converged", lambda case: case.distance < 0.1)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "1.1",
        "barycentre_limit",
        "‖M − J − PSP/(nε)‖_F ≤ (eᵃ − 1 − a)/a ‖PSP‖_F/(nε), a = max|PSP|/ε ≤ ½",
        r"M_\varepsilon = J + \frac{PSP}{n\varepsilon} + O(\varepsilon^{-2})",
        "theory.md 1.1; that the remainder of the exponential series bounds this one was found by search, not proved",
        "projection",
        "→",
        _barycentre_limit,
        (_CONVERGED, ("max|PSP| ≤ ε/2", lambda case: _size(case) <= 0.5)),
        status="conjecture",
    ),
    Claim(
        "1.2",
        "assignment_limit",
        "max ⟨S, Π⟩ − ⟨S, M⟩ ≤ ε H(M); asked up to n = 64",
        r"\max_\Pi \langle S, \Pi\rangle - \langle S, M_\varepsilon\rangle \le \varepsilon H(M_\varepsilon)",
        "theory.md 1.2, from optimality",
        "projection",
        "→",
        _assignment_limit,
        (_CONVERGED,),
    ),
    Claim(
        "1.3",
        "entropy_rises",
        "H(M) does not fall as ε rises by a quarter",
        r"\frac{dH(M_\varepsilon)}{d\varepsilon} \ge 0",
        "theory.md 1.3",
        "projection",
        "≥",
        _entropy_rises,
        (_CONVERGED,),
    ),
    Claim(
        "1.4",
        "sigma2_falls",
        "σ₂(M) does not rise as ε rises by a quarter",
        r"\frac{d\sigma_2(M_\varepsilon)}{d\varepsilon} \le 0",
        "arXiv 2601.02080; theory.md 1.4",
        "projection",
        "≤",
        _sigma2_falls,
        (_CONVERGED,),
        status="refuted",
    ),
    Claim(
        "1.4",
        "sigma2_slope",
        "dσ₂/d log ε ≤ 0; asked up to n = 64",
        r"\frac{d\sigma_2(M_\varepsilon)}{d\log\varepsilon} \le 0",
        "arXiv 2601.02080; theory.md 1.4",
        "projection",
        "≤",
        _sigma2_slope,
        (_CONVERGED,),
        status="refuted",
    ),
    Claim(
        "1.5",
        "alternation_rate",
        "one alternation shrinks the slowest error by σ₂², to 1e-6",
        r"\lim_k \frac{e_{k+1}}{e_k} = \sigma_2^2",
        "theory.md 1.5; Franklin and Lorenz (1989), Knight (2008)",
        "projection",
        "=",
        _alternation_rate,
        (_CONVERGED,),
        resolution=1e-6,
    ),
    Claim(
        "1.6",
        "differential",
        "dM/d log ε by the implicit function theorem is that of differences, to 1e-5",
        r"(I - M^\top M)\,dg = M^\top a - b",
        "theory.md 1.6",
        "projection",
        "=",
        _differential,
        (_CONVERGED,),
        resolution=1e-5,
    ),
    Claim(
        "1.6",
        "sigma2_path",
        "from ε to 1.25ε arcsin σ₂ moves by √((1 − 1/n) ΔH log 1.25) at most, ΔH the rise of entropy",
        r"|\arcsin\sigma_2(\varepsilon_1) - \arcsin\sigma_2(\varepsilon_0)| \le "
        r"\sqrt{(1-\tfrac1n)\,(H_1-H_0)\log(\varepsilon_1/\varepsilon_0)}",
        "homojax.calibration, from theory.md 1.6 by Cauchy and Schwarz",
        "projection",
        "≤",
        _path,
        (_CONVERGED,),
    ),
    Claim(
        "6.1",
        "weight_decay",
        "logits decayed by κ = 0.8: σ₂ ≤ tanh(κΔ/4ε)",
        r"\sigma_2(M_\varepsilon(\kappa S)) \le \tanh\frac{\kappa\,\Delta(S)}{4\varepsilon}",
        "theory.md 6.1 with hilbert",
        "projection",
        "≤",
        _decay,
        (_CONVERGED,),
        attained_by="two-by-two",
    ),
    Claim(
        "6.2",
        "gradient_trap",
        "‖∂σ₂/∂S‖_F ≤ √(max M · Σ M u²v²)/ε",
        r"\lVert\partial\sigma_2/\partial S\rVert_F \le \frac1\varepsilon\sqrt{\max M\ \textstyle\sum M_{ij}u_i^2v_j^2}",
        "theory.md 6.2; from 1.6: dM = M∘R/ε, R the rest of uvᵀ after projection in the norm weighted by M",
        "projection",
        "≤",
        _gradient_trap,
        (_CONVERGED,),
    ),
)
