"""How far a computed projection is from the exact one, given its marginal errors."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from homojax.numerics import rounding


def projection_distance(
    matrix: jax.Array, row_error: jax.Array, col_error: jax.Array, sigma2: jax.Array
) -> jax.Array:
    """≥ ‖M − M_ε(S)‖ for a scaling M of exp(S/ε) that misses its sums by these errors; ∞ where they are too large for it.

    The scalings left to do solve [[I, M], [Mᵀ, I]](df, dg) = (errors), whose least singular value off the kernel is 1 − σ₂; M
    changes by ‖df‖∞ + ‖dg‖∞ at most, in the 2-, 1- and ∞-norm; as much again for what is not linear, while that is below ¼.
    """
    n = matrix.shape[0]
    missed = math.sqrt(n) * jnp.hypot(row_error, col_error) + rounding(n, matrix.dtype) / 4
    linear = 2 * missed / jnp.maximum(1 - sigma2, jnp.finfo(matrix.dtype).tiny)
    return jnp.where(linear < 0.25, 2 * linear, jnp.inf) + rounding(n, matrix.dtype)


def entropy_error(n: int, distance: jax.Array) -> jax.Array:
    """How far apart the entropies of two [n, n] matrices ≥ 0 can be that are within ``distance`` in the 1- or the ∞-norm.

    |x log x − y log y| ≤ −|x−y| log |x−y| up to |x−y| = ½ (Cover and Thomas, 17.3.3), so within distance D < ½ entropies differ
    by at most nD log(n/D) (concavity); the rest is for rounding. Farther apart, by no more than n log n.

    >>> float(entropy_error(4, jnp.zeros(())))
    0.0
    """
    near = jnp.clip(distance, jnp.finfo(distance.dtype).tiny, 0.5)
    apart = jnp.where(distance > 0, n * near * (1 + jnp.log(n / near)), 0)
    return jnp.where(distance < 0.5, apart, n * (1 + jnp.log(n)))
