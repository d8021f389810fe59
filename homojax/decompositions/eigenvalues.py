"""All eigenvalues of a real matrix: reflections to Hessenberg form, then shifted QR steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.decompositions.qr import reflector
from homojax.loops import repeat, repeat_while
from homojax.numerics import matmul, norm

_MOST_STEPS = 30  # for each eigenvalue, as LAPACK allows
_RESTART = 10  # steps without an eigenvalue, after which the shift is another one


def eigenvalues(matrix: jax.Array) -> jax.Array:
    """Return the eigenvalues of a square matrix [n, n], complex [n], in no order.

    They are those of a matrix within about n·eps of A, in norm. NaN where the matrix has a NaN or
    an infinity, or where the steps do not get there.

    Source: Francis (Computer Journal 4, 1961); Wilkinson's shift; Golub and Van Loan, Matrix
    Computations (2013), 7.4 and 7.5.

    >>> abs(eigenvalues(jnp.array([[0.0, -4.0], [1.0, 0.0]]))).round(6).tolist()
    [2.0, 2.0]
    """
    n = len(matrix)
    index = jnp.arange(n)

    def unfinished(state):
        _, size, _, k = state
        return (size > 1) & (k < _MOST_STEPS * n)

    def advance(state):
        """Take off the last eigenvalue of the leading block if it is there, or make a step."""
        h, size, waited, k = state
        corner = jax.lax.dynamic_slice(h, (size - 2, size - 2), (2, 2))
        small = abs(corner[1, 0]) <= least
        shift = _wilkinson(corner)
        shift = jnp.where(
            waited % _RESTART == _RESTART - 1, shift + abs(corner[1, 0]).astype(shift.dtype), shift
        )
        stepped = _step(h, jnp.where(index < size, shift, 0), size)
        return (
            jnp.where(small, h, stepped),
            jnp.where(small, size - 1, size),
            jnp.where(small, 0, waited + 1),
            k + 1,
        )

    least = float(jnp.finfo(matrix.dtype).eps) * norm(matrix)
    start = jax.lax.complex(_hessenberg(matrix), jnp.zeros_like(matrix))
    zero = jnp.asarray(0)
    rows = jnp.where(jnp.isfinite(matrix).all(), n, 0)
    h, size, _, _ = repeat_while(unfinished, advance, (start, rows, zero, zero))
    return jnp.where(size == 1, jnp.diagonal(h), jnp.nan)


def _hessenberg(matrix: jax.Array) -> jax.Array:
    """Return a matrix with the same eigenvalues and zeros below the first subdiagonal."""
    index = jnp.arange(len(matrix))

    def reflect(j, h):
        mirror, column = reflector(h[:, j], index > j)
        h = h - 2 * mirror[:, None] * matmul(mirror, h)[None, :]
        h = jnp.where((index == j)[None, :] & (index > j)[:, None], column[:, None], h)
        return h - 2 * matmul(h, mirror)[:, None] * mirror[None, :]

    return repeat(len(matrix) - 2, reflect, matrix)


def _wilkinson(corner: jax.Array) -> jax.Array:
    """Return the eigenvalue of a 2 × 2 matrix that is nearer to its last entry."""
    (a, b), (c, d) = corner
    half = (a - d) / 2
    root = jnp.sqrt(half**2 + b * c)
    root = jnp.where((half.conj() * root).real < 0, -root, root)  # so that nothing cancels
    total = half + root
    return d - jnp.where(total == 0, 0, b * c / jnp.where(total == 0, 1, total))


def _step(h: jax.Array, shift: jax.Array, size: jax.Array) -> jax.Array:
    """Return RQ + σI for H − σI = QR, of the leading block of ``size`` rows."""
    n = len(h)
    index = jnp.arange(n)
    h = h - jnp.diag(shift)

    def eliminate(k, state):
        h, cosines, sines = state
        a, b = h[k, k], h[k + 1, k]
        length = jnp.sqrt(abs(a) ** 2 + abs(b) ** 2)
        turns = (length > 0) & (k + 1 < size)
        length = jnp.where(turns, length, 1).astype(h.dtype)
        c, s = jnp.where(turns, a / length, 1), jnp.where(turns, b / length, 0)
        upper, lower = h[k], h[k + 1]
        h = h.at[k].set(c.conj() * upper + s.conj() * lower)
        h = h.at[k + 1].set(c * lower - s * upper)
        return h, cosines.at[k].set(c), sines.at[k].set(s)

    def restore(k, h):
        c, s = cosines[k], sines[k]
        left, right = h[:, k], h[:, k + 1]
        h = h.at[:, k].set(c * left + s * right)
        return h.at[:, k + 1].set(c.conj() * right - s.conj() * left)

    one, zero = jnp.ones(n, h.dtype), jnp.zeros(n, h.dtype)
    h, cosines, sines = repeat(n - 1, eliminate, (h, one, zero))
    h = repeat(n - 1, restore, h)
    return h + jnp.diag(jnp.where(index < size, shift, 0))
