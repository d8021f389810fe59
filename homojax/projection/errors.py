"""How far a computed projection is from the exact one, given its marginal errors. theory.md §1."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from homojax.numerics import rounding


def missed_sums(row_error: jax.Array, col_error: jax.Array, n: int, dtype: DTypeLike) -> jax.Array:
    """Return a bound on the 2-norm of all that the row and column sums miss 1 by.

    Args:
        row_error: largest |row sum − 1| of an [n, n] matrix.
        col_error: largest |column sum − 1|.
        n: size.
        dtype: of the matrix, whose sums are known to a quarter of ``rounding``.

    >>> round(float(missed_sums(jnp.asarray(3.0), jnp.asarray(4.0), 4, "float64")), 6)
    10.0
    """
    return math.sqrt(n) * jnp.hypot(row_error, col_error) + rounding(n, dtype) / 4


def accepted_loss(size: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return by how much log M may miss S/ε + f + g in an entry that counts, and be converged.

    The bound is the rounding of the sum, 64 eps of its terms, and at most eps^⅛. Beyond that the
    row and column sums may be right though the entries are lost.

    Args:
        size: |S/ε| + |f| + |g| of the entry.
        dtype: of the projection.

    >>> bool(accepted_loss(jnp.asarray(10.0), "float64") < 2e-13)
    True
    """
    eps = float(jnp.finfo(dtype).eps)
    return jnp.minimum(64 * eps * (1 + size), eps**0.125)


def relative_error(missed: jax.Array, gap: jax.Array, added: ArrayLike = 0.0) -> jax.Array:
    """Return a bound on the relative error of every entry of a scaling; ∞ where it proves nothing.

    Args:
        missed: ``missed_sums`` of the scaling.
        gap: 1 − σ₂ > 0 of it.
        added: what else may have moved the potentials, such as rounded logits; relative.

    Notes:
        The scalings left to do solve [[I, M], [Mᵀ, I]](df, dg) = (missed sums). The least singular
        value of that matrix off its kernel is 1 − σ₂, so |df| + |dg| ≤ 2·missed/(1 − σ₂). As much
        again pays for what is not linear, while that is below ¼.

    >>> relative_error(jnp.array([0.0625, 0.125]), jnp.asarray(1.0)).tolist()
    [0.25, inf]
    """
    relative = 4 * missed / gap + added
    return jnp.where(relative < 0.5, relative, jnp.inf)


def projection_distance(
    matrix: jax.Array, row_error: jax.Array, col_error: jax.Array, sigma2: jax.Array
) -> jax.Array:
    """Return a bound on ‖M − M_ε(S)‖ in the 2-, 1- and ∞-norm; ∞ where the errors prove nothing.

    Args:
        matrix: a scaling M of exp(S/ε), [n, n].
        row_error: largest |row sum − 1|.
        col_error: largest |column sum − 1|.
        sigma2: its σ₂.

    Source: ``relative_error``, for M changes by ‖df‖∞ + ‖dg‖∞ at most in all three norms.

    >>> exact = jnp.zeros(())
    >>> bool(projection_distance(jnp.full((2, 2), 0.5), exact, exact, exact) < 1e-4)
    True
    """
    n, dtype = matrix.shape[0], matrix.dtype
    gap = jnp.maximum(1 - sigma2, jnp.finfo(dtype).tiny)
    missed = missed_sums(row_error, col_error, n, dtype)
    return relative_error(missed, gap) + rounding(n, dtype)


def entropy_error(n: int, distance: jax.Array) -> jax.Array:
    """Return a bound on the difference of the entropies of two near [n, n] matrices ≥ 0, in nats.

    Args:
        n: size.
        distance: of the two, in the 1- or the ∞-norm.

    Notes:
        |x log x − y log y| ≤ −|x − y| log |x − y| up to |x − y| = ½ (Cover and Thomas, 17.3.3). So
        within a distance D < ½ the entropies differ by at most nD log(n/D) (concavity); the rest is
        for rounding. Farther apart, they differ by no more than n log n.

    >>> float(entropy_error(4, jnp.zeros(())))
    0.0
    """
    near = jnp.clip(distance, jnp.finfo(distance.dtype).tiny, 0.5)
    difference = jnp.where(distance > 0, n * near * (1 + jnp.log(n / near)), 0)
    return jnp.where(distance < 0.5, difference, n * (1 + math.log(n)))
