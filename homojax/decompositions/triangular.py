"""Triangular systems, by substitution."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.loops import repeat


def forward(lower: jax.Array, b: jax.Array) -> jax.Array:
    """Return x with L x = b, for a lower triangular L [n, n] and b [n] or [n, k].

    >>> forward(jnp.array([[2.0, 0.0], [1.0, 1.0]]), jnp.array([2.0, 3.0])).tolist()
    [1.0, 2.0]
    """
    rows = jnp.arange(len(lower)).reshape(-1, *[1] * (b.ndim - 1))

    def finish(j, x):
        """Row j of x is known: take what it stands for off the rows below."""
        known = x[j][None] / lower[j, j]
        column = jnp.where(rows > j, lower[:, j].reshape(rows.shape), 0)
        return jnp.where(rows == j, known, x - column * known)

    return repeat(len(lower), finish, b)


def backward(lower: jax.Array, b: jax.Array) -> jax.Array:
    """Return x with Lᵀx = b, for a lower triangular L [n, n] and b [n] or [n, k].

    >>> backward(jnp.array([[2.0, 0.0], [1.0, 1.0]]), jnp.array([4.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    return forward(lower[::-1, ::-1].T, b[::-1])[::-1]
