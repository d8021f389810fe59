"""σ₂: the singular values of P M P, and the top singular pair of any matrix.

Conjugate gradients on the Rayleigh quotient of AᵀA find the pair in some tens of products. They
could have settled on a lower pair. So for a matrix a Cholesky factorisation of θ²(1 + δ)I − AᵀA
decides: it exists only if every singular value is below θ√(1 + δ). Where it does not exist,
Jacobi's rotations find all of them. The factor pays for itself: a step of inverse iteration with it
gives the pair all its digits.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_decomposable
from homojax.batching import each_lane, in_buckets, in_lanes
from homojax.birkhoff import center, detail
from homojax.decompositions.cholesky import cholesky, solve_positive, substitute
from homojax.decompositions.jacobi import singular_values, svd
from homojax.loops import advance_if
from homojax.numerics import arbitrary, matmul, rounding
from homojax.programs import compiled
from homojax.projection.factors import FactoredMatrix
from homojax.spectrum.rayleigh import largest_rayleigh_quotient

_MAX_STEPS = 200
_DENSE = 4  # up to this n Jacobi's rotations are the faster way


@compiled()
def detail_singular_values(matrix: ArrayLike) -> jax.Array:
    """Return the singular values of M on the detail subspace, [n − 1], descending. theory.md 3.5.

    They are the filter's whole curve. NaN where the matrix has a NaN or an infinity.

    >>> [round(s, 6) for s in detail_singular_values([[0.75, 0.25], [0.25, 0.75]]).tolist()]
    [0.5]
    """
    # The last one belongs to the mean, and is 0.
    return singular_values(decomposable_detail(matrix))[:-1]


@compiled(shared=True)
def sigma2(matrix: ArrayLike | FactoredMatrix) -> jax.Array:
    """Return σ₂(M) = ‖P M P‖₂, the largest share of a detail vector's norm that M keeps.

    On 𝔅ₙ it is ‖M − J‖₂ too; away from it ``distance_to_uniform`` is the larger of the two.
    theory.md §0.

    Args:
        matrix: M, [n, n], n ≥ 2; or a FactoredMatrix.

    Returns:
        A scalar, certified to within ``rounding(n, dtype)`` of its size at any n. NaN where the
        matrix has a NaN or an infinity. Of a FactoredMatrix it is found by products alone, some
        tens of passes. It is then never above σ₂, and within 1e-8 (float64) or 3e-4 (float32) of
        its size of a singular value. That this is the top one, only its arbitrary start vouches
        for. NaN where 200 passes do not get there.

    Raises:
        TypeError: a result instead of its matrix, or logits given by factors.
        ValueError: another shape, or a dtype without decompositions.

    Notes:
        First derivatives are finite everywhere. At a tie (J, permutations, symmetric designs) the
        one returned is the subgradient u vᵀ of one top singular pair (u, v) of P M P, of norm at
        most 1. Second derivatives exist only where σ₂ is simple; ``schatten_bounds`` is smooth.

    >>> round(float(sigma2([[0.9, 0.1], [0.1, 0.9]])), 6)
    0.8
    """
    if isinstance(matrix, FactoredMatrix):
        return _sigma2_of_operator(matrix)
    return spectral_norm(decomposable_detail(matrix))


def _sigma2_of_operator(matrix: FactoredMatrix) -> jax.Array:
    n, rtol = matrix.shape[0], float(jnp.finfo(matrix.dtype).eps) ** 0.55

    def climb(fixed):
        _, col_sums = fixed.sums()

        def gram(x):
            """(PMP)ᵀ PMP x, in one pass."""
            x = center(x)
            return center(fixed.gram(x) - col_sums * ((col_sums @ x) / n))

        start = center(arbitrary((n,), fixed.dtype))
        return largest_rayleigh_quotient(gram, start, rtol, _MAX_STEPS)

    fixed = jax.lax.stop_gradient(matrix)
    v, missed = in_lanes(each_lane(climb))(fixed)
    u = center(fixed @ v)
    norm = jnp.linalg.norm(u)
    return jnp.where(missed <= 2 * rtol, (u / jnp.where(norm > 0, norm, 1)) @ (matrix @ v), jnp.nan)


@compiled()
def distance_to_uniform(matrix: ArrayLike) -> jax.Array:
    """Return ‖M − J‖₂: at least σ₂, and above it by what a missed row or column sum adds.

    It sees both kinds of sums. NaN where the matrix has a NaN or an infinity. theory.md 1.7.

    >>> round(float(distance_to_uniform([[1.0, 1.0], [0.0, 0.0]])), 6)
    1.0
    """
    detail_part = decomposable_detail(matrix)  # checks the shape
    matrix = jnp.asarray(matrix, detail_part.dtype)
    return spectral_norm(matrix - 1 / matrix.shape[0])


def decomposable_detail(matrix: ArrayLike) -> jax.Array:
    """Return P M P, [n, n], in a precision that has decompositions.

    Raises:
        ValueError: the matrix is in half precision, or not square.

    >>> float(abs(decomposable_detail(jnp.full((2, 2), 0.5))).max())
    0.0
    """
    return as_decomposable(detail(matrix))


@jax.custom_jvp
def spectral_norm(matrix: jax.Array) -> jax.Array:
    """Return ‖A‖₂ of a square matrix, [n, n] -> scalar, certified to ``rounding(n, dtype)``.

    The rounding is relative. NaN where the matrix has a NaN or an infinity. The derivative is a
    subgradient at ties, and 0 at A = 0.

    Source: Bradbury and Fletcher (Numer. Math. 9, 1966) for the iteration; Sylvester's law of
    inertia for the proof.

    >>> round(float(spectral_norm(jnp.array([[3.0, 0.0], [4.0, 0.0]]))), 6)
    5.0
    """
    if len(matrix) > _DENSE:
        return top_singular_pair(matrix)[0]
    return singular_values(matrix)[0]


@spectral_norm.defjvp
def _spectral_norm_jvp(primals, tangents):
    norm, u, v = top_singular_pair(*primals)
    return norm, u @ matmul(tangents[0], v)


@jax.custom_jvp
def top_singular_pair(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (θ, u, v) with A v = θ u, Aᵀu = θ v and θ = ‖A‖₂, for a square matrix [n, n].

    A scalar, [n] and [n]; u = 0 where A is. Differentiable where θ is simple. NaN where the matrix
    has a NaN or an infinity.

    >>> norm, u, v = top_singular_pair(jnp.array([[0.0, 2.0], [1.0, 0.0]]))
    >>> round(float(norm), 6), [round(abs(x), 6) for x in v.tolist()]
    (2.0, [0.0, 1.0])
    """
    matrix = jax.lax.stop_gradient(matrix)
    if len(matrix) <= _DENSE:
        u, s, v = svd(matrix)
        return s[0], u[:, 0], v[:, 0]
    climb = in_buckets(each_lane(_climb_and_prove), lambda matrices: abs(matrices).max((1, 2)))
    decompose = in_buckets(_decompose_unproved, lambda _, norm, *pair: jnp.isnan(norm), most=2)
    return decompose(matrix, *climb(matrix))


