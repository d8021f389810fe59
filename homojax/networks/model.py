"""Networks whose layers each mix by a matrix: over tokens, by attention, or over residual streams.

A model works on one example; ``jax.vmap`` makes batches, and grids of seeds and ε. Depth is one
scanned layer, so that 96 layers compile as fast as one.
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
from homojax.networks.layers.branch import normalisation
from homojax.networks.layers.layer import Layer
from homojax.networks.tasks import Task
from homojax.residual import turn_angle


class Trace(NamedTuple):
    """The effect of the mixing on one example, for the laws of theory.md §3 to §5.

    >>> from homojax.networks.tasks import copying
    >>> model = Model(Architecture("kronecker", depth=3), copying(units=4), rngs=nnx.Rngs(0))
    >>> _, trace = model.trace(jnp.array([0, 1, 2, 3]))
    >>> trace.energy.shape, trace.turned.shape, bool(trace.finite.all())
    ((4,), (3,), True)
    """

    matrices: jax.Array
    """[L, …, n, n]; between stand the heads of attention, or the tokens of dynamic streams."""
    energy: jax.Array
    """[L + 1], ‖P x‖_F² before layer 1 and after every layer."""
    turned: jax.Array
    """[L], radians by which each layer, without its noise, turned the detail; NaN: no detail."""
    finite: jax.Array
    """[L + 1], whether the state was finite."""
    states: jax.Array
    """[L + 1, …], the state before layer 1 and after every layer, mixed axis first."""


class Model(nnx.Module):
    """A network for a task: embedding, L layers, readout.

    >>> from homojax.networks.tasks import copying
    >>> model = Model(Architecture("kronecker", depth=3), copying(units=4), rngs=nnx.Rngs(0))
    >>> logits, trace = model.trace(jnp.array([0, 1, 2, 3]))
    >>> logits.shape, trace.matrices.shape
    ((4, 8), (3, 4, 4))
    """

    def __init__(self, architecture: Architecture, task: Task, *, rngs: nnx.Rngs):
        """Draw the parameters.

        Raises:
            ValueError: the mixer is unknown, has no matrix of that size, or cannot do what the
                task asks.
        """
        self.architecture, self.pooled = architecture, task.pooled
        width, normal = architecture.width, nnx.initializers.normal(1.0, jnp.float32)
        if task.vocabulary is not None:
            self.embedding = nnx.Embed(task.vocabulary, width, embedding_init=normal, rngs=rngs)
        elif task.features is not None:
            self.embedding = nnx.Linear(task.features, width, rngs=rngs)
        # A matrix over tokens tells their places apart; attention does not, and gets an embedding.
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
        """Set every layer's ε, residual weight α and standard deviation of the noise.

        Each is a scalar, or [L], one a layer.
        """
        alpha = logit(jnp.asarray(alpha, jnp.float32)) if self.architecture.learned_alpha else alpha
        for name, value in (("epsilon", epsilon), ("alpha", alpha), ("noise", noise)):
            setting = getattr(self.layers, name)
            setting[...] = jnp.broadcast_to(
                jnp.asarray(value, jnp.float32), (self.architecture.depth,)
            )

    def __call__(self, inputs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return the logits of one example, [n, classes], or [classes] if the task is pooled.

        ``key`` draws the noise; without one the noise is the same at every call.
        """
        return self.trace(inputs, key)[0]

    def trace(self, inputs: jax.Array, key: jax.Array | None = None) -> tuple[jax.Array, Trace]:
        """Return the logits of one example, and the effect of the mixing on it."""
        x = self._embed(inputs)
        keys = jax.random.split(jax.random.key(0) if key is None else key, self.architecture.depth)

        # nnx.scan would refuse a model that jax.vmap closes over: scan over the layers' states.
        structure, states = nnx.split(self.layers)
        fixed = jax.vmap(lambda state: nnx.merge(structure, state, copy=True).matrix())(states)

        def step(before: jax.Array, inputs: tuple[nnx.State, jax.Array, jax.Array | None]):
            state, key, matrix = inputs
            layer = nnx.merge(structure, state, copy=True)
            after, matrices = layer(before, matrix)
            turned = turn_angle(_detail(before), _detail(after))
            after = layer.disturb(after, key)
            return after, (matrices, turned, after)

        scanned = jax.checkpoint(step) if self.architecture.remat else step
        last, (matrices, turned, rest) = jax.lax.scan(scanned, x, (states, keys, fixed))
        logits = self._read_out(last)
        passed = jnp.concatenate([x[None], rest])
        energy, finite = jax.vmap(_energy_and_finite)(passed)
        return logits, Trace(
            matrices=matrices, energy=energy, turned=turned, finite=finite, states=passed
        )

    def _embed(self, inputs: jax.Array) -> jax.Array:
        """Return the state before layer 1: streams are copies of the embedding."""
        x = self.embedding(inputs)
        x = x if self.places is None else x + self.places[...]
        if self.architecture.over == "streams":
            x = jnp.broadcast_to(x, (self.architecture.streams, *x.shape))
        return x

    def _read_out(self, last: jax.Array) -> jax.Array:
        """Return the logits of the last state: streams are averaged, and tokens where pooled."""
        read = last.mean(0) if self.architecture.over == "streams" else last
        logits = self.readout(read if self.norm is None else self.norm(read))
        return logits.mean(0) if self.pooled else logits


def _detail(x: jax.Array) -> jax.Array:
    """Return the detail of a state over its mixed axis, as one vector."""
    return center(x.reshape(len(x), -1)).reshape(-1)


def _energy_and_finite(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the energy of a state's detail, and whether the state is finite."""
    return (center(x.reshape(len(x), -1)) ** 2).sum(), jnp.isfinite(x).all()
