"""The ε, or the schedule of ε, at which a projection keeps a given share of detail, with proof; and how the share depends on it.

σ₂(M_ε) is not monotone in ε (theory.md 1.4), so a root found by bisection is some root. Here intervals of ε are certified from
their two ends. With R the M-weighted residual of S after row and column shifts, dM/d log ε = −M∘R/ε and dH/d log ε = ΣMR²/ε²
(theory.md 1.6). The top singular pair (u, v) of PMP has dσ₂ = uᵀdM v = ΣdMᵢⱼ uᵢ(vⱼ − σ₂uᵢ), for the rows of dM sum to 0, and
ΣM u²(v − σ₂u)² ≤ max u² ΣM (v − σ₂u)² = max u² (1 − σ₂²) ≤ (1 − 1/n)(1 − σ₂²). So, by Cauchy and Schwarz twice,

    |arcsin σ₂(ε₁) − arcsin σ₂(ε₀)| ≤ √((1 − 1/n) D ℓ),   D = H(ε₁) − H(ε₀) ≥ 0,   ℓ = log(ε₁/ε₀) ≥ 0:

an angle that moves no farther than a path whose length two entropies bound.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.batching import in_buckets
from homojax.birkhoff import detail, projective_diameter
from homojax.bounds import logit_budget
from homojax.calibration.certificate import _share_kept
from homojax.calibration.search import CalibrationStatus, _search
from homojax.numerics import as_float, as_square, as_stack
from homojax.projection.sinkhorn import sinkhorn


class Calibration(NamedTuple):
    """An ε that meets a target, and what is proved of the side that it promises."""

    epsilon: jax.Array  # in the logits' units; NaN unless FOUND
    kept: jax.Array  # the share of detail kept there: the target, to 1e-10 (float64) or 1e-5 (float32); NaN unless FOUND
    status: jax.Array  # a CalibrationStatus
    certified: jax.Array  # bool: ``shortfall`` is within eps^¼, as an angle arcsin(kept)
    shortfall: jax.Array  # proved: no ε on the promised side is on the wrong side of the target by more; ∞ where nothing is
    ceiling: jax.Array  # no ε above it meets the target, whatever the logits of this diameter: Δ/4 over ``logit_budget``
    num_projections: jax.Array  # of one stack each


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
    return _calibrate(
        as_square(logits, "logits")[None], target_sigma2, root, "bound", 1, max_projections
    )


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
            raise ValueError(
                f"logits [n, n] shared by all layers need a depth of at least 1, got {depth}"
            )
        return _calibrate(
            as_square(logits, "logits")[None], retention, root, kept, depth, max_projections
        )
    if depth is not None:
        raise ValueError(
            f"depth is for logits [n, n] shared by all layers; these have shape {list(logits.shape)}"
        )
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
    return jax.vmap(
        lambda layer: calibrate_epsilon(layer, target, root=root, max_projections=max_projections)
    )(logits)


@partial(jax.jit, static_argnames=("root", "kept", "power", "max_projections"))
def _calibrate(
    logits: jax.Array, target: ArrayLike, root: str, kept: str, power: int, max_projections: int
) -> Calibration:
    """For layers [L, n, n], gone through ``power`` times."""
    if root not in ("first", "last"):
        raise ValueError(f'root must be "first" or "last", got {root!r}')
    if max_projections < 8:
        raise ValueError(f"max_projections must be at least 8, got {max_projections}")
    layers, n, _ = logits.shape
    dtype = logits.dtype
    target = jnp.asarray(target, dtype)
    if target.ndim:
        raise ValueError(
            f"the target must be a scalar, got shape {list(target.shape)}; batch with jax.vmap"
        )

    finite = jnp.isfinite(logits).all()
    posed = (target > 0) & (target < 1)
    harmless = jnp.broadcast_to(jnp.eye(n, dtype=dtype), logits.shape)
    logits, target = jnp.where(finite, logits, harmless), jnp.where(posed, target, 0.5)
    flat = abs(jax.vmap(detail)(logits)).max((1, 2)) <= 4 * n * float(jnp.finfo(dtype).eps) * abs(
        logits
    ).max((1, 2))
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
                    s.reshape(layers, n, n),
                    *rest,
                    root=root,
                    kept=kept,
                    power=power,
                    max_projections=max_projections,
                )
            )(flat_logits, *rest)

        fixed = jax.lax.stop_gradient((logits.reshape(layers * n, n), target, log_ceiling))
        x, *report = in_buckets(search, lambda _, targets, __: targets)(*fixed)
        return x, tuple(a.astype(dtype) for a in report)  # custom_root has no tangents for integers

    def tangent_solve(g: Callable, y):
        return y / g(jnp.ones_like(y))

    x, report = jax.lax.custom_root(
        share_at, jnp.zeros_like(log_ceiling), solve, tangent_solve, has_aux=True
    )
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
