"""Mixing by a matrix of parameters."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from homojax.networks.architecture import Architecture
from homojax.networks.mixing import mixer


class Setting(nnx.Variable):
    """Hold a value that training leaves as it is and a sweep may vary."""


class Parameters(nnx.Module):
    """Hold the parameters of one mixing matrix; a call with ε returns the matrix.

    ``change`` is added to the parameters first.
    """

    def __init__(self, architecture: Architecture, units: int, *, rngs: nnx.Rngs):
        self.mixer = mixer(architecture.mixer, units, architecture.num_iters)
        self.dtype = architecture.mixing_dtype
        initial = self.mixer.initial(rngs.params(), architecture.logit_scale).astype(jnp.float32)
        self.values = (nnx.Param if architecture.learned else Setting)(initial)

    def __call__(self, epsilon: ArrayLike, change: jax.Array | float = 0.0) -> jax.Array:
        return self.mixer.matrix((self.values[...] + change).astype(self.dtype), epsilon)


class TokenMixing(nnx.Module):
    """Mix tokens by one matrix of parameters: x -> (1 − α)x + αM norm(x)."""

    def __init__(self, architecture: Architecture, units: int, causal: bool, *, rngs: nnx.Rngs):
        if causal:
            raise ValueError(
                "a matrix over tokens shows each token the later ones, and the task is causal: "
                "try over = attention with the mixer softmax, or over = streams"
            )
        self.parameters = Parameters(architecture, units, rngs=rngs)

    def matrix(self, epsilon: ArrayLike) -> jax.Array:
        """Return the matrix [n, n]."""
        return self.parameters(epsilon)

    def __call__(
        self,
        x: jax.Array,
        norm: Callable,
        alpha: jax.Array,
        epsilon: jax.Array,
        matrix: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        return (1 - alpha) * x + alpha * mix(matrix, norm(x)), matrix


def mix(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """Return M x, computed in the precision of the matrix and returned in that of ``x``.

    >>> mix(jnp.full((2, 2), 0.5), jnp.array([[1.0], [3.0]])).tolist()
    [[2.0], [2.0]]
    """
    return (matrix @ x.astype(matrix.dtype)).astype(x.dtype)
