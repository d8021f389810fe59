"""Damped Newton steps on the semi-dual, down a schedule of ε: one descent, dense or factored.

The semi-dual Σ log Σ exp(S/ε + g) − Σg is convex in the column potential g. Its gradient is
(column sums − 1) and its Hessian is diag(column sums) − MᵀM, where the rows of M are normalised.
The Hessian's kernel is 1, so every step stays in the complement of the constants.

``iterations.newton`` (an [n, n] array) and ``factored_solver.project_factored`` (blocks of rows)
share the rules below. They bring the linear solve and the move along a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from homojax.birkhoff import center
from homojax.loops import repeat_while

COOLING = 0.35  # the next stage's ε over this one's
ABOVE = 4.0  # a descent begins at so many times its first ε: a power of two, so nothing is rounded
FIRST_DAMPING, LEAST_RAISED_DAMPING, MOST_DAMPING = 0.01, 1e-3, 1e6


class Rules(NamedTuple):
    """Thresholds that differ between dense and factored logits."""

    near: float  # the error below which Newton's method converges fast, and a stage is done
    most_in_vain: int  # steps without a smaller error, before the descent is taken to have stalled


class Turn(NamedTuple):
    """One turn of a descent, as its linear solve and its move see it."""

    stage: jax.Array  # ε of the current iterate
    next_stage: jax.Array  # ε of the trial
    colder: jax.Array  # bool: this turn moves to a colder stage, along no step
    rejected: jax.Array  # bool: the last step was not kept, so an alternation is due
    gradient: jax.Array  # [n], what is missing in the column sums, centred
    diagonal: jax.Array  # [n], of the damped Hessian, without MᵀM


class Descent(NamedTuple):
    """The state of a descent."""

    current: Any  # the iterate: rows sum to 1; has ``col_sums`` [n], ``error`` and ``num_steps``
    stage: jax.Array  # ε of ``current``
    damping: jax.Array  # Levenberg and Marquardt's, in units of the error
    rejected: jax.Array  # bool: the last step was not kept
    least_error: jax.Array  # at this stage
    in_vain: jax.Array  # steps since ``least_error`` last fell by a hundredth


def descend(
    current: Any,
    stage: jax.Array,
    first_stage: jax.Array,
    epsilon: jax.Array,
    tol: jax.Array,
    *,
    solve: Callable[[Any, Turn], tuple[jax.Array, jax.Array]],
    move: Callable[[Any, Turn, jax.Array, jax.Array], tuple[Any, jax.Array]],
    rules: Rules,
    max_steps: int,
) -> Any:
    """Return the iterate at which Newton's method ends.

    A step is kept if the semi-dual or the error falls. After a step that was not kept comes an
    alternation, which always descends and feeds columns that have starved.

    Args:
        current: iterate to begin from, a pytree with ``col_sums``, ``error`` and ``num_steps``.
        stage: its ε. Above ``first_stage``, with an error of 0, the first turn only moves there.
        first_stage: the hottest ε of the schedule.
        epsilon: the ε asked for, at which the schedule ends.
        tol: the descent ends at an error of half of this.
        solve: (current, turn) -> (the Newton step [n], its cost).
        move: (current, turn, step, cost) -> (the trial iterate, with all costs in its
            ``num_steps``; whether the semi-dual fell).
        rules: the thresholds.
        max_steps: most ``num_steps``.
    """

    def unfinished(state: Descent) -> jax.Array:
        now = state.current
        # Written so that an ε of NaN takes one turn, whose error is NaN, and ends.
        wanted = (now.error > tol / 2) | ~(state.stage <= epsilon)
        within = (now.num_steps < max_steps) & (state.in_vain < rules.most_in_vain)
        to_begin = ~(state.stage <= first_stage)  # whatever ``max_steps``: it forms the matrix
        return wanted & (within | to_begin) & jnp.isfinite(now.error)

    def advance(state: Descent) -> Descent:
        turn = _plan(state, first_stage, epsilon, rules)
        newton_step, cost = solve(state.current, turn)
        alternation = alternation_step(state.current.col_sums)
        step = jnp.where(turn.rejected, alternation, center(newton_step))
        step = jnp.where(turn.colder, 0, step)
        trial, falls = move(state.current, turn, step, cost)
        return _judge(state, turn, trial, falls)

    begin = Descent(
        current=current,
        stage=stage,
        damping=jnp.full_like(epsilon, FIRST_DAMPING),
        rejected=jnp.asarray(False),
        least_error=current.error,
        in_vain=jnp.asarray(0),
    )
    return repeat_while(unfinished, advance, begin).current


def alternation_step(col_sums: jax.Array) -> jax.Array:
    """Return what one alternation adds to the column potential, [n], centred.

    >>> [round(x, 4) for x in alternation_step(jnp.array([1.5, 0.5])).tolist()]
    [-0.5493, 0.5493]
    """
    return center(-jnp.log(jnp.maximum(col_sums, jnp.finfo(col_sums.dtype).tiny)))


def _plan(state: Descent, first_stage: jax.Array, epsilon: jax.Array, rules: Rules) -> Turn:
    """Decide between a step at this stage and the move to the next, and damp the Hessian."""
    now, eps = state.current, float(jnp.finfo(epsilon.dtype).eps)
    colder = (now.error < rules.near) & ~(state.stage <= epsilon)
    cooled = jnp.maximum(epsilon, jnp.minimum(COOLING * state.stage, first_stage))
    # In proportion to the error, so that damping stays below the least curvature 1 − σ₂². At least
    # 4 eps, or rounding would move parts that hardly touch each other.
    damping = jnp.maximum(state.damping * jnp.minimum(now.error, 1), 4 * eps)
    return Turn(
        stage=state.stage,
        next_stage=jnp.where(colder, cooled, state.stage),
        colder=colder,
        rejected=state.rejected,
        gradient=center(1 - now.col_sums),
        diagonal=now.col_sums + damping * jnp.maximum(now.col_sums, eps**0.5),
    )


def _judge(state: Descent, turn: Turn, trial: Any, falls: jax.Array) -> Descent:
    """Keep the trial or not, and adapt the damping and the count of steps in vain."""
    now, eps = state.current, float(jnp.finfo(turn.stage.dtype).eps)
    better = turn.rejected | falls | (trial.error < now.error)
    keep = turn.colder | (better & jnp.isfinite(trial.error))
    kept = jax.tree.map(lambda new, old: jnp.where(keep, new, old), trial, now)
    kept = kept._replace(num_steps=trial.num_steps)

    halved = trial.error < 0.5 * now.error
    eased = jnp.where(halved, 0.05 * state.damping, 0.3 * state.damping)
    eased = jnp.where(turn.rejected, state.damping, eased)
    raised = jnp.maximum(8 * state.damping, LEAST_RAISED_DAMPING)
    damping = jnp.clip(jnp.where(keep, eased, raised), eps, MOST_DAMPING)
    fruitful = turn.colder | (kept.error < 0.99 * state.least_error)
    return Descent(
        current=kept,
        stage=turn.next_stage,
        damping=jnp.where(turn.colder, state.damping, damping),
        rejected=~keep,
        least_error=jnp.where(fruitful, kept.error, state.least_error),
        in_vain=jnp.where(fruitful, 0, state.in_vain + 1),
    )
