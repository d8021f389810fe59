"""λ₂, the spectral radius of P M P, by repeated squaring.

A^p, p = 2ᵏ, shows the dominant eigenvalues alone. It also proves that no eigenvalue is larger. Once
A^p has the range of one dominant real eigenvector, or of one pair, that range Q is invariant for A
to rounding, and the eigenvalues of H = QᵀAQ are eigenvalues of A. All others are those of the rest
of A. Their powers are eigenvalues of the rest of A^p, whose norm bounds them. Where more
eigenvalues share the largest modulus, A may be an isometry but for its scale; if it is not, LAPACK
takes over.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import compiled
from homojax.batching import each_lane, in_buckets
from homojax.numerics import matmul, power_of_two, repeat_while, rounding
from homojax.spectrum.singular_value import decomposable_detail

_DENSE_EIGENVALUES = 12  # up to this n LAPACK's decomposition is the faster way
_MOST_SQUARINGS = 16


@compiled(shared=True)
def lambda2(matrix: ArrayLike) -> jax.Array:
    """Return λ₂(M) ≤ σ₂, the largest eigenvalue modulus of P M P. theory.md 3.3.

    It is the asymptotic rate when one M is shared by all layers. Wherever the rows or the columns
    of M sum to 1, it is the second largest eigenvalue modulus of M itself.

    Args:
        matrix: M, [n, n], n ≥ 2.

    Returns:
        A scalar, right to a backward error of ``rounding(n, dtype)``, with a proof that no
        eigenvalue is larger. NaN where the matrix has a NaN or an infinity. Differentiable where
        that eigenvalue is simple.

    >>> round(float(lambda2([[0.0, 1.0], [1.0, 0.0]])), 6)
    1.0
    """
    matrix = decomposable_detail(matrix)
    unit = power_of_two(abs(matrix).max())
    small = len(matrix) <= _DENSE_EIGENVALUES
    return unit * (decomposed_radius if small else spectral_radius)(matrix / unit)


@jax.custom_jvp
def spectral_radius(matrix: jax.Array) -> jax.Array:
    """Return the largest eigenvalue modulus of a square matrix, [n, n] -> scalar.

    It is that of a matrix within ``rounding(n, dtype)`` of A, in norm. NaN where the matrix has a
    NaN or an infinity. First derivatives exist where that eigenvalue is simple.

    Source: Gelfand (1941) for the limit of powers; Stewart and Sun, Matrix Perturbation Theory
    (1990), IV.1 for the residual.

    >>> round(float(spectral_radius(jnp.array([[0.0, -4.0], [1.0, 0.0]]))), 6)
    2.0
    """
    matrix = jax.lax.stop_gradient(matrix)
    prove = in_buckets(each_lane(_square_and_prove), lambda matrices: abs(matrices).max((1, 2)))
    decompose = in_buckets(_decompose_unproved, lambda _, radii: jnp.isnan(radii))
    return decompose(matrix, prove(matrix))


@spectral_radius.defjvp
def _spectral_radius_jvp(primals, tangents):
    return spectral_radius(*primals), jax.jvp(decomposed_radius, primals, tangents)[1]


def decomposed_radius(matrix: jax.Array) -> jax.Array:
    """Return the same from all eigenvalues, with a finite derivative where they vanish.

    On a CPU, and on a GPU by way of the host.

    >>> float(decomposed_radius(jnp.zeros((2, 2))))
    0.0
    """
    eigenvalues = jnp.linalg.eigvals(matrix)
    square = jnp.real(eigenvalues) ** 2 + jnp.imag(eigenvalues) ** 2
    largest = square.max()
    return jnp.where(largest > 0, jnp.sqrt(jnp.where(largest > 0, largest, 1)), largest)


def _decompose_unproved(matrices: jax.Array, radii: jax.Array) -> jax.Array:
    """Return ``radii`` [B], where they are NaN those of isometries, or LAPACK's."""
    for radius in (_radius_of_isometry, decomposed_radius):

        def fill(matrices, radii, radius=radius):
            return jnp.where(jnp.isnan(radii), jax.vmap(radius)(matrices), radii)

        radii = jax.lax.cond(jnp.isnan(radii).any(), fill, lambda _, radii: radii, matrices, radii)
    return radii


