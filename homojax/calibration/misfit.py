"""How far σ₂ and the entropy of one computed projection are from those of the exact projection.

Two bounds are computed, and the smaller counts. The first is the relative error of an entry. It
says nothing near a permutation, where 1 − σ₂ is tiny. The second is a relative entropy.

Notes:
    The exact projection M has the least relative entropy to its computed scaling M̂ in 𝔅ₙ. So
    that relative entropy is at most τ, the one of M̂ rounded to 𝔅ₙ, with the missed mass where
    M̂ is least. (Where M̂ has entries of 0 there may be no such place, and τ = ∞.) Then the
    entrywise roots of M and M̂ are within √τ, and √(1 − σ₂) differs by at most √(2τ).
    ``entropy_range`` has the same for the entropy.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from homojax.numerics import rounding
from homojax.projection.errors import missed_sums, relative_error


class Misfit(NamedTuple):
    """How far one computed projection M̂ is from the exact projection M."""

    gap: jax.Array  # 1 − σ₂(M̂), and at least its rounding error
    missed: jax.Array  # the 2-norm of what the row and column sums miss
    entry_error: jax.Array  # the relative error of an entry; ∞ where nothing is proved
    divergence: jax.Array  # the relative entropy of M to M̂ at most, in nats


def measure_misfit(
    log_matrix: jax.Array,
    row_error: jax.Array,
    col_error: jax.Array,
    *,
    sigma2: jax.Array,
    largest_logit: jax.Array,
) -> Misfit:
    """Return how far exp(log_matrix) is from the projection that it stands for.

    Args:
        log_matrix: log M̂, [n, n], a scaling of exp(S/ε); −inf is an entry of 0.
        row_error: max |row sum − 1| of M̂.
        col_error: max |column sum − 1| of M̂.
        sigma2: σ₂(M̂).
        largest_logit: max |S|/ε where S is not −inf.

    Returns:
        A Misfit.

    Notes:
        A relative rounding of eps in the logits moves no potential by more than 2n eps, because
        potentials are means over trees of sums along paths.

    Source: ``projection.errors`` for the sums that are missed.
    """
    n, dtype = log_matrix.shape[0], log_matrix.dtype
    gap = jnp.maximum(1 - sigma2, 0) + rounding(n, dtype)
    missed = missed_sums(row_error, col_error, n, dtype)
    logit_rounding = 8 * float(jnp.finfo(dtype).eps) * (1 + largest_logit)
    return Misfit(
        gap=gap,
        missed=missed,
        entry_error=relative_error(missed, gap, 2 * n * logit_rounding),
        divergence=2 * n * missed * (2 - log_matrix.min()) + n * logit_rounding,
    )


def sigma2_error(misfit: Misfit, n: int) -> jax.Array:
    """Return a bound on |σ₂(M̂) − σ₂(M)|, at most 1, for [n, n] matrices with this ``misfit``."""
    gap, divergence = misfit.gap, misfit.divergence
    by_roots = 2 * jnp.sqrt(2 * divergence * gap) + 2 * divergence
    error = jnp.minimum(2 * gap * misfit.entry_error, by_roots)
    return jnp.minimum(2 * misfit.missed + error + rounding(n, gap.dtype), 1)


def entropy_range(log_matrix: jax.Array, divergence: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (least, most) of the entropy H(M), in nats, from M̂ = exp(log_matrix), [n, n].

    ``divergence`` is τ, the largest relative entropy of M to M̂. By Donsker and Varadhan,
    ±λ⟨M, C⟩ ≤ τ + ΣM̂(e^{±λC} − 1) for every λ > 0, where C = −log M̂ ≥ 0. And H(M) lies between
    ⟨M, C⟩ − 2τ and ⟨M, C⟩ + τ, because τ has room for the sums that M̂ misses.
    """
    cost = jnp.where(log_matrix == -jnp.inf, 0, jnp.maximum(-log_matrix, 0))[None]
    matrix = jnp.minimum(jnp.exp(log_matrix), 1)[None]
    rates = 0.25 ** jnp.arange(1, 9, dtype=log_matrix.dtype)  # λ
    scaled = rates[:, None, None] * cost
    growth = jnp.where(
        scaled > 1, jnp.exp(scaled - cost) - matrix, matrix * jnp.expm1(jnp.minimum(scaled, 1))
    )
    fall = -matrix * jnp.expm1(-scaled)
    least = ((fall.sum((1, 2)) - divergence) / rates).max()
    most = ((growth.sum((1, 2)) + divergence) / rates).min()
    return least - 2 * divergence, most + divergence


def entropy_error(
    misfit: Misfit, entropy: jax.Array, between: tuple[jax.Array, jax.Array], n: int
) -> jax.Array:
    """Return a bound on |H(M̂) − H(M)|, in nats.

    Args:
        misfit: of M̂.
        entropy: H(M̂), in nats.
        between: the ``entropy_range`` of H(M).
        n: number of rows of M̂.
    """
    least, most = between
    eps = float(jnp.finfo(entropy.dtype).eps)
    by_entries = 2 * (misfit.entry_error * (entropy + eps) + n * misfit.missed)
    return jnp.minimum(by_entries, jnp.maximum(most - entropy, entropy - least))
