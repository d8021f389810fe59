"""The search for an ε: seek what is certain, march by certified intervals, close in on the root."""

from __future__ import annotations

import enum
import math
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from homojax.calibration.certificate import Kept, Point, project_stack, range_between
from homojax.calibration.status import CalibrationStatus
from homojax.loops import repeat_while
from homojax.numerics import marginal_tolerance
from homojax.projection.shifts import take_out_shifts

Root = Literal["first", "last"]

_CLOSING_STEPS = 40  # at most; Chandrupatla's method needs about 10


class Phase(enum.IntEnum):
    """What a search does next."""

    START = 0  # project at the ceiling: no hotter ε meets the target
    SEEK = 1  # root="first": go colder, until every colder ε is proved to meet the target
    MARCH = 2  # go on by certified intervals, until the far end of one crosses the target
    CLOSE = 3  # find the root in that interval
    DONE = 4


class Settings(NamedTuple):
    """What is asked of a search, beside its numbers. Each has a program of its own."""

    root: Root  # as in ``calibrate_epsilon``
    kept: Kept  # as in ``calibrate_depth``
    power: int  # how often the layers are gone through
    max_projections: int  # as in ``calibrate_epsilon``


class Span(NamedTuple):
    """Where a search goes."""

    top: jax.Array  # scalar: log ε, the hottest
    floor: jax.Array  # scalar: log ε, the coldest that floats resolve
    beyond: jax.Array  # scalar: the share kept moves by no more at any hotter ε


class Outcome(NamedTuple):
    """How a search ended."""

    log_epsilon: jax.Array
    kept: jax.Array
    status: jax.Array  # a CalibrationStatus
    certified: jax.Array  # bool
    shortfall: jax.Array
    num_projections: jax.Array


class _Problem(NamedTuple):
    """What is fixed in a search."""

    logits: jax.Array  # [L, n, n], with detail in every layer
    target: jax.Array  # scalar in (0, 1)
    span: Span
    sign: int  # 1 where the promised side meets the target ("first"), −1 where it misses it
    slack: float  # radians in arcsin(kept) by which a certified interval may cross the target
    accepted: float  # distance to the target at which the search ends
    eps: float
    settings: Settings


class _End(NamedTuple):
    """One end of a bracket."""

    log_epsilon: jax.Array
    kept: jax.Array


class _State(NamedTuple):
    """Where a search stands, beside its point ``near``: all that is behind it is certified."""

    phase: jax.Array  # a Phase
    moved: jax.Array  # bool: the last projection is now ``near``
    far: _End  # the end of the bracket that is not ``near``, once there is a bracket
    dropped: _End  # the end that the bracket lost last; NaN before
    step: jax.Array  # of the march, in log ε, > 0
    shortfall: jax.Array
    status: jax.Array
    num_projections: jax.Array
    num_closing: jax.Array


def span_below(log_ceiling: jax.Array) -> Span:
    """Return where to search, given log of an ε above which no ε meets the target."""
    top = log_ceiling + 0.01  # for a 2 × 2 matrix the ceiling is the root
    floor = top + math.log(float(jnp.finfo(top.dtype).eps)) / 2
    return Span(top, floor, jnp.zeros_like(top))


def span_of_masked(logits: jax.Array, depth: int) -> Span:
    """Return where to search for ``depth`` layers of which some have a logit of −inf.

    As ε → ∞ their matrices tend to another one than J. So the share kept may stay above the target.

    Args:
        logits: [L, n, n], finite or −inf.
        depth: number of layers, all passes through them counted.

    Notes:
        Let the spread be the largest less the least finite logit. In β = 1/ε the path law's angle
        moves by at most √((1 − 1/n) ΣMR²) (``certificate``). R is smallest among all shifts of S,
        and one constant brings S within spread/2. So ΣMR² ≤ n(spread/2)², and from β down to 0 a
        layer's angle moves by at most ½√(n − 1)·spread·β.
    """
    n, eps = logits.shape[-1], float(jnp.finfo(logits.dtype).eps)
    logits, _, _ = jax.vmap(take_out_shifts)(logits)
    finite = logits > -jnp.inf
    largest = jnp.where(finite, logits, -jnp.inf).max((1, 2))
    spread = (largest - jnp.where(finite, logits, jnp.inf).min((1, 2))).max()
    spread = jnp.where(spread > 0, spread, 1)  # a mask alone has none, and any ε will do
    path = depth * math.sqrt(n - 1) * spread / 2  # over β
    beyond = eps**0.25 / 8
    return Span(
        top=jnp.log(path / beyond),
        floor=jnp.log(spread) + math.log(eps) / 2,
        beyond=jnp.full_like(spread, beyond),
    )


