"""One layer of a network: how it mixes, its residual weight, its norms, its feed-forward branch, its noise.

A layer sees one example. What it mixes comes first: tokens [n, width], or the streams [s, n, width] of hyper-connections.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from homojax.networks.mixing import mixer

if TYPE_CHECKING:
    from homojax.networks.architecture import Architecture

DYNAMIC_GATE = 0.01  # of what hyper-connections add from the token at the start: mHC, arXiv 2512.24880, table 5


class Setting(nnx.Variable):
    """A value that training leaves alone and a sweep may vary."""


def residual_weight(alpha: nnx.Variable) -> jax.Array:
    """α of what a layer holds of it: where it is trained, that is log(α/(1 − α)), so that α stays in (0, 1)."""
    return jax.nn.sigmoid(alpha[...]) if isinstance(alpha, nnx.Param) else alpha[...]


class Normed(nnx.Module):
    """Has a norm over the features of every token, ``before`` what it does or ``after`` it is added."""

    def __init__(self, architecture: Architecture, *, rngs: nnx.Rngs):
        self.norm = normalisation(architecture, rngs)
        self.pre = architecture.placement == "pre"

    def before(self, x: jax.Array) -> jax.Array:
        return self.norm(x) if self.norm is not None and self.pre else x

    def after(self, x: jax.Array) -> jax.Array:
        return self.norm(x) if self.norm is not None and not self.pre else x


class Layer(Normed):
    """x -> (1 − α)x + αMx, then a feed-forward branch; of streams X -> ((1 − α)I + αM)X + write ⊗ F(read X). Noise last."""

    def __init__(self, architecture: Architecture, units: int, causal: bool, *, rngs: nnx.Rngs):
        super().__init__(architecture, rngs=rngs)
        kind = {"tokens": TokenMixing, "attention": Attention, "streams": HyperConnection}[
            architecture.over
        ]
        self.mixing = kind(architecture, units, causal, rngs=rngs)
        self.branch = (
            Branch(architecture, rngs=rngs)
            if architecture.hidden and architecture.over != "streams"
            else None
        )
        self.noisy = architecture.noisy
        self.epsilon, self.noise = (Setting(jnp.float32(value)) for value in (1, 0))
        self.alpha = (
            nnx.Param(jnp.float32(0)) if architecture.learned_alpha else Setting(jnp.float32(0.5))
        )

    def matrix(self) -> jax.Array | None:
        """The mixing matrix [n, n] where it does not depend on the state, to be made for all layers together; else None."""
        return self.mixing.matrix(self.epsilon[...])

    def __call__(self, x: jax.Array, matrix: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """(the state after, without noise, the mixing matrices [..., n, n]), given its ``matrix``."""
        x, matrices = self.mixing(
            x, self.before, residual_weight(self.alpha), self.epsilon[...], matrix
        )
        x = self.after(x)
        return (x if self.branch is None else self.branch.after(x + self.branch(x))), matrices

    def disturb(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """The state with the layer's noise added."""
        return x + self.noise[...] * jax.random.normal(key, x.shape, x.dtype) if self.noisy else x


class Parameters(nnx.Module):
    """The parameters of one mixing matrix: called with ε, it is the matrix."""

    def __init__(self, architecture: Architecture, units: int, *, rngs: nnx.Rngs):
        self.mixer = mixer(architecture.mixer, units, architecture.num_iters)
        self.dtype = architecture.mixing_dtype
        initial = self.mixer.initial(rngs.params(), architecture.logit_scale).astype(jnp.float32)
        self.values = (nnx.Param if architecture.learned else Setting)(initial)

    def __call__(self, epsilon: ArrayLike, change: jax.Array | float = 0.0) -> jax.Array:
        return self.mixer.matrix((self.values[...] + change).astype(self.dtype), epsilon)


class TokenMixing(nnx.Module):
    """Tokens mixed by one matrix of parameters."""

    def __init__(self, architecture: Architecture, units: int, causal: bool, *, rngs: nnx.Rngs):
        if causal:
            raise ValueError(
                "a matrix over tokens lets each see the others: a causal task needs attention or streams"
            )
        self.parameters = Parameters(architecture, units, rngs=rngs)

    def matrix(self, epsilon: ArrayLike) -> jax.Array:
        return self.parameters(epsilon)

    def __call__(self, x, norm: Callable, alpha, epsilon, matrix) -> tuple[jax.Array, jax.Array]:
        return (1 - alpha) * x + alpha * _mix(matrix, norm(x)), matrix


