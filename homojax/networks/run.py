"""The state of one training run: its parameters, its residual weights, and the layer that broke."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from homojax.networks.layers.layer import residual_weight
from homojax.networks.model import Trace


class Run(NamedTuple):
    """The state of one run. ``Trainer.evaluate`` and ``Trainer.trace`` measure it."""

    parameters: nnx.State
    settings: nnx.State  # ε, α, noise, and matrices that are not trained
    optimiser: Any
    key: jax.Array  # of its batches and its noise, as data
    step: jax.Array  # int32, steps done
    stopped: jax.Array  # bool: later steps leave the run as it is
    failed: jax.Array  # int32, the step refused because its loss or gradient was not finite, or −1


def mixing_parameters(run: Run) -> jax.Array:
    """Return the learned parameters of every layer's matrix, [L, …]; of many runs, [runs, L, …].

    Raises:
        KeyError: the network has none, as attention, or they are not learned.
    """
    layers: Any = run.parameters["layers"]
    return layers["mixing"]["parameters"]["values"][...]


def residual_weights(run: Run) -> jax.Array:
    """Return α of every layer, [L]; of many runs, [runs, L]."""
    fixed: Any = run.settings["layers"]
    learned: Any = run.parameters
    return residual_weight(fixed["alpha"] if "alpha" in fixed else learned["layers"]["alpha"])


def first_not_finite(trace: Trace) -> int | None:
    """Return the layer after which a state of a traced batch was first not finite.

    It is 0 for the embedding, and None if all states were finite.

    >>> states = jnp.array([[True, True, False], [True, False, False]])
    >>> first_not_finite(Trace(None, None, None, states, None))
    1
    """
    broken = ~trace.finite.all(0)
    return int(broken.argmax()) if broken.any() else None


def last_not_finite(gradient: nnx.State) -> int | None:
    """Return the last layer whose gradient is not finite, or None; a backward pass meets it first.

    >>> last_not_finite(nnx.State({"layers": {"scale": nnx.Param(jnp.array([1.0, jnp.nan, 0.0]))}}))
    2
    """
    leaves = [
        jnp.isfinite(x).reshape(len(x), -1).all(1)
        for x in jax.tree.leaves(gradient["layers"])
        if x.size
    ]
    broken = jnp.flatnonzero(~jnp.stack(leaves).all(0))
    return int(broken[-1]) + 1 if len(broken) else None
