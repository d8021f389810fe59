"""Singular values by Jacobi rotations of columns: products and sums, and relative accuracy.

The columns of A are made orthogonal, two at a time, by rotations from the right: A V = U Σ. In a
round every column is in one pair, so all rotations of a round are done together.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.batching import each_lane, in_buckets
from homojax.loops import repeat, repeat_while
from homojax.numerics import matmul, power_of_two, sum_rounding

_MOST_SWEEPS = 30  # a loop has to end, though it converges quadratically


@jax.custom_jvp
def singular_values(matrix: jax.Array) -> jax.Array:
    """Return the singular values of a square matrix [n, n], descending, [n].

    Each has relative accuracy where A is a well-conditioned matrix times a diagonal. NaN where the
    matrix has a NaN or an infinity.

    Source: Hestenes (1958); Brent and Luk (1985) for the order of pairs; Demmel and Veselić (SIAM
    J. Matrix Anal. 13, 1992) for the accuracy.

    >>> singular_values(jnp.array([[0.0, 2.0], [1.0, 0.0]])).tolist()
    [2.0, 1.0]
    """
    unit = power_of_two(abs(matrix).max())
    lengths = _lengths(_turn(matrix / unit))
    return unit * jnp.sort(lengths, descending=True)[: len(matrix)]


@singular_values.defjvp
def _singular_values_jvp(primals, tangents):
    """At ties those of one choice of vectors; 0 at 0."""
    u, s, v = svd(*jax.lax.stop_gradient(primals))
    return s, (u * matmul(tangents[0], v)).sum(0)


def svd(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (U, σ, V) with A V = U diag(σ), σ descending, for a square A [n, n].

    V is orthogonal. A column of U is 0 where its σ is.

    >>> u, s, v = svd(jnp.array([[0.0, 2.0], [1.0, 0.0]]))
    >>> s.tolist(), abs(v).tolist()
    ([2.0, 1.0], [[0.0, 1.0], [1.0, 0.0]])
    """
    n, unit = len(matrix), power_of_two(abs(matrix).max())
    both = jnp.concatenate([matrix / unit, jnp.eye(n, dtype=matrix.dtype)])
    columns = _turn(both)
    lengths = _lengths(columns[:n])
    padding = _lengths(columns[n:]) == 0
    order = jnp.argsort(jnp.where(padding, -1, lengths), descending=True)[:n]
    columns, lengths = columns[:, order], lengths[order]
    left = columns[:n] / jnp.where(lengths > 0, lengths, 1)[None, :]
    return left, unit * lengths, columns[n:]


def _turned_until_orthogonal(matrix: jax.Array) -> jax.Array:
    """Return A V, and whatever stands below A times V, for A the first n rows of [m, n].

    V makes the columns of A V orthogonal. Entries are near 1 in size, so that squares have room.
    """
    n = matrix.shape[1]
    half = -(-n // 2)
    matrix = jnp.where(jnp.isfinite(matrix).all(), matrix, jnp.nan)
    padded = jnp.pad(matrix, ((0, 0), (0, 2 * half - n)))  # of an odd number, one stays 0
    tol = 4 * sum_rounding(n, matrix.dtype)

    def rotate(_, state):
        left, right, worst = state
        a, b, c = (left[:n] ** 2).sum(0), (right[:n] ** 2).sum(0), (left[:n] * right[:n]).sum(0)
        size = jnp.sqrt(a) * jnp.sqrt(b)
        cosine = jnp.where(size > 0, abs(c) / jnp.where(size > 0, size, 1), 0 * c)
        turns = cosine > tol / 4
        slope = (b - a) / jnp.where(turns, 2 * c, 1)
        tangent = jnp.where(slope < 0, -1, 1) / (abs(slope) + jnp.sqrt(1 + slope**2))
        tangent = jnp.where(turns, tangent, 0)
        cos = 1 / jnp.sqrt(1 + tangent**2)
        sin = cos * tangent
        cos, sin = cos[None, :], sin[None, :]
        left, right = cos * left - sin * right, sin * left + cos * right
        # The first column stays; all others move on by one place, around.
        if half > 1:
            first, rest = left[:, :1], left[:, 1:]
            left = jnp.concatenate([first, right[:, :1], rest[:, :-1]], 1)
            right = jnp.concatenate([right[:, 1:], rest[:, -1:]], 1)
        return left, right, jnp.maximum(worst, cosine.max())

    def sweep(state):
        left, right, _, k = state
        zero = jnp.zeros((), matrix.dtype)
        left, right, worst = repeat(2 * half - 1, rotate, (left, right, zero))
        return left, right, worst, k + 1

    def unfinished(state):
        _, _, worst, k = state
        return (worst > tol) & (k < _MOST_SWEEPS)

    infinite = jnp.full((), jnp.inf, matrix.dtype)
    begin = padded[:, :half], padded[:, half:], infinite, jnp.asarray(0)
    left, right, _, _ = repeat_while(unfinished, sweep, begin)
    return jnp.concatenate([left, right], 1)


# Few lanes side by side: 256 of 4 × 4 took an eighth of the time a lane of 10,000 (XLA for CPUs).
_turn = in_buckets(
    each_lane(_turned_until_orthogonal), lambda matrices: abs(matrices).max((1, 2)), most=256
)


def _lengths(columns: jax.Array) -> jax.Array:
    return jnp.sqrt((columns**2).sum(0))
