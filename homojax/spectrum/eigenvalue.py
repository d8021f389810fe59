"""λ₂, the spectral radius of P M P, by repeated squaring.

Aᵖ, p = 2ᵏ, shows the dominant eigenvalues alone. It also proves that no eigenvalue is larger. Once
Aᵖ has the range of one dominant real eigenvector, or of one pair, that range Q is invariant for A
to rounding, and the eigenvalues of H = QᵀAQ are eigenvalues of A. All others are those of the rest
of A. Their powers are eigenvalues of the rest of Aᵖ, whose norm bounds them. Where A is far from
normal, Aᵖ has that range with too few digits, and a Newton step gives the others. Where more
eigenvalues share the largest modulus, the squaring goes on until the norm says it: ‖Aᵖ‖^{1/p} falls
to the spectral radius. Where A is nearly defective, rounding spoils that, and QR steps find all
eigenvalues.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.batching import each_lane, in_buckets, where_unknown
from homojax.decompositions.eigenvalues import eigenvalues
from homojax.decompositions.jacobi import svd
from homojax.loops import advance_if, repeat, repeat_while
from homojax.numerics import arbitrary, matmul, normalised, power_of_two, rounding
from homojax.programs import compiled
from homojax.spectrum.singular_value import decomposable_detail

_MOST_SQUARINGS = 16  # before the proof of one eigenvalue or one pair is given up
_POWERS = 6  # products with Aᵖ after the last squaring: each is cheaper than one more of those


@compiled(shared=True)
def lambda2(matrix: ArrayLike) -> jax.Array:
    """Return λ₂(M) ≤ σ₂, the largest eigenvalue modulus of P M P. theory.md 3.3.

    It is the asymptotic rate when one M is shared by all layers. Wherever the rows or the columns
    of M sum to 1, it is the second largest eigenvalue modulus of M itself.

    Args:
        matrix: M, [n, n], n ≥ 2.

    Returns:
        A scalar, right to a backward error of ``rounding(n, dtype)``. NaN where the matrix has a
        NaN or an infinity. Differentiable where that eigenvalue is simple. Where several share the
        largest modulus, the derivative is that of their geometric mean.

    >>> round(float(lambda2([[0.0, 1.0], [1.0, 0.0]])), 6)
    1.0
    """
    matrix = decomposable_detail(matrix)
    unit = power_of_two(abs(matrix).max())
    return unit * spectral_radius(matrix / unit)


@jax.custom_jvp
def spectral_radius(matrix: jax.Array) -> jax.Array:
    """Return the largest eigenvalue modulus of a square matrix, [n, n] -> scalar.

    It is that of a matrix within ``rounding(n, dtype)`` of A, in norm. NaN where the matrix has a
    NaN or an infinity. First derivatives as ``lambda2`` has them.

    Source: Gelfand (1941) for the limit of powers; Stewart and Sun, Matrix Perturbation Theory
    (1990), IV.1 for the residual.

    >>> round(float(spectral_radius(jnp.array([[0.0, -4.0], [1.0, 0.0]]))), 6)
    2.0
    """
    matrix = jax.lax.stop_gradient(matrix)
    prove = in_buckets(each_lane(_square_and_prove), lambda matrices: abs(matrices).max((1, 2)))
    radius = prove(matrix)
    for find, most in ((_square_to_the_end, 16), (_largest_eigenvalue, 1)):
        radius = where_unknown(find, most)(matrix, radius)
    return radius


@spectral_radius.defjvp
def _spectral_radius_jvp(primals, tangents):
    radius = spectral_radius(*primals)
    slope = in_buckets(_slopes, lambda matrices, radii: radii)
    gradient = slope(*jax.lax.stop_gradient((*primals, radius)))
    return radius, (gradient * tangents[0]).sum()


# ---------------------------------------------------------------- the value


def _largest_eigenvalue(matrix: jax.Array) -> jax.Array:
    return abs(eigenvalues(matrix)).max()


def _square_to_the_end(matrix: jax.Array) -> jax.Array:
    """Return what a refined line or plane proves, else the limit of ‖Aᵖ‖^{1/p}.

    NaN where rounding may have moved the limit. With A = s₀B₀ and Bₖ² = sₖ₊₁Bₖ₊₁, all B of norm 1,
    log ‖Aᵖ‖/p = Σ 2⁻ᵏ log sₖ. Rounding counts by 1/sₖ, so no sₖ may be small once p is 32 or more.
    One is small where A is nearly defective: the norm of Aᵖ then goes on growing beside the p-th
    power of its eigenvalues.
    """
    n = len(matrix)

    def square(k, state):
        power, log_radius, least = state
        power = matmul(power, power)
        size = jnp.sqrt((power * power).sum())
        power = power / jnp.where(size > 0, size, 1)
        log_radius = log_radius + jnp.ldexp(jnp.log(size), -(k + 1))
        return power, log_radius, jnp.where(k > 3, jnp.minimum(least, size), least)

    size = jnp.sqrt((matrix * matrix).sum())
    begin = matrix / jnp.where(size > 0, size, 1), jnp.log(size), jnp.ones_like(size)
    power, log_radius, least = repeat(_last(matrix), square, begin)
    limit = jnp.where(least * n**0.5 >= 0.5, jnp.exp(log_radius), jnp.nan)
    basis = _span(power, arbitrary((2, n), matrix.dtype))
    basis = _refine(matrix, power, _span(power, jnp.stack(basis)))
    line, plane, _ = _dominant(matrix, power, basis, rounding(n, matrix.dtype) / 2)
    proved = jnp.where(jnp.isnan(line), plane, line)
    return jnp.where(jnp.isnan(proved), limit, proved)


def _last(matrix: jax.Array) -> int:
    """Return k, so that 2ᵏ-th roots of n/eps, and of what rounding leaves of ties, are 1."""
    eps = float(jnp.finfo(matrix.dtype).eps)
    return math.ceil(math.log2(math.log(len(matrix) / eps) / eps))


def _square_and_prove(matrix: jax.Array) -> jax.Array:
    """Return the spectral radius; NaN where that is not proved.

    Squaring ends where a product with Aᵖ shrinks what is off the line, or off the plane, so much
    that some more such products take it away.
    """
    n, accepted = len(matrix), rounding(len(matrix), matrix.dtype) / 8  # spare, for ill conditions
    ready = float(jnp.finfo(matrix.dtype).eps) ** (2 / _POWERS)
    starts = arbitrary((2, n), matrix.dtype)

    def square_twice(power):
        return repeat(2, lambda _, power: normalised(matmul(power, power)), power)

    def unfinished(state):
        _, is_ready, _, hopeful, k = state
        return ~is_ready & hopeful & (k < _MOST_SQUARINGS)

    def advance(state):
        power, _, last_rest, _, k = state
        power = square_twice(power)
        p, q = _span(power, starts)
        row_p, row_q = matmul(p, power), matmul(q, power)
        rest_line = 1 - row_p @ row_p
        rest = rest_line - row_q @ row_q
        power_plane = _radius_of_two(row_p @ p, row_p @ q, row_q @ p, row_q @ q)
        is_line = rest_line <= ready * (row_p @ p) ** 2
        is_plane = rest <= ready * jnp.minimum(power_plane**2, rest_line)
        k = k + 2
        # What is off the plane falls as r^(2p), p = 2^k. After some squarings r says if it will be
        # gone by the last one. If it was gone before, they change nothing any more.
        left = jnp.ldexp(jnp.full_like(rest, 1.5), k - _MOST_SQUARINGS)
        hopeless = (k >= _MOST_SQUARINGS - 4) & (rest > last_rest * ready**left)
        return power, is_line | is_plane, rest, ~hopeless & (last_rest > accepted), k

    zero = (matrix == 0).all()
    begin = square_twice(normalised(matrix)), zero, jnp.ones((), matrix.dtype), ~zero, 2
    power = repeat_while(unfinished, advance, begin)[0]
    basis = repeat(_POWERS, lambda _, basis: _span(power, jnp.stack(basis)), tuple(starts))
    line, plane, _ = _dominant(matrix, power, basis, accepted)
    return jnp.where(zero, 0, jnp.where(jnp.isnan(line), plane, line))


def _span(power: jax.Array, starts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return two orthonormal vectors of the range of ``power``, or zeros."""
    return _orthonormal(matmul(power, starts[0]), matmul(power, starts[1]))