def _radius_of_isometry(matrix: jax.Array) -> jax.Array:
    """Return θ if A is θ times an isometry of a subspace onto itself, and 0 off it; else NaN.

    All to rounding. ‖AAᵀA − θ²A‖ ≤ aθ³ puts each singular value within aθ of 0 or of θ. Then
    ‖AᵀA − AAᵀ‖ ≤ bθ² leaves an angle of 2a + b at most from the range to the row space. So A is
    within (3a + b)θ of a normal matrix whose eigenvalues are 0 or of modulus θ.
    """
    gram = matmul(matrix.T, matrix)
    square = (gram * gram).sum() / jnp.trace(gram)
    a = jnp.linalg.norm(matmul(matrix, gram) - square * matrix) / square**1.5
    b = jnp.linalg.norm(gram - matmul(matrix, matrix.T)) / square
    return jnp.where(3 * a + b <= rounding(len(matrix), matrix.dtype), jnp.sqrt(square), jnp.nan)


def _square_and_prove(matrix: jax.Array) -> jax.Array:
    """Return the spectral radius; NaN where that is not proved."""
    n, accepted = len(matrix), rounding(len(matrix), matrix.dtype) / 2
    starts = jax.random.normal(jax.random.key(0), (2, n), matrix.dtype)

    def unfinished(state):
        _, radius, _, hopeful, k = state
        return ~(radius >= 0) & hopeful & (k < _MOST_SQUARINGS)

    def square(state):
        power, _, last_rest, _, k = state
        power = _unit(matmul(power, power))
        power = _unit(matmul(power, power))
        radius, rest = _dominant(matrix, power, starts, accepted)
        k = k + 2
        # What is off the plane falls as r^(2p), p = 2^k. After some squarings r says if it will be
        # gone by the last one.
        hopeless = (k >= _MOST_SQUARINGS // 2) & (
            rest > last_rest * accepted ** (1.5 * 2.0 ** (k - _MOST_SQUARINGS))
        )
        return power, radius, rest, ~hopeless, k

    zero, one = jnp.zeros((), matrix.dtype), jnp.ones((), matrix.dtype)
    radius = jnp.where((matrix == 0).all(), zero, jnp.nan)
    begin = _unit(matrix), radius, one, jnp.asarray(True), 0
    return repeat_while(unfinished, square, begin)[1]


def _dominant(
    matrix: jax.Array, power: jax.Array, starts: jax.Array, accepted: float
) -> tuple[jax.Array, jax.Array]:
    """Return the radius seen in the range of ``power``, and how much of ``power`` is off a plane.

    The range is a line or a plane, spanned by what ``power`` makes of the two ``starts``. The
    radius is NaN where neither is proved.
    """
    x, y = starts
    p = _unit(matmul(power, x))
    q = matmul(power, y)
    q = _unit(q - (p @ q) * p)
    q = _unit(q - (p @ q) * p)  # twice is enough to be orthogonal
    image_p, image_q = matmul(matrix, p), matmul(matrix, q)
    row_p, row_q = matmul(p, power), matmul(q, power)
    a, b, c, d = p @ image_p, p @ image_q, q @ image_p, q @ image_q
    line, plane = abs(a), _radius_of_two(a, b, c, d)

    # The line is invariant to rounding, and no power of another eigenvalue is larger.
    missed = image_p - a * p
    rest_line = 1 - row_p @ row_p
    line_holds = (missed @ missed <= (accepted * line) ** 2) & (rest_line <= (row_p @ p) ** 2)

    # The same of the plane.
    missed_p, missed_q = missed - c * q, image_q - b * p - d * q
    missed_plane = missed_p @ missed_p + missed_q @ missed_q
    rest_plane = rest_line - row_q @ row_q
    power_plane = _radius_of_two(row_p @ p, row_p @ q, row_q @ p, row_q @ q)
    invariant = missed_plane <= (accepted * plane) ** 2
    plane_holds = invariant & (rest_plane <= power_plane**2)
    return jnp.where(line_holds, line, jnp.where(plane_holds, plane, jnp.nan)), rest_plane


def _unit(x: jax.Array) -> jax.Array:
    """Return ``x`` over its 2-norm (a matrix's Frobenius norm), 0 if it is 0."""
    size = jnp.sqrt((x * x).sum())
    return x / jnp.where(size > 0, size, 1)


def _radius_of_two(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """Return the larger eigenvalue modulus of [[a, b], [c, d]]."""
    half, det = (a + d) / 2, a * d - b * c
    square = ((a - d) / 2) ** 2 + b * c  # half² − det
    return jnp.where(square < 0, jnp.sqrt(abs(det)), abs(half) + jnp.sqrt(jnp.maximum(square, 0)))