def find_epsilon(logits: jax.Array, target: jax.Array, span: Span, settings: Settings) -> Outcome:
    """Return the ε at which a stack keeps ``target``. One loop, with one projection in it.

    Args:
        logits: [L, n, n], finite or −inf, with detail in every layer.
        target: scalar in (0, 1).
        span: where to search.
        settings: which ε, of which share of detail.
    """
    n, dtype = logits.shape[-1], logits.dtype
    eps = float(jnp.finfo(dtype).eps)
    problem = _Problem(
        logits=logits,
        target=target,
        span=span,
        sign=1 if settings.root == "first" else -1,
        slack=eps**0.25,
        accepted=marginal_tolerance(n, dtype),
        eps=eps,
        settings=settings,
    )
    near, state = repeat_while(
        lambda carry: carry[1].phase < Phase.DONE,
        lambda carry: _advance(problem, *carry),
        _begin(problem),
    )
    return _conclude(problem, near, state)


def _begin(problem: _Problem) -> tuple[Point, _State]:
    """Return ``near`` and the state before the first projection."""
    layers, n, _ = problem.logits.shape
    zero, zeros = jnp.zeros_like(problem.target), jnp.zeros_like(problem.logits[:, 0, 0])
    near = Point(
        log_epsilon=problem.span.top,
        kept=zero,
        kept_error=zero,
        sigma2=zeros,
        sigma2_error=zeros,
        entropy=zeros,
        entropy_error=zeros,
        kept_colder=zero,
        potential=jnp.zeros((layers, n), problem.logits.dtype),
        converged=jnp.asarray(False),
        feasible=jnp.asarray(True),
    )
    return near, _State(
        phase=jnp.asarray(Phase.START),
        moved=jnp.asarray(False),
        far=_End(problem.span.top, zero),
        dropped=_End(zero + jnp.nan, zero + jnp.nan),
        step=zero + 0.5,
        shortfall=zero + (jnp.inf if problem.sign > 0 else 0),
        status=jnp.asarray(CalibrationStatus.FOUND),
        num_projections=jnp.asarray(0),
        num_closing=jnp.asarray(0),
    )


def _advance(problem: _Problem, near: Point, state: _State) -> tuple[Point, _State]:
    """Return ``near`` and the state after one more projection."""
    state = state._replace(step=_next_step(problem, near, state))
    log_epsilon = _next_log_epsilon(problem, near, state)
    point = project_stack(
        problem.logits,
        log_epsilon,
        near.potential * jnp.exp(near.log_epsilon - log_epsilon),
        kept=problem.settings.kept,
        power=problem.settings.power,
    )
    state = state._replace(num_projections=state.num_projections + 1)
    after = [act(problem, near, state, point) for act in (_start, _seek, _march, _close)]
    state = jax.tree.map(partial(_by_phase, state.phase), *after)
    return jax.tree.map(partial(jnp.where, state.moved), point, near), state


def _by_phase(phase: jax.Array, *values: jax.Array) -> jax.Array:
    """Return the value of this phase, from those of START, SEEK, MARCH and CLOSE."""
    return jax.lax.select_n(jnp.clip(phase, Phase.START, Phase.CLOSE), *values)


def _next_log_epsilon(problem: _Problem, near: Point, state: _State) -> jax.Array:
    """Return log ε of the next projection."""
    ahead, end = near.log_epsilon + problem.sign * state.step, _end_of_march(problem)
    ahead = jnp.where(problem.sign * (ahead - end) > 0, end, ahead)
    colder = near.log_epsilon - math.log(2)
    return _by_phase(state.phase, problem.span.top, colder, ahead, _inside(problem, near, state))


