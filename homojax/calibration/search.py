"""The way to the root: seek, march by certified intervals, close in."""

from __future__ import annotations

import enum
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from homojax.calibration.certificate import _between, _Point, _project
from homojax.numerics import marginal_tolerance


class CalibrationStatus(enum.IntEnum):
    """How a calibration ended. Only ``FOUND`` comes with an ε; with any other it is NaN.

    >>> CalibrationStatus(2).name
    'NO_DETAIL'
    """

    FOUND = 0
    UNREACHABLE = (
        1  # root="first": missed at the coldest ε that floats resolve; "last": at every ε looked at
    )
    NO_DETAIL = 2  # a layer's logits are row and column shifts, to rounding: σ₂ = 0 at every ε
    BAD_TARGET = 3  # outside (0, 1), or NaN
    NOT_FINITE = 4  # a logit is NaN or infinite, or two are further apart than the largest number
    NOT_CONVERGED = (
        5  # a projection on the way did not converge, or the last interval did not close
    )


# ---------------------------------------------------------------- the way to the root


_SEEK, _MARCH, _CLOSE, _DONE = range(4)
_CLOSING_STEPS = 40


class _Search(NamedTuple):
    phase: jax.Array
    at: _Point  # all is certified up to here
    beyond: _Point  # closing in: the other end of the bracket
    step: jax.Array  # in log ε, > 0
    left: (
        jax.Array
    )  # [2], log ε and kept − target where the bracket last ended; NaN before there was another
    last_near: jax.Array  # bool: the last closing step moved ``at``
    shortfall: jax.Array
    status: jax.Array
    num_projections: jax.Array
    num_closing: jax.Array


def _search(
    logits: jax.Array,
    target: jax.Array,
    log_ceiling: jax.Array,
    *,
    root: str,
    kept: str,
    power: int,
    max_projections: int,
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
            phase=jnp.where(
                proved, _MARCH, jnp.where(ended, jnp.where(meets, _MARCH, _DONE), _SEEK)
            ),
            status=jnp.where(ended & ~proved & ~meets, lost, s.status),
            shortfall=jnp.where(proved, 0, s.shortfall),
        )

    def march(s: _Search, p: _Point) -> _Search:
        least, most = _between(s.at, p, kept, power)
        bad = (
            target - least if first else most - target
        )  # how far on the wrong side it may go in between
        loss = angle(s.at.kept) - angle(least) if first else angle(most) - angle(s.at.kept)
        within = (
            angle(least) >= angle_of_target - slack
            if first
            else angle(most) <= angle_of_target + slack
        )
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
            status=jnp.where(
                ~p.converged, CalibrationStatus.NOT_CONVERGED, jnp.where(ended, why, s.status)
            ),
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
            status=jnp.where(
                ended,
                jnp.where(found, CalibrationStatus.FOUND, CalibrationStatus.NOT_CONVERGED),
                s.status,
            ),
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
        ends = (
            jnp.stack([s.at.x, s.at.kept - target]),
            jnp.stack([s.beyond.x, s.beyond.kept - target]),
        )
        inside = _chandrupatla(*ends, s.left, s.last_near)
        x = jnp.where(
            s.phase == _SEEK, s.at.x - math.log(2), jnp.where(s.phase == _MARCH, ahead, inside)
        )
        p = project(x, s.at.potential * jnp.exp(s.at.x - x))
        s = s._replace(num_projections=s.num_projections + 1)
        after = [seek(s, p), march(s, p), close(s, p)]
        return jax.tree.map(
            lambda *states: jax.lax.select_n(jnp.clip(s.phase, 0, 2), *states), *after
        )

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
    x, share = (
        jnp.where(nearer, b, a)
        for a, b in ((end.at.x, end.beyond.x), (end.at.kept, end.beyond.kept))
    )
    worst = (
        angle_of_target - angle(target - end.shortfall)
        if first
        else angle(target + end.shortfall) - angle_of_target
    )
    certified = jnp.isfinite(end.shortfall) & (worst <= 1.001 * slack)
    return x, share, end.status, certified, end.shortfall, end.num_projections


def _chandrupatla(
    at: jax.Array, beyond: jax.Array, left: jax.Array, last_near: jax.Array
) -> jax.Array:
    """Where to look for the root between two points (x, value), from the point that the bracket last ended in too.

    By inverse quadratic interpolation where that is monotone in the bracket, else the middle; at first by the chord.
    """
    (x1, f1), (x2, f2), (x3, f3) = (
        jnp.where(last_near, at, beyond),
        jnp.where(last_near, beyond, at),
        left,
    )
    xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
    safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
    quadratic = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (
        f3 - f2
    )
    share = jnp.where(jnp.isnan(f3), f1 / (f1 - f2), jnp.where(safe, quadratic, 0.5))
    return x1 + jnp.where((share > 0) & (share < 1), share, 0.5) * (x2 - x1)
