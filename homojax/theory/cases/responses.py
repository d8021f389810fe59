"""How strongly a projection answers to its logits, from the matrix alone. theory.md 1.6, 8.8."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.loops import repeat
from homojax.numerics import norm
from homojax.projection.limit import limit

_STEPS = 8  # of the power iteration


def response(log_matrix: jax.Array, direction: jax.Array) -> jax.Array:
    """Return ε ∂M/∂S in a direction of the logits, [n, n]: a symmetric map, theory.md 1.6.

    >>> half = jnp.full((2, 2), 0.5)
    >>> response(jnp.log(half), jnp.eye(2)).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    zero = jnp.zeros_like(log_matrix[0])

    def matrix_of(scaled: jax.Array) -> jax.Array:
        return jnp.exp(limit(scaled, log_matrix, zero, zero)[0])

    return jax.jvp(matrix_of, (log_matrix,), (direction,))[1]


def strongest_response(log_matrix: jax.Array, start: jax.Array) -> jax.Array:
    """Return ε‖∂M/∂S W‖_F for the W [n, n] that eight power steps from ``start`` lead to.

    It is at most the norm ε‖∂M/∂S‖, and the norm itself at n = 2, where all responses are parallel.

    >>> half = jnp.full((2, 2), 0.5)
    >>> round(float(strongest_response(jnp.log(half), jnp.eye(2))), 6)
    0.5
    """

    def advance(_, direction):
        image = response(log_matrix, direction)
        size = norm(image)
        return image / jnp.where(size > 0, size, 1)

    return norm(response(log_matrix, repeat(_STEPS, advance, start / norm(start))))
