"""What mixes: a named map from parameters to a matrix, as every layer uses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.parametrizations import PARAMETRIZATIONS
from homojax.presets import PRESETS


@dataclasses.dataclass(frozen=True)
class Mixer:
    """A parametrization of theory.md §6 or a preset of public code, for layers with so many mixed units."""

    matrix: Callable[
        [jax.Array, ArrayLike], jax.Array
    ]  # (parameters, ε) -> [n, n]; a preset keeps to its own ε
    initial: Callable[
        [jax.Array, float], jax.Array
    ]  # (key, scale) -> parameters; a preset starts as its code does
    of_logits: bool  # whether the parameters are logits [n, n], such as attention makes


def tempered(name: str) -> bool:
    """Whether ε acts on the matrices of this mixer; a preset keeps to its own.

    >>> tempered("sinkhorn"), tempered("orthogonal"), tempered("mhc-paper")
    (True, False, False)
    """
    return name not in PRESETS and PARAMETRIZATIONS[name].tempered


def mixer(name: str, n: int, num_iters: int = 20) -> Mixer:
    """The mixer of this name for n units, with ``num_iters`` alternations if it is "truncated-sinkhorn".

    Raises:
        ValueError: there is no such parametrization or preset, or it has no matrix with that n.

    >>> mixer("kronecker", 4).initial(jax.random.key(0), 1.0).shape
    (2, 2)
    """
    if name in PRESETS:
        preset = PRESETS[name]
        PARAMETRIZATIONS[preset.parametrization].shape(n)  # refuses an n that there is not
        of_logits = preset.num_iters is not None
        return Mixer(
            lambda parameters, _: preset.matrix(parameters), lambda *_: preset.initial(n), of_logits
        )
    if name not in PARAMETRIZATIONS:
        raise ValueError(
            f'there is no mixer "{name}"; there are {", ".join([*PARAMETRIZATIONS, *PRESETS])}'
        )
    row = PARAMETRIZATIONS[name]
    shape = row.shape(n)
    matrix = (
        partial(row.matrix, num_iters=num_iters) if name == "truncated-sinkhorn" else row.matrix
    )

    def initial(key: jax.Array, scale: float) -> jax.Array:
        return scale * jax.random.normal(
            key, shape, jnp.float32
        )  # the same draws whatever JAX's precision is

    return Mixer(matrix, initial, row.tempered and shape == (n, n))
