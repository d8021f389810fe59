"""Claims about residual layers: what they keep, and how far they turn. theory.md §5."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from homojax.residual import residual_bound, turn_bound
from homojax.theory.cases.stack import StackCase
from homojax.theory.claim import Comparison, claim, lambda_for_sigma, predicting
from homojax.theory.depth import IN_POLYTOPE, OF_DETAIL


def _has_branch(case: StackCase) -> jax.Array:
    """Return whether some layer up to each depth has α > 0, [D]: else nothing is said."""
    return (jnp.cumsum(case.require("alpha")) > 0)[case.last]


# ---------------------------------------------------------------- 5.1


def _exchanged(case: StackCase, _) -> jax.Array:
    factors = residual_bound(case.sigma2, alpha=1 - case.require("alpha"))
    return jnp.cumprod(factors)[case.last]


@claim(
    "5.1",
    name="residual",
    scope="stack",
    direction="≤",
    statement="σ₂ of l layers R_α = (1 − α)I + αM ≤ Π (1 − α + ασ₂(M_k))",
    latex=r"\sigma_2(R_{\alpha,l} \cdots R_{\alpha,1}) "
    r"\le \prod_k (1 - \alpha + \alpha\sigma_2(M_k))",
    source="theory.md 5.1, 3.1",
    attained_by="hypercube",
    assumptions=(IN_POLYTOPE,),
    mutants={"λ₂ for σ₂": lambda_for_sigma, "α and 1 − α exchanged": predicting(_exchanged)},
)
def residual(case: StackCase) -> Comparison:
    """Return law 5.1 (residual bound) at every depth, [D]."""
    factors = residual_bound(case.sigma2, alpha=case.require("alpha"))
    return Comparison(
        lesser=case.require("residual_sigma2"),
        greater=jnp.cumprod(factors)[case.last],
        margin=case.require("residual_margin")[case.last],
        applies=_has_branch(case),
    )


# ---------------------------------------------------------------- 5.2, 5.3


def _turn(case: StackCase, turned: jax.Array) -> Comparison:
    """Return ``turned`` [D] ≤ the sums of arcsin(ασ₂/(1 − α)) over the first layers.

    It applies while every layer has ασ₂ < 1 − α and the sum is below π.
    """
    alpha, sigma2, error = case.require("alpha"), case.sigma2, case.rounding
    per_layer = turn_bound(sigma2, alpha=alpha)
    # A layer may shrink the vector to this share, and not its rounding.
    shrunk = jnp.maximum(1 - alpha - alpha * sigma2, error)
    margin = jnp.cumsum(turn_bound(sigma2 + error, alpha=alpha) - per_layer + error / shrunk)
    bound = jnp.cumsum(per_layer)[case.last]
    return Comparison(turned, bound, margin[case.last], _has_branch(case) & (bound < jnp.pi))


def _undivided(case: StackCase, _) -> jax.Array:
    per_layer = jnp.arcsin(jnp.clip(case.require("alpha") * case.sigma2, 0, 1))
    return jnp.cumsum(per_layer)[case.last]


def _one_layer_fewer(case: StackCase, _) -> jax.Array:
    sums = jnp.cumsum(turn_bound(case.sigma2, alpha=case.require("alpha")))
    return jnp.concatenate([jnp.zeros_like(sums[:1]), sums])[case.last]


@claim(
    "5.2",
    name="turn",
    scope="stack",
    direction="≤",
    statement="l layers R_α turn a detail vector by at most Σ arcsin(ασ₂/(1 − α))",
    latex=r"\angle(x, R_{\alpha,l} \cdots R_{\alpha,1} x) "
    r"\le \sum_k \arcsin\frac{\alpha\sigma_2(M_k)}{1-\alpha}",
    source="theory.md 5.2",
    attained_by="cyclic",  # at n = 3, α = ⅓: any rotation of detail with cosine −ασ₂/(1 − α)
    assumptions=(OF_DETAIL,),
    mutants={
        "λ₂ for σ₂": lambda_for_sigma,
        "arcsin(ασ₂) for arcsin(ασ₂/(1−α))": predicting(_undivided),
        "L − 1 for L": predicting(_one_layer_fewer),
    },
)
def turn(case: StackCase) -> Comparison:
    """Return law 5.2 (turn bound) at every depth, [D], in radians."""
    return _turn(case, case.require("turned"))


@claim(
    "5.3",
    name="turn_prenorm",
    scope="stack",
    direction="≤",
    statement="5.2's bound survives a branch that is normalised: (1 − α)x + αF(Mx), "
    "F(y) = ‖x‖y/‖y‖",
    latex=r"\angle(x, (1-\alpha)x + \alpha\lVert x\rVert Mx/\lVert Mx\rVert) "
    r"\le \arcsin\frac{\alpha\sigma_2}{1-\alpha}",
    source="5.2 carried over to pre-norm branches; theory.md 5.3",
    attained_by="permutations",
    assumptions=(OF_DETAIL,),
    status="refuted",
)
def turn_prenorm(case: StackCase) -> Comparison:
    """Return law 5.3 (5.2 with a normalised branch), [D], which is false.

    What is computed is exact for matrices within rounding: 5.2's margin is for that.
    """
    return _turn(case, case.require("prenorm_turned"))


@claim(
    "5.3",
    name="turn_prenorm_bound",
    scope="stack",
    direction="≤",
    statement="l layers (1 − α)x + αF(Mx), F(y) = ‖x‖y/‖y‖, turn a detail vector by at most "
    "l arcsin(α/(1 − α))",
    latex=r"\angle(x, x_l) \le l \arcsin\frac{\alpha}{1-\alpha}",
    source="theory.md 5.3: 5.2 with σ₂ = 1, whatever M is",
    attained_by="cyclic",
    assumptions=(OF_DETAIL,),
)
def turn_prenorm_bound(case: StackCase) -> Comparison:
    """Return law 5.3 (turn of a normalised branch), [D]: a branch of norm 1 is as if σ₂ were 1."""
    as_if_one = replace(case, sigma2=jnp.ones_like(case.sigma2))
    return _turn(as_if_one, case.require("prenorm_turned"))
