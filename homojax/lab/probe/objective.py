"""From the parameters of a search to the score of a claim: pure, for one start; all of it vmaps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from homojax import spectrum
from homojax.birkhoff import detail_basis
from homojax.bounds import schatten_bounds
from homojax.lab.probe.config import Goal, Search
from homojax.programs import program
from homojax.projection.sinkhorn import sinkhorn
from homojax.theory.cases.matrix import matrix_case
from homojax.theory.cases.projection import projection_case
from homojax.theory.cases.stack import stack_case
from homojax.theory.claim import Claim, Comparison

SMOOTH_POWER = 32  # of the Schatten bounds that stand in for σ₂ while first-order steps pass ties

Arrays = dict[str, Any]


def without_starts(search: Search) -> Search:
    """Return the search as its programs see it: seed and number of starts change none of them."""
    return dataclasses.replace(search, seed=0, starts=1)


def draw_starts(claim: Claim, search: Search) -> dict[str, np.ndarray]:
    """Return random parameters [starts, …].

    Logits are B X Bᵀ with B a basis of the detail space. This leaves out row and column shifts,
    which change no projection.
    """
    rng = np.random.default_rng(search.seed)
    d = search.n - 1
    shape = (search.layers, d, d) if claim.scope == "stack" else (d, d)
    size = np.exp(rng.uniform(np.log(0.1), np.log(search.bound), search.starts))
    size = size.reshape(-1, *(1,) * len(shape))
    start = {"logits": rng.standard_normal((search.starts, *shape)) * size / 2}
    if search.epsilon is None:
        start["log_epsilon"] = rng.uniform(-1, 1, search.starts)
    if claim.scope == "stack":
        start["alpha"] = rng.standard_normal(search.starts) - 0.5
        start["probe"] = rng.standard_normal((search.starts, d))
    return start


def build_cell(scope: str, search: Search, parameters: Arrays) -> dict[str, jax.Array]:
    """Return what a case of this scope is made of: logits within the bound, and ε.

    A stack has its matrices, residual weight and probe vector, too.
    """
    basis = detail_basis(search.n, parameters["logits"].dtype)
    logits = basis @ parameters["logits"] @ basis.T
    largest = abs(logits).max((-2, -1), keepdims=True)
    logits = logits * (search.bound / jnp.maximum(largest, search.bound))
    if search.epsilon is None:
        epsilon = jnp.exp(parameters["log_epsilon"])
    else:
        epsilon = jnp.asarray(search.epsilon, logits.dtype)
    cell = {"logits": logits, "epsilon": epsilon}
    if scope == "stack":
        cell["matrices"] = project_stacks(logits[None], epsilon[None])[0]
        cell["alpha"] = jax.nn.sigmoid(parameters["alpha"])
        cell["probe"] = basis @ parameters["probe"]
    return cell


@cache
def cell_program(scope: str, search: Search) -> Callable[[Arrays], dict[str, jax.Array]]:
    """Return ``build_cell`` of these, compiled, from parameters [starts, …]."""
    return program(jax.vmap(lambda parameters: build_cell(scope, search, parameters)))


@program
@jax.vmap
def project_stacks(logits, epsilon):
    """Return the projections [stacks, L, n, n] of logits at the ε of their stack, [stacks]."""
    return jax.vmap(lambda s: cast(jax.Array, sinkhorn(s, epsilon).matrix))(logits)


def case_arrays(cells: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what a case is judged on: of a stack the matrices, without logits and ε."""
    unused = ("logits", "epsilon") if "matrices" in cells else ()
    return {key: x for key, x in cells.items() if key not in unused}


# ---------------------------------------------------------------- the case and its score


def build_case(claim: Claim, cell: Arrays) -> Any:
    """Return the case of a cell, as the claim's comparison takes it."""
    if claim.scope == "projection":
        return projection_case(cell["logits"], cell["epsilon"])
    if claim.scope == "matrix":
        matrix = cast(jax.Array, sinkhorn(cell["logits"], cell["epsilon"]).matrix)
        return matrix_case(cell["logits"], cell["epsilon"], matrix)
    matrices = cell["matrices"]
    sigma2, lambda2 = (jax.vmap(f)(matrices) for f in (spectrum.sigma2, spectrum.lambda2))
    alpha, probe = cell["alpha"], cell["probe"]
    return stack_case(matrices, sigma2=sigma2, lambda2=lambda2, alpha=alpha, probe=probe)


def replace_sigma2(claim: Claim, case: Any, norm: Callable[[jax.Array], jax.Array]) -> Any:
    """Return the case with ``norm`` in place of σ₂ of its own matrices."""
    if claim.scope == "matrix":
        return dataclasses.replace(case, sigma2=norm(case.matrix))
    if claim.scope == "projection":
        hotter = norm(case.hotter)
        return dataclasses.replace(case, sigma2=norm(case.matrix), hotter_sigma2=hotter)
    sigma2, kept = (jax.vmap(norm)(matrices) for matrices in (case.matrices, case.composites))
    curve = case.curve.at[:, 0].set(kept)
    return dataclasses.replace(case, sigma2=sigma2, composite_sigma2=kept, curve=curve)


def score(
    claim: Claim, goal: Goal, search: Search, parameters: Arrays, *, smooth: bool
) -> jax.Array:
    """Return the best score of a case's comparisons that apply; −∞ where none does.

    Where ``smooth``, σ₂ of the case's own matrices gives way to each of its two Schatten bounds,
    which have no kinks at ties, and the score is the lower of the two. Other parts of a case
    (slopes, whole curves, residual layers) keep their documented subgradients.
    """
    case = build_case(claim, build_cell(claim.scope, search, parameters))
    cases = [case]
    if smooth:
        norms = [lambda m, side=side: schatten_bounds(m, SMOOTH_POWER)[side] for side in range(2)]
        cases = [replace_sigma2(claim, case, norm) for norm in norms]
    scores = [score_sides(claim, goal, claim.judge(each)[0], jnp).max() for each in cases]
    return jnp.stack(scores).min()


def score_sides(claim: Claim, goal: Goal, comparison: Comparison, xp: Any) -> Any:
    """Return lesser/greater to tighten, and lesser − greater to refute; −∞ where it does not apply.

    To refute an equality, the score is the difference beyond the margin. To tighten, comparisons
    count only where the margin leaves two digits of the greater side: at J both sides may vanish.

    Args:
        claim: what is compared.
        goal: what the score is for.
        comparison: its fields are arrays of one shape.
        xp: jax.numpy or numpy.
    """
    lesser, greater, margin, applies = comparison
    if goal == "tighten":
        scores = lesser / xp.where(greater > 0, greater, 1)
        applies = applies & (margin < 0.01 * greater)
    elif claim.is_equality:
        scores = abs(lesser - greater) - margin
    else:
        scores = lesser - greater
    return xp.where(applies, scores, -xp.inf)