@top_singular_pair.defjvp
def _top_singular_pair_jvp(primals, tangents):
    (matrix,), (dmatrix,) = primals, tangents
    norm, u, v = top_singular_pair(matrix)
    image, back = matmul(dmatrix, v), matmul(u, dmatrix)
    dnorm = u @ image
    # (θ² − AᵀA) dv = Aᵀ dA v + θ dAᵀu − 2θ dθ v on the complement of v, along which dv = 0.
    # All of it over θ², which may underflow.
    unit = jnp.where(norm > 0, norm, 1)
    a, image, back, change = matrix / unit, image / unit, back / unit, dnorm / unit
    shift = jnp.eye(len(v), dtype=v.dtype) + jnp.outer(v, v)
    dv = solve_positive(shift - matmul(a.T, a), matmul(image, a) + back - 2 * change * v)
    du = image + matmul(a, dv) - change * u
    return (norm, u, v), (dnorm, du, dv)


def _climb_and_prove(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (θ, u, v); NaN where that is not proved to be the top pair."""
    n, eps = len(matrix), float(jnp.finfo(matrix.dtype).eps)
    scale = abs(matrix).max()
    unit = matrix / jnp.where(scale > 0, scale, 1)
    start = arbitrary((n,), matrix.dtype)
    v, _ = largest_rayleigh_quotient(
        lambda x: matmul(matmul(unit, x), unit), matmul(start, unit), eps**0.6, _MAX_STEPS
    )
    ceiling = (1 + rounding(n, matrix.dtype)) * (matmul(unit, v) ** 2).sum()
    slack = ceiling * jnp.eye(n, dtype=v.dtype) - matmul(unit.T, unit)
    slack = jnp.where(scale > 0, slack, jnp.eye(n, dtype=v.dtype))
    v = substitute(cholesky(slack), v)
    v = v / jnp.linalg.norm(v)
    u = matmul(unit, v)
    norm = jnp.linalg.norm(u)
    return norm * scale, u / jnp.where(norm > 0, norm, 1), v


def _decompose_unproved(matrices: jax.Array, *pairs: jax.Array) -> tuple[jax.Array, ...]:
    """Return ``pairs`` (θ, u, v) [B, ...], with Jacobi's where θ is NaN."""
    unproved = jnp.isnan(pairs[0])

    def decompose(pairs):
        u, s, v = jax.vmap(svd)(matrices)
        dense = s[:, 0], u[:, :, 0], v[:, :, 0]
        return tuple(
            jnp.where(jnp.expand_dims(unproved, range(1, a.ndim)), b, a)
            for a, b in zip(pairs, dense, strict=True)
        )

    return advance_if(unproved.any(), decompose, pairs)
