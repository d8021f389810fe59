"""The QR factorisation by reflections, and its derivative."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.decompositions.triangular import backward, forward
from homojax.loops import repeat
from homojax.numerics import matmul, power_of_two, wide


@jax.custom_jvp
def qr(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return Q orthogonal and R upper triangular with A = QR, for a square A [n, n].

    First derivatives are 0 where R is singular: there are none.

    Source: Householder (J. ACM 5, 1958).

    >>> q, r = qr(jnp.array([[0.0, 2.0], [1.0, 0.0]]))
    >>> (q @ r).round(6).tolist()
    [[0.0, 2.0], [1.0, 0.0]]
    """
    n = len(matrix)
    row, column = jnp.arange(n)[:, None], jnp.arange(2 * n)[None, :]

    def reflect(j, both):
        """Reflect R and Qᵀ, side by side."""
        mirror, image = reflector(both[:, j], jnp.arange(n) >= j)
        both = both - 2 * mirror[:, None] * matmul(mirror, both)[None, :]
        return jnp.where((column == j) & (row >= j), image[:, None], both)

    start = jnp.concatenate([matrix, jnp.eye(n, dtype=matrix.dtype)], 1)
    both = repeat(n - 1, reflect, start)
    return both[:, n:].T, jnp.triu(both[:, :n])


def reflector(x: jax.Array, part: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the unit v whose reflection I − 2vvᵀ leaves one entry of a part of x, and that image.

    Args:
        x: [n].
        part: bool [n]; the first entry of it is the one that is left.

    >>> v, image = reflector(jnp.array([3.0, 4.0]), jnp.array([True, True]))
    >>> image.tolist()
    [-5.0, 0.0]
    """
    unit = power_of_two(jnp.where(part, abs(x), 0).max())
    x = jnp.where(part, x / unit, 0)
    entry = x[part.argmax()]
    size = jnp.sqrt((x * x).sum())
    image = jnp.where(jnp.arange(len(x)) == part.argmax(), jnp.where(entry > 0, -size, size), 0)
    length = jnp.sqrt(2 * size * (size + abs(entry)))  # ‖x − image‖
    return (x - image) / jnp.where(length > 0, length, 1), unit * image


@qr.defjvp
def _qr_jvp(primals, tangents):
    """With C = QᵀdA R⁻¹ and Ω its strictly lower part less that part's transpose, dQ = QΩ."""
    q, r = qr(*primals)
    regular = (jnp.diagonal(r) != 0).all()
    safe = jnp.where(regular, r, jnp.eye(len(r), dtype=r.dtype))
    turned = matmul(q.T, jnp.where(regular, tangents[0], 0))
    lower = jnp.tril(forward(safe.T, turned.T).T, -1)  # C = turned R⁻¹
    omega = lower - lower.T
    return (q, r), (matmul(q, omega), jnp.triu(turned - matmul(omega, safe)))


def solve(matrix: jax.Array, b: jax.Array) -> jax.Array:
    """Return x with A x = b for a regular A [n, n] and b [n] or [n, k].

    Differentiable to any order. In float32 at least; the result has the dtype of b.

    >>> solve(jnp.array([[0.0, 2.0], [1.0, 0.0]]), jnp.array([2.0, 3.0])).round(6).tolist()
    [3.0, 1.0]
    """
    matrix, right = (x.astype(wide(b.dtype)) for x in (matrix, b))
    q, r = qr(jax.lax.stop_gradient(matrix))
    found = jax.lax.custom_linear_solve(
        lambda x: matmul(matrix, x),
        right,
        lambda _, right: backward(r.T, matmul(q.T, right)),
        lambda _, right: matmul(q, forward(r.T, right)),
    )
    return found.astype(b.dtype)
