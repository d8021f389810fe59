"""Climb from every start side by side: Adam on a smooth score, then L-BFGS on the score itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from homojax.lab.probe.config import Goal, Search
from homojax.lab.probe.objective import Arrays, draw_starts, score, without_starts
from homojax.lab.progress import Progress
from homojax.programs import Effort, program
from homojax.theory.claim import Claim

CHUNK = 20  # steps between two reports of progress
LINE_SEARCH_STEPS = 20  # most halvings of a quasi-Newton step

Order = Literal["first-order", "quasi-Newton"]


class Climb(NamedTuple):
    """A search under way, of one start."""

    parameters: Any
    state: Any  # the optimiser's
    best: Any  # the best parameters so far
    best_score: jax.Array


def climb(
    goal: Goal, claim: Claim, search: Search, progress: Progress
) -> tuple[Arrays, np.ndarray]:
    """Return the best parameters of every start, and its best score after each step.

    Returns:
        Parameters [starts, …] and scores [steps + polish, starts]; a score is NaN before the
        start's first finite one.
    """
    total = search.steps + search.polish
    lanes: Arrays = draw_starts(claim, search)
    scores = []
    stages: list[tuple[Order, int, int]] = [
        ("first-order", 0, search.steps),
        ("quasi-Newton", search.steps, search.polish),
    ]
    for order, before, steps in stages:
        begin, advance = climber(claim, goal, without_starts(search), order)
        state = begin(lanes) if steps else None
        for done in range(0, steps, CHUNK):
            progress(before + done, total, f"{goal} {claim.name}, {order} steps")
            state, values = advance(state, min(CHUNK, steps - done))
            scores.append(np.asarray(values).T)
        lanes = lanes if state is None else state.best
    values = np.concatenate(scores)
    return lanes, np.fmax.accumulate(np.where(np.isfinite(values), values, np.nan))


@cache
def climber(claim: Claim, goal: Goal, search: Search, order: Order) -> tuple[Callable, Callable]:
    """Return the two programs of a climb, compiled, with a leading axis of starts.

    Returns:
        ``begin``: parameters -> Climb, and ``advance``: (Climb, a number of steps) -> (Climb,
        scores [starts, steps]).
    """

    def loss(parameters):
        return -score(claim, goal, search, parameters, smooth=order == "first-order")

    rule = _rule(search, order)
    value_and_grad = jax.value_and_grad(loss)

    def begin(parameters):
        start = Climb(parameters, rule.init(parameters), parameters, jnp.asarray(-jnp.inf))
        # Weak types would make every start compile ``advance`` twice.
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), start)

    def step(climb: Climb, _):
        value, slope = value_and_grad(climb.parameters)
        updates, state = rule.update(
            slope, climb.state, climb.parameters, value=value, grad=slope, value_fn=loss
        )
        # A start whose value, slope or step is not finite stays where it is.
        usable = jnp.isfinite(value) & _is_finite(slope) & _is_finite(updates)
        parameters = optax.apply_updates(climb.parameters, updates)
        better = -value > climb.best_score
        after = Climb(
            parameters=_choose(usable, parameters, climb.parameters),
            state=_choose(usable, state, climb.state),
            best=_choose(better, climb.parameters, climb.best),
            best_score=jnp.where(better, -value, climb.best_score),
        )
        return after, -value

    def advance(climb, steps):
        return jax.vmap(lambda climb: jax.lax.scan(step, climb, length=steps))(climb)

    return program(jax.vmap(begin)), program(advance, Effort.LESS, static_argnums=1)


def _rule(search: Search, order: Order) -> optax.GradientTransformationExtraArgs:
    """Return the optimiser of a stage."""
    if order == "first-order":
        rates = optax.cosine_decay_schedule(search.bound / 20, search.steps)
        return optax.with_extra_args_support(optax.adam(rates))
    return optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(LINE_SEARCH_STEPS))


def _choose(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)


def _is_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()
