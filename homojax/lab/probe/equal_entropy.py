"""Climb and descend σ₂ at a fixed entropy deficit, from random starts.

The largest σ₂: at fixed unit u, v ⊥ 1 the least deficit with uᵀMv = s is that of the projection of
βuvᵀ (law 2.3, frontier). A step takes for u, v the top singular pair of that projection, at the β
that has the deficit. No such step lowers σ₂, so the climb ends at a stationary point.

The smallest σ₂: Adam on a Schatten norm of the projection of βS, along the surface of equal
deficit. In both, β follows the deficit by Newton steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from homojax.birkhoff import detail, detail_basis, entropy_deficit
from homojax.bounds import schatten_bounds
from homojax.lab.probe.config import FrontierSearch
from homojax.programs import Effort, program
from homojax.projection.sinkhorn import sinkhorn
from homojax.spectrum.singular_value import top_singular_pair

CHUNK = 50  # steps between two reports of progress
SMOOTH_POWER = 16  # of the Schatten bound that stands in for σ₂: at the smallest all σ_k tie
RATE = 0.1  # of Adam, at its start
SETTLING_STEPS = 20  # Newton steps for β at the end

Side = Literal["largest", "smallest"]


class Lane(NamedTuple):
    """A search under way, at one deficit from one start."""

    logits: Any  # (u, v) of logits βuvᵀ, or (S,) of logits βS
    log_beta: Any
    state: optax.OptState
    sigma2: Any  # where the last step started; on the way down its smooth upper bound


def search_lanes(
    side: Side, n: int, deficits: np.ndarray, search: FrontierSearch, report: Callable[[int], None]
) -> tuple[np.ndarray, jax.Array]:
    """Return the best σ₂ so far after every chunk of steps, and the matrices of all lanes.

    Args:
        side: which σ₂ to look for.
        n: mixed units.
        deficits: [deficits], nats.
        search: starts, steps and seed.
        report: called with the number of chunks that are done.

    Returns:
        The history [deficits, chunks] and matrices [deficits, starts, n, n].
    """
    lane = _first_lanes(side, n, deficits, search)
    targets = np.broadcast_to(deficits[:, None], (len(deficits), search.starts))
    advance, history = _program(side, search.steps), []
    for done in range(0, search.steps, CHUNK):
        report(len(history))
        lane = advance(lane, targets, min(CHUNK, search.steps - done))
        sigma2 = np.asarray(lane.sigma2)
        history.append(sigma2.max(1) if side == "largest" else sigma2.min(1))
    return np.stack(history, 1), _settle(_outer_products(lane.logits), lane.log_beta, targets)


def _first_lanes(side: Side, n: int, deficits: np.ndarray, search: FrontierSearch) -> Lane:
    """Return random lanes [deficits, starts]: plain and skewed pairs, or normal logits."""
    rng = np.random.default_rng([search.seed, n, side == "largest"])
    lanes = len(deficits), search.starts
    if side == "largest":
        powers = (2, *lanes, 1)
        pairs = rng.standard_normal((2, *lanes, n)) ** rng.choice([1, 3], powers)
        pairs -= pairs.mean(-1, keepdims=True)
        logits = tuple(pairs / np.linalg.norm(pairs, axis=-1, keepdims=True))
        log_beta = np.log(n * np.sqrt(deficits) + 0.1)
    else:
        basis = np.asarray(detail_basis(n))
        logits = (basis @ rng.standard_normal((*lanes, n - 1, n - 1)) @ basis.T,)
        log_beta = np.zeros(len(deficits))
    lane = Lane(
        logits=logits,
        log_beta=np.broadcast_to(log_beta[:, None], lanes),
        state=jax.vmap(jax.vmap(_adam(search.steps).init))(logits),
        sigma2=np.zeros(lanes),
    )
    return jax.tree.map(jnp.asarray, lane)


def _adam(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(RATE, steps))


@cache
def _program(side: Side, total: int) -> Callable[[Lane, np.ndarray, int], Lane]:
    """Return the compiled steps of all lanes; ``total`` steps are what Adam's rate decays over."""
    step = _step_up if side == "largest" else partial(_step_down, _adam(total))

    @partial(program, effort=Effort.LESS, static_argnums=2)
    @partial(jax.vmap, in_axes=(0, 0, None))
    @partial(jax.vmap, in_axes=(0, 0, None))
    def advance(lane, deficit, steps):
        return jax.lax.fori_loop(0, steps, lambda _, lane: step(lane, deficit), lane)

    return advance


