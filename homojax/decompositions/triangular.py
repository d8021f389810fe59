"""Triangular systems, by substitution: row by row, or of many rows block by block."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.loops import repeat
from homojax.numerics import matmul

_BLOCK = 16  # rows of a block: its inverse is found first
_SMALL = 64  # up to this n there are no blocks


def forward(lower: jax.Array, b: jax.Array) -> jax.Array:
    """Return x with L x = b, for a lower triangular L [n, n] and b [n] or [n, k].

    >>> forward(jnp.array([[2.0, 0.0], [1.0, 1.0]]), jnp.array([2.0, 3.0])).tolist()
    [1.0, 2.0]
    """
    return _by_rows(lower, b) if len(lower) <= _SMALL else _forward(*_blocks(lower, b))[: len(b)]


def backward(lower: jax.Array, b: jax.Array) -> jax.Array:
    """Return x with Lᵀx = b, for a lower triangular L [n, n] and b [n] or [n, k].

    >>> backward(jnp.array([[2.0, 0.0], [1.0, 1.0]]), jnp.array([4.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    if len(lower) <= _SMALL:
        return _by_rows(lower[::-1, ::-1].T, b[::-1])[::-1]
    return _backward(*_blocks(lower, b))[: len(b)]


def substitute(lower: jax.Array, b: jax.Array) -> jax.Array:
    """Return x with LLᵀx = b, for a lower triangular L [n, n] and b [n] or [n, k].

    >>> substitute(jnp.array([[2.0]]), jnp.array([4.0])).tolist()
    [1.0]
    """
    if len(lower) <= _SMALL:
        return backward(lower, forward(lower, b))
    filled, inverses, right = _blocks(lower, b)
    return _backward(filled, inverses, _forward(filled, inverses, right))[: len(b)]


def _forward(lower: jax.Array, inverses: jax.Array, b: jax.Array) -> jax.Array:
    def finish(k, x):
        """Block k of x follows from those above it; the others are still 0."""
        rows = jax.lax.dynamic_slice_in_dim(lower, k * _BLOCK, _BLOCK)
        rest = jax.lax.dynamic_slice_in_dim(b, k * _BLOCK, _BLOCK) - matmul(rows, x)
        found = matmul(inverses[k], rest)
        return jax.lax.dynamic_update_slice_in_dim(x, found, k * _BLOCK, 0)

    return repeat(len(inverses), finish, jnp.zeros_like(b))


def _backward(lower: jax.Array, inverses: jax.Array, b: jax.Array) -> jax.Array:
    def finish(turn, x):
        """Block k of x follows from those below it; the others are still 0."""
        k = len(inverses) - 1 - turn
        columns = jax.lax.dynamic_slice_in_dim(lower, k * _BLOCK, _BLOCK, axis=1)
        rest = jax.lax.dynamic_slice_in_dim(b, k * _BLOCK, _BLOCK) - matmul(columns.T, x)
        found = matmul(inverses[k].T, rest)
        return jax.lax.dynamic_update_slice_in_dim(x, found, k * _BLOCK, 0)

    return repeat(len(inverses), finish, jnp.zeros_like(b))


def _blocks(lower: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return L and b, filled up to whole blocks, and between them the inverses of L's blocks."""
    n = len(lower)
    size = -(-n // _BLOCK) * _BLOCK
    if size > n:
        lower = jnp.eye(size, dtype=lower.dtype).at[:n, :n].set(lower)
        b = jnp.pad(b, [(0, size - n)] + [(0, 0)] * (b.ndim - 1))
    unit = jnp.eye(_BLOCK, dtype=lower.dtype)
    diagonal = [lower[s : s + _BLOCK, s : s + _BLOCK] for s in range(0, size, _BLOCK)]
    return lower, jax.vmap(_by_rows, (0, None))(jnp.stack(diagonal), unit), b


def _by_rows(lower: jax.Array, b: jax.Array) -> jax.Array:
    """Return x with L x = b."""
    rows = jnp.arange(len(lower)).reshape(-1, *[1] * (b.ndim - 1))

    def finish(j, x):
        """Row j of x is known: take what it stands for off the rows below."""
        known = x[j][None] / lower[j, j]
        column = jnp.where(rows > j, lower[:, j].reshape(rows.shape), 0)
        return jnp.where(rows == j, known, x - column * known)

    return repeat(len(lower), finish, b)
