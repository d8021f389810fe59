"""The map from parameters to a mixing matrix, by name, as every layer uses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.parametrizations import PARAMETRIZATIONS
from homojax.presets import PRESETS
from homojax.registry import nearest


@dataclasses.dataclass(frozen=True)
class Mixer:
    """A parametrization (theory.md §6) or a preset of public code, for layers of n mixed units.

    >>> uniform = mixer("sinkhorn", 2)
    >>> uniform.matrix(jnp.zeros((2, 2)), 1.0).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """

    matrix: Callable[[jax.Array, ArrayLike], jax.Array]
    """(parameters, ε) -> [n, n]; a preset ignores ε and keeps its own."""
    initial: Callable[[jax.Array, float], jax.Array]
    """(key, scale) -> parameters; a preset ignores both and starts as its code does."""
    of_logits: bool
    """Whether the parameters are logits [n, n], such as attention makes."""


def tempered(name: str) -> bool:
    """Return whether ε acts on the matrices of this mixer; a preset keeps its own ε.

    >>> tempered("sinkhorn"), tempered("orthogonal"), tempered("mhc-paper")
    (True, False, False)
    """
    return name not in PRESETS and PARAMETRIZATIONS[name].tempered


def mixer(name: str, n: int, num_iters: int = 20) -> Mixer:
    """Return the mixer of this name for n units.

    Args:
        name: a parametrization or a preset.
        n: number of mixed units.
        num_iters: alternations of "truncated-sinkhorn".

    Raises:
        ValueError: there is no such parametrization or preset, or it has no matrix with that n.

    >>> mixer("kronecker", 4).initial(jax.random.key(0), 1.0).shape
    (2, 2)
    """
    if name in PRESETS:
        return _preset_mixer(name, n)
    if name not in PARAMETRIZATIONS:
        known = [*PARAMETRIZATIONS, *PRESETS]
        raise ValueError(f'there is no mixer "{name}": {nearest(name, known)}')
    row = PARAMETRIZATIONS[name]
    shape = row.shape(n)
    matrix = (
        partial(row.matrix, num_iters=num_iters) if name == "truncated-sinkhorn" else row.matrix
    )

    def initial(key: jax.Array, scale: float) -> jax.Array:
        # float32, so that the draws are the same whatever JAX's default precision is
        return scale * jax.random.normal(key, shape, jnp.float32)

    return Mixer(matrix, initial, of_logits=row.tempered and shape == (n, n))


def _preset_mixer(name: str, n: int) -> Mixer:
    preset = PRESETS[name]
    PARAMETRIZATIONS[preset.parametrization].shape(n)  # raises where there is no matrix of this n
    return Mixer(
        matrix=lambda parameters, _: preset.matrix(parameters),
        initial=lambda *_: preset.initial(n),
        of_logits=preset.num_iters is not None,
    )
