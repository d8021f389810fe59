"""Claims that the literature disputes, about stacks. theory.md 8.5 and 8.6."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from homojax.spectrum.singular_value import spectral_norm
from homojax.theory.cases.stack import StackCase
from homojax.theory.claim import Comparison, claim, lambda_for_sigma
from homojax.theory.depth import IN_POLYTOPE, NON_NEGATIVE

# ---------------------------------------------------------------- 8.5: infinite products


def _gaps(case: StackCase) -> tuple[jax.Array, jax.Array]:
    """Return Σ (1 − σ₂) at every depth, and its error, [D]."""
    off = jnp.cumsum(case.distances)[case.last]
    return jnp.cumsum(1 - case.sigma2)[case.last], off


@claim(
    "8.5",
    name="gap_sum",
    scope="stack",
    direction="≤",
    statement="‖M_l⋯M_1 − J‖₂ ≤ exp(−Σ (1 − σ₂(M_k)))",
    latex=r"\lVert M_l \cdots M_1 - J\rVert_2 \le \exp\Bigl(-\sum_k (1 - \sigma_2(M_k))\Bigr)",
    source="arXiv 2606.24584; 3.1 with log x ≤ x − 1",
    attained_by="permutations",
    assumptions=(IN_POLYTOPE,),
    mutants={"λ₂ for σ₂": lambda_for_sigma},
)
def gap_sum(case: StackCase) -> Comparison:
    """Return law 8.5 (sum of gaps) at every depth, [D]: with Σ = ∞ a product tends to J."""
    gaps, off = _gaps(case)
    bound = jnp.exp(-gaps)
    return Comparison(case.require("distance"), bound, _moved(case) + bound * jnp.expm1(off))


def _moved(case: StackCase) -> jax.Array:
    """Return how far products may be from those of matrices in 𝔅ₙ, [D]."""
    return (jnp.cumprod(1 + case.distances) - 1)[case.last]


@claim(
    "8.5",
    name="gap_sum_needed",
    scope="stack",
    direction="≥",
    statement="1 − Σ (1 − σ₂(M_k)) ≤ ‖M_l⋯M_1 − J‖₂: only gaps that add up lead to J",
    latex=r"\lVert M_l \cdots M_1 - J\rVert_2 \ge 1 - \sum_k (1 - \sigma_2(M_k))",
    source="the converse of 8.5, as 'converges to J if and only if the gaps diverge'",
    assumptions=(IN_POLYTOPE,),
    status="refuted",
)
def gap_sum_needed(case: StackCase) -> Comparison:
    """Return law 8.5 (gaps are needed), [D], which is false: de Bruijn's walk has σ₂ = 1."""
    gaps, off = _gaps(case)
    return Comparison(1 - gaps, case.require("distance"), off + _moved(case))


# ---------------------------------------------------------------- 8.6: one marginal


def _rows_sum_to_one(case: StackCase) -> jax.Array:
    return jnp.cumsum(case.row_error)[case.last] <= 0.5


@claim(
    "8.6",
    name="one_marginal",
    scope="stack",
    direction="≤",
    statement="‖M_l⋯M_1‖₂ ≤ √n where rows sum to 1, whatever the columns",
    latex=r"\lVert M_l \cdots M_1\rVert_2 \le \sqrt n",
    source="‖A‖₂² ≤ ‖A‖₁‖A‖_∞, and no column of a product sums to more than n; theory.md 8.6",
    assumptions=(NON_NEGATIVE, ("rows sum to 1, nearly", _rows_sum_to_one)),
)
def one_marginal(case: StackCase) -> Comparison:
    """Return law 8.6 (one marginal) at every depth, [D]."""
    n = case.matrices.shape[1]
    grown = jnp.cumprod(1 + case.row_error + case.rounding)[case.last]
    bound = jnp.full_like(grown, math.sqrt(n))
    kept = jax.vmap(spectral_norm)(case.require("composites"))
    return Comparison(kept, bound, bound * (grown - 1) + 4 * n * case.rounding)
