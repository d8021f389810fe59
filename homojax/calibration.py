"""The ε, or the schedule of ε, at which a projection keeps a given share of detail, with proof; and how the share depends on it.

σ₂(M_ε) is not monotone in ε (theory.md 1.4), so a root found by bisection is some root. Here intervals of ε are certified from
their two ends. With R the M-weighted residual of S after row and column shifts, dM/d log ε = −M∘R/ε and dH/d log ε = ΣMR²/ε²
(theory.md 1.6). The top singular pair (u, v) of PMP has dσ₂ = uᵀdM v = ΣdMᵢⱼ uᵢ(vⱼ − σ₂uᵢ), for the rows of dM sum to 0, and
ΣM u²(v − σ₂u)² ≤ max u² ΣM (v − σ₂u)² = max u² (1 − σ₂²) ≤ (1 − 1/n)(1 − σ₂²). So, by Cauchy and Schwarz twice,

    |arcsin σ₂(ε₁) − arcsin σ₂(ε₀)| ≤ √((1 − 1/n) D ℓ),   D = H(ε₁) − H(ε₀) ≥ 0,   ℓ = log(ε₁/ε₀) ≥ 0:

an angle that moves no farther than a path whose length two entropies bound.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.balance import balance
from homojax.birkhoff import detail, entropy, projective_diameter
from homojax.bounds import logit_budget
from homojax.depth import detail_composite, effective_depth, lyapunov_exponents
from homojax.gap import log_contraction_gap
from homojax.lanes import in_buckets
from homojax.numerics import as_float, as_square, as_stack, marginal_tolerance, rounding, sqrt
from homojax.singular import top_singular_pair
from homojax.sinkhorn import sinkhorn
from homojax.spectrum import subdominant_eigenvalue_modulus, subdominant_singular_value


class CalibrationStatus(enum.IntEnum):
    """How a calibration ended. Only ``FOUND`` comes with an ε; with any other it is NaN.

    >>> CalibrationStatus(2).name
    'NO_DETAIL'
    """

    FOUND = 0
    UNREACHABLE = 1  # root="first": missed at the coldest ε that floats resolve; "last": at every ε looked at
    NO_DETAIL = 2  # a layer's logits are row and column shifts, to rounding: σ₂ = 0 at every ε
    BAD_TARGET = 3  # outside (0, 1), or NaN
    NOT_FINITE = 4  # a logit is NaN or infinite, or two are further apart than the largest number
    NOT_CONVERGED = 5  # a projection on the way did not converge, or the last interval did not close


class Calibration(NamedTuple):
    """An ε that meets a target, and what is proved of the side that it promises."""

    epsilon: jax.Array  # in the logits' units; NaN unless FOUND
    kept: jax.Array  # the share of detail kept there: the target, to 1e-10 (float64) or 1e-5 (float32); NaN unless FOUND
    status: jax.Array  # a CalibrationStatus
    certified: jax.Array  # bool: ``shortfall`` is within eps^¼, as an angle arcsin(kept)
    shortfall: jax.Array  # proved: no ε on the promised side is on the wrong side of the target by more; ∞ where nothing is
    ceiling: jax.Array  # no ε above it meets the target, whatever the logits of this diameter: Δ/4 over ``logit_budget``
    num_projections: jax.Array  # of one stack each


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


def path_length_bound(entropy_rise: ArrayLike, log_ratio: ArrayLike, n: int) -> jax.Array:
    """√((1 − 1/n) D ℓ) for D = H(M_ε₁) − H(M_ε₀) in nats and ℓ = |log(ε₁/ε₀)|: how far M_ε can have come on the way.

    It bounds ‖M_ε₁ − M_ε₀‖₂, and the way in arcsin σ₂ (radians). So at every ε between, arcsin σ₂ is at least half of
    (its values at the ends, less this), and at most half of (these, and this). Negative D counts as 0. theory.md 1.6.

    >>> round(float(path_length_bound(0.5, 0.25, 2)), 4)
    0.25
    """
    entropy_rise = as_float(entropy_rise)
    return sqrt((1 - 1 / n) * jnp.maximum(entropy_rise, 0) * abs(jnp.asarray(log_ratio, entropy_rise.dtype)))


def calibrate_epsilon(
    logits: ArrayLike,
    target_sigma2: ArrayLike,
    *,
    root: Literal["first", "last"] = "first",
    max_projections: int = 256,
) -> Calibration:
    """The ε at which σ₂(M_ε(S)) is the target: the hottest that keeps so much detail.

    σ₂ is not monotone in ε (theory.md 1.4), so there may be several. "first" is the largest ε such that every smaller one meets
    the target (σ₂ ≥ target): it comes up from an ε below which a bound holds for all. "last" is the largest ε that meets it at
    all: it comes down from the ceiling of the hilbert bound. Both take only intervals that are certified (see the module), up
    to eps^¼ in arcsin σ₂, until three quarters of ``max_projections`` are spent; from there on steps of equal ratio, which
    cross the rest of the way. What is proved in the end is in ``shortfall``, and small or not.

    Gaussian logits with targets from 0.01 to 0.99 were all certified, by 20 to 40 projections at n = 4, 50 to 80 at n = 16 and
    90 to 190 at n = 64; targets within 1e-3 of 1 often take more than the default allows.

    Differentiable in both modes with respect to logits and target, dε = (dt − ⟨∂σ₂/∂S, dS⟩)/(∂σ₂/∂ε), where σ₂ is.

    Args:
        logits: S, [n, n], finite, n ≥ 2.
        target_sigma2: in (0, 1).
        root: which, if there are several.
        max_projections: most projections, but for a last dozen and for the way down to the start; a Python int ≥ 8.

    Returns:
        A Calibration. Nothing is raised on values. Where optima are tied, σ₂ need not tend to 1 as ε → 0, and a target above
        its limit is UNREACHABLE for "first", though "last" may find one. Ties are told apart to ε = √eps Δ(S), no finer.

    Raises:
        ValueError: a shape, a root or a number that does not exist.

    Source: theory.md 1.3, 1.6, §2 hilbert; steps as in sphere tracing (Hart 1996); Chandrupatla (Adv. Eng. Software 28, 1997).

    >>> found = calibrate_epsilon([[1.0, 0.0], [0.0, 1.0]], 0.5)  # tanh(1/2ε) = ½
    >>> round(float(found.epsilon), 4), bool(found.certified)
    (0.9102, True)
    """
    return _calibrate(as_square(logits, "logits")[None], target_sigma2, root, "bound", 1, max_projections)


def calibrate_depth(
    logits: ArrayLike,
    retention: ArrayLike,
    *,
    depth: int | None = None,
    kept: Literal["bound", "lyapunov", "composite"] = "bound",
    root: Literal["first", "last"] = "first",
    max_projections: int = 256,
) -> Calibration:
    """The ε, common to all layers, at which a stack keeps a share ρ of its best-kept detail. theory.md 3.1, 3.3.

    Args:
        logits: [L, n, n], layer 1 first; or [n, n], one matrix shared by ``depth`` layers.
        retention: ρ in (0, 1).
        depth: L for shared logits, a Python int ≥ 1; only there.
        kept: what counts as kept. "bound": Π σ₂(M_l), which no input exceeds. "composite": σ₂(M_L ⋯ M_1), what the best
            input keeps. "lyapunov": exp(L · top exponent), λ₂ᴸ for a shared matrix; nothing of it is
            certified, and over few layers it depends on the frame that QR starts from.
        root: as for ``calibrate_epsilon``, with "kept ≥ ρ" for "σ₂ ≥ target".
        max_projections: as for ``calibrate_epsilon``; each is one of the whole stack.

    Returns:
        A Calibration; failures as for ``calibrate_epsilon``. ``ceiling`` is Δ/4 over ``logit_budget(ρ, L)``, Δ the largest of
        the layers': above it theory.md 2.1 forbids the depth, whichever way it is counted. ``kept`` is right to L times 1e-10.

    Raises:
        ValueError: a shape, a depth or a name that does not exist.

    >>> found = calibrate_depth([[1.0, 0.0], [0.0, 1.0]], 0.25, depth=2)
    >>> round(float(found.epsilon), 4)
    0.9102
    """
    logits = as_float(logits)
    if kept not in ("bound", "lyapunov", "composite"):
        raise ValueError(f'kept must be "bound", "lyapunov" or "composite", got {kept!r}')
    if logits.ndim == 2:
        if depth is None or depth < 1:
            raise ValueError(f"logits [n, n] shared by all layers need a depth of at least 1, got {depth}")
        return _calibrate(as_square(logits, "logits")[None], retention, root, kept, depth, max_projections)
    if depth is not None:
        raise ValueError(f"depth is for logits [n, n] shared by all layers; these have shape {list(logits.shape)}")
    return _calibrate(as_stack(logits, "logits"), retention, root, kept, 1, max_projections)


def epsilon_schedule(
    logits: ArrayLike,
    retention: ArrayLike,
    *,
    root: Literal["first", "last"] = "first",
    max_projections: int = 256,
) -> Calibration:
    """Each layer's own ε, with σ₂ = ρ^{1/L} in every one: a stack whose bound Π σ₂ is ρ, no layer a bottleneck. theory.md 3.1.

    ``logits`` [L, n, n], ``retention`` ρ in (0, 1). A Calibration with a leading axis of L: ``calibrate_epsilon`` of each layer.

    >>> found = epsilon_schedule([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]], 0.25)
    >>> [round(x, 4) for x in found.epsilon.tolist()]
    [0.9102, 1.8205]
    """
    logits = as_stack(logits, "logits")
    retention = jnp.asarray(retention, logits.dtype)
    valid = retention > 0
    target = jnp.where(valid, jnp.where(valid, retention, 1) ** (1 / len(logits)), jnp.nan)
    return jax.vmap(lambda layer: calibrate_epsilon(layer, target, root=root, max_projections=max_projections))(logits)


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

    (log_gap, log_matrix), (slopes, slope) = jax.value_and_grad(log_gap_of, (0, 1), has_aux=True)(logits, epsilon)
    gap, sigma2 = jnp.exp(log_gap), -jnp.expm1(log_gap)
    gradient = -gap * slopes
    largest = abs(slopes).max()
    norm = gap * largest * jnp.sqrt(((slopes / jnp.where(largest > 0, largest, 1)) ** 2).sum())  # no square underflows
    bound = jnp.exp(log_gap / 2) * sqrt(jnp.exp(log_matrix.max()) * (1 - 1 / n) * (1 + sigma2)) / epsilon
    depth = effective_depth(sigma2, retention, gap=gap)
    # L = log ρ/log(1 − g), so dL/d log g = L g/((1 − g) log(1 − g)), and the fraction tends to −1 as g → 0
    small = gap < jnp.finfo(gap.dtype).eps / 4
    safe = jnp.where(small, 0.5, jnp.minimum(gap, 1 - jnp.finfo(gap.dtype).epsneg))
    per_log_gap = jnp.where(small, -1, safe / ((1 - safe) * jnp.log1p(-safe)))
    return Sensitivity(sigma2, log_gap, gradient, norm, bound, -gap * slope, depth, depth * per_log_gap * slope)


def trainable_band(epsilons: ArrayLike, gradient_norms: ArrayLike, share: ArrayLike = 0.1) -> tuple[jax.Array, jax.Array]:
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
        way = log_norms[inside] - jnp.where(jnp.isneginf(log_norms[outside]), -1, log_norms[outside])
        return jnp.exp(x[inside] + (x[outside] - x[inside]) * fall / jnp.where(way > 0, way, 1))

    last_before = jnp.where(below & (k < top), k, -1).max()
    first_after = jnp.where(below & (k > top), k, len(k)).min()
    low = jnp.where(last_before >= 0, crossing(last_before, last_before + 1), 0)
    high = jnp.where(first_after < len(k), crossing(jnp.minimum(first_after, len(k) - 1), first_after - 1), jnp.inf)
    valid = (norms[top] > 0) & (share > 0) & (share <= 1) & ~jnp.isnan(norms).any() & (epsilons > 0).all()
    return jnp.where(valid, low, jnp.nan), jnp.where(valid, high, jnp.nan)


# ---------------------------------------------------------------- one ε: what is kept, and the errors of that


class _Point(NamedTuple):
    """A stack projected at ε = eˣ."""

    x: jax.Array
    kept: jax.Array
    kept_error: jax.Array  # of a composite
    sigma2: jax.Array  # [L]
    sigma2_error: jax.Array  # [L]
    entropy: jax.Array  # [L], in nats
    entropy_error: jax.Array  # [L]
    colder: jax.Array  # what is kept at every smaller ε, at least
    potential: jax.Array  # [L, n]
    converged: jax.Array


def _share_kept(matrices: jax.Array, kept: str, power: int) -> jax.Array:
    """[L, n, n], the layers in turn ``power`` times -> what is kept of the detail; differentiable."""
    if kept == "composite":
        product = detail(matrices[0]) if len(matrices) == 1 else detail_composite(matrices)[-1]
        with jax.default_matmul_precision("highest"):
            return subdominant_singular_value(jnp.linalg.matrix_power(product, power))
    if kept == "bound":
        return jnp.prod(jax.vmap(subdominant_singular_value)(matrices)) ** power
    if len(matrices) == 1:
        return subdominant_eigenvalue_modulus(matrices[0]) ** power
    return jnp.exp(power * len(matrices) * lyapunov_exponents(matrices)[0])


def _project(logits: jax.Array, x: jax.Array, start: jax.Array, kept: str, power: int) -> _Point:
    """Every layer at ε = eˣ, from column potentials [L, n], with what separates it from the exact projection M.

    Two bounds, the smaller of which counts. (1) An entry's relative error is that of e^(df + dg), where [[I, M], [Mᵀ, I]](df, dg)
    = (missed sums) and the least singular value off the kernel is 1 − σ₂; as much again for what is not linear; logits
    rounded by a relative eps change no potential by more than 2n times that, for potentials are means over trees of sums along
    paths. In σ₂ and H the missed sums come in themselves, and else that relative error of what is not 0: 1 − σ₂, and H.
    (2) Near a permutation that says nothing, but M has the least relative entropy to its scaling M̂ in the polytope: at most τ,
    that of M̂ rounded to it, with the missed mass where M̂ is least. So their roots are within √τ of each other, and √(1 − σ₂)
    changes by √(2τ) at most; for H see ``_cross_entropy``.
    """
    n, dtype = logits.shape[-1], logits.dtype
    eps = float(jnp.finfo(dtype).eps)
    results = jax.vmap(lambda s, g: sinkhorn(s, jnp.exp(x), init=g))(logits, start)
    matrices, log_matrices = cast(jax.Array, results.matrix), cast(jax.Array, results.log_matrix)
    sigma2, u, v = jax.vmap(lambda m: top_singular_pair(detail(m)))(matrices)
    entropies = jax.vmap(entropy)(matrices)

    gap = jnp.maximum(1 - sigma2, 0) + rounding(n, dtype)
    missed = math.sqrt(n) * jnp.hypot(results.row_error, results.col_error) + rounding(n, dtype) / 4
    logit_rounding = 8 * eps * (1 + abs(logits).max((1, 2)) / jnp.exp(x))
    relative = 4 * missed / gap + 2 * n * logit_rounding
    relative = jnp.where(relative < 0.5, relative, jnp.inf)
    divergence = 2 * n * missed * (2 - log_matrices.min((1, 2))) + n * logit_rounding
    sigma2_error = jnp.minimum(2 * gap * relative, 2 * jnp.sqrt(2 * divergence * gap) + 2 * divergence)
    sigma2_error = jnp.minimum(2 * missed + sigma2_error + rounding(n, dtype), 1)
    least, most = jax.vmap(_cross_entropy)(log_matrices, divergence)
    most = most + divergence
    apart = jnp.maximum(most - entropies, entropies - least + 2 * divergence)
    entropy_error = jnp.minimum(2 * (relative * (entropies + eps) + n * missed), apart)

    if kept == "bound":
        share = jnp.prod(sigma2) ** power
        colder = jax.vmap(_least_sigma2_colder)(log_matrices, most, u, v)
    else:
        # Decompositions in a row: independent ones, batched, can wait for each other's threads for ever (jaxlib 0.10 on CPUs).
        matrices, sigma2 = jax.lax.optimization_barrier((matrices, sigma2))
        share = _share_kept(matrices, kept, power)
        colder = jax.vmap(_least_singular_value_colder)(log_matrices, most)
    kept_error = power * (sigma2_error + rounding(n, dtype)).sum()
    colder = jnp.prod(colder) ** power
    converged = results.converged.all() & jnp.isfinite(share)
    return _Point(
        x,
        share,
        kept_error,
        sigma2,
        sigma2_error,
        entropies,
        entropy_error,
        jnp.where(jnp.isnan(colder), 0, colder),
        results.col_potential,
        converged,
    )


def _cross_entropy(log_matrix: jax.Array, divergence: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(least, most) of ⟨M, C⟩, C = −log M̂ ≥ 0, for any M whose relative entropy to M̂ is at most ``divergence`` τ.

    By Donsker and Varadhan: ±λ⟨M, C⟩ ≤ τ + ΣM̂(e^{±λC} − 1), for any λ > 0. H(M) is
    between that less 2τ and that and τ, where the sums of M̂ that are missed are in τ too.
    """
    cost = jnp.maximum(-log_matrix, 0)
    matrix = jnp.exp(-cost)
    rates = 0.25 ** jnp.arange(1, 9, dtype=log_matrix.dtype)
    scaled = rates[:, None, None] * cost
    growth = jnp.where(scaled > 1, jnp.exp(scaled - cost) - matrix, matrix * jnp.expm1(jnp.minimum(scaled, 1)))
    fall = -matrix * jnp.expm1(-scaled)
    return ((fall.sum((1, 2)) - divergence) / rates).max(), ((growth.sum((1, 2)) + divergence) / rates).min()


