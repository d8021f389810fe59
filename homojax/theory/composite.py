"""Claims about composites: their gain, their curve, their distance to J. theory.md 3.4 to 3.6."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from homojax.depth import amax_gain as largest_sums
from homojax.depth import composite_doeblin_bound
from homojax.numerics import min_or_nan, sqrt
from homojax.theory.cases.stack import StackCase
from homojax.theory.claim import Comparison, claim, predicting
from homojax.theory.depth import IN_POLYTOPE, NON_NEGATIVE, in_polytope

# ---------------------------------------------------------------- 3.4


@claim(
    "3.4",
    name="amax_gain",
    scope="stack",
    direction="=",
    statement="the composite's largest absolute row and column sums are 1",
    latex=r"\lVert M_l \cdots M_1\rVert_\infty = \lVert M_l \cdots M_1\rVert_1 = 1",
    source="theory.md 3.4; the gain is that of arXiv 2512.24880",
    attained_by="gaussian",
    assumptions=(IN_POLYTOPE, NON_NEGATIVE),
    resolution=1e-3,
)
def amax_gain(case: StackCase) -> Comparison:
    """Return law 3.4 (amax gain) at every depth, of rows and of columns, [D, 2].

    Entries are not negative: the sums of a product lie between the products of the least and of the
    largest sums.
    """
    gain = jnp.stack(jax.vmap(largest_sums)(case.require("composites")), -1)
    errors = 1 + jnp.maximum(case.row_error, case.col_error) + case.rounding
    off = jnp.cumprod(errors)[case.last] - 1
    return Comparison(gain, jnp.ones_like(gain), jnp.stack([off, off], -1))


@claim(
    "3.4",
    name="gain_retention",
    scope="stack",
    direction="≤",
    statement="amax gain ≤ σ₂ of the composite: a gain of 1 says that detail is kept",
    latex=r"\lVert M_l \cdots M_1\rVert_\infty \le \sigma_2(M_l \cdots M_1)",
    source="the gain read as a measure of collapse; theory.md 3.4",
    attained_by="permutations",
    assumptions=(IN_POLYTOPE, NON_NEGATIVE),
    status="refuted",
)
def gain_retention(case: StackCase) -> Comparison:
    """Return law 3.4 (gain as retention), [D, 2], which is false."""
    gain, kept = amax_gain(case), case.require("composite_sigma2")
    off = case.require("margin")[case.last]
    return Comparison(gain.lesser, jnp.stack([kept, kept], -1), gain.margin + off[:, None])


# ---------------------------------------------------------------- 3.5


def curved(case: StackCase) -> jax.Array:
    """Return the indices of the last layers, as far as all the layers' curves are known, [C]."""
    layers = len(case.require("layer_curves"))
    return jnp.asarray([depth - 1 for depth in case.depths if depth <= layers], int)


def _horn(case: StackCase, total: Callable[[jax.Array], jax.Array]) -> Comparison:
    """Return the comparison of exp of ``total`` of the logarithms of singular values.

    ``total`` maps [..., n − 1] to [..., n − 1].
    """
    last, layers, error = curved(case), case.require("layer_curves"), case.rounding
    rows = jnp.asarray([i for i, d in enumerate(case.depths) if d <= len(layers)], int)
    curve, off = case.require("curve")[rows], case.require("margin")[last][:, None]

    def kept(error):
        return jnp.exp(total(jnp.log(jnp.maximum(curve + error, 0))))

    def bound(error):
        return jnp.exp(total(jnp.cumsum(jnp.log(jnp.maximum(layers + error, 0)), 0)[last]))

    margin = kept(off) - kept(-off) + bound(error) - bound(-error)
    return Comparison(kept(0), bound(0), margin, (last > 0)[:, None])


def _mean_of_first(logs: jax.Array) -> jax.Array:
    """Return the means over the first 1 … n − 1."""
    return jnp.cumsum(logs, -1) / jnp.arange(1, logs.shape[-1] + 1)


