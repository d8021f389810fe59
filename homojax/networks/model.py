"""Networks whose layers each mix by a matrix: over tokens, by attention, or over the streams of hyper-connections.

A model works on one example; batches, seeds and grids of ε are ``jax.vmap``'s. Depth is one scanned layer, so that 96 layers
compile as fast as one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.scipy.special import logit
from jax.typing import ArrayLike

from homojax.birkhoff import center
from homojax.networks.architecture import Architecture
from homojax.networks.layers import Layer, normalisation
from homojax.networks.tasks import Task
from homojax.residual import turn_angle


class Trace(NamedTuple):
    """What the mixing did to one example, for the laws of theory.md §3 to §5."""

    matrices: (
        jax.Array
    )  # [L, …, n, n]; attention has its heads between, dynamic hyper-connections the tokens
    energy: jax.Array  # [L + 1], ‖P x‖_F² before layer 1 and after every layer
    turned: jax.Array  # [L], radians by which each layer, but for its noise, turned the detail; NaN where there is none
    finite: jax.Array  # [L + 1], whether the state was
    states: (
        jax.Array
    )  # [L + 1, …], the state before layer 1 and after every layer, mixed axis first


class Model(nnx.Module):
    """A network for a task: embedding, L layers, readout.

    >>> from homojax.networks.tasks import copying
    >>> model = Model(Architecture(depth=3), copying(units=4, vocabulary=5), rngs=nnx.Rngs(0))
    >>> logits, trace = model.trace(jnp.array([0, 1, 2, 3]))
    >>> logits.shape, trace.matrices.shape
    ((4, 5), (3, 4, 4))
    """

    def __init__(self, architecture: Architecture, task: Task, *, rngs: nnx.Rngs):
        """Raises ValueError where the mixer is unknown, has no matrix of that size, or cannot do what the task asks."""
        self.architecture, self.pooled = architecture, task.pooled
        width, normal = architecture.width, nnx.initializers.normal(1.0, jnp.float32)
        if task.vocabulary is not None:
            self.embedding = nnx.Embed(task.vocabulary, width, embedding_init=normal, rngs=rngs)
        elif task.features is not None:
            self.embedding = nnx.Linear(task.features, width, rngs=rngs)
        # A matrix over tokens knows their places; attention has to be told.
        self.places = (
            None
            if architecture.over == "tokens"
            else nnx.Param(normal(rngs.params(), (task.units, width)))
        )

        @nnx.split_rngs(splits=architecture.depth)
        @nnx.vmap(in_axes=0, out_axes=0)
        def layers(rngs: nnx.Rngs) -> Layer:
            return Layer(architecture, task.units, task.causal, rngs=rngs)

        self.layers = layers(rngs)
        self.norm = normalisation(architecture, rngs)
        self.readout = nnx.Linear(width, task.classes, rngs=rngs)

    def set(
        self, *, epsilon: ArrayLike = 1.0, alpha: ArrayLike = 0.5, noise: ArrayLike = 0.0
    ) -> None:
        """Gives every layer its ε, residual weight α and standard deviation of the noise: scalars, or [L]."""
        alpha = logit(jnp.asarray(alpha, jnp.float32)) if self.architecture.learned_alpha else alpha
        for name, value in (("epsilon", epsilon), ("alpha", alpha), ("noise", noise)):
            setting = getattr(self.layers, name)
            setting[...] = jnp.broadcast_to(
                jnp.asarray(value, jnp.float32), (self.architecture.depth,)
            )

    def __call__(self, inputs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Logits of one example, [n, classes], or [classes] if the task is pooled. ``key`` draws the noise; None is one key."""
        return self.trace(inputs, key)[0]

    def trace(self, inputs: jax.Array, key: jax.Array | None = None) -> tuple[jax.Array, Trace]:
        """The logits of one example, and what the mixing did to it."""
        x = self.embedding(inputs)
        x = x if self.places is None else x + self.places[...]
        if self.architecture.over == "streams":
            x = jnp.broadcast_to(x, (self.architecture.streams, *x.shape))
        keys = jax.random.split(jax.random.key(0) if key is None else key, self.architecture.depth)

        structure, states = nnx.split(
            self.layers
        )  # nnx.scan would refuse a model that jax.vmap closes over
        fixed = jax.vmap(lambda state: nnx.merge(structure, state, copy=True).matrix())(states)

        def step(before: jax.Array, of: tuple[nnx.State, jax.Array, jax.Array | None]):
            state, key, matrix = of
            layer = nnx.merge(structure, state, copy=True)
            after, matrices = layer(before, matrix)
            turned = turn_angle(
                *(center(x.reshape(len(x), -1)).reshape(-1) for x in (before, after))
            )
            after = layer.disturb(after, key)
            return after, (matrices, turned, after)

        scanned = jax.checkpoint(step) if self.architecture.remat else step
        last, (matrices, turned, rest) = jax.lax.scan(scanned, x, (states, keys, fixed))
        read = last.mean(0) if self.architecture.over == "streams" else last
        logits = self.readout(read if self.norm is None else self.norm(read))
        passed = jnp.concatenate([x[None], rest])
        energy, finite = jax.vmap(_about)(passed)
        return (logits.mean(0) if self.pooled else logits), Trace(
            matrices, energy, turned, finite, passed
        )


def _about(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Energy of detail, and whether all is finite."""
    return (center(x.reshape(len(x), -1)) ** 2).sum(), jnp.isfinite(x).all()
