"""The tokens that come nearest to what is certified, found by gradient."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from homojax.birkhoff import marginal_errors
from homojax.lab.audit.ellipsoid import MOST_CYCLES, cuts, ellipsoid_of
from homojax.lab.audit.layers import Layer
from homojax.loops import repeat
from homojax.presets import Preset
from homojax.programs import Effort, program
from homojax.projection.sinkhorn import sinkhorn
from homojax.spectrum.gap import log_contraction_gap

STARTS, STEPS = 8, 60


class Worst(NamedTuple):
    """What a token attains: the one with rmsnorm(x) = Φᵀ direction."""

    value: float
    parameters: np.ndarray  # in the shape of the layer's base
    direction: np.ndarray  # [p]


def smallest_gaps(layers: list[Layer], seed: int = 0) -> list[Worst]:
    """Return, for each layer, the token of the smallest 1 − σ₂ found, converged.

    The layers are of one n and one preset, which has alternations; so they are below.
    """
    return _search(layers, _minus_log_gap, lambda x: float(np.exp(-x)), seed)


def largest_sum_errors(layers: list[Layer], seed: int = 0) -> list[Worst]:
    """Return, for each layer, the token of the largest |sum − 1| found, as run."""
    return _search(layers, _sum_error, float, seed)


def _minus_log_gap(preset: Preset, parameters: jax.Array) -> tuple[jax.Array, jax.Array]:
    solved = sinkhorn(parameters, preset.epsilon)
    value = -log_contraction_gap(solved.log_matrix)
    return value, jnp.where(jnp.isfinite(value), value, -jnp.inf)


def _sum_error(preset: Preset, parameters: jax.Array) -> tuple[jax.Array, jax.Array]:
    matrix = preset.matrix(parameters)
    errors = jnp.concatenate([matrix.sum(0), matrix.sum(1)]) - 1
    # A norm climbs better than the largest of many.
    smooth = jnp.log((errors**2).sum() + jnp.finfo(matrix.dtype).tiny)
    return smooth, jnp.maximum(*marginal_errors(matrix))


Objective = Callable[[Preset, jax.Array], tuple[jax.Array, jax.Array]]


def _search(
    layers: list[Layer], objective: Objective, value: Callable[[float], float], seed: int
) -> list[Worst]:
    """Climb from several tokens of each layer at once; return the best of each layer."""
    rng = np.random.default_rng(seed)
    roots, starts = zip(*(_starts(layer, rng) for layer in layers), strict=True)
    base = np.stack([layer.base for layer in layers])
    climb = _climber(layers[0].preset, objective)
    found, points = (np.asarray(x) for x in climb(base, np.stack(roots), np.stack(starts)))
    worst = []
    for i, layer in enumerate(layers):
        best = int(found[i].argmax())
        parameters = layer.base + (roots[i] @ points[i, best]).reshape(layer.base.shape)
        reach = abs(layer.scale) * layer.radius
        inverse = np.linalg.pinv(roots[i] / max(reach, 1e-300), hermitian=True)
        direction = layer.radius * inverse @ points[i, best]
        worst.append(Worst(value(float(found[i, best])), parameters, direction))
    return worst


def _starts(layer: Layer, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the root R of the ellipsoid, base + R v for ‖v‖ ≤ 1, and points v to start from."""
    size = layer.base.size
    gram = np.zeros((size, size)) if layer.gram is None else layer.gram
    values, vectors = np.linalg.eigh(gram)
    reach = abs(layer.scale) * layer.radius
    root = reach * (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    points = [np.zeros((1, size)), rng.normal(size=(STARTS, size))]
    if layer.preset.num_iters is not None and layer.n <= MOST_CYCLES:
        ellipsoid = ellipsoid_of(
            layer._replace(preset=layer.preset._replace(orientation="outputs-first"))
        )
        for _, of_a in itertools.groupby(cuts(layer.n), lambda cut: cut.inputs):
            ways = np.concatenate([cut.directions() for cut in of_a])
            points.append((ways[ellipsoid.most(ways).argmax()] @ root)[None])
    starts = np.concatenate(points)
    norms = np.sqrt((starts**2).sum(1, keepdims=True))
    return root, starts / np.maximum(norms, 1e-300)


@cache
def _climber(preset: Preset, objective: Objective) -> Callable:
    """Return the compiled search: (base [L, …], roots [L, p, p], starts [L, S, p]) -> best."""

    def climb(base: jax.Array, root: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
        def score(point: jax.Array) -> tuple[jax.Array, jax.Array]:
            return objective(preset, base + (root @ point).reshape(base.shape))

        def step(k: jax.Array, state: tuple) -> tuple:
            point, best, at = state
            (_, value), gradient = jax.value_and_grad(score, has_aux=True)(point)
            better = value > best
            best, at = jnp.where(better, value, best), jnp.where(better, point, at)
            gradient = jnp.where(jnp.isfinite(gradient).all(), gradient, 0)
            length = jnp.sqrt((gradient**2).sum())
            size = 0.5 * 0.93**k
            point = point + size * gradient / jnp.where(length > 0, length, 1)
            return point / jnp.maximum(1, jnp.sqrt((point**2).sum())), best, at

        _, best, at = repeat(STEPS, step, (start, jnp.full((), -jnp.inf, base.dtype), start))
        return best, at

    return program(jax.vmap(jax.vmap(climb, (None, None, 0)), (0, 0, 0)), Effort.LESS)
