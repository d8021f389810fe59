"""How much detail a mixing matrix keeps: the singular values and eigenvalues of P M P. theory.md §0."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.birkhoff import center, detail
from homojax.projection.factors import FactoredMatrix
from homojax.spectrum.eigenvalue import decomposed_radius, spectral_radius
from homojax.spectrum.singular_value import largest_rayleigh_quotient, spectral_norm

# Up to these n a decomposition is the faster way: LAPACK's, and on a GPU the batched one for singular values.
_DENSE_SINGULAR_VALUES, _DENSE_EIGENVALUES = 32, 12


def _detail(matrix: ArrayLike) -> jax.Array:
    """P M P in a precision that has decompositions."""
    matrix = detail(matrix)
    if jnp.finfo(matrix.dtype).bits < 32:
        raise ValueError(
            f"there are no spectra in {matrix.dtype}: give the matrix as float32, which holds all of its digits"
        )
    return matrix


def detail_singular_values(matrix: ArrayLike) -> jax.Array:
    """Singular values of M on the detail subspace, [n − 1], descending: the filter's whole curve. theory.md 3.5.

    NaN where the matrix has a NaN or an infinity.

    >>> [round(s, 6) for s in detail_singular_values([[0.75, 0.25], [0.25, 0.75]]).tolist()]
    [0.5]
    """
    return jnp.linalg.svd(_detail(matrix), compute_uv=False)[
        :-1
    ]  # the last one belongs to the mean, and is 0


def sigma2(matrix: ArrayLike | FactoredMatrix) -> jax.Array:
    """σ₂(M) = ‖P M P‖₂: the largest share of a detail vector's norm that survives M. theory.md §0.

    On 𝔅ₙ it is ‖M − J‖₂ too; away from it ``distance_to_uniform`` is the larger of the two. To within ``rounding(n, dtype)`` of
    its size, certified at any n (see ``homojax.singular``). NaN where the matrix has a NaN or an infinity.

    Of a FactoredMatrix it is found by products alone, some tens of passes: never above σ₂, and within 1e-8 (float64) or 3e-4
    (float32) of its size of a singular value, for which only the random start vouches that it is the top one. NaN where 200
    passes do not get there.

    First derivatives are finite everywhere. At a tie (J, permutations, symmetric designs) the one returned is the
    subgradient u vᵀ of one top singular pair (u, v) of P M P, of norm at most 1. Second derivatives exist only where
    σ₂ is simple; ``schatten_bounds`` is smooth.

    >>> round(float(sigma2([[0.9, 0.1], [0.1, 0.9]])), 6)
    0.8
    """
    if isinstance(matrix, FactoredMatrix):
        return _subdominant_of_operator(matrix)
    matrix = _detail(matrix)
    return (
        spectral_norm(matrix)
        if len(matrix) > _DENSE_SINGULAR_VALUES
        else jnp.linalg.svd(matrix, compute_uv=False)[0]
    )


def _subdominant_of_operator(matrix: FactoredMatrix) -> jax.Array:
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
    """‖M − J‖₂. At least σ₂, and above it by what a missed row or column sum adds: it sees both. theory.md 1.7.

    >>> round(float(distance_to_uniform([[1.0, 1.0], [0.0, 0.0]])), 6)
    1.0
    """
    detail_part = _detail(matrix)  # checks the shape
    matrix = jnp.asarray(matrix, detail_part.dtype)
    return jnp.linalg.svd(matrix - 1 / matrix.shape[0], compute_uv=False)[0]


def lambda2(matrix: ArrayLike) -> jax.Array:
    """λ₂(M): the largest eigenvalue modulus of P M P, ≤ σ₂. The asymptotic rate when one M is shared. theory.md 3.3.

    It is the second largest eigenvalue modulus of M itself wherever the rows or the columns sum to 1. To a backward error of
    ``rounding(n, dtype)``, with a proof that none is larger (see ``homojax.radius``). Differentiable where that eigenvalue is
    simple. NaN where the matrix has a NaN or an infinity.

    >>> round(float(lambda2([[0.0, 1.0], [1.0, 0.0]])), 6)
    1.0
    """
    matrix = _detail(matrix)
    return (
        spectral_radius(matrix) if len(matrix) > _DENSE_EIGENVALUES else decomposed_radius(matrix)
    )
