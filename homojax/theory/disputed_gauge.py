"""Claims about what a change of coordinates leaves of a stack. theory.md 8.9.

The streams of layer l are given in coordinates T_l: M_l becomes T_l M_l T_{l−1}⁻¹, and the product
C becomes T_L C T_0⁻¹. Two changes are tried. A stretch doubles one detail direction q, at both ends
alike. A reflection, at the last layer alone, turns q round.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from homojax.birkhoff import center, detail
from homojax.depth import amax_gain
from homojax.numerics import matmul
from homojax.spectrum.singular_value import spectral_norm
from homojax.theory.cases.stack import StackCase
from homojax.theory.claim import Comparison, claim, predicting
from homojax.theory.depth import IN_POLYTOPE, NON_NEGATIVE, OF_DETAIL

_STRETCH = 2.0


def _direction(case: StackCase) -> jax.Array:
    """Return q, a unit vector of V⊥, [n], that is no unit's and no pair's."""
    n, dtype = case.matrices.shape[1], case.matrices.dtype
    wave = center(jnp.cos(1 + jnp.arange(n)).astype(dtype))
    return wave / jnp.sqrt((wave**2).sum())


def _along(case: StackCase, factor: float) -> jax.Array:
    """Return I + (factor − 1) qqᵀ, [n, n]: it fixes 1, and multiplies q."""
    q = _direction(case)
    return jnp.eye(len(q), dtype=q.dtype) + (factor - 1) * q[:, None] * q[None, :]


def _stretched(case: StackCase) -> jax.Array:
    """Return T C T⁻¹ at every depth, [D, n, n], T the stretch."""
    there, back = _along(case, _STRETCH), _along(case, 1 / _STRETCH)
    return jax.vmap(lambda c: matmul(matmul(there, c), back))(case.require("composites"))


def _reflected(case: StackCase) -> jax.Array:
    """Return Q C at every depth, [D, n, n], Q the reflection."""
    turn = _along(case, -1.0)
    return jax.vmap(lambda c: matmul(turn, c))(case.require("composites"))


def _kept(matrices: jax.Array) -> jax.Array:
    """Return σ₂ of matrices [D, n, n]."""
    return jax.vmap(lambda matrix: spectral_norm(detail(matrix)))(matrices)


def _size(case: StackCase) -> jax.Array:
    """Return how much larger than 1 rounding may find the composites, [D]."""
    grown = jnp.cumprod(1 + jnp.maximum(case.row_error, case.col_error) + case.rounding)
    return grown[case.last]


def _off(case: StackCase) -> jax.Array:
    """Return the rounding of a norm, or of the trace, of changed composites, [D]."""
    n = case.matrices.shape[1]
    return 4 * _STRETCH * math.sqrt(n) * case.rounding * _size(case)


# ---------------------------------------------------------------- what survives


def _open_ends(case: StackCase, _) -> jax.Array:
    there = _along(case, _STRETCH)
    return jax.vmap(lambda c: jnp.trace(matmul(there, c)))(case.require("composites"))


@claim(
    "8.9",
    name="gauge_period",
    scope="stack",
    direction="=",
    statement="tr(T M_l⋯M_1 T⁻¹) = tr(M_l⋯M_1): the eigenvalues of a period survive",
    latex=r"\operatorname{tr}(T M_l \cdots M_1 T^{-1}) = \operatorname{tr}(M_l \cdots M_1)",
    source="theory.md 8.9, T_L = T_0",
    assumptions=(OF_DETAIL,),
    resolution=1e-3,
    mutants={"open ends": predicting(_open_ends)},
)
def gauge_period(case: StackCase) -> Comparison:
    """Return law 8.9 (gauge of a period) at every depth, [D]."""
    trace = jax.vmap(jnp.trace)
    return Comparison(trace(_stretched(case)), trace(case.require("composites")), _off(case))


@claim(
    "8.9",
    name="gauge_isometry",
    scope="stack",
    direction="=",
    statement="σ₂(Q M_l⋯M_1) = σ₂(M_l⋯M_1), Q orthogonal, Q1 = 1",
    latex=r"\sigma_2(Q M_l \cdots M_1) = \sigma_2(M_l \cdots M_1)",
    source="theory.md 8.9, T_l orthogonal",
    assumptions=(OF_DETAIL,),
    resolution=1e-3,
)
def gauge_isometry(case: StackCase) -> Comparison:
    """Return law 8.9 (isometric gauge) at every depth, [D]."""
    return Comparison(_kept(_reflected(case)), _kept(case.require("composites")), _off(case))


@claim(
    "8.9",
    name="gauge_growth",
    scope="stack",
    direction="≤",
    statement="σ₂(T M_l⋯M_1 T⁻¹) ≤ κ(T) σ₂(M_l⋯M_1), T1 = 1, κ = ‖T‖‖T⁻¹‖ on V⊥: rates survive "
    "bounded gauges",
    latex=r"\sigma_2(T M_l \cdots M_1 T^{-1}) \le \kappa(T)\,\sigma_2(M_l \cdots M_1)",
    source="theory.md 8.9",
    assumptions=(OF_DETAIL,),
)
def gauge_growth(case: StackCase) -> Comparison:
    """Return law 8.9 (gauge and growth) at every depth, [D], with κ = 2."""
    kept = _kept(case.require("composites"))
    return Comparison(_kept(_stretched(case)), _STRETCH * kept, _off(case))


# ---------------------------------------------------------------- what does not


@claim(
    "8.9",
    name="gauge_sigma2",
    scope="stack",
    direction="≤",
    statement="σ₂(T M_l⋯M_1 T⁻¹) ≤ σ₂(M_l⋯M_1) for every T with T1 = 1",
    latex=r"\sigma_2(T M_l \cdots M_1 T^{-1}) \le \sigma_2(M_l \cdots M_1)",
    source="σ₂ read as a property of the network; theory.md 8.9",
    assumptions=(OF_DETAIL,),
    status="refuted",
)
def gauge_sigma2(case: StackCase) -> Comparison:
    """Return law 8.9 (gauge of σ₂) at every depth, [D], which is false."""
    growth = gauge_growth(case)
    return growth._replace(greater=growth.greater / _STRETCH)


@claim(
    "8.9",
    name="gauge_gain",
    scope="stack",
    direction="≤",
    statement="the amax gain of Q M_l⋯M_1 is 1, Q orthogonal, Q1 = 1",
    latex=r"\lVert Q M_l \cdots M_1\rVert_\infty \le 1",
    source="the gain read as a property of the network; theory.md 8.9",
    assumptions=(IN_POLYTOPE, NON_NEGATIVE),
    status="refuted",
)
def gauge_gain(case: StackCase) -> Comparison:
    """Return law 8.9 (gauge of the gain) of rows at every depth, [D], which is false."""
    gain, _ = jax.vmap(amax_gain)(_reflected(case))
    n, grown = case.matrices.shape[1], _size(case)
    return Comparison(gain, jnp.ones_like(gain), math.sqrt(n) * (grown - 1) + _off(case))
