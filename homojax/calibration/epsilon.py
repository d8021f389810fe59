"""The ε, or the schedule of ε, at which a projection keeps a given share of detail, with proof.

σ₂(M_ε) is not monotone in ε (law 1.4, sigma2_falls), so bisection finds some root or other. Here
intervals of ε are certified from their two ends: ``certificate`` says why that is possible.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_decomposable, as_float, as_square, as_stack, require_count
from homojax.batching import in_buckets
from homojax.birkhoff import detail, projective_diameter
from homojax.bounds import logit_budget
from homojax.calibration.certificate import Kept, share_kept
from homojax.calibration.search import (
    Outcome,
    Root,
    Settings,
    Span,
    find_epsilon,
    span_below,
    span_of_masked,
)
from homojax.calibration.status import CALIBRATION_WORDS, CalibrationStatus
from homojax.programs import compiled
from homojax.projection.sinkhorn import sinkhorn
from homojax.projection.summary import count_outcomes, has_numbers, shapes_of


class Calibration(NamedTuple):
    """An ε that meets a target, and what is proved of the side that it promises.

    >>> found = calibrate_epsilon([[1.0, 0.0], [0.0, 1.0]], 0.5)
    >>> round(float(found.kept), 4), CalibrationStatus(int(found.status)).name
    (0.5, 'FOUND')
    """

    epsilon: jax.Array  # in the logits' units; NaN unless FOUND
    kept: jax.Array  # the share kept there; the target to 1e-10 (float32: 1e-5); NaN unless FOUND
    status: jax.Array  # a CalibrationStatus
    certified: jax.Array  # bool: ``shortfall`` is within eps^¼ radians in arcsin(kept)
    shortfall: jax.Array  # no ε on the promised side misses the target by more; ∞: not proved
    ceiling: jax.Array  # no ε above it meets the target: Δ/4 over ``logit_budget``; ∞ with a mask
    num_projections: jax.Array  # of one stack each

    def __repr__(self) -> str:
        """Return one line: how it ended, ε and the share kept; of a batch, counts."""
        if not has_numbers(self):
            return shapes_of(self)
        ended = count_outcomes(self.status, CALIBRATION_WORDS)
        if self.status.ndim:
            certified = int(jax.device_get(self.certified).sum())
            return f"Calibration: {ended}; {list(self.status.shape)}, {certified} certified"
        if self.status != CalibrationStatus.FOUND:
            return f"Calibration: {ended}"
        proof = "certified" if self.certified else "not certified"
        if not self.certified and jnp.finfo(self.epsilon.dtype).bits < 64:
            proof += f" in {self.epsilon.dtype}; float64 may do it"
        return f"Calibration: {ended}; ε = {self.epsilon:.6g}, keeps {self.kept:.6g}, {proof}"


@compiled("root", "max_projections", shared=True)
def calibrate_epsilon(
    logits: ArrayLike,
    target_sigma2: ArrayLike,
    *,
    root: Root = "first",
    max_projections: int = 256,
) -> Calibration:
    """Return the hottest ε whose projection keeps so much detail: σ₂(M_ε(S)) is the target.

    There may be several, because σ₂ is not monotone in ε (law 1.4, sigma2_falls). Differentiable
    in both modes with respect to logits and target, where σ₂ is:
    dε = (dt − ⟨∂σ₂/∂S, dS⟩)/(∂σ₂/∂ε).

    Args:
        logits: S, [n, n], finite or −inf, which forbids an entry; n ≥ 2.
        target_sigma2: scalar in (0, 1).
        root: which ε, if there are several. "first" is the largest ε such that every smaller ε
            meets the target (σ₂ ≥ target). "last" is the largest ε that meets it at all.
        max_projections: most projections, a Python int ≥ 8. The last steps in the bracket, about
            a dozen, and the way down to the start of "first" are not counted.

    Returns:
        A Calibration. Nothing is raised on values: ``status`` says what went wrong. Where optimal
        assignments are tied, σ₂ need not tend to 1 as ε → 0. A target above its limit is
        UNREACHABLE for "first", though "last" may find one. Ties are resolved to ε = √eps Δ(S).
        Where logits of −inf keep that much however large ε is, the target is ALWAYS_MET.

    Raises:
        ValueError: a shape, a root or a number of projections does not exist, or the logits are in
            half precision.

    Notes:
        "first" comes up from an ε below which a bound holds everywhere. "last" comes down from the
        ceiling of the Hilbert bound (law 2, hilbert). Both take certified intervals only, up to
        eps^¼ in arcsin σ₂, until three quarters of ``max_projections`` are spent. The rest of the
        way they go by steps of equal ratio, and ``shortfall`` says what is proved in the end.

        In float64, Gaussian logits with targets from 0.01 to 0.99 were all certified: by 20 to 40
        projections at n = 4, 50 to 80 at n = 16 and 90 to 190 at n = 64. Targets within 1e-3 of 1
        often take more than the default allows. In float32 a calibration may not be certified
        where the same one in float64 is: its σ₂ and entropies have larger errors to allow for.

    Source: laws 1.3 (entropy_rises), 1.6 (sigma2_path) and 2 (hilbert); steps as in sphere tracing
    (Hart 1996); Chandrupatla (Adv. Eng. Software 28, 1997).

    >>> result = calibrate_epsilon([[1.0, 0.0], [0.0, 1.0]], 0.5)  # tanh(1/2ε) = ½
    >>> round(float(result.epsilon), 4), bool(result.certified)
    (0.9102, True)
    """
    logits = as_square(logits, "logits")
    settings = Settings(root=root, kept="bound", power=1, max_projections=max_projections)
    return _calibrate(logits, target_sigma2, settings)


@compiled("depth", "kept", "root", "max_projections", shared=True)
def calibrate_depth(
    logits: ArrayLike,
    retention: ArrayLike,
    *,
    depth: int | None = None,
    kept: Kept = "bound",
    root: Root = "first",
    max_projections: int = 256,
) -> Calibration:
    """Return the ε, common to all layers, at which a stack keeps a share ρ of its detail.

    Args:
        logits: [L, n, n], layer 1 first; or [n, n], one matrix shared by ``depth`` layers.
        retention: ρ, scalar in (0, 1).
        depth: number of layers that share ``logits`` [n, n], a Python int ≥ 1; else None.
        kept: what counts as kept. "bound": Π σ₂(M_l), which no input exceeds. "composite":
            σ₂(M_L ⋯ M_1), what the best input keeps. "lyapunov": exp(L · top exponent), which is
            λ₂ᴸ for a shared matrix; nothing of it is certified, and over few layers it depends on
            the frame that QR starts from.
        root: as for ``calibrate_epsilon``, with "kept ≥ ρ" for "σ₂ ≥ target".
        max_projections: as for ``calibrate_epsilon``; each projection is one of the whole stack.

    Returns:
        A Calibration; failures as for ``calibrate_epsilon``. ``ceiling`` is Δ/4 over
        ``logit_budget`` of ρ and L, with Δ the largest of the layers'. Above it the logit budget
        (law 2.1, logit_budget) forbids the depth, whichever share counts. ``kept`` is the target
        to L times 1e-10.

    Raises:
        ValueError: a shape, a depth or a name does not exist.

    Source: laws 3.1 (product) and 3.3 (lyapunov, shared).

    >>> result = calibrate_depth([[1.0, 0.0], [0.0, 1.0]], 0.25, depth=2)
    >>> round(float(result.epsilon), 4)
    0.9102
    """
    logits = as_float(logits)
    if kept not in ("bound", "lyapunov", "composite"):
        raise ValueError(f'kept must be "bound", "lyapunov" or "composite", got {kept!r}')
    if logits.ndim == 2:
        logits, power = as_square(logits, "logits"), depth
        if power is None:
            raise ValueError(
                "logits [n, n] shared by all layers need a depth of at least 1, got None"
            )
        power = require_count("depth", power, 1)
    else:
        logits, power = as_stack(logits, "logits"), 1
        if depth is not None:
            raise ValueError(
                "depth is for logits [n, n] shared by all layers; "
                f"these have shape {list(logits.shape)}"
            )
    settings = Settings(root=root, kept=kept, power=power, max_projections=max_projections)
    return _calibrate(logits, retention, settings)


@compiled("root", "max_projections")
def epsilon_schedule(
    logits: ArrayLike,
    retention: ArrayLike,
    *,
    root: Root = "first",
    max_projections: int = 256,
) -> Calibration:
    """Return each layer's own ε, with σ₂ = ρ^{1/L} in every layer: no layer is a bottleneck.

    The stack's bound Π σ₂ is ρ then (law 3.1, product).

    Args:
        logits: [L, n, n], finite or −inf, n ≥ 2.
        retention: ρ, scalar in (0, 1).
        root: as for ``calibrate_epsilon``.
        max_projections: as for ``calibrate_epsilon``, for each layer.

    Returns:
        A Calibration with a leading axis of L layers.

    Raises:
        ValueError: a shape, a root or a number of projections does not exist, or the logits are in
            half precision.

    >>> result = epsilon_schedule([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]], 0.25)
    >>> [round(x, 4) for x in result.epsilon.tolist()]
    [0.9102, 1.8205]
    """
    logits = as_stack(logits, "logits")
    retention = as_float(retention, "retention").astype(logits.dtype)
    valid = retention > 0
    target = jnp.where(valid, jnp.where(valid, retention, 1) ** (1 / len(logits)), jnp.nan)
    return jax.vmap(
        lambda layer: calibrate_epsilon(layer, target, root=root, max_projections=max_projections)
    )(logits)


# ---------------------------------------------------------------- one calibration


class _Posed(NamedTuple):
    """The question, or a harmless one in its place if it has no answer."""

    logits: jax.Array  # [L, n, n]
    target: jax.Array
    span: Span
    ceiling: jax.Array  # NaN where the question has none
    failure: jax.Array  # a CalibrationStatus: why it has no answer; FOUND where it may have one


def _calibrate(logits: jax.Array, target: ArrayLike, settings: Settings) -> Calibration:
    """Return the calibration of one matrix [n, n] or of layers [L, n, n]."""
    if settings.root not in ("first", "last"):
        raise ValueError(f'root must be "first" or "last", got {settings.root!r}')
    require_count("max_projections", settings.max_projections, 8)
    target = as_float(target, "target").astype(logits.dtype)
    if target.ndim:
        raise ValueError(
            f"the target must be a scalar, got shape {list(target.shape)}; batch with jax.vmap"
        )
    logits = as_decomposable(logits).reshape(-1, *logits.shape[-2:])
    posed = _pose(logits, target, settings)
    outcome = _search(settings, *jax.lax.stop_gradient(posed[:3]))
    log_epsilon = _implicit(settings, posed.logits, posed.target, outcome.log_epsilon)
    status = jnp.where(posed.failure == CalibrationStatus.FOUND, outcome.status, posed.failure)
    success = status == CalibrationStatus.FOUND
    return Calibration(
        epsilon=jnp.where(success, jnp.exp(log_epsilon), jnp.nan),
        kept=jnp.where(success, outcome.kept, jnp.nan),
        status=status,
        certified=success & outcome.certified,
        shortfall=jnp.where(success, jnp.maximum(outcome.shortfall, 0), jnp.inf),
        ceiling=posed.ceiling,
        num_projections=outcome.num_projections,
    )


def _pose(logits: jax.Array, target: jax.Array, settings: Settings) -> _Posed:
    """Return the question, with harmless numbers in place of those that pose none."""
    layers, n, _ = logits.shape
    eps, depth = float(jnp.finfo(logits.dtype).eps), layers * settings.power
    harmless = jnp.broadcast_to(jnp.eye(n, dtype=logits.dtype), logits.shape)
    finite = (logits < jnp.inf).all()  # no NaN either
    possible = (target > 0) & (target < 1)
    logits, target = jnp.where(finite, logits, harmless), jnp.where(possible, target, 0.5)

    # The rounding of row and column shifts is no detail.
    forbidden = logits == -jnp.inf
    masked, allowed = forbidden.any(), jnp.where(forbidden, 0, logits)
    size, largest = abs(jax.vmap(detail)(allowed)).max((1, 2)), abs(allowed).max((1, 2))
    has_detail = masked | ~(size <= 4 * n * eps * largest).any()
    diameter = jax.vmap(projective_diameter)(allowed).max()
    finite = finite & jnp.isfinite(diameter)
    budget = logit_budget(retention=target, depth=depth)
    ceiling = diameter / 4 / budget

    failure = jnp.where(has_detail, CalibrationStatus.FOUND, CalibrationStatus.NO_DETAIL)
    failure = jnp.where(possible, failure, CalibrationStatus.BAD_TARGET)
    bounded = span_below(jnp.log(jnp.where(has_detail, ceiling, 1 / budget)))
    endless = span_of_masked(logits, depth)
    return _Posed(
        logits=jnp.where(has_detail, logits, harmless),
        target=target,
        span=jax.tree.map(partial(jnp.where, masked), endless, bounded),
        ceiling=jnp.where(finite & possible, jnp.where(masked, jnp.inf, ceiling), jnp.nan),
        failure=jnp.where(finite, failure, CalibrationStatus.NOT_FINITE),
    )


def _search(settings: Settings, logits: jax.Array, target: jax.Array, span: Span) -> Outcome:
    """Return what ``find_epsilon`` finds; under ``jax.vmap`` in buckets of like targets."""
    layers, n, _ = logits.shape

    def search(rows, targets, *spans):
        stacks = rows.reshape(-1, layers, n, n)
        find = jax.vmap(partial(find_epsilon, settings=settings))
        return find(stacks, targets, Span(*spans))

    def work(rows, targets, *spans):
        return targets

    return in_buckets(search, work)(logits.reshape(layers * n, n), target, *span)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _implicit(
    settings: Settings, logits: jax.Array, target: jax.Array, log_epsilon: jax.Array
) -> jax.Array:
    """Return ``log_epsilon``, with the derivative of the root that it is."""
    return log_epsilon


@_implicit.defjvp
def _implicit_jvp(settings, primals, tangents):
    """By the implicit function theorem: dx = (dt − ⟨∂kept/∂S, dS⟩)/(∂kept/∂x), x = log ε."""
    logits, _, _ = primals
    dlogits, dtarget, _ = tangents
    log_epsilon = _implicit(settings, *primals)

    def share(logits, log_epsilon):
        epsilon = jnp.exp(log_epsilon)
        matrices = jax.vmap(lambda s: cast(jax.Array, sinkhorn(s, epsilon).matrix))(logits)
        return share_kept(matrices, settings.kept, settings.power)

    _, push = jax.linearize(share, logits, log_epsilon)
    slope = push(jnp.zeros_like(logits), jnp.ones_like(log_epsilon))
    change = push(dlogits, jnp.zeros_like(log_epsilon))
    return log_epsilon, (dtarget - change) / slope