@claim(
    "3.5",
    name="horn",
    scope="stack",
    direction="≤",
    statement="Π_{i≤k} σ_i(M_l⋯M_1) ≤ Π_l Π_{i≤k} σ_i(M_l) on V⊥, k = 1 … n − 1; as geometric "
    "means",
    latex=r"\prod_{i \le k} \sigma_{i+1}(M_l \cdots M_1) "
    r"\le \prod_{m \le l} \prod_{i \le k} \sigma_{i+1}(M_m)",
    source="Horn (1950)",
    attained_by="lazy-permutation",
    assumptions=(in_polytope(curved),),
    mutants={
        "each σ_k for the product of the first k": lambda _, case: _horn(case, lambda logs: logs)
    },
)
def horn(case: StackCase) -> Comparison:
    """Return law 3.5 (Horn) at every depth up to 8 and every k, [C, n − 1]."""
    return _horn(case, _mean_of_first)


# ---------------------------------------------------------------- 3.6


def _doeblin_of_more(case: StackCase, _) -> jax.Array:
    n = case.matrices.shape[1]
    return jnp.cumprod(1 - (n + 1) * min_or_nan(case.matrices, (1, 2)))[case.last]


@claim(
    "3.6",
    name="doeblin_composed",
    scope="stack",
    direction="≤",
    statement="‖M_l⋯M_1 − J‖₂ ≤ Π (1 − n min M_k)",
    latex=r"\lVert M_l \cdots M_1 - J\rVert_2 \le \prod_k (1 - n \min_{ij} M_{k,ij})",
    source="Doeblin (1937); theory.md 3.6",
    attained_by="two-by-two",
    assumptions=(IN_POLYTOPE,),
    mutants={"n + 1 for n": predicting(_doeblin_of_more)},
)
def doeblin_composed(case: StackCase) -> Comparison:
    """Return law 3.6 (Doeblin composed) at every depth, [D]."""
    return Comparison(case.require("distance"), *_doeblin_bound(case))


def _doeblin_bound(case: StackCase) -> tuple[jax.Array, jax.Array]:
    """Return Π (1 − n min M) and its error, [D].

    M'_l ∈ 𝔅ₙ lies within the distances. No entry moves by more than that, nor the product by more
    than Π (1 + distance) − 1.
    """
    n, distances, last = case.matrices.shape[1], case.distances, case.last
    bound = composite_doeblin_bound(case.matrices)
    factors = abs(1 - n * min_or_nan(case.matrices, (1, 2))) + n * distances
    margin = jnp.cumprod(factors) - bound + jnp.cumprod(1 + distances) - 1
    return bound[last], margin[last]


def _doeblin_frobenius(case: StackCase, lost: int) -> Comparison:
    """Return law 3.6 in the Frobenius norm, with √(n − ``lost``) for √(n − 1)."""
    n, (bound, margin) = case.matrices.shape[1], _doeblin_bound(case)
    norm = sqrt(((case.require("composites") - 1 / n) ** 2).sum((1, 2)))
    return Comparison(norm, math.sqrt(n - lost) * bound, math.sqrt(n) * margin)


claim(
    "3.6",
    name="doeblin_frobenius",
    scope="stack",
    direction="≤",
    statement="‖M_l⋯M_1 − J‖_F ≤ √(n−1) Π (1 − n min M_k)",
    latex=r"\lVert M_l \cdots M_1 - J\rVert_F \le \sqrt{n-1} \prod_k (1 - n \min_{ij} M_{k,ij})",
    source="Doeblin (1937); theory.md 3.6",
    attained_by="permutations",
    assumptions=(IN_POLYTOPE,),
    mutants={"n − 2 for n − 1": lambda _, case: _doeblin_frobenius(case, 2)},
)(partial(_doeblin_frobenius, lost=1))
