"""Claims about doubly stochastic matrices of low rank. theory.md 8.7."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.birkhoff import entropy_deficit
from homojax.numerics import min_or_nan
from homojax.projection.errors import entropy_error
from homojax.spectrum.singular_value import detail_singular_values
from homojax.theory.cases.matrix import MatrixCase
from homojax.theory.cases.projection import LARGEST_DECOMPOSED
from homojax.theory.cases.stack import StackCase
from homojax.theory.claim import Comparison, claim, lambda_for_sigma, predicting
from homojax.theory.composite import curved
from homojax.theory.depth import in_polytope
from homojax.theory.matrix import IN_POLYTOPE

# ---------------------------------------------------------------- one matrix


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


# ---------------------------------------------------------------- composites


def _narrowest(layers: jax.Array, depth: int) -> jax.Array:
    """Return min over layers m of σ_k(M_m) Π σ₂ of the others, [n − 1]."""
    tops = layers[:depth, 0]
    others = jnp.where(jnp.eye(depth, dtype=bool), 1, tops[None, :]).prod(1)
    return min_or_nan(layers[:depth] * others[:, None], 0)


def _every_layer(case: StackCase, _) -> jax.Array:
    return jnp.cumprod(case.require("layer_curves"), 0)[curved(case)]


@claim(
    "8.7",
    name="rank_composed",
    scope="stack",
    direction="≤",
    statement="σ_k(M_l⋯M_1) ≤ σ_k(M_m) Π_{j≠m} σ₂(M_j) on V⊥, every m: no composite has a "
    "higher rank than its narrowest layer",
    latex=r"\sigma_k(M_l \cdots M_1) \le \min_m \sigma_k(M_m) \prod_{j \ne m} \sigma_2(M_j)",
    source="σ_k(AB) ≤ σ_k(A)‖B‖; theory.md 8.7",
    attained_by="lazy-permutation",
    assumptions=(in_polytope(curved),),
    mutants={"σ_k of every layer": predicting(_every_layer)},
)
def rank_composed(case: StackCase) -> Comparison:
    """Return law 8.7 (rank of composites) at every depth up to 8 and every k, [C, n − 1]."""
    last, layers = curved(case), case.require("layer_curves")
    depths = [depth for depth in case.depths if depth <= len(layers)]
    rows = jnp.asarray([case.depths.index(depth) for depth in depths], int)

    def bound(error: float) -> jax.Array:
        return jnp.stack([_narrowest(layers + error, depth) for depth in depths])

    margin = case.require("margin")[last][:, None] + bound(case.rounding) - bound(0)
    return Comparison(case.require("curve")[rows], bound(0), margin, (last > 0)[:, None])
