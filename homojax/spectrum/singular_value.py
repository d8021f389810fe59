"""The top singular pair of a matrix or an operator: found by products with vectors, and for a matrix proved to be the top.

Conjugate gradients on the Rayleigh quotient of AᵀA find it in some tens of products. They could have settled on a lower pair; so
Cholesky's factorisation of θ²(1 + δ)I − AᵀA, which exists only if every singular value is below θ√(1 + δ), decides, and LAPACK's
decomposition takes over where it says no. The factor pays for itself: a step of inverse iteration gives the pair all its digits.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from homojax.batching import in_buckets
from homojax.numerics import matmul, repeat_while, rounding

_MAX_STEPS = 200


@jax.custom_jvp
def spectral_norm(matrix: jax.Array) -> jax.Array:
    """‖A‖₂ of a square matrix, [n, n] -> scalar: to within ``rounding(n, dtype)`` of its size, certified.

    NaN where the matrix has a NaN or an infinity. The derivative is a subgradient at ties, and 0 at A = 0.

    Source: Bradbury and Fletcher (Numer. Math. 9, 1966) for the iteration; Sylvester's law of inertia for the proof.

    >>> round(float(spectral_norm(jnp.array([[3.0, 0.0], [4.0, 0.0]]))), 6)
    5.0
    """
    return top_singular_pair(matrix)[0]


@spectral_norm.defjvp
def _spectral_norm_jvp(primals, tangents):
    norm, u, v = top_singular_pair(*primals)
    return norm, u @ matmul(tangents[0], v)


@jax.custom_jvp
def top_singular_pair(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(θ, u, v) with A v = θ u, Aᵀu = θ v and θ = ‖A‖₂; u = 0 where A is. [n, n] -> scalar, [n], [n].

    Differentiable where θ is simple. NaN where the matrix has a NaN or an infinity.

    >>> norm, u, v = top_singular_pair(jnp.array([[0.0, 2.0], [1.0, 0.0]]))
    >>> round(float(norm), 6), [round(abs(x), 6) for x in v.tolist()]
    (2.0, [0.0, 1.0])
    """
    matrix = jax.lax.stop_gradient(matrix)
    found = in_buckets(jax.vmap(_climb_and_prove), lambda matrices: abs(matrices).max((1, 2)))(
        matrix
    )
    return in_buckets(_decompose_unproved, lambda _, norm, *pair: jnp.isnan(norm))(matrix, *found)


@top_singular_pair.defjvp
def _top_singular_pair_jvp(primals, tangents):
    (matrix,), (dmatrix,) = primals, tangents
    norm, u, v = top_singular_pair(matrix)
    image, back = matmul(dmatrix, v), matmul(u, dmatrix)
    dnorm = u @ image
    # (θ² − AᵀA) dv = Aᵀ dA v + θ dAᵀu − 2θ dθ v on the complement of v, along which dv = 0
    operator = norm**2 * (jnp.eye(len(v), dtype=v.dtype) + jnp.outer(v, v)) - matmul(
        matrix.T, matrix
    )
    dv = jnp.linalg.solve(operator, matmul(image, matrix) + norm * (back - 2 * dnorm * v))
    du = (image + matmul(matrix, dv) - dnorm * u) / norm
    return (norm, u, v), (dnorm, du, dv)


def largest_rayleigh_quotient(
    apply: Callable[[jax.Array], jax.Array], start: jax.Array, rtol: float, max_steps: int
) -> tuple[jax.Array, jax.Array]:
    """(x, r): a unit vector [n] that ``apply``, symmetric and positive semidefinite, maps to ρx but for a residual of norm r·ρ.

    Conjugate gradients up the quotient ρ = x·apply(x)/x·x from ``start``, until r ≤ rtol. Each step takes the best vector of the
    plane of x and the direction, which is conjugate to the last one.
    """

    def residual(x, image):
        quotient = x @ image
        rest = image - quotient * x
        return quotient, rest, jnp.linalg.norm(rest)

    def unfinished(state):
        *_, quotient, _, missed, k = state
        return (missed > rtol * quotient) & (k < max_steps)

    def climb(state):
        x, image, last, last_image, quotient, rest, _, k = state
        curvature = last @ last_image - quotient * (last @ last)
        along = rest @ last_image - quotient * (rest @ last)
        direction = (
            rest
            - jnp.where(curvature < 0, along / jnp.where(curvature < 0, curvature, -1), 0) * last
        )
        direction = direction - (x @ direction) * x
        size = jnp.linalg.norm(direction)
        direction = direction / jnp.where(size > 0, size, 1)
        direction_image = apply(direction)
        # the top eigenvector (c, s) of [[ρ, b], [b, d]]
        b, half = x @ direction_image, (quotient - direction @ direction_image) / 2
        root = jnp.hypot(half, b)
        c, s = (
            jnp.where(half >= 0, half + root, abs(b)),
            jnp.where(half >= 0, b, jnp.where(b < 0, half - root, root - half)),
        )
        norm = jnp.hypot(c, s)
        c, s = (
            jnp.where(norm > 0, c / jnp.where(norm > 0, norm, 1), 1),
            jnp.where(norm > 0, s / jnp.where(norm > 0, norm, 1), 0),
        )
        x, last = c * x + s * direction, c * direction - s * x
        image, last_image = c * image + s * direction_image, c * direction_image - s * image
        length = jnp.linalg.norm(x)
        x, image = x / length, image / length
        return x, image, last, last_image, *residual(x, image), k + 1

    x = start / jnp.linalg.norm(start)
    image, zero = apply(x), jnp.zeros_like(x)
    state = x, image, zero, zero, *residual(x, image), 0
    x, *_, quotient, _, missed, _ = repeat_while(unfinished, climb, state)
    return x, missed / jnp.where(quotient > 0, quotient, 1)


def _climb_and_prove(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(θ, u, v); NaN where that is not proved to be the top pair."""
    n, eps = len(matrix), float(jnp.finfo(matrix.dtype).eps)
    scale = abs(matrix).max()
    unit = matrix / jnp.where(scale > 0, scale, 1)
    start = jax.random.normal(jax.random.key(0), (n,), matrix.dtype)
    v, _ = largest_rayleigh_quotient(
        lambda x: matmul(matmul(unit, x), unit), matmul(start, unit), eps**0.6, _MAX_STEPS
    )
    ceiling = (1 + rounding(n, matrix.dtype)) * (matmul(unit, v) ** 2).sum()
    slack = ceiling * jnp.eye(n, dtype=v.dtype) - matmul(unit.T, unit)
    factor = jnp.linalg.cholesky(
        jnp.where(scale > 0, slack, jnp.eye(n, dtype=v.dtype)), symmetrize_input=False
    )
    v = jax.scipy.linalg.cho_solve((factor, True), v)
    v = v / jnp.linalg.norm(v)
    u = matmul(unit, v)
    norm = jnp.linalg.norm(u)
    return norm * scale, u / jnp.where(norm > 0, norm, 1), v


def _decompose_unproved(matrices: jax.Array, *found: jax.Array) -> tuple[jax.Array, ...]:
    unproved = jnp.isnan(found[0])

    def decompose(matrices, *found):
        u, s, vt = jnp.linalg.svd(matrices)
        dense = s[:, 0], u[:, :, 0], vt[:, 0]
        return tuple(
            jnp.where(jnp.expand_dims(unproved, range(1, a.ndim)), b, a)
            for a, b in zip(found, dense, strict=True)
        )

    return jax.lax.cond(unproved.any(), decompose, lambda _, *found: found, matrices, *found)
