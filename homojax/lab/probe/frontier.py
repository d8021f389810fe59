"""The frontier of theory.md 2.3: the largest and the smallest σ₂ at each entropy deficit, by constrained optimisation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from threadpoolctl import threadpool_limits

from homojax.birkhoff import detail, detail_basis, entropy_deficit, isolated_unit, marginal_errors
from homojax.bounds import isolated_unit_frontier, schatten_bounds
from homojax.lab.inputs import InputError, require_precision
from homojax.lab.runs import versions
from homojax.projection.errors import entropy_error, projection_distance
from homojax.projection.sinkhorn import sinkhorn
from homojax.spectrum.singular_value import top_singular_pair

CHUNK = 50  # steps between two reports of progress
SMOOTH_POWER = 16  # of the Schatten bound that stands in for σ₂ where it is made small: there all singular values tie
MISSED_DEFICIT = 1e-9  # nats; a lane farther from its deficit counts for nothing


@dataclasses.dataclass(frozen=True)
class FrontierSearch:
    """At which n and deficits to look, and how long."""

    n: tuple[int, ...] = (3, 4, 8, 16)
    """Mixed units, at least 2."""
    deficits: int = 20
    """Per n: evenly spread up to that of the isolated unit, at which σ₂ = 1 is reached."""
    starts: int = 32
    """Random starts at each deficit."""
    steps: int = 400
    """Of each of the two searches."""
    seed: int = 0
    """Of the starts."""

    def __post_init__(self):
        object.__setattr__(self, "n", tuple(self.n))
        for name, least in (("deficits", 1), ("starts", 1), ("steps", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name} = {getattr(self, name)} is not possible: it must be at least {least}."
                )
        if not self.n or min(self.n) < 2:
            raise InputError(
                "n needs at least one value, each at least 2: one unit has no detail to mix."
            )


class _Lane(NamedTuple):
    """A search under way, at one deficit from one start."""

    logits: Any  # (u, v) of logits βuvᵀ, or (S,) of logits βS
    log_beta: Any
    state: optax.OptState
    sigma2: (
        Any  # where the last step started; of the search for the smallest its smooth upper bound
    )


@threadpool_limits.wrap(limits=1, user_api="blas")
def frontier(
    search: FrontierSearch | None = None, *, progress: Callable[[int, int, str], None] | None = None
) -> xr.Dataset:
    """The largest and the smallest σ₂ found at each entropy deficit, beside the isolated unit's and the bounds.

    The largest: at fixed unit u, v ⊥ 1 the least deficit with uᵀMv = s is that of the projection of βuvᵀ (theory.md 2.3). So
    putting for u, v the top singular pair of that projection, at the β that has the deficit, never lowers σ₂; from random
    starts this climbs to a stationary point. The smallest: Adam on a Schatten norm of the projection of βS, along the surface
    of equal deficit. β follows the deficit by Newton steps; σ₂ at the end is that of the matrix, whose own deficit it is held
    against.

    Dimensions n, deficit (its number). Variables: ``entropy_deficit`` (nat), ``sigma2_largest``, ``sigma2_smallest``,
    ``isolated_unit`` (σ₂ of that matrix at the deficit of the largest), ``excess`` (largest − isolated_unit), ``excess_error``,
    ``share`` (of the starts that came within 1e-6 of the largest), ``history_largest`` and ``history_smallest`` (the best so
    far), and the matrices found, ``largest`` and ``smallest`` [row, column], padded with NaN. NaN where no start met the deficit.
    ``ds.homojax.plot()`` draws it.

    Raises:
        InputError: JAX's x64 is switched off.

    >>> ds = frontier(FrontierSearch(n=(3,), deficits=4, starts=6, steps=150))
    >>> bool((ds.excess <= ds.excess_error).all())
    True
    """
    search = search or FrontierSearch()
    require_precision("float64")
    shape, most, chunks = (len(search.n), search.deficits), max(search.n), -(-search.steps // CHUNK)
    data = {name: np.full(shape, np.nan) for name in _VARIABLES}
    found = {name: np.full((*shape, most, most), np.nan) for name in ("largest", "smallest")}
    history = {name: np.full((*shape, chunks), np.nan) for name in found}
    total = 2 * chunks * len(search.n)
    for i, n in enumerate(search.n):
        deficits = np.linspace(0, float(entropy_deficit(isolated_unit(n))), search.deficits + 2)[
            1:-1
        ]
        curve_at = jax.vmap(partial(isolated_unit_frontier, n=n))
        for side, goal in enumerate(found):
            climb = _climb(goal, n, deficits, search)
            for chunk in range(chunks):
                if progress:
                    progress(chunks * (2 * i + side) + chunk, total, f"{goal} σ₂, n = {n}")
                history[goal][i, :, chunk] = next(climb)
            matrices = next(climb)
            deficit, sigma2, error, distance = (np.asarray(x) for x in _measure(matrices))
            met = np.isfinite(sigma2) & (abs(deficit - deficits[:, None]) <= MISSED_DEFICIT)
            ranked = np.where(met, sigma2 if goal == "largest" else -sigma2, -np.inf)
            at = np.arange(search.deficits), ranked.argmax(1)
            sound = np.where(met[at], 1.0, np.nan)  # NaN where no start met the deficit
            found[goal][i, :, :n, :n] = np.asarray(matrices)[at] * sound[:, None, None]
            data[f"sigma2_{goal}"][i] = sigma2[at] * sound
            if goal == "largest":
                curve, ahead = (
                    np.asarray(curve_at(deficit[at])),
                    np.asarray(curve_at(deficit[at] + error[at])),
                )
                data["entropy_deficit"][i], data["isolated_unit"][i] = deficits, curve * sound
                data["excess"][i], data["excess_error"][i] = (
                    (sigma2[at] - curve) * sound,
                    (ahead - curve + distance[at]) * sound,
                )
                data["share"][i] = (ranked >= ranked[at][:, None] - 1e-6).mean(1) * sound
    if progress:
        progress(total, total, "done")
    coords = {
        "n": ("n", list(search.n), {"long_name": "mixed units", "units": "1"}),
        "deficit": np.arange(search.deficits),
    }
    variables = {
        name: (("n", "deficit"), values, _VARIABLES[name]) for name, values in data.items()
    }
    matrices = {
        name: (
            ("n", "deficit", "row", "column"),
            values,
            {"long_name": f"the matrix of the {name} σ₂ found", "units": "1"},
        )
        for name, values in found.items()
    }
    variables |= {
        f"history_{name}": (
            ("n", "deficit", "chunk"),
            values,
            {"long_name": f"{name} σ₂ on the way, every {CHUNK} steps"},
        )
        for name, values in history.items()
    }
    config = json.dumps(dataclasses.asdict(search))
    attrs = {
        "title": "homojax probe frontier",
        "config": config,
        "versions": json.dumps(versions()),
        "dtype": "float64",
    }
    return xr.Dataset(variables | matrices, coords, attrs)


_VARIABLES = {
    "entropy_deficit": {"long_name": "entropy deficit n log n − H", "units": "nat"},
    "sigma2_largest": {"long_name": "largest σ₂ found", "units": "1"},
    "sigma2_smallest": {"long_name": "smallest σ₂ found", "units": "1"},
    "isolated_unit": {"long_name": "σ₂ of (1 − t)J + t(1 ⊕ J) at this deficit", "units": "1"},
    "excess": {"long_name": "largest σ₂ found less the isolated unit's", "units": "1"},
    "excess_error": {
        "long_name": "what rounding and the projection can leave in that",
        "units": "1",
    },
    "share": {
        "long_name": "share of the starts that came within 1e-6 of the largest",
        "units": "1",
    },
}


def _climb(
    goal: str, n: int, deficits: np.ndarray, search: FrontierSearch
) -> Iterator[np.ndarray | jax.Array]:
    """The best σ₂ so far [deficits] after every chunk of steps; then the matrices that all end at, [deficits, starts, n, n]."""
    rng = np.random.default_rng([search.seed, n, goal == "largest"])
    lanes = (len(deficits), search.starts)
    if goal == "largest":
        pairs = rng.standard_normal((2, *lanes, n)) ** rng.choice(
            [1, 3], (2, *lanes, 1)
        )  # plain and skewed directions
        pairs -= pairs.mean(-1, keepdims=True)
        logits = tuple(pairs / np.linalg.norm(pairs, axis=-1, keepdims=True))
    else:
        basis = np.asarray(detail_basis(n))
        logits = (basis @ rng.standard_normal((*lanes, n - 1, n - 1)) @ basis.T,)
    adam = optax.adam(optax.cosine_decay_schedule(0.1, search.steps))
    deficits = np.broadcast_to(deficits[:, None], lanes)
    log_beta = np.log(n * np.sqrt(deficits) + 0.1) * (goal == "largest")
    start = _Lane(logits, log_beta, jax.vmap(jax.vmap(adam.init))(logits), np.zeros(lanes))
    step = _step_up if goal == "largest" else partial(_step_down, adam)

    @partial(jax.jit, static_argnums=2)
    @partial(jax.vmap, in_axes=(0, 0, None))
    @partial(jax.vmap, in_axes=(0, 0, None))
    def advance(lane, deficit, steps):
        return jax.lax.fori_loop(0, steps, lambda _, lane: step(lane, deficit), lane)

    lane = jax.tree.map(jnp.asarray, start)
    for done in range(0, search.steps, CHUNK):
        lane = advance(lane, deficits, min(CHUNK, search.steps - done))
        sigma2 = np.asarray(lane.sigma2)
        yield sigma2.max(1) if goal == "largest" else sigma2.min(1)
    yield jax.jit(jax.vmap(jax.vmap(_settled)))(lane, deficits)


def _logits(parts: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.outer(*parts) if len(parts) == 2 else parts[0]


def _deficit_of(logits: jax.Array, log_beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    matrix = cast(jax.Array, sinkhorn(jnp.exp(log_beta) * logits, 1.0).matrix)
    return entropy_deficit(matrix), matrix


def _newton(
    log_beta: jax.Array, found: jax.Array, slope: jax.Array, deficit: jax.Array
) -> jax.Array:
    """One bounded step towards the β with the deficit, which rises with β (theory.md 1.3)."""
    return log_beta + jnp.clip(
        (deficit - found) / jnp.maximum(slope, jnp.finfo(slope.dtype).tiny), -1, 1
    )


def _step_up(lane: _Lane, deficit: jax.Array) -> _Lane:
    along = partial(_deficit_of, _logits(lane.logits))
    found, slope, matrix = jax.jvp(
        along, (lane.log_beta,), (jnp.ones_like(lane.log_beta),), has_aux=True
    )
    sigma2, u, v = top_singular_pair(detail(matrix))
    return lane._replace(
        logits=(u, v), log_beta=_newton(lane.log_beta, found, slope, deficit), sigma2=sigma2
    )


def _step_down(adam: optax.GradientTransformation, lane: _Lane, deficit: jax.Array) -> _Lane:
    """Adam on σ₂'s smooth upper bound at equal deficit: its gradient less the part that β makes up for."""

    def both(logits, log_beta):
        found, matrix = _deficit_of(logits, log_beta)
        return schatten_bounds(matrix, SMOOTH_POWER)[1], found

    (sigma2, found), pull_back = jax.vjp(both, lane.logits[0], lane.log_beta)
    one, zero = jnp.ones_like(found), jnp.zeros_like(found)
    (sigma_slope, sigma_beta), (deficit_slope, deficit_beta) = (
        pull_back((one, zero)),
        pull_back((zero, one)),
    )
    rate = sigma_beta / jnp.maximum(deficit_beta, jnp.finfo(found.dtype).tiny)
    slope = sigma_slope - rate * deficit_slope
    slope = jnp.where(jnp.isfinite(slope).all(), slope, 0)
    updates, state = adam.update((slope,), lane.state)
    return _Lane(
        optax.apply_updates(lane.logits, updates),
        _newton(lane.log_beta, found, deficit_beta, deficit),
        state,
        sigma2,
    )


def _settled(lane: _Lane, deficit: jax.Array) -> jax.Array:
    """The matrix at the β that has the deficit."""
    along = partial(_deficit_of, _logits(lane.logits))

    def step(_, log_beta):
        found, slope, _ = jax.jvp(along, (log_beta,), (jnp.ones_like(log_beta),), has_aux=True)
        return _newton(log_beta, found, slope, deficit)

    return along(jax.lax.fori_loop(0, 20, step, lane.log_beta))[1]


@jax.jit
@jax.vmap
@jax.vmap
def _measure(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(ΔH, σ₂, errors of the two) of a matrix that is nearly in 𝔅ₙ."""
    sigma2 = top_singular_pair(detail(matrix))[0]
    distance = projection_distance(matrix, *marginal_errors(matrix), sigma2)
    return entropy_deficit(matrix), sigma2, entropy_error(len(matrix), distance), distance