# ---------------------------------------------------------------- one lane


def _step_up(lane: Lane, deficit: jax.Array) -> Lane:
    project = partial(_project, _outer_products(lane.logits))
    found, slope, matrix = jax.jvp(
        project, (lane.log_beta,), (jnp.ones_like(lane.log_beta),), has_aux=True
    )
    sigma2, u, v = top_singular_pair(detail(matrix))
    log_beta = _approach(lane.log_beta, found, slope, deficit)
    return lane._replace(logits=(u, v), log_beta=log_beta, sigma2=sigma2)


def _step_down(adam: optax.GradientTransformation, lane: Lane, deficit: jax.Array) -> Lane:
    """Return the lane after one step of Adam on σ₂'s smooth upper bound, at equal deficit."""

    def both(logits, log_beta):
        found, matrix = _project(logits, log_beta)
        return schatten_bounds(matrix, SMOOTH_POWER)[1], found

    (sigma2, found), pull_back = jax.vjp(both, lane.logits[0], lane.log_beta)
    one, zero = jnp.ones_like(found), jnp.zeros_like(found)
    sigma_slope, sigma_beta = pull_back((one, zero))
    deficit_slope, deficit_beta = pull_back((zero, one))
    # Along the surface β makes up for what the logits do to the deficit: that part is taken off.
    rate = sigma_beta / jnp.maximum(deficit_beta, jnp.finfo(found.dtype).tiny)
    slope = sigma_slope - rate * deficit_slope
    slope = jnp.where(jnp.isfinite(slope).all(), slope, 0)
    updates, state = adam.update((slope,), lane.state)
    return Lane(
        logits=optax.apply_updates(lane.logits, updates),
        log_beta=_approach(lane.log_beta, found, deficit_beta, deficit),
        state=state,
        sigma2=sigma2,
    )


@program
@jax.vmap
@jax.vmap
def _settle(logits: jax.Array, log_beta: jax.Array, deficit: jax.Array) -> jax.Array:
    """Return the projection of β times the logits at the β that has the deficit."""
    project = partial(_project, logits)

    def step(_, log_beta):
        found, slope, _ = jax.jvp(project, (log_beta,), (jnp.ones_like(log_beta),), has_aux=True)
        return _approach(log_beta, found, slope, deficit)

    return project(jax.lax.fori_loop(0, SETTLING_STEPS, step, log_beta))[1]


def _outer_products(parts: tuple[jax.Array, ...]) -> jax.Array:
    """Return the logits [..., n, n] of lanes: uvᵀ of a pair, or as they are."""
    return parts[0][..., :, None] * parts[1][..., None, :] if len(parts) == 2 else parts[0]


def _project(logits: jax.Array, log_beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the projection's entropy deficit, and the projection."""
    matrix = cast(jax.Array, sinkhorn(jnp.exp(log_beta) * logits, 1.0).matrix)
    return entropy_deficit(matrix), matrix


def _approach(
    log_beta: jax.Array, found: jax.Array, slope: jax.Array, deficit: jax.Array
) -> jax.Array:
    """Take one bounded Newton step to the β with the deficit, which rises with β (law 1.3)."""
    step = (deficit - found) / jnp.maximum(slope, jnp.finfo(slope.dtype).tiny)
    return log_beta + jnp.clip(step, -1, 1)
