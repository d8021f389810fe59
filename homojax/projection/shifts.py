"""Constants on rows and columns of logits: they change no projection, and cost digits if large."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_LARGE = 4.0  # times what is left without them, from which on they are taken out


def take_out_shifts(logits: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (S − r 1ᵀ − 1 cᵀ, r, c), [n, n], [n] and [n], where shifts would cost digits.

    r and c are the largest finite entries of rows, then of columns. Numbers that are near each
    other are subtracted exactly, so the digits that S has of the rest come out whole. Where the
    rest is as large as S itself, S stays as it is, and r and c are 0. −inf stays, too.

    >>> rest, r, c = take_out_shifts(jnp.array([[1e6, 1e6 + 1], [-1e6 + 1, -1e6]], "float32"))
    >>> rest.tolist(), r.tolist(), c.tolist()
    ([[-1.0, 0.0], [0.0, -1.0]], [1000001.0, -999999.0], [0.0, 0.0])
    """
    rows = _largest(logits, 1)
    rest = logits - rows[:, None]
    cols = _largest(rest, 0)
    rest = rest - cols[None, :]
    size, left = (jnp.where(jnp.isfinite(x), abs(x), 0).max() for x in (logits, rest))
    worth = size > _LARGE * left
    rows, cols = (jax.lax.stop_gradient(jnp.where(worth, x, 0)) for x in (rows, cols))
    return jnp.where(worth, rest, logits), rows, cols


def _largest(logits: jax.Array, axis: int) -> jax.Array:
    """Return the largest finite entry along an axis, 0 where there is none. No derivative."""
    finite = jnp.isfinite(logits)
    largest = jnp.where(finite, logits, -jnp.inf).max(axis)
    return jax.lax.stop_gradient(jnp.where(finite.any(axis), largest, 0))