def _next_step(problem: _Problem, near: Point, state: _State) -> jax.Array:
    """Return the length of the next marching step, in log ε."""
    steps_left = jnp.maximum(problem.settings.max_projections - state.num_projections, 1)
    equal = problem.sign * (_end_of_march(problem) - near.log_epsilon) / steps_left
    step = jnp.where(_must_finish(problem, state), equal, state.step)
    return jnp.maximum(step, 64 * problem.eps * (1 + abs(near.log_epsilon)))


def _must_finish(problem: _Problem, state: _State) -> jax.Array:
    """Return whether the march takes every interval, certified or not, in steps of equal ratio."""
    budget = problem.settings.max_projections
    late = state.num_projections >= budget - budget // 4
    return late | (problem.settings.kept == "lyapunov")


def _end_of_march(problem: _Problem) -> jax.Array:
    """Return the last log ε of the march."""
    return problem.span.top if problem.sign > 0 else problem.span.floor


def _conclude(problem: _Problem, near: Point, state: _State) -> Outcome:
    """Return the better end of the bracket, and what the march has proved."""
    target, far = problem.target, state.far
    far_is_better = abs(far.kept - target) < abs(near.kept - target)
    wrong_by = problem.sign * (_angle(target) - _angle(target - problem.sign * state.shortfall))
    return Outcome(
        log_epsilon=jnp.where(far_is_better, far.log_epsilon, near.log_epsilon),
        kept=jnp.where(far_is_better, far.kept, near.kept),
        status=state.status,
        certified=jnp.isfinite(state.shortfall) & (wrong_by <= 1.001 * problem.slack),
        shortfall=state.shortfall,
        num_projections=state.num_projections,
    )


# ---------------------------------------------------------------- the phases: after a projection


def _start(problem: _Problem, near: Point, state: _State, point: Point) -> _State:
    """Take the hottest ε for the first certified point, unless it meets the target of "last"."""
    seeks = problem.sign > 0
    always = False if seeks else point.kept >= problem.target
    most = point.kept + problem.span.beyond
    status = jnp.where(always, CalibrationStatus.ALWAYS_MET, state.status)
    why = jnp.where(point.feasible, CalibrationStatus.NOT_CONVERGED, CalibrationStatus.INFEASIBLE)
    go_on = jnp.where(always, Phase.DONE, Phase.SEEK if seeks else Phase.MARCH)
    return state._replace(
        phase=jnp.where(point.converged, go_on, Phase.DONE),
        moved=jnp.asarray(True),
        far=_End(point.log_epsilon, point.kept),
        shortfall=state.shortfall if seeks else jnp.maximum(most - problem.target, 0),
        status=jnp.where(point.converged, status, why),
    )


def _seek(problem: _Problem, near: Point, state: _State, point: Point) -> _State:
    """March from here if every colder ε is proved to meet the target, or if floats end here."""
    good = point.converged
    proved = good & (point.kept_colder >= problem.target)
    ended = ~good | (point.log_epsilon <= problem.span.floor)
    march = proved | (ended & (jnp.where(good, point.kept, near.kept) >= problem.target))
    lost = jnp.where(good, CalibrationStatus.UNREACHABLE, CalibrationStatus.NOT_CONVERGED)
    return state._replace(
        phase=jnp.where(march, Phase.MARCH, jnp.where(ended, Phase.DONE, Phase.SEEK)),
        moved=good,
        status=jnp.where(ended & ~march, lost, state.status),
        shortfall=jnp.where(proved, 0, state.shortfall),
    )


