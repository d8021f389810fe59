"""Mixing of residual streams by hyper-connections."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from homojax.networks.architecture import Architecture
from homojax.networks.layers.attention import Attention
from homojax.networks.layers.branch import Branch
from homojax.networks.layers.token_mixing import Parameters, mix

DYNAMIC_GATE = 0.01  # of a token's own part of the maps, at the start; arXiv 2512.24880, table 5


class Maps(NamedTuple):
    """The three maps of a hyper-connection over s streams and n tokens."""

    matrix: jax.Array  # [s, s], or [n, s, s] where it depends on the token
    read: jax.Array  # [s, n] or [s, 1], before σ
    write: jax.Array  # [s, n] or [s, 1], before 2σ


class HyperConnection(nnx.Module):
    """Mix residual streams by a matrix, around a layer F that reads them and writes to them all.

    X -> ((1 − α)I + αM)X + write ⊗ F(read X). F is attention by softmax, with a feed-forward branch
    where the architecture has one. With ``dynamic`` every token adds its own part to the logits,
    to the read map and to the write map, through a gate.

    Streams start as copies of the embedding and end in their mean. The first layer's matrix
    therefore has no effect, nor has the last one's where its columns sum to 1.

    Source: Hyper-connections, arXiv 2409.19606; mHC, arXiv 2512.24880 (read map σ, write map 2σ).
    """

    def __init__(self, architecture: Architecture, units: int, causal: bool, *, rngs: nnx.Rngs):
        streams, width = architecture.streams, architecture.width
        self.parameters = Parameters(architecture, streams, rngs=rngs)
        # The maps start near 1/s and 1. Random parts tell the streams apart: equal maps would keep
        # the streams equal for ever, and the matrix would have nothing to mix.
        self.read, self.write = (
            nnx.Param(mean + jax.random.normal(rngs.params(), (streams,), jnp.float32))
            for mean in (-math.log(streams - 1), 0)
        )
        self.inner = Attention(_softmax_attention(architecture), units, causal, rngs=rngs)
        # A norm after a sum with the residual is the layer's own: inside F there is no such sum.
        post = architecture.placement == "post"
        bare = dataclasses.replace(architecture, norm="none") if post else architecture
        self.branch = Branch(bare, rngs=rngs) if architecture.hidden else None
        if architecture.dynamic:
            size = 2 * streams + self.parameters.values[...].size
            self.maps = nnx.Linear(streams * width, size, use_bias=False, rngs=rngs)
            self.gate = nnx.Param(jnp.full(3, DYNAMIC_GATE, jnp.float32))
        else:
            self.maps = self.gate = None

    def matrix(self, epsilon: ArrayLike) -> jax.Array | None:
        """Return the matrix [s, s], or None where it depends on the token."""
        return self.parameters(epsilon) if self.maps is None else None

    def __call__(
        self,
        x: jax.Array,
        norm: Callable,
        alpha: jax.Array,
        epsilon: jax.Array,
        matrix: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        maps = self._dynamic_maps(x, epsilon) if matrix is None else self._static_maps(matrix)
        mixed = _mix_streams(maps.matrix, x)
        taken = (jax.nn.sigmoid(maps.read)[..., None] * x).sum(0)
        written = 2 * jax.nn.sigmoid(maps.write)[..., None]
        return (1 - alpha) * x + alpha * mixed + written * self._layer(taken, norm), maps.matrix

    def _static_maps(self, matrix: jax.Array) -> Maps:
        """Return the maps that are the same for every token."""
        return Maps(matrix, self.read[...][:, None], self.write[...][:, None])

    def _dynamic_maps(self, x: jax.Array, epsilon: jax.Array) -> Maps:
        """Return the maps of every token: the common part and the token's own, through the gate."""
        assert self.maps is not None and self.gate is not None
        streams, n, _ = x.shape
        token = x.transpose(1, 0, 2).reshape(n, -1)  # [n, streams · width]
        token = token * jax.lax.rsqrt((token**2).mean(-1, keepdims=True) + 1e-6)
        parts = jnp.split(self.maps(token), [streams, 2 * streams], axis=-1)
        reads, writes, changes = (
            gate * part for gate, part in zip(self.gate[...], parts, strict=True)
        )
        changes = changes.reshape(n, *self.parameters.values[...].shape)
        return Maps(
            matrix=jax.vmap(self.parameters, (None, 0))(epsilon, changes),
            read=self.read[...][:, None] + reads.T,
            write=self.write[...][:, None] + writes.T,
        )

    def _layer(self, x: jax.Array, norm: Callable) -> jax.Array:
        """Return F(x); F has no residual of its own, for that is the streams."""
        one = jnp.ones((), x.dtype)
        attended, _ = self.inner(x, norm, one, one, None)
        return attended if self.branch is None else attended + self.branch(x + attended)


def _softmax_attention(architecture: Architecture) -> Architecture:
    return dataclasses.replace(
        architecture, mixer="softmax", over="attention", mixing_dtype="float32"
    )


def _mix_streams(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """Return M x of streams [s, n, width], for one matrix or for one a token."""
    if matrix.ndim == 2:
        return mix(matrix, x.reshape(len(x), -1)).reshape(x.shape)
    # A product of many small matrices is faster as a sum.
    products = matrix.transpose(1, 2, 0)[..., None] * x.astype(matrix.dtype)
    return products.sum(1).astype(x.dtype)