def _least_sigma2_colder(log_matrix: jax.Array, most_entropy: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """≤ σ₂(M_ε) for every ε below that of M, from ≥ H(M) and any unit u, v ⊥ 1 (best M's top pair).

    For there ⟨S, M_ε⟩ ≥ ⟨S, M⟩ (theory.md 1.3), so that ⟨M_ε, −log M⟩ ≤ H(M); and 1 − σ₂(M_ε) ≤ ½⟨M_ε, W⟩, W = (uᵢ − vⱼ)².
    Where M > ½ the cost −log M is next to nothing, and M_ε ≤ 1 does instead.
    """
    weights = (u[:, None] - v) ** 2
    large = log_matrix > -math.log(2)
    ratio = jnp.where(large, 0, weights / jnp.where(large, 1, -log_matrix)).max()
    free = jnp.where(large, weights, 0).sum()
    return jnp.maximum(1 - rounding(len(u), u.dtype) - (free + most_entropy * ratio) / 2, 0)


def _least_singular_value_colder(log_matrix: jax.Array, most_entropy: jax.Array) -> jax.Array:
    """≤ every singular value of M_ε, for every ε below that of M: M_ε is within H(M)/K of the permutation Π that M is near.

    K is the least −log M off Π. ⟨M_ε, −log M⟩ ≤ H(M), as above, so that the mass off Π is at most H(M)/K; a row's and the
    column's that Π gives it are in it both, so ‖M_ε − Π‖ ≤ H(M)/K. 0 where the largest entries are no permutation.
    """
    n = len(log_matrix)
    column = log_matrix.argmax(1)
    on = jnp.arange(n) == column[:, None]
    least_cost = -jnp.where(on, -jnp.inf, log_matrix).max()
    is_permutation = on.any(0).all()
    return jnp.where(is_permutation, jnp.maximum(1 - rounding(n, log_matrix.dtype) - most_entropy / least_cost, 0), 0)


def _between(a: _Point, b: _Point, kept: str, power: int) -> tuple[jax.Array, jax.Array]:
    """(least, most) that can be kept at any ε between those of ``a`` and ``b``."""
    n = a.potential.shape[-1]
    rise = abs(b.entropy - a.entropy) + a.entropy_error + b.entropy_error
    paths = path_length_bound(rise, b.x - a.x, n)
    if kept == "bound":

        def angles(sign):
            return sum(jnp.arcsin(jnp.clip(p.sigma2 + sign * p.sigma2_error, 0, 1)) for p in (a, b))

        least = jnp.sin(jnp.maximum(angles(-1) - paths, 0) / 2)
        most = jnp.sin(jnp.minimum((angles(1) + paths) / 2, math.pi / 2))
        return jnp.prod(least) ** power, jnp.prod(most) ** power
    if kept == "composite":
        way = power * paths.sum() + a.kept_error + b.kept_error
        return (a.kept + b.kept - way) / 2, (a.kept + b.kept + way) / 2
    return jnp.full_like(a.kept, -jnp.inf), jnp.full_like(a.kept, jnp.inf)


# ---------------------------------------------------------------- the way to the root


_SEEK, _MARCH, _CLOSE, _DONE = range(4)
_CLOSING_STEPS = 40


class _Search(NamedTuple):
    phase: jax.Array
    at: _Point  # all is certified up to here
    beyond: _Point  # closing in: the other end of the bracket
    step: jax.Array  # in log ε, > 0
    left: jax.Array  # [2], log ε and kept − target where the bracket last ended; NaN before there was another
    last_near: jax.Array  # bool: the last closing step moved ``at``
    shortfall: jax.Array
    status: jax.Array
    num_projections: jax.Array
    num_closing: jax.Array


def _search(
    logits: jax.Array, target: jax.Array, log_ceiling: jax.Array, *, root: str, kept: str, power: int, max_projections: int
) -> tuple[jax.Array, ...]:
    """(log ε, kept, status, certified, shortfall, num_projections) for logits [L, n, n] that have detail.

    One loop with one projection in it. SEEK (root="first"): colder by halves until all that is colder still is known to meet the
    target. MARCH: away from there (up, or for "last" down from the ceiling) by intervals of which it is known that all
    in them is on the side of the target that ``at`` is on, until the far end of one is not. CLOSE: Chandrupatla's method
    in that one.
    """
    n, dtype = logits.shape[-1], logits.dtype
    eps = float(jnp.finfo(dtype).eps)
    first = root == "first"
    sign = 1 if first else -1
    slack, accepted = eps**0.25, marginal_tolerance(n, dtype)
    spare = max_projections // 4
    top = log_ceiling + 0.01  # for a 2 x 2 matrix the ceiling is the root
    floor = top + math.log(eps) / 2
    project = partial(_project, logits, kept=kept, power=power)
    angle_of_target = jnp.arcsin(target)

    def angle(share):
        return jnp.arcsin(jnp.clip(share, 0, 1))

    def seek(s: _Search, p: _Point) -> _Search:
        good = p.converged
        proved = good & (p.colder >= target)
        ended = ~good | (p.x <= floor)
        base = jax.tree.map(lambda new, old: jnp.where(good, new, old), p, s.at)
        meets = base.kept >= target
        lost = jnp.where(good, CalibrationStatus.UNREACHABLE, CalibrationStatus.NOT_CONVERGED)
        return s._replace(
            at=base,
            phase=jnp.where(proved, _MARCH, jnp.where(ended, jnp.where(meets, _MARCH, _DONE), _SEEK)),
            status=jnp.where(ended & ~proved & ~meets, lost, s.status),
            shortfall=jnp.where(proved, 0, s.shortfall),
        )

    def march(s: _Search, p: _Point) -> _Search:
        least, most = _between(s.at, p, kept, power)
        bad = target - least if first else most - target  # how far on the wrong side it may go in between
        loss = angle(s.at.kept) - angle(least) if first else angle(most) - angle(s.at.kept)
        within = angle(least) >= angle_of_target - slack if first else angle(most) <= angle_of_target + slack
        forced = (s.num_projections >= max_projections - spare) | (kept == "lyapunov")
        taken = (within | forced) & p.converged
        crossed = taken & (sign * (p.kept - target) < 0)
        margin = sign * (angle(jnp.where(taken, p.kept, s.at.kept)) - angle_of_target) + slack
        ratio = 0.85 * margin / jnp.maximum(loss, eps)
        step = s.step * jnp.clip(ratio, 0.05, jnp.where(taken, 3, 0.5))
        ended = taken & ~crossed & ((p.x >= top) if first else (p.x <= floor))
        lost = ~p.converged | ended
        why = CalibrationStatus.NOT_CONVERGED if first else CalibrationStatus.UNREACHABLE
        at = jax.tree.map(lambda new, old: jnp.where(taken & ~crossed, new, old), p, s.at)
        return s._replace(
            phase=jnp.where(lost, _DONE, jnp.where(crossed, _CLOSE, _MARCH)),
            at=at,
            beyond=p,
            step=step,
            shortfall=jnp.where(taken, jnp.maximum(s.shortfall, bad), s.shortfall),
            status=jnp.where(~p.converged, CalibrationStatus.NOT_CONVERGED, jnp.where(ended, why, s.status)),
        )

    def close(s: _Search, p: _Point) -> _Search:
        value = p.kept - target
        near = sign * value >= 0  # on the side of ``at``
        replaced = jax.tree.map(lambda a, b: jnp.where(near, a, b), s.at, s.beyond)
        at = jax.tree.map(lambda new, old: jnp.where(near, new, old), p, s.at)
        beyond = jax.tree.map(lambda new, old: jnp.where(near, old, new), p, s.beyond)
        closed = (abs(value) <= accepted) | (abs(beyond.x - at.x) <= 4 * eps * (1 + abs(at.x)))
        ended = closed | (s.num_closing + 1 >= _CLOSING_STEPS) | ~p.converged
        best = jnp.minimum(abs(at.kept - target), abs(beyond.kept - target))
        found = (best <= 16 * accepted * power * len(logits)) & p.converged
        return s._replace(
            phase=jnp.where(ended, _DONE, _CLOSE),
            at=at,
            beyond=beyond,
            left=jnp.stack([replaced.x, replaced.kept - target]),
            last_near=near,
            status=jnp.where(ended, jnp.where(found, CalibrationStatus.FOUND, CalibrationStatus.NOT_CONVERGED), s.status),
            num_closing=s.num_closing + 1,
        )

    def advance(s: _Search) -> _Search:
        way_left = jnp.where(first, top - s.at.x, s.at.x - floor)
        steps_left = jnp.maximum(max_projections - s.num_projections, 1)
        equal_share = (s.num_projections >= max_projections - spare) | (kept == "lyapunov")
        step = jnp.where(equal_share, way_left / steps_left, s.step)
        step = jnp.maximum(step, 64 * eps * (1 + abs(s.at.x)))
        s = s._replace(step=step)
        ahead = jnp.minimum(s.at.x + step, top) if first else jnp.maximum(s.at.x - step, floor)
        ends = jnp.stack([s.at.x, s.at.kept - target]), jnp.stack([s.beyond.x, s.beyond.kept - target])
        inside = _chandrupatla(*ends, s.left, s.last_near)
        x = jnp.where(s.phase == _SEEK, s.at.x - math.log(2), jnp.where(s.phase == _MARCH, ahead, inside))
        p = project(x, s.at.potential * jnp.exp(s.at.x - x))
        s = s._replace(num_projections=s.num_projections + 1)
        after = [seek(s, p), march(s, p), close(s, p)]
        return jax.tree.map(lambda *states: jax.lax.select_n(jnp.clip(s.phase, 0, 2), *states), *after)

    start = project(top, jnp.zeros_like(logits[..., 0]))
    zero = jnp.zeros_like(start.kept)
    status = jnp.where(start.converged, CalibrationStatus.FOUND, CalibrationStatus.NOT_CONVERGED)
    begin = _Search(
        phase=jnp.where(start.converged, _SEEK if first else _MARCH, _DONE),
        at=start,
        beyond=start,
        step=zero + 0.5,
        left=jnp.stack([zero, zero]) + jnp.nan,
        last_near=jnp.asarray(False),
        shortfall=zero + (jnp.inf if first else 0),
        status=status,
        num_projections=jnp.asarray(1),
        num_closing=jnp.asarray(0),
    )
    end = jax.lax.while_loop(lambda s: s.phase < _DONE, advance, begin)
    nearer = abs(end.beyond.kept - target) < abs(end.at.kept - target)
    x, share = (jnp.where(nearer, b, a) for a, b in ((end.at.x, end.beyond.x), (end.at.kept, end.beyond.kept)))
    worst = angle_of_target - angle(target - end.shortfall) if first else angle(target + end.shortfall) - angle_of_target
    certified = jnp.isfinite(end.shortfall) & (worst <= 1.001 * slack)
    return x, share, end.status, certified, end.shortfall, end.num_projections


def _chandrupatla(at: jax.Array, beyond: jax.Array, left: jax.Array, last_near: jax.Array) -> jax.Array:
    """Where to look for the root between two points (x, value), from the point that the bracket last ended in too.

    By inverse quadratic interpolation where that is monotone in the bracket, else the middle; at first by the chord.
    """
    (x1, f1), (x2, f2), (x3, f3) = jnp.where(last_near, at, beyond), jnp.where(last_near, beyond, at), left
    xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
    safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
    quadratic = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
    share = jnp.where(jnp.isnan(f3), f1 / (f1 - f2), jnp.where(safe, quadratic, 0.5))
    return x1 + jnp.where((share > 0) & (share < 1), share, 0.5) * (x2 - x1)


@partial(jax.jit, static_argnames=("root", "kept", "power", "max_projections"))
def _calibrate(logits: jax.Array, target: ArrayLike, root: str, kept: str, power: int, max_projections: int) -> Calibration:
    """For layers [L, n, n], gone through ``power`` times."""
    if root not in ("first", "last"):
        raise ValueError(f'root must be "first" or "last", got {root!r}')
    if max_projections < 8:
        raise ValueError(f"max_projections must be at least 8, got {max_projections}")
    layers, n, _ = logits.shape
    dtype = logits.dtype
    target = jnp.asarray(target, dtype)
    if target.ndim:
        raise ValueError(f"the target must be a scalar, got shape {list(target.shape)}; batch with jax.vmap")

    finite = jnp.isfinite(logits).all()
    posed = (target > 0) & (target < 1)
    harmless = jnp.broadcast_to(jnp.eye(n, dtype=dtype), logits.shape)
    logits, target = jnp.where(finite, logits, harmless), jnp.where(posed, target, 0.5)
    flat = abs(jax.vmap(detail)(logits)).max((1, 2)) <= 4 * n * float(jnp.finfo(dtype).eps) * abs(logits).max((1, 2))
    has_detail = ~flat.any()
    diameter = jax.vmap(projective_diameter)(logits).max()
    finite = finite & jnp.isfinite(diameter)
    ceiling = diameter / 4 / logit_budget(target, layers * power)
    logits = jnp.where(has_detail, logits, harmless)
    log_ceiling = jnp.log(jnp.where(has_detail, ceiling, 1 / logit_budget(target, layers * power)))

    def share_at(x):
        matrices = jax.vmap(lambda s: cast(jax.Array, sinkhorn(s, jnp.exp(x)).matrix))(logits)
        return _share_kept(matrices, kept, power) - target

    def solve(_, __):
        def search(flat_logits, *rest):
            return jax.vmap(
                lambda s, *rest: _search(
                    s.reshape(layers, n, n), *rest, root=root, kept=kept, power=power, max_projections=max_projections
                )
            )(flat_logits, *rest)

        fixed = jax.lax.stop_gradient((logits.reshape(layers * n, n), target, log_ceiling))
        x, *report = in_buckets(search, lambda _, targets, __: targets)(*fixed)
        return x, tuple(a.astype(dtype) for a in report)  # custom_root has no tangents for integers

    def tangent_solve(g: Callable, y):
        return y / g(jnp.ones_like(y))

    x, report = jax.lax.custom_root(share_at, jnp.zeros_like(log_ceiling), solve, tangent_solve, has_aux=True)
    share, status, certified, shortfall, num_projections = report
    status = jnp.where(has_detail, status.astype(int), CalibrationStatus.NO_DETAIL)
    status = jnp.where(posed, status, CalibrationStatus.BAD_TARGET)
    status = jnp.where(finite, status, CalibrationStatus.NOT_FINITE)
    found = status == CalibrationStatus.FOUND
    return Calibration(
        epsilon=jnp.where(found, jnp.exp(x), jnp.nan),
        kept=jnp.where(found, share, jnp.nan),
        status=status,
        certified=found & (certified > 0),
        shortfall=jnp.where(found, jnp.maximum(shortfall, 0), jnp.inf),
        ceiling=jnp.where(finite & posed, ceiling, jnp.nan),
        num_projections=num_projections.astype(int),
    )