def _march(problem: _Problem, near: Point, state: _State, point: Point) -> _State:
    """Take the interval up to ``point`` if it is certified; close in on it if it crosses."""
    sign, target, settings = problem.sign, problem.target, problem.settings
    least, most = range_between(near, point, kept=settings.kept, power=settings.power)
    worst = least if sign > 0 else most
    within = sign * (_angle(worst) - _angle(target)) >= -problem.slack
    taken = (within | _must_finish(problem, state)) & point.converged
    crossed = taken & (sign * (point.kept - target) < 0)
    ended = taken & ~crossed & (sign * (point.log_epsilon - _end_of_march(problem)) >= 0)

    # The next interval may lose 0.85 of the margin that is left, if it loses as fast as this one.
    loss = sign * (_angle(near.kept) - _angle(worst))
    margin = sign * (_angle(jnp.where(taken, point.kept, near.kept)) - _angle(target))
    ratio = 0.85 * (margin + problem.slack) / jnp.maximum(loss, problem.eps)

    # At the ceiling "first" has crossed, unless there is none; at the coldest ε "last" has tried
    # every ε.
    lost = CalibrationStatus.ALWAYS_MET if sign > 0 else CalibrationStatus.UNREACHABLE
    status = jnp.where(ended, lost, state.status)
    shortfall = jnp.maximum(state.shortfall, sign * (target - worst))
    going = jnp.where(crossed, Phase.CLOSE, Phase.MARCH)
    return state._replace(
        phase=jnp.where(ended | ~point.converged, Phase.DONE, going),
        moved=taken & ~crossed,
        far=_End(point.log_epsilon, point.kept),
        step=state.step * jnp.where(taken, jnp.clip(ratio, 0.05, 3), jnp.clip(ratio, 0.05, 0.5)),
        shortfall=jnp.where(taken, shortfall, state.shortfall),
        status=jnp.where(point.converged, status, CalibrationStatus.NOT_CONVERGED),
    )


def _close(problem: _Problem, near: Point, state: _State, point: Point) -> _State:
    """Let ``point`` replace the end of the bracket that is on its side of the target."""
    target, far = problem.target, state.far
    is_near = problem.sign * (point.kept - target) >= 0
    ends = [_End(p.log_epsilon, p.kept) for p in (near, point)]
    dropped, new_far, new_near = (
        jax.tree.map(partial(jnp.where, is_near), a, b)
        for a, b in ((ends[0], far), (far, ends[1]), (ends[1], ends[0]))
    )

    # The end is the tolerance, or the resolution of floats, or the last step.
    width = abs(new_far.log_epsilon - new_near.log_epsilon)
    closed = abs(point.kept - target) <= problem.accepted
    closed = closed | (width <= 4 * problem.eps * (1 + abs(new_near.log_epsilon)))
    ended = closed | (state.num_closing + 1 >= _CLOSING_STEPS) | ~point.converged
    best = jnp.minimum(abs(new_near.kept - target), abs(new_far.kept - target))
    tolerance = 16 * problem.accepted * problem.settings.power * len(problem.logits)
    good = (best <= tolerance) & point.converged
    status = jnp.where(good, CalibrationStatus.FOUND, CalibrationStatus.NOT_CONVERGED)
    return state._replace(
        phase=jnp.where(ended, Phase.DONE, Phase.CLOSE),
        moved=is_near,
        far=new_far,
        dropped=dropped,
        status=jnp.where(ended, status, state.status),
        num_closing=state.num_closing + 1,
    )


# ---------------------------------------------------------------- arithmetic


def _angle(share: jax.Array) -> jax.Array:
    """Return arcsin of a share, in radians, the scale of the path law (law 1.6, sigma2_path)."""
    return jnp.arcsin(jnp.clip(share, 0, 1))


def _inside(problem: _Problem, near: Point, state: _State) -> jax.Array:
    """Return log ε between the ends of the bracket, by Chandrupatla's method.

    The chord at first; then inverse quadratic interpolation through the end dropped last, where
    that is monotone in the bracket; else the middle.
    """
    ends = _End(near.log_epsilon, near.kept), state.far
    (x1, y1), (x2, y2) = (
        jax.tree.map(partial(jnp.where, state.moved), a, b) for a, b in (ends, ends[::-1])
    )
    x3, f3 = state.dropped.log_epsilon, state.dropped.kept - problem.target
    f1, f2 = y1 - problem.target, y2 - problem.target
    xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
    safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
    quadratic = f1 / (f2 - f1) * f3 / (f2 - f3)
    quadratic += (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
    share = jnp.where(jnp.isnan(f3), f1 / (f1 - f2), jnp.where(safe, quadratic, 0.5))
    return x1 + jnp.where((share > 0) & (share < 1), share, 0.5) * (x2 - x1)
