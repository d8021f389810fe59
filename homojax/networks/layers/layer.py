"""One layer of a network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from homojax.networks.architecture import Architecture
from homojax.networks.layers.attention import Attention
from homojax.networks.layers.branch import Branch, Normed
from homojax.networks.layers.hyper_connection import HyperConnection
from homojax.networks.layers.token_mixing import Setting, TokenMixing

MIXINGS = {"tokens": TokenMixing, "attention": Attention, "streams": HyperConnection}


class Layer(Normed):
    """Mix x -> (1 − α)x + αMx, then add a feed-forward branch and noise.

    Streams are mixed X -> ((1 − α)I + αM)X + write ⊗ F(read X); their branch is inside F.
    """

    def __init__(self, architecture: Architecture, units: int, causal: bool, *, rngs: nnx.Rngs):
        super().__init__(architecture, rngs=rngs)
        self.mixing = MIXINGS[architecture.over](architecture, units, causal, rngs=rngs)
        has_branch = architecture.hidden and architecture.over != "streams"
        self.branch = Branch(architecture, rngs=rngs) if has_branch else None
        self.noisy = architecture.noisy
        self.epsilon, self.noise = (Setting(jnp.float32(value)) for value in (1, 0))
        self.alpha = (
            nnx.Param(jnp.float32(0)) if architecture.learned_alpha else Setting(jnp.float32(0.5))
        )

    def matrix(self) -> jax.Array | None:
        """Return the mixing matrix [n, n], or None where it depends on the state.

        A model makes the matrices of all its layers together.
        """
        return self.mixing.matrix(self.epsilon[...])

    def __call__(self, x: jax.Array, matrix: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Return the state after the layer, without noise, and the mixing matrices [..., n, n].

        ``matrix`` is the result of ``self.matrix()``.
        """
        alpha = residual_weight(self.alpha)
        x, matrices = self.mixing(x, self.before, alpha, self.epsilon[...], matrix)
        x = self.after(x)
        return (x if self.branch is None else self.branch.after(x + self.branch(x))), matrices

    def disturb(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return the state with the layer's noise added."""
        return x + self.noise[...] * jax.random.normal(key, x.shape, x.dtype) if self.noisy else x


def residual_weight(alpha: nnx.Variable) -> jax.Array:
    """Return the residual weight α that a layer's variable stands for.

    A trained variable is log(α/(1 − α)), so that α stays in (0, 1); any other is α itself.

    >>> [residual_weight(kind(jnp.float32(0))).item() for kind in (nnx.Param, Setting)]
    [0.5, 0.0]
    """
    return jax.nn.sigmoid(alpha[...]) if isinstance(alpha, nnx.Param) else alpha[...]
