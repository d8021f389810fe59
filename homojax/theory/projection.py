"""Claims about how the projection changes with ε, and about gradients. theory.md §1, §6.

The matrices compared are computed projections. Where a law is about the exact M_ε(S), the distance
from it follows from the marginal errors (``projection_distance``). Where it is about a derivative,
that error is divided by the step.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from homojax.birkhoff import detail, entropy, uniform
from homojax.bounds import path_length_bound
from homojax.projection.errors import entropy_error
from homojax.projection.matching import heaviest_permutation
from homojax.theory.cases.projection import HOTTER, LARGEST_DECOMPOSED, ProjectionCase
from homojax.theory.claim import Comparison, claim

CONVERGED = ("the projection converged", lambda case: case.distance < 0.1)


def _size(case: ProjectionCase) -> jax.Array:
    """Return max |PSP|/ε: how far from the barycentre the logits are."""
    return abs(detail(case.logits)).max() / case.epsilon


def _entropy_errors(case: ProjectionCase) -> jax.Array:
    """Return the error of the difference of the two entropies."""
    n = case.matrix.shape[0]
    return entropy_error(n, case.distance) + entropy_error(n, case.hotter_distance)


# ---------------------------------------------------------------- 1.1 to 1.4: as ε varies


@claim(
    "1.1",
    name="barycentre_limit",
    scope="projection",
    direction="→",
    statement="‖M − J − PSP/(nε)‖_F ≤ (eᵃ − 1 − a)/a ‖PSP‖_F/(nε), a = max|PSP|/ε ≤ ½",
    latex=r"M_\varepsilon = J + \frac{PSP}{n\varepsilon} + O(\varepsilon^{-2})",
    source="theory.md 1.1; that the remainder of the exponential series bounds this one was found "
    "by search, not proved",
    assumptions=(CONVERGED, ("max|PSP| ≤ ε/2", lambda case: _size(case) <= 0.5)),
    status="conjecture",
)
def barycentre_limit(case: ProjectionCase) -> Comparison:
    """Return law 1.1 (barycentre limit)."""
    n, dtype = case.matrix.shape[0], case.matrix.dtype
    linear = detail(case.logits) / (n * case.epsilon)
    deviation = jnp.sqrt(((case.matrix - uniform(n, dtype) - linear) ** 2).sum())
    rounding = 4 * jnp.finfo(dtype).eps * abs(case.logits).max() / case.epsilon
    size = _size(case)
    rate = jnp.where(size > 0, (jnp.expm1(size) - size) / jnp.where(size > 0, size, 1), 0)
    bound = rate * jnp.sqrt((linear**2).sum())
    return Comparison(deviation, bound, math.sqrt(n) * case.distance + rounding)


@claim(
    "1.2",
    name="assignment_limit",
    scope="projection",
    direction="→",
    statement="max ⟨S, Π⟩ − ⟨S, M⟩ ≤ ε H(M); asked up to n = 64",
    latex=r"\max_\Pi \langle S, \Pi\rangle - \langle S, M_\varepsilon\rangle "
    r"\le \varepsilon H(M_\varepsilon)",
    source="theory.md 1.2, from optimality",
    assumptions=(CONVERGED,),
)
def assignment_limit(case: ProjectionCase) -> Comparison:
    """Return law 1.2 (assignment limit), in units of ε."""
    centred, n = detail(case.logits) / case.epsilon, len(case.logits)
    if n > LARGEST_DECOMPOSED:
        return Comparison(*jnp.full((3,), jnp.nan, centred.dtype), applies=False)
    best = centred[jnp.arange(n), heaviest_permutation(centred)].sum()
    spread = centred.max() - centred.min()
    off = entropy_error(n, case.distance) + n * spread * case.distance
    return Comparison(best - (centred * case.matrix).sum(), entropy(case.matrix), off)


@claim(
    "1.3",
    name="entropy_rises",
    scope="projection",
    direction="≥",
    statement="H(M) does not fall as ε rises by a quarter",
    latex=r"\frac{dH(M_\varepsilon)}{d\varepsilon} \ge 0",
    source="theory.md 1.3",
    assumptions=(CONVERGED,),
)
def entropy_rises(case: ProjectionCase) -> Comparison:
    """Return law 1.3 (entropy rises)."""
    return Comparison(entropy(case.matrix), entropy(case.hotter), _entropy_errors(case))


@claim(
    "1.4",
    name="sigma2_falls",
    scope="projection",
    direction="≤",
    statement="σ₂(M) does not rise as ε rises by a quarter",
    latex=r"\frac{d\sigma_2(M_\varepsilon)}{d\varepsilon} \le 0",
    source="arXiv 2601.02080; theory.md 1.4",
    assumptions=(CONVERGED,),
    status="refuted",
)
def sigma2_falls(case: ProjectionCase) -> Comparison:
    """Return law 1.4 (σ₂ falls), which is false: see docs/counterexamples."""
    return Comparison(case.hotter_sigma2, case.sigma2, case.distance + case.hotter_distance)


@claim(
    "1.4",
    name="sigma2_slope",
    scope="projection",
    direction="≤",
    statement="dσ₂/d log ε ≤ 0; asked up to n = 64",
    latex=r"\frac{d\sigma_2(M_\varepsilon)}{d\log\varepsilon} \le 0",
    source="arXiv 2601.02080; theory.md 1.4",
    assumptions=(CONVERGED,),
    status="refuted",
)
def sigma2_slope(case: ProjectionCase) -> Comparison:
    """Return law 1.4 (slope of σ₂), which is false.

    The coarser difference is off by four times as much as the finer one, but for higher orders and
    kinks: their difference bounds the error.
    """
    finer, coarser = case.sigma2_slopes
    off = abs(coarser - finer) + case.sigma2_slope_error
    return Comparison(finer, jnp.zeros_like(finer), off, jnp.isfinite(finer))


# ---------------------------------------------------------------- 1.5, 1.6: rates and derivatives


@claim(
    "1.5",
    name="alternation_rate",
    scope="projection",
    direction="=",
    statement="one alternation shrinks the slowest error by σ₂², to 1e-6",
    latex=r"\lim_k \frac{e_{k+1}}{e_k} = \sigma_2^2",
    source="theory.md 1.5; Franklin and Lorenz (1989), Knight (2008)",
    assumptions=(CONVERGED,),
    resolution=1e-6,
)
def alternation_rate(case: ProjectionCase) -> Comparison:
    """Return law 1.5 (rate of the alternations), along the slowest error v.

    The column potential is disturbed a little to both sides: the odd part has no second order.
    """
    n, eps = case.matrix.shape[0], float(jnp.finfo(case.matrix.dtype).eps)
    step = eps ** (1 / 3)

    def alternate(disturbance):
        f = -logsumexp(case.log_matrix + disturbance[None, :], axis=1)
        return -logsumexp(case.log_matrix + f[:, None], axis=0)

    back, forth = alternate(-step * case.top_right), alternate(step * case.top_right)
    rate = case.top_right @ (forth - back) / (2 * step)
    return Comparison(rate, case.sigma2**2, 8 * step**2 + 8 * n * eps / step + 4 * case.distance)


@claim(
    "1.6",
    name="differential",
    scope="projection",
    direction="=",
    statement="dM/d log ε by the implicit function theorem is that of differences, to 1e-5",
    latex=r"(I - M^\top M)\,dg = M^\top a - b",
    source="theory.md 1.6",
    assumptions=(CONVERGED,),
    resolution=1e-5,
)
def differential(case: ProjectionCase) -> Comparison:
    """Return law 1.6 (differential). As in ``sigma2_slope``, two steps bound the error."""
    finer, coarser = case.differences
    return Comparison(finer, case.slope, abs(coarser - finer) + 2 * case.difference_error)


@claim(
    "1.6",
    name="sigma2_path",
    scope="projection",
    direction="≤",
    statement="from ε to 1.25ε arcsin σ₂ moves by √((1 − 1/n) ΔH log 1.25) at most, ΔH the rise of "
    "entropy",
    latex=r"|\arcsin\sigma_2(\varepsilon_1) - \arcsin\sigma_2(\varepsilon_0)| \le "
    r"\sqrt{(1-\tfrac1n)\,(H_1-H_0)\log(\varepsilon_1/\varepsilon_0)}",
    source="homojax.calibration, from theory.md 1.6 by Cauchy and Schwarz",
    assumptions=(CONVERGED,),
)
def sigma2_path(case: ProjectionCase) -> Comparison:
    """Return law 1.6 (path of σ₂)."""
    n = case.matrix.shape[0]
    rise = entropy(case.hotter) - entropy(case.matrix)
    bound, most = (
        path_length_bound(x, log_ratio=math.log(HOTTER), n=n)
        for x in (rise, rise + _entropy_errors(case))
    )
    low, angle, high = _angles(case.sigma2, case.distance)
    hot_low, hot, hot_high = _angles(case.hotter_sigma2, case.hotter_distance)
    off = most - bound + high - low + hot_high - hot_low
    return Comparison(abs(angle - hot), bound, off)


def _angles(sigma2: jax.Array, distance: jax.Array) -> list[jax.Array]:
    """Return arcsin σ₂: the least that it can be, as it is, the most."""
    return [jnp.arcsin(jnp.clip(sigma2 + sign * distance, 0, 1)) for sign in (-1, 0, 1)]


# ---------------------------------------------------------------- 6: training


@claim(
    "6.1",
    name="weight_decay",
    scope="projection",
    direction="≤",
    statement="logits decayed by q = 0.8: σ₂ ≤ tanh(qΔ/4ε)",
    latex=r"\sigma_2(M_\varepsilon(q S)) \le \tanh\frac{q\,\Delta(S)}{4\varepsilon}",
    source="theory.md 6.1 with hilbert",
    attained_by="two-by-two",
    assumptions=(CONVERGED,),
)
def weight_decay(case: ProjectionCase) -> Comparison:
    """Return law 6.1 (weight decay)."""
    exponent = case.diameter / (4 * HOTTER * case.epsilon)
    largest = abs(case.logits).max() / case.epsilon
    rounding = 8 * jnp.finfo(case.logits.dtype).eps * (1 + largest)
    bound = jnp.tanh(exponent)
    off = case.hotter_distance + bound - jnp.tanh(exponent - rounding)
    return Comparison(case.hotter_sigma2, bound, off)


@claim(
    "6.2",
    name="gradient_trap",
    scope="projection",
    direction="≤",
    statement="‖∂σ₂/∂S‖_F ≤ √(max M · Σ M u²v²)/ε",
    latex=r"\lVert\partial\sigma_2/\partial S\rVert_F \le "
    r"\frac1\varepsilon\sqrt{\max M\ \textstyle\sum M_{ij}u_i^2v_j^2}",
    source="theory.md 6.2; from 1.6: dM = M∘R/ε, R the rest of uvᵀ after projection in the norm "
    "weighted by M",
    assumptions=(CONVERGED,),
)
def gradient_trap(case: ProjectionCase) -> Comparison:
    """Return law 6.2 (gradient trap).

    u, v and the linear solve carry errors of distance/(1 − σ₂²). The bound on ‖∂σ₂/∂S‖ε is at most
    1.
    """
    tiny = jnp.finfo(case.matrix.dtype).tiny
    off = 4 * case.distance / jnp.maximum(1 - case.sigma2**2, tiny)
    return Comparison(case.gradient_norm, case.gradient_bound, off / case.epsilon)
