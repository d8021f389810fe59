"""σ₂: the singular values of P M P, and the top singular pair of any matrix.

Repeated squaring of AᵀA shows the largest singular value alone, and proves that none is larger.
Products of the last power with an arbitrary vector show the singular vector. Of an operator that is
no matrix, conjugate gradients on the Rayleigh quotient find a pair, and nothing proves that it is
the top one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from homojax.arguments import as_decomposable
from homojax.batching import each_lane, in_buckets, in_lanes
from homojax.birkhoff import center, detail
from homojax.decompositions.cholesky import solve_positive
from homojax.decompositions.jacobi import singular_values
from homojax.loops import repeat, repeat_while
from homojax.numerics import arbitrary, gram, matmul, normalised, rounding
from homojax.programs import compiled
from homojax.projection.factors import FactoredMatrix
from homojax.spectrum.rayleigh import largest_rayleigh_quotient

_MAX_STEPS = 200
_SHARE = 0.5  # what a product with the last power keeps of all but the top vector, at most
_MOST_PRODUCTS = 200  # of a start that has almost nothing of the top vector


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

    >>> round(float(spectral_norm(jnp.array([[3.0, 0.0], [4.0, 0.0]]))), 6)
    5.0
    """
    return _in_buckets(_norm)(jax.lax.stop_gradient(matrix))


@spectral_norm.defjvp
def _spectral_norm_jvp(primals, tangents):
    norm, u, v = top_singular_pair(*primals)
    return norm, u @ matmul(tangents[0], v)


@jax.custom_jvp
def top_singular_pair(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (θ, u, v) with A v = θ u, Aᵀu = θ v and θ = ‖A‖₂, for a square matrix [n, n].

    A scalar, [n] and [n]; u = v = 0 where A is 0. Differentiable where θ is simple. NaN where the
    matrix has a NaN or an infinity.

    >>> norm, u, v = top_singular_pair(jnp.array([[0.0, 2.0], [1.0, 0.0]]))
    >>> round(float(norm), 6), [round(abs(x), 6) for x in v.tolist()]
    (2.0, [0.0, 1.0])
    """
    return _in_buckets(_top_pair)(jax.lax.stop_gradient(matrix))


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
    dv = solve_positive(shift - gram(a), matmul(image, a) + back - 2 * change * v)
    du = image + matmul(a, dv) - change * u
    return (norm, u, v), (dnorm, du, dv)


def _in_buckets(find: Callable) -> Callable:
    return in_buckets(each_lane(find), lambda matrices: abs(matrices).max((1, 2)))


def _norm(matrix: jax.Array) -> jax.Array:
    unit, scale = _scaled(matrix)
    v = _prove(*_square(unit))
    return scale * jnp.linalg.norm(matmul(unit, v))


def _top_pair(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    unit, scale = _scaled(matrix)
    power, least = _square(unit)
    half_of_the_digits = math.log(float(jnp.finfo(matrix.dtype).eps)) / math.log(_SHARE) / 2
    begin = _prove(power, least)
    v = repeat(math.ceil(half_of_the_digits), lambda _, v: normalised(matmul(power, v)), begin)
    u = matmul(unit, v)
    norm = jnp.linalg.norm(u)
    return norm * scale, u / jnp.where(norm > 0, norm, 1), v


def _scaled(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the matrix over its largest entry, and that."""
    scale = abs(matrix).max()
    return matrix / jnp.where(scale > 0, scale, 1), scale


def _square(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a polynomial in AᵀA of Frobenius norm 1, and a number below its largest eigenvalue.

    With P the polynomial, let 1, t₂, t₃, … be its eigenvalues over the largest, and x = t₂² + t₃² +
    …. Then s = ‖P²‖ is at most the largest one, as Σl⁴ ≤ l₁² Σl². A turn makes Q − P/2 of P, over
    its norm, with Q = P²/s. Where P² doubles the distance from 1 of a t near it, this makes it up
    to three times as large. It takes all t in [−1/8, 1) to such t, as s is not above l₁. Its norm
    follows from the change ‖Q − P‖.

    Turns end where one of two things is shown of the P before the last:

    - One is left: s² = (1 + Σt⁴)/(1 + x)² ≤ (1 + x²)/(1 + x)² is so near 1 that x ≤ 0.6. The turn
      then takes all t but the first to within ±½.
    - Equal ones are left: the change is so small, e, that each t is within 4√n e of 0 or 1. The
      singular values that did not vanish differ by a share of about 4√n e/2ᵏ after k turns. As k
      grows, any e will do that ``_prove`` accepts, when the turn has made it 3√n times as large.
    """
    n, eps = len(matrix), float(jnp.finfo(matrix.dtype).eps)
    one = (1 + 0.6**2) / (1 + 0.6) ** 2
    equals = rounding(n, matrix.dtype) / (8 * n**0.5)
    most_change = _accepted(n, matrix.dtype) ** 0.5 / (3 * n**0.5)
    most = math.ceil(math.log2(16 * n**0.5 / eps))

    def unfinished(state):
        _, size, change, _, k = state
        small = jnp.minimum(jnp.ldexp(jnp.full_like(change, equals), k), most_change)
        equals_are_left = change <= small
        return ~((size**2 >= one) | equals_are_left) & (k < most)

    def square(state):
        power, *_, k = state
        image = matmul(power, power)
        size = jnp.linalg.norm(image)
        over_size = 1 / jnp.where(size > 0, size, 1)
        change = jnp.linalg.norm(over_size * image - power)
        over_new = 1 / jnp.sqrt(0.25 + change**2 / 2)
        power = (over_size * over_new) * image - (over_new / 2) * power
        return power, size, change, over_new * size / 2, k + 1

    zero = jnp.zeros((), matrix.dtype)
    start = square((normalised(gram(matrix)), zero, zero, zero, 0))
    power, _, _, least, _ = repeat_while(unfinished, square, start)
    return power, least


def _prove(power: jax.Array, least: jax.Array) -> jax.Array:
    """Return a unit vector v, [n], that has ‖A v‖ = ‖A‖₂ to rounding; NaN where that is not shown.

    It is the image of an arbitrary one, many times over. Then ρ = vᵀPv is within ‖Pv − ρv‖ of an
    eigenvalue of P. After ``_square`` all but the largest, and its equals, are below 0.9 ‖P²‖. So
    it is the largest where ρ is above that. The part of v beside the top vectors is a small
    multiple of the residual, and its square is what ‖A v‖² misses.

    Args:
        power: P, [n, n], symmetric.
        least: a number below its largest eigenvalue.
    """
    n = len(power)
    accepted = _accepted(n, power.dtype)

    def unfinished(state):
        _, proved, turn = state
        return ~proved & (turn < _MOST_PRODUCTS) & (least >= 0)  # not NaN

    def multiply(state):
        v, _, turn = state
        image = matmul(power, v)
        value = v @ image
        missed = image - value * v
        proved = (value >= 0.9 * least) & (missed @ missed <= accepted * value**2)
        return jnp.where(proved, v, normalised(image)), proved, turn + 1

    begin = normalised(matmul(power, arbitrary((n,), power.dtype))), jnp.zeros((), bool), 0
    v, proved, _ = repeat_while(unfinished, multiply, begin)
    return jnp.where(proved, v, jnp.nan)


def _accepted(n: int, dtype: DTypeLike) -> float:
    """Return ‖Pv − ρv‖² over ρ² at which ‖A v‖ lacks less than an eighth of the rounding."""
    return rounding(n, dtype) / 32
