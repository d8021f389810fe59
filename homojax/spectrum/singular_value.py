"""The top singular pair of a matrix or an operator, and σ₂ of an array.

Conjugate gradients on the Rayleigh quotient of AᵀA find the pair in some tens of products. They
could have settled on a lower pair. So for a matrix a Cholesky factorisation of θ²(1 + δ)I − AᵀA
decides: it exists only if every singular value is below θ√(1 + δ). Where it does not exist, the
decomposition of LAPACK takes over. The factor pays for itself: a step of inverse iteration with it
gives the pair all its digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.batching import each_lane, in_buckets
from homojax.birkhoff import detail
from homojax.numerics import matmul, repeat_while, rounding

_MAX_STEPS = 200
# Up to this n a decomposition is the faster way: LAPACK's, and on a GPU the batched one.
_DENSE = 32


def decomposable_detail(matrix: ArrayLike) -> jax.Array:
    """Return P M P, [n, n], in a precision that has decompositions.

    Raises:
        ValueError: the matrix is in half precision, or not square.

    >>> float(abs(decomposable_detail(jnp.full((2, 2), 0.5))).max())
    0.0
    """
    matrix = detail(matrix)
    if jnp.finfo(matrix.dtype).bits < 32:
        raise ValueError(
            f"there are no spectra in {matrix.dtype}: give the matrix as float32, which holds "
            "all of its digits"
        )
    return matrix


def dense_sigma2(matrix: ArrayLike) -> jax.Array:
    """Return σ₂ of an array [n, n]: ``spectrum.sigma2``, which says more.

    >>> round(float(dense_sigma2([[0.9, 0.1], [0.1, 0.9]])), 6)
    0.8
    """
    matrix = decomposable_detail(matrix)
    if len(matrix) > _DENSE:
        return spectral_norm(matrix)
    return jnp.linalg.svd(matrix, compute_uv=False)[0]


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
    return top_singular_pair(matrix)[0]


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
    climb = in_buckets(each_lane(_climb_and_prove), lambda matrices: abs(matrices).max((1, 2)))
    decompose = in_buckets(_decompose_unproved, lambda _, norm, *pair: jnp.isnan(norm))
    return decompose(matrix, *climb(matrix))


@top_singular_pair.defjvp
def _top_singular_pair_jvp(primals, tangents):
    (matrix,), (dmatrix,) = primals, tangents
    norm, u, v = top_singular_pair(matrix)
    image, back = matmul(dmatrix, v), matmul(u, dmatrix)
    dnorm = u @ image
    # (θ² − AᵀA) dv = Aᵀ dA v + θ dAᵀu − 2θ dθ v on the complement of v, along which dv = 0
    shift = norm**2 * (jnp.eye(len(v), dtype=v.dtype) + jnp.outer(v, v))
    operator = shift - matmul(matrix.T, matrix)
    dv = jnp.linalg.solve(operator, matmul(image, matrix) + norm * (back - 2 * dnorm * v))
    du = (image + matmul(matrix, dv) - dnorm * u) / norm
    return (norm, u, v), (dnorm, du, dv)


class _Climb(NamedTuple):
    """The state of a climb: a unit vector, the last direction, and their images."""

    x: jax.Array  # [n], of norm 1
    image: jax.Array  # [n], ``apply(x)``
    last: jax.Array  # [n], the direction of the last step
    last_image: jax.Array  # [n]
    quotient: jax.Array  # ρ = x·image
    rest: jax.Array  # [n], image − ρx
    missed: jax.Array  # ‖rest‖
    num_steps: jax.Array | int


def largest_rayleigh_quotient(
    apply: Callable[[jax.Array], jax.Array], start: jax.Array, rtol: float, max_steps: int
) -> tuple[jax.Array, jax.Array]:
    """Return (x, r): a unit vector that ``apply`` maps to ρx but for a residual of norm r·ρ.

    Conjugate gradients up the quotient ρ = x·apply(x)/x·x, until r ≤ rtol. Each step takes the best
    vector of the plane of x and the direction, which is conjugate to the last one.

    Args:
        apply: [n] -> [n], symmetric and positive semidefinite.
        start: [n], from where.
        rtol: the relative residual to reach.
        max_steps: most applications but the first.
    """

    def unfinished(state: _Climb) -> jax.Array:
        return (state.missed > rtol * state.quotient) & (state.num_steps < max_steps)

    def climb(state: _Climb) -> _Climb:
        x = state.x
        direction = _conjugate_direction(state)
        direction_image = apply(direction)
        b, half = x @ direction_image, (state.quotient - direction @ direction_image) / 2
        c, s = _top_eigenvector(half, b)
        x, last = c * x + s * direction, c * direction - s * x
        image = c * state.image + s * direction_image
        last_image = c * direction_image - s * state.image
        length = jnp.linalg.norm(x)
        return _arrive(x / length, image / length, last, last_image, state.num_steps + 1)

    x = start / jnp.linalg.norm(start)
    zero = jnp.zeros_like(x)
    end = repeat_while(unfinished, climb, _arrive(x, apply(x), zero, zero, 0))
    return end.x, end.missed / jnp.where(end.quotient > 0, end.quotient, 1)


def _arrive(
    x: jax.Array,
    image: jax.Array,
    last: jax.Array,
    last_image: jax.Array,
    num_steps: jax.Array | int,
) -> _Climb:
    """Return the state at x, with its quotient and residual."""
    quotient = x @ image
    rest = image - quotient * x
    return _Climb(
        x=x,
        image=image,
        last=last,
        last_image=last_image,
        quotient=quotient,
        rest=rest,
        missed=jnp.linalg.norm(rest),
        num_steps=num_steps,
    )


def _conjugate_direction(state: _Climb) -> jax.Array:
    """Return the unit vector from x up the quotient, conjugate to the last direction."""
    x, last, last_image, quotient, rest = (
        state.x,
        state.last,
        state.last_image,
        state.quotient,
        state.rest,
    )
    curvature = last @ last_image - quotient * (last @ last)
    along = rest @ last_image - quotient * (rest @ last)
    share = jnp.where(curvature < 0, along / jnp.where(curvature < 0, curvature, -1), 0)
    direction = rest - share * last
    direction = direction - (x @ direction) * x
    size = jnp.linalg.norm(direction)
    return direction / jnp.where(size > 0, size, 1)


def _top_eigenvector(half: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (c, s), of norm 1, for [[ρ, b], [b, d]] with ``half`` = (ρ − d)/2."""
    root = jnp.hypot(half, b)
    c = jnp.where(half >= 0, half + root, abs(b))
    s = jnp.where(half >= 0, b, jnp.where(b < 0, half - root, root - half))
    norm = jnp.hypot(c, s)
    moves, norm = norm > 0, jnp.where(norm > 0, norm, 1)
    return jnp.where(moves, c / norm, 1), jnp.where(moves, s / norm, 0)


