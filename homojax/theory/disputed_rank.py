"""A claim about doubly stochastic matrices of low rank. theory.md 8.7."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.birkhoff import entropy_deficit
from homojax.projection.errors import entropy_error
from homojax.spectrum.singular_value import detail_singular_values
from homojax.theory.cases.matrix import MatrixCase
from homojax.theory.cases.projection import LARGEST_DECOMPOSED
from homojax.theory.claim import Comparison, claim, lambda_for_sigma, predicting
from homojax.theory.matrix import IN_POLYTOPE


def _directions(case: MatrixCase) -> jax.Array:
    """Return r − 1: how many singular values on V⊥ are above ``_least``."""
    return (detail_singular_values(case.matrix) > _least(case)).sum()


def _least(case: MatrixCase) -> float:
    """Return √eps: a direction that keeps no more adds no more than rounding to Σ σ²."""
    return math.sqrt(float(jnp.finfo(case.matrix.dtype).eps))


def _most_deficit(n: int, directions: jax.Array, kept: jax.Array, rest: ArrayLike) -> jax.Array:
    """Return n log(1 + Σ σ²), with σ = ``kept`` in so many directions, ``rest`` in the others."""
    return n * jnp.log1p(directions * kept**2 + (n - 1 - directions) * rest**2)


def _one_direction_fewer(case: MatrixCase, _) -> jax.Array:
    n, fewer = case.matrix.shape[0], jnp.maximum(_directions(case) - 1, 0)
    return _most_deficit(n, fewer, case.sigma2, _least(case))


@claim(
    "8.7",
    name="rank_entropy",
    scope="matrix",
    direction="≤",
    statement="ΔH ≤ n log(1 + (r − 1)σ₂²), r the rank of M; asked up to n = 64",
    latex=r"\Delta H \le n \log\bigl(1 + (r-1)\,\sigma_2^2\bigr)",
    source="theory.md 8.7, for the matrices of arXiv 2509.23436",
    attained_by="periodic",
    assumptions=(IN_POLYTOPE,),
    mutants={"r − 2 for r − 1": predicting(_one_direction_fewer), "λ₂ for σ₂": lambda_for_sigma},
)
def rank_entropy(case: MatrixCase) -> Comparison:
    """Return law 8.7 (rank).

    Some M' ∈ 𝔅ₙ lies within the distance of M, and so do its singular values. Those of M that do
    not count are taken to be as large as they can be.
    """
    n, off = case.matrix.shape[0], case.distance
    if n > LARGEST_DECOMPOSED:
        return Comparison(*jnp.full((3,), jnp.nan, case.matrix.dtype), applies=False)
    directions = _directions(case)
    bound = _most_deficit(n, directions, case.sigma2, _least(case))
    most = _most_deficit(n, directions, case.sigma2 + off, _least(case) + off)
    return Comparison(entropy_deficit(case.matrix), bound, most - bound + entropy_error(n, off))
