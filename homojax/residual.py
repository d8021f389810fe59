"""Residual connections: what they keep, and how little they change then. theory.md §5."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_float, as_scalar, as_square
from homojax.birkhoff import center
from homojax.numerics import norm, power_of_two, sqrt
from homojax.programs import compiled


@compiled()
def residual_matrix(matrix: ArrayLike, alpha: ArrayLike) -> jax.Array:
    """Return R_α = (1 − α)I + αM, which is doubly stochastic if M is. x + Mx is 2R_½ x.

    Args:
        matrix: M, [n, n].
        alpha: α, a scalar; outside [0, 1], R_α may have negative entries.

    Raises:
        ValueError: ``matrix`` is not [n, n] with n ≥ 2, or ``alpha`` is not a scalar.

    Source: theory.md §5.

    >>> residual_matrix([[0.0, 1.0], [1.0, 0.0]], 0.25).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    matrix = as_square(matrix)
    alpha = as_scalar(alpha, "alpha", matrix.dtype)
    return (1 - alpha) * jnp.eye(matrix.shape[0], dtype=matrix.dtype) + alpha * matrix


@compiled()
def residual_bound(sigma2: ArrayLike, *, alpha: ArrayLike) -> jax.Array:
    """Return |1 − α| + |α|σ₂ ≥ σ₂(R_α), which is 1 − α + ασ₂ for α in [0, 1].

    Equality there where M's best-kept detail is an eigenvector with eigenvalue σ₂.

    Args:
        sigma2: σ₂(M) ≥ 0, an array.
        alpha: α, an array alike.

    Source: law 5.1, residual.

    >>> float(residual_bound(0.5, alpha=0.5))
    0.75
    """
    sigma2 = as_float(sigma2)
    alpha = as_float(alpha, "alpha").astype(sigma2.dtype)
    # Not by abs, which has no derivative at α = 0 and α = 1.
    kept, mixed = jnp.where(alpha > 1, alpha - 1, 1 - alpha), jnp.where(alpha < 0, -alpha, alpha)
    return kept + mixed * sigma2


@compiled()
def turn_bound(sigma2: ArrayLike, *, alpha: ArrayLike) -> jax.Array:
    """Return arcsin(ασ₂/(1 − α)), the largest angle by which R_α can turn a detail vector.

    Over layers the angles add up at most. Equality where M keeps σ₂ of a unit x and turns it to
    ⟨x, Mx⟩ = −ασ₂²/(1 − α).

    Args:
        sigma2: σ₂(M) ≥ 0, an array.
        alpha: α in [0, 1], an array alike.

    Returns:
        Radians, an array alike; π, which bounds nothing, where the premise ασ₂ < 1 − α fails.

    Source: law 5.2, turn.

    >>> round(float(turn_bound(0.5, alpha=0.5)), 6)
    0.523599
    """
    sigma2 = as_float(sigma2)
    alpha = as_float(alpha, "alpha").astype(sigma2.dtype)
    premise = alpha * sigma2 < 1 - alpha
    ratio = alpha * sigma2 / jnp.where(premise, 1 - alpha, 1)
    return jnp.where(
        premise,
        jnp.arcsin(jnp.where(premise, ratio, 0)),
        jnp.where(jnp.isnan(ratio), jnp.nan, jnp.full_like(ratio, jnp.pi)),
    )


@compiled()
def turn_angle(before: ArrayLike, after: ArrayLike) -> jax.Array:
    """Return the angle between the details of two vectors [n]: what a layer does beyond rescaling.

    Args:
        before: a vector [n].
        after: a vector [n].

    Returns:
        A scalar in [0, π], in radians: 2 atan2(‖u − v‖, ‖u + v‖) of the unit vectors, which is
        accurate for tiny angles. NaN if either vector has no detail.

    Raises:
        ValueError: they are not two vectors of one length.

    Source: law 5.3, turn_prenorm.

    >>> round(float(turn_angle([1.0, -1.0, 0.0], [1.0, 1.0, -2.0])), 6)
    1.570796
    """

    before, after = as_float(before, "before"), as_float(after, "after")
    if before.ndim != 1 or before.shape != after.shape or not before.size:
        raise ValueError(
            "before and after must be vectors of one length, got shapes "
            f"{list(before.shape)} and {list(after.shape)}"
        )

    def unit(x):
        x = center(x / power_of_two(abs(x).max()))
        length = norm(x)
        return x / jnp.where(length > 0, length, jnp.nan)

    u, v = unit(before), unit(after)
    return 2 * jnp.arctan2(sqrt(((u - v) ** 2).sum()), sqrt(((u + v) ** 2).sum()))
