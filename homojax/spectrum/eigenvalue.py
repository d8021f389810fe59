"""The spectral radius by repeated squaring: the power 2ᵏ shows the dominant eigenvalues alone, and proves that none is larger.

Once A^p has the range of one dominant real eigenvector, or of one pair, that range Q is invariant for A to rounding, and the
eigenvalues of H = QᵀAQ are eigenvalues of A. All others are those of the rest of A; their powers are eigenvalues of the rest
of A^p, whose norm bounds them. Where more eigenvalues share the largest modulus, A may be an isometry but for its scale; if it
is not, LAPACK takes over.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.batching import in_buckets
from homojax.numerics import matmul, repeat_while, rounding

_MOST_SQUARINGS = 16


@jax.custom_jvp
def spectral_radius(matrix: jax.Array) -> jax.Array:
    """The largest eigenvalue modulus of a square matrix, [n, n] -> scalar; NaN where it has a NaN or an infinity.

    That of a matrix within ``rounding(n, dtype)`` of A, in norm. First derivatives exist where that eigenvalue is simple.

    Source: Gelfand (1941) for the limit of powers; Stewart and Sun, Matrix Perturbation Theory (1990), IV.1 for the residual.

    >>> round(float(spectral_radius(jnp.array([[0.0, -4.0], [1.0, 0.0]]))), 6)
    2.0
    """
    matrix = jax.lax.stop_gradient(matrix)
    found = in_buckets(jax.vmap(_square_and_prove), lambda matrices: abs(matrices).max((1, 2)))(
        matrix
    )
    return in_buckets(_decompose_unproved, lambda _, found: jnp.isnan(found))(matrix, found)


@spectral_radius.defjvp
def _spectral_radius_jvp(primals, tangents):
    return spectral_radius(*primals), jax.jvp(decomposed_radius, primals, tangents)[1]


def decomposed_radius(matrix: jax.Array) -> jax.Array:
    """The same from all eigenvalues, with a finite derivative where they vanish. CPU, and GPU by way of the host.

    >>> float(decomposed_radius(jnp.zeros((2, 2))))
    0.0
    """
    eigenvalues = jnp.linalg.eigvals(matrix)
    square = jnp.real(eigenvalues) ** 2 + jnp.imag(eigenvalues) ** 2
    largest = square.max()
    return jnp.where(largest > 0, jnp.sqrt(jnp.where(largest > 0, largest, 1)), largest)


def _decompose_unproved(matrices: jax.Array, found: jax.Array) -> jax.Array:
    for radius in (_radius_of_isometry, decomposed_radius):

        def fill(matrices, found, radius=radius):
            return jnp.where(jnp.isnan(found), jax.vmap(radius)(matrices), found)

        found = jax.lax.cond(jnp.isnan(found).any(), fill, lambda _, found: found, matrices, found)
    return found


def _radius_of_isometry(matrix: jax.Array) -> jax.Array:
    """θ if A is θ times an isometry of some subspace onto itself, and 0 off it, to rounding; else NaN.

    ‖AAᵀA − θ²A‖ ≤ aθ³ puts each singular value within aθ of 0 or of θ; then ‖AᵀA − AAᵀ‖ ≤ bθ² leaves an angle of 2a + b at most
    from the range to the row space. So A is within (3a + b)θ of a normal matrix whose eigenvalues are 0 or of modulus θ.
    """
    gram = matmul(matrix.T, matrix)
    square = (gram * gram).sum() / jnp.trace(gram)
    a = jnp.linalg.norm(matmul(matrix, gram) - square * matrix) / square**1.5
    b = jnp.linalg.norm(gram - matmul(matrix, matrix.T)) / square
    return jnp.where(3 * a + b <= rounding(len(matrix), matrix.dtype), jnp.sqrt(square), jnp.nan)


def _square_and_prove(matrix: jax.Array) -> jax.Array:
    """The spectral radius; NaN where that is not proved."""
    n, accepted = len(matrix), rounding(len(matrix), matrix.dtype) / 2
    x, y = jax.random.normal(jax.random.key(0), (2, n), matrix.dtype)

    def unit(x):
        size = jnp.sqrt((x * x).sum())
        return x / jnp.where(size > 0, size, 1)

    def dominant(power):
        """(the radius seen in the range of ``power``, a line or a plane, NaN where neither is proved; what is off the plane)."""
        p = unit(matmul(power, x))
        q = matmul(power, y)
        q = unit(q - (p @ q) * p)
        q = unit(q - (p @ q) * p)
        image_p, image_q, row_p, row_q = (
            matmul(matrix, p),
            matmul(matrix, q),
            matmul(p, power),
            matmul(q, power),
        )
        a, b, c, d = p @ image_p, p @ image_q, q @ image_p, q @ image_q
        line, plane = abs(a), _radius_of_two(a, b, c, d)
        missed_line = image_p - a * p
        missed_plane = missed_line - c * q, image_q - b * p - d * q
        rest_line = 1 - row_p @ row_p
        rest_plane = rest_line - row_q @ row_q
        power_plane = _radius_of_two(row_p @ p, row_p @ q, row_q @ p, row_q @ q)
        line_holds = (missed_line @ missed_line <= (accepted * line) ** 2) & (
            rest_line <= (row_p @ p) ** 2
        )
        missed = missed_plane[0] @ missed_plane[0] + missed_plane[1] @ missed_plane[1]
        plane_holds = (missed <= (accepted * plane) ** 2) & (rest_plane <= power_plane**2)
        return jnp.where(line_holds, line, jnp.where(plane_holds, plane, jnp.nan)), rest_plane

    def unfinished(state):
        _, radius, _, hopeful, k = state
        return ~(radius >= 0) & hopeful & (k < _MOST_SQUARINGS)

    def square(state):
        power, _, last_rest, _, k = state
        power = unit(matmul(power, power))
        power = unit(matmul(power, power))
        radius, rest = dominant(power)
        k = k + 2
        # What is off the plane falls as r^(2p), p = 2^k. After some squarings r says if it will be gone by the last one.
        hopeless = (k >= _MOST_SQUARINGS // 2) & (
            rest > last_rest * accepted ** (1.5 * 2.0 ** (k - _MOST_SQUARINGS))
        )
        return power, radius, rest, ~hopeless, k

    zero, one = jnp.zeros((), matrix.dtype), jnp.ones((), matrix.dtype)
    begin = unit(matrix), jnp.where((matrix == 0).all(), zero, jnp.nan), one, jnp.asarray(True), 0
    return repeat_while(unfinished, square, begin)[1]


def _radius_of_two(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """The larger eigenvalue modulus of [[a, b], [c, d]]."""
    half, det = (a + d) / 2, a * d - b * c
    square = ((a - d) / 2) ** 2 + b * c  # half² − det
    return jnp.where(square < 0, jnp.sqrt(abs(det)), abs(half) + jnp.sqrt(jnp.maximum(square, 0)))
