"""A claim about composites of layers of low rank. theory.md 8.7."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.numerics import min_or_nan
from homojax.theory.cases.stack import StackCase
from homojax.theory.claim import Comparison, claim, predicting
from homojax.theory.composite import curved
from homojax.theory.depth import in_polytope


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
