"""One projected matrix, as the claims of theory.md 1.7 and §2 need it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax import spectrum
from homojax.arguments import as_square
from homojax.birkhoff import birkhoff_distance, marginal_errors
from homojax.numerics import rounding
from homojax.programs import compiled


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class MatrixCase:
    """A (nearly) doubly stochastic matrix M, the logits that it was projected from, and errors."""

    logits: jax.Array  # [n, n]
    epsilon: jax.Array
    matrix: jax.Array  # [n, n], M
    sigma2: jax.Array  # σ₂(M)
    lambda2: jax.Array  # λ₂(M)
    row_error: jax.Array  # max |row sum − 1|
    col_error: jax.Array  # max |column sum − 1|
    distance: jax.Array  # ≥ ‖M − M'‖ for some M' ∈ 𝔅ₙ, rounding included
    rounding: jax.Array  # absolute error of a norm or a sum of M


@compiled()
def matrix_case(
    logits: ArrayLike,
    epsilon: ArrayLike,
    matrix: ArrayLike,
    *,
    sigma2: ArrayLike | None = None,
    lambda2: ArrayLike | None = None,
) -> MatrixCase:
    """Return the case of a matrix projected from ``logits`` at ε.

    Args:
        logits: [n, n], n ≥ 2; −inf where the matrix is 0.
        epsilon: the entropy weight, > 0.
        matrix: [n, n], nearly doubly stochastic.
        sigma2: σ₂ of the matrix, computed if it is not known.
        lambda2: λ₂ of the matrix, computed if it is not known.

    >>> case = matrix_case([[1.0, 0.0], [0.0, 1.0]], 1.0, [[0.75, 0.25], [0.25, 0.75]])
    >>> round(float(case.sigma2), 6)
    0.5
    """
    logits, matrix = as_square(logits, "logits"), as_square(matrix)
    error = jnp.asarray(rounding(matrix.shape[0], matrix.dtype), matrix.dtype)
    row_error, col_error = marginal_errors(matrix)
    return MatrixCase(
        logits=logits,
        epsilon=jnp.asarray(epsilon, logits.dtype),
        matrix=matrix,
        sigma2=jnp.asarray(spectrum.sigma2(matrix) if sigma2 is None else sigma2, matrix.dtype),
        lambda2=jnp.asarray(spectrum.lambda2(matrix) if lambda2 is None else lambda2, matrix.dtype),
        row_error=row_error,
        col_error=col_error,
        distance=birkhoff_distance(row_error, col_error) + error,
        rounding=error,
    )
