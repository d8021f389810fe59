"""The norm over the features of every token, and the feed-forward branch that it stands before."""

from __future__ import annotations

import jax
from flax import nnx

from homojax.networks.architecture import Architecture


class Normed(nnx.Module):
    """Hold a norm, which acts before a branch or after the branch's sum with the residual."""

    def __init__(self, architecture: Architecture, *, rngs: nnx.Rngs):
        self.norm = normalisation(architecture, rngs)
        self.pre = architecture.placement == "pre"

    def before(self, x: jax.Array) -> jax.Array:
        """Return the state that the branch reads."""
        return self.norm(x) if self.norm is not None and self.pre else x

    def after(self, x: jax.Array) -> jax.Array:
        """Return the state that follows the sum ``x`` of branch and residual."""
        return self.norm(x) if self.norm is not None and not self.pre else x


class Branch(Normed):
    """Map the features of every token by a network of one hidden layer."""

    def __init__(self, architecture: Architecture, *, rngs: nnx.Rngs):
        super().__init__(architecture, rngs=rngs)
        self.up = nnx.Linear(architecture.width, architecture.hidden, rngs=rngs)
        self.down = nnx.Linear(architecture.hidden, architecture.width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.gelu(self.up(self.before(x))))


def normalisation(architecture: Architecture, rngs: nnx.Rngs) -> nnx.LayerNorm | nnx.RMSNorm | None:
    """Return the architecture's norm over the features of every token, or None where it has none.

    >>> normalisation(Architecture(norm="none"), nnx.Rngs(0)) is None
    True
    """
    kind = {"none": None, "layer": nnx.LayerNorm, "rms": nnx.RMSNorm}[architecture.norm]
    return None if kind is None else kind(architecture.width, rngs=rngs)