def _climb_and_prove(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (θ, u, v); NaN where that is not proved to be the top pair."""
    n, eps = len(matrix), float(jnp.finfo(matrix.dtype).eps)
    scale = abs(matrix).max()
    unit = matrix / jnp.where(scale > 0, scale, 1)
    start = jax.random.normal(jax.random.key(0), (n,), matrix.dtype)
    v, _ = largest_rayleigh_quotient(
        lambda x: matmul(matmul(unit, x), unit), matmul(start, unit), eps**0.6, _MAX_STEPS
    )
    ceiling = (1 + rounding(n, matrix.dtype)) * (matmul(unit, v) ** 2).sum()
    slack = ceiling * jnp.eye(n, dtype=v.dtype) - matmul(unit.T, unit)
    slack = jnp.where(scale > 0, slack, jnp.eye(n, dtype=v.dtype))
    factor = jnp.linalg.cholesky(slack, symmetrize_input=False)
    v = jax.scipy.linalg.cho_solve((factor, True), v)
    v = v / jnp.linalg.norm(v)
    u = matmul(unit, v)
    norm = jnp.linalg.norm(u)
    return norm * scale, u / jnp.where(norm > 0, norm, 1), v


def _decompose_unproved(matrices: jax.Array, *pairs: jax.Array) -> tuple[jax.Array, ...]:
    """Return ``pairs`` (θ, u, v) [B, ...], with LAPACK's where θ is NaN."""
    unproved = jnp.isnan(pairs[0])

    def decompose(matrices, *pairs):
        u, s, vt = jnp.linalg.svd(matrices)
        dense = s[:, 0], u[:, :, 0], vt[:, 0]
        return tuple(
            jnp.where(jnp.expand_dims(unproved, range(1, a.ndim)), b, a)
            for a, b in zip(pairs, dense, strict=True)
        )

    return jax.lax.cond(unproved.any(), decompose, lambda _, *pairs: pairs, matrices, *pairs)
