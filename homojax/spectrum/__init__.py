"""How much detail a mixing matrix keeps: singular values and eigenvalues of P M P. theory.md §0."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.birkhoff import center
from homojax.projection.factors import FactoredMatrix
from homojax.spectrum.eigenvalue import decomposed_radius, spectral_radius
from homojax.spectrum.gap import contraction_gap, log_contraction_gap
from homojax.spectrum.singular_value import (
    decomposable_detail,
    dense_sigma2,
    largest_rayleigh_quotient,
)

__all__ = [
    "contraction_gap",
    "detail_singular_values",
    "distance_to_uniform",
    "lambda2",
    "log_contraction_gap",
    "sigma2",
]

_DENSE_EIGENVALUES = 12  # up to this n LAPACK's decomposition is the faster way


def detail_singular_values(matrix: ArrayLike) -> jax.Array:
    """Return the singular values of M on the detail subspace, [n − 1], descending. theory.md 3.5.

    They are the filter's whole curve. NaN where the matrix has a NaN or an infinity.

    >>> [round(s, 6) for s in detail_singular_values([[0.75, 0.25], [0.25, 0.75]]).tolist()]
    [0.5]
    """
    # The last one belongs to the mean, and is 0.
    return jnp.linalg.svd(decomposable_detail(matrix), compute_uv=False)[:-1]


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
        its size of a singular value. That this is the top one, only the random start vouches for.
        NaN where 200 passes do not get there.

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
    return dense_sigma2(matrix)


def _sigma2_of_operator(matrix: FactoredMatrix) -> jax.Array:
    fixed = jax.lax.stop_gradient(matrix)
    n, rtol = fixed.shape[0], float(jnp.finfo(fixed.dtype).eps) ** 0.55
    _, col_sums = fixed.sums()

    def gram(x):
        """(PMP)ᵀ PMP x, in one pass."""
        x = center(x)
        return center(fixed.gram(x) - col_sums * ((col_sums @ x) / n))

    start = center(jax.random.normal(jax.random.key(0), (n,), fixed.dtype))
    v, missed = largest_rayleigh_quotient(gram, start, rtol, 200)
    u = center(fixed @ v)
    norm = jnp.linalg.norm(u)
    return jnp.where(missed <= 2 * rtol, (u / jnp.where(norm > 0, norm, 1)) @ (matrix @ v), jnp.nan)


def distance_to_uniform(matrix: ArrayLike) -> jax.Array:
    """Return ‖M − J‖₂: at least σ₂, and above it by what a missed row or column sum adds.

    It sees both kinds of sums. NaN where the matrix has a NaN or an infinity. theory.md 1.7.

    >>> round(float(distance_to_uniform([[1.0, 1.0], [0.0, 0.0]])), 6)
    1.0
    """
    detail_part = decomposable_detail(matrix)  # checks the shape
    matrix = jnp.asarray(matrix, detail_part.dtype)
    return jnp.linalg.svd(matrix - 1 / matrix.shape[0], compute_uv=False)[0]


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
    small = len(matrix) <= _DENSE_EIGENVALUES
    return decomposed_radius(matrix) if small else spectral_radius(matrix)
