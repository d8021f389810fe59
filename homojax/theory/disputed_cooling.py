"""Claims about a projection whose ε falls: its sensitivity, and its potentials. theory.md 8.8."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from homojax.birkhoff import center
from homojax.numerics import matmul
from homojax.projection.errors import entropy_error
from homojax.theory.cases.projection import HOTTER, ProjectionCase
from homojax.theory.claim import Comparison, claim, predicting
from homojax.theory.projection import CONVERGED

# ---------------------------------------------------------------- sensitivity


def _most_response(matrix: jax.Array) -> jax.Array:
    """Return max 2Mᵢⱼ(1 − Mᵢⱼ)."""
    return (2 * matrix * (1 - matrix)).max()


def _of_largest_entry(case: ProjectionCase, _) -> jax.Array:
    largest = case.matrix.max()
    return 2 * largest * (1 - largest)


def _solve_error(distance: jax.Array, sigma2: jax.Array) -> jax.Array:
    """Return the error of a response: that of M, through the linear solve of law 1.6."""
    tiny = jnp.finfo(distance.dtype).tiny
    return 4 * distance / jnp.maximum(1 - sigma2**2, tiny)


@claim(
    "8.8",
    name="sensitivity",
    scope="projection",
    direction="≤",
    statement="ε‖∂M/∂S‖ ≤ max 2Mᵢⱼ(1 − Mᵢⱼ) ≤ ½, Frobenius norms",
    latex=r"\varepsilon\,\lVert\partial M_\varepsilon/\partial S\rVert \le "
    r"\max_{ij} 2 M_{ij}(1 - M_{ij}) \le \tfrac12",
    source="arXiv 2601.23039, 'grows like 1/ε', as an upper bound; theory.md 8.8",
    attained_by="two-by-two",
    assumptions=(CONVERGED,),
    mutants={"the largest entry's for the largest": predicting(_of_largest_entry)},
)
def sensitivity(case: ProjectionCase) -> Comparison:
    """Return law 8.8 (sensitivity), in a direction that is as sensitive as could be found."""
    off = 2 * case.distance + _solve_error(case.distance, case.sigma2)
    return Comparison(case.response, _most_response(case.matrix), off)


@claim(
    "8.8",
    name="sensitivity_grows",
    scope="projection",
    direction="≤",
    statement="‖∂M/∂S‖ does not fall as ε falls by a fifth",
    latex=r"\lVert\partial M_{1.25\varepsilon}/\partial S\rVert \le "
    r"\lVert\partial M_\varepsilon/\partial S\rVert",
    source="arXiv 2601.23039, 'grows like 1/ε', as a lower bound; theory.md 8.8",
    assumptions=(CONVERGED,),
    status="refuted",
)
def sensitivity_grows(case: ProjectionCase) -> Comparison:
    """Return law 8.8 (sensitivity grows), in units of ε, which is false next to a permutation.

    Each norm lies between what was found and the bound of ``sensitivity``.
    """
    sides = (
        (case.response, case.matrix, case.distance, case.sigma2),
        (case.hotter_response, case.hotter, case.hotter_distance, case.hotter_sigma2),
    )
    cold, hot = (
        jnp.maximum(_most_response(matrix) - found, 0)
        + 2 * distance
        + _solve_error(distance, sigma2)
        for found, matrix, distance, sigma2 in sides
    )
    return Comparison(case.hotter_response / HOTTER, case.response, cold + hot / HOTTER)


# ---------------------------------------------------------------- potentials


def _source(case: ProjectionCase, *, transposed: bool = True) -> jax.Array:
    """Return Mᵀh_r − h_c of the first unit, h the entropies of rows and of columns."""
    entropies = -xlogy(case.matrix, case.matrix)
    matrix = case.matrix.T if transposed else case.matrix
    return center(matmul(matrix, entropies.sum(1)) - entropies.sum(0))[0]


@claim(
    "8.8",
    name="potential_drift",
    scope="projection",
    direction="=",
    statement="(I − MᵀM) dγ/dε = Mᵀh_r − h_c, γ = εg, h the entropies of rows and columns; of the "
    "first unit, to 1e-5",
    latex=r"(I - M^\top M)\,\frac{d(\varepsilon g)}{d\varepsilon} = M^\top h_r - h_c",
    source="theory.md 8.8, from 1.6",
    assumptions=(CONVERGED,),
    resolution=1e-5,
    mutants={"M for Mᵀ": predicting(lambda case, _: _source(case, transposed=False))},
)
def potential_drift(case: ProjectionCase) -> Comparison:
    """Return law 8.8 (potential drift) of the first unit. As in 1.6, two steps bound the error."""
    finer, coarser = (
        center(move - matmul(matmul(case.matrix, move), case.matrix))[0] for move in case.drift
    )
    n = case.matrix.shape[0]
    off = abs(coarser - finer) + 2 * case.drift_error + entropy_error(n, case.distance)
    return Comparison(finer, _source(case), off)