class Attention(nnx.Module):
    """Multi-head attention whose weights are the mixer's matrix of Q Kᵀ/√d: softmax, or Sinkhorn as in Sinkformers.

    Source: Sander et al., Sinkformers (AISTATS 2022), arXiv 2110.11773.
    """

    def __init__(self, architecture: Architecture, units: int, causal: bool, *, rngs: nnx.Rngs):
        self.mixer = mixer(architecture.mixer, units, architecture.num_iters)
        if not self.mixer.of_logits:
            raise ValueError(
                f"attention makes logits, and {architecture.mixer} is not a matrix of logits: try sinkhorn or softmax"
            )
        if causal and architecture.mixer != "softmax":
            raise ValueError(
                f"a causal task hides later tokens, and of doubly stochastic matrices only I has none: attention by "
                f"{architecture.mixer} cannot be causal, softmax can"
            )
        self.heads, self.causal, self.dtype = architecture.heads, causal, architecture.mixing_dtype
        self.project = nnx.Linear(
            architecture.width, 3 * architecture.width, use_bias=False, rngs=rngs
        )
        self.out = nnx.Linear(architecture.width, architecture.width, use_bias=False, rngs=rngs)

    def matrix(self, epsilon: ArrayLike) -> None:
        return None

    def __call__(self, x, norm: Callable, alpha, epsilon, _) -> tuple[jax.Array, jax.Array]:
        n, width = x.shape
        q, k, v = (
            self.project(norm(x)).reshape(n, 3, self.heads, -1).transpose(1, 2, 0, 3)
        )  # [heads, n, width/heads] each
        logits = q @ k.mT / math.sqrt(width // self.heads)
        logits = (
            jnp.where(jnp.tril(jnp.ones((n, n), bool)), logits, -jnp.inf) if self.causal else logits
        )
        matrices = jax.vmap(self.mixer.matrix, (0, None))(logits.astype(self.dtype), epsilon)
        mixed = jax.vmap(_mix)(matrices, v).transpose(1, 0, 2).reshape(n, width)
        return (1 - alpha) * x + alpha * self.out(mixed), matrices


class HyperConnection(nnx.Module):
    """n residual streams mixed by a matrix, around a layer F (attention by softmax, feed-forward) that reads and writes them all.

    Streams start as copies of the embedding and end in their mean, so the first layer's matrix and, where columns sum to 1, the
    last one's have nothing to do: it takes three layers for a matrix to matter, and ``trainer`` refuses fewer.

    With ``dynamic`` every token adds its own part to the logits, the read and the write map, through a gate.

    Source: Hyper-connections, arXiv 2409.19606; mHC, arXiv 2512.24880 (read map σ, write map 2σ).
    """

    def __init__(self, architecture: Architecture, units: int, causal: bool, *, rngs: nnx.Rngs):
        streams, width = architecture.streams, architecture.width
        self.parameters = Parameters(architecture, streams, rngs=rngs)
        # About 1/n and 1 each. Were they equal, so would the streams be for ever, and the matrix would have nothing to mix.
        self.read, self.write = (
            nnx.Param(mean + jax.random.normal(rngs.params(), (streams,), jnp.float32))
            for mean in (-math.log(streams - 1), 0)
        )
        inner = dataclasses.replace(
            architecture, mixer="softmax", over="attention", mixing_dtype="float32"
        )
        self.inner = Attention(inner, units, causal, rngs=rngs)
        # A norm after a sum with the residual is the layer's own: inside F there is no such sum.
        bare = (
            dataclasses.replace(architecture, norm="none")
            if architecture.placement == "post"
            else architecture
        )
        self.branch = Branch(bare, rngs=rngs) if architecture.hidden else None
        size = 2 * streams + self.parameters.values[...].size
        self.maps = (
            nnx.Linear(streams * width, size, use_bias=False, rngs=rngs)
            if architecture.dynamic
            else None
        )
        self.gate = (
            nnx.Param(jnp.full(3, DYNAMIC_GATE, jnp.float32)) if architecture.dynamic else None
        )

    def matrix(self, epsilon: ArrayLike) -> jax.Array | None:
        return self.parameters(epsilon) if self.maps is None else None

    def __call__(self, x, norm: Callable, alpha, epsilon, matrix) -> tuple[jax.Array, jax.Array]:
        read, write = (
            self.read[...][:, None],
            self.write[...][:, None],
        )  # [streams, 1]: every token alike
        if self.maps is None or self.gate is None:
            kept = _mix(matrix, x.reshape(len(x), -1)).reshape(x.shape)
        else:
            token = x.transpose(1, 0, 2).reshape(x.shape[1], -1)  # [n, streams · width]
            token = token * jax.lax.rsqrt((token**2).mean(-1, keepdims=True) + 1e-6)
            own = jnp.split(self.maps(token), [len(x), 2 * len(x)], axis=-1)
            reads, writes, changes = (
                gate * part for gate, part in zip(self.gate[...], own, strict=True)
            )
            read, write = read + reads.T, write + writes.T
            changes = changes.reshape(len(changes), *self.parameters.values[...].shape)
            matrix = jax.vmap(self.parameters, (None, 0))(epsilon, changes)
            # a product of so many small matrices is faster as a sum
            kept = (
                (matrix.transpose(1, 2, 0)[..., None] * x.astype(matrix.dtype))
                .sum(1)
                .astype(x.dtype)
            )
        taken = (jax.nn.sigmoid(read)[..., None] * x).sum(0)
        one = jnp.ones((), x.dtype)
        made, _ = self.inner(
            taken, norm, one, one, None
        )  # without a residual of its own: that is the streams
        made = made if self.branch is None else made + self.branch(taken + made)
        return (1 - alpha) * x + alpha * kept + (2 * jax.nn.sigmoid(write))[
            ..., None
        ] * made, matrix


class Branch(Normed):
    """F of one hidden layer."""

    def __init__(self, architecture: Architecture, *, rngs: nnx.Rngs):
        super().__init__(architecture, rngs=rngs)
        self.up = nnx.Linear(architecture.width, architecture.hidden, rngs=rngs)
        self.down = nnx.Linear(architecture.hidden, architecture.width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.gelu(self.up(self.before(x))))


def normalisation(architecture: Architecture, rngs: nnx.Rngs) -> nnx.LayerNorm | nnx.RMSNorm | None:
    """Over the features of every token; None for none."""
    kind = {"none": None, "layer": nnx.LayerNorm, "rms": nnx.RMSNorm}[architecture.norm]
    return None if kind is None else kind(architecture.width, rngs=rngs)


def _mix(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """M x in the precision of the matrix, as x's."""
    return (matrix @ x.astype(matrix.dtype)).astype(x.dtype)
