"""Mixing by attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from homojax.networks.architecture import Architecture
from homojax.networks.layers.token_mixing import mix
from homojax.networks.mixing import mixer


class Attention(nnx.Module):
    """Mix tokens by heads of attention, whose weights are the mixer's matrix of Q Kᵀ/√d.

    The mixer is softmax, or a doubly stochastic one, as in Sinkformers.

    Source: Sander et al., Sinkformers (AISTATS 2022), arXiv 2110.11773.
    """

    def __init__(self, architecture: Architecture, units: int, causal: bool, *, rngs: nnx.Rngs):
        self.mixer = mixer(architecture.mixer, units, architecture.num_iters)
        if not self.mixer.of_logits:
            raise ValueError(
                f"attention makes logits, and {architecture.mixer} is not a matrix of logits: "
                "try the mixer sinkhorn or softmax"
            )
        if causal and architecture.mixer != "softmax":
            raise ValueError(
                f"attention by {architecture.mixer} cannot be causal (the only doubly stochastic "
                "matrix that hides later tokens is I): try the mixer softmax"
            )
        self.heads, self.causal, self.dtype = architecture.heads, causal, architecture.mixing_dtype
        width = architecture.width
        self.project = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def matrix(self, epsilon: ArrayLike) -> None:
        """Return None: the matrices depend on the state."""

    def __call__(
        self, x: jax.Array, norm: Callable, alpha: jax.Array, epsilon: jax.Array, _: None
    ) -> tuple[jax.Array, jax.Array]:
        n, width = x.shape
        # Queries, keys and values: [heads, n, width/heads] each.
        q, k, v = self.project(norm(x)).reshape(n, 3, self.heads, -1).transpose(1, 2, 0, 3)
        logits = q @ k.mT / math.sqrt(width // self.heads)
        if self.causal:
            logits = jnp.where(jnp.tril(jnp.ones((n, n), bool)), logits, -jnp.inf)
        matrices = jax.vmap(self.mixer.matrix, (0, None))(logits.astype(self.dtype), epsilon)
        mixed = jax.vmap(mix)(matrices, v).transpose(1, 0, 2).reshape(n, width)
        return (1 - alpha) * x + alpha * self.out(mixed), matrices