def _refine(
    matrix: jax.Array, power: jax.Array, basis: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Return a basis after one Newton step to the invariant line, or plane, that is near.

    With Q the basis, H = QᵀAQ and what it misses, R = AQ − QH, the step is Z = Σ BᵏRH⁻ᵏ⁻¹, where B
    is A off Q. Each turn doubles the number of terms.

    Source: Stewart (SIAM Review 15, 1973) for the equation BZ − ZH = −R.
    """
    p, q = basis
    row = matmul(p, power)
    is_line = 1 - row @ row <= (row @ p) ** 2
    q = jnp.where(is_line, 0, q)
    near = jnp.stack([p, q], 1)
    image = matmul(matrix, near)
    (a, b), (c, d) = matmul(near.T, image)
    d = jnp.where(is_line, a, d)
    radius = _radius_of_two(a, b, c, d)
    inverse = jnp.stack([jnp.stack([d, -b]), jnp.stack([-c, a])]) * (radius / (a * d - b * c))

    def off(x):
        return x - matmul(near, matmul(near.T, x))

    def double(_, state):
        step, powers, inverses = state
        step = step + off(matmul(matmul(powers, step), inverses))
        return step, matmul(powers, powers), matmul(inverses, inverses)

    begin = matmul(off(image), inverse) / radius, matrix / radius, inverse
    step = repeat(_MOST_SQUARINGS, double, begin)[0]
    return _orthonormal(p + step[:, 0], q + step[:, 1])


def _dominant(
    matrix: jax.Array, power: jax.Array, basis: tuple[jax.Array, jax.Array], accepted: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the radius of a line and of a plane, and how much of ``power`` is off the plane.

    The line is that of the first vector of the basis. A radius is NaN where it is not proved.
    """
    p, q = basis
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
    line, plane = jnp.where(line_holds, line, jnp.nan), jnp.where(plane_holds, plane, jnp.nan)
    return line, plane, rest_plane


# ---------------------------------------------------------------- the derivative


def _slopes(matrices: jax.Array, radii: jax.Array) -> jax.Array:
    """Return the gradients of ``radii`` [B] with respect to ``matrices``, [B, n, n]."""
    powers = jax.vmap(_last_power)(matrices)
    gradients = jax.vmap(_slope_of_two)(matrices, powers, radii)

    def fill(gradients):
        tied = jax.vmap(_slope_of_ties)(matrices, powers, radii)
        return jnp.where(jnp.isnan(gradients), tied, gradients)

    return advance_if(jnp.isnan(gradients).any(), fill, gradients)


def _last_power(matrix: jax.Array) -> jax.Array:
    """Return a power of A over its norm, [n, n], in which the largest modulus stands alone."""

    def square(_, power):
        return normalised(matmul(power, power))

    return repeat(_last(matrix), square, normalised(matrix))


def _slope_of_two(matrix: jax.Array, power: jax.Array, radius: jax.Array) -> jax.Array:
    """Return the gradient of one eigenvalue's modulus, or of a pair's, [n, n]; else NaN.

    With X and Y bases of the invariant subspaces from the right and the left,
    d log|det H| = tr((YᵀAX)⁻¹YᵀdA X) for the matrix H of A on them.
    """
    starts = arbitrary((2, len(matrix)), matrix.dtype)
    p, q = basis = _span(power, starts)
    line, plane, _ = _dominant(matrix, power, basis, rounding(len(matrix), matrix.dtype))
    y, z = _span(power.T, starts)
    of_line = jnp.sign(p @ matmul(matrix, p)) * jnp.outer(y, p) / (y @ p)
    a, b, c, d = (u @ matmul(matrix, v) for u in (y, z) for v in (p, q))
    adjugate = jnp.outer(d * y - b * z, p) + jnp.outer(a * z - c * y, q)
    of_plane = radius / 2 * adjugate / (a * d - b * c)
    gradient = jnp.where(~jnp.isnan(line), of_line, jnp.where(~jnp.isnan(plane), of_plane, jnp.nan))
    return jnp.where(radius == 0, 0, gradient)


def _slope_of_ties(matrix: jax.Array, power: jax.Array, radius: jax.Array) -> jax.Array:
    """Return the same of however many eigenvalues share the largest modulus, [n, n]."""
    u, s, v = svd(power)
    kept = s > s[0] * float(jnp.finfo(s.dtype).eps) ** 0.5
    u, v = jnp.where(kept[None, :], u, 0), jnp.where(kept[None, :], v, 0)
    inside = matmul(v, matmul(matmul(v.T, matrix), matmul(u, u.T)))
    u, s, v = svd(inside)
    inverse = jnp.where(s > s[0] * float(jnp.finfo(s.dtype).eps) ** 0.75, 1 / s, 0)
    return radius / kept.sum().astype(radius.dtype) * matmul(u * inverse[None, :], v.T)


# ---------------------------------------------------------------- arithmetic


def _orthonormal(p: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return orthonormal vectors of the same plane, or zeros."""
    p = normalised(p)
    q = normalised(q - (p @ q) * p)
    return p, normalised(q - (p @ q) * p)  # twice is enough


def _radius_of_two(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """Return the larger eigenvalue modulus of [[a, b], [c, d]]."""
    half, det = (a + d) / 2, a * d - b * c
    square = ((a - d) / 2) ** 2 + b * c  # half² − det
    return jnp.where(square < 0, jnp.sqrt(abs(det)), abs(half) + jnp.sqrt(jnp.maximum(square, 0)))
