"""Logits projected at several ε, as the claims of theory.md §1 and §6 need them."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from homojax.arguments import as_square
from homojax.birkhoff import detail, projective_diameter
from homojax.programs import compiled
from homojax.projection.errors import projection_distance
from homojax.projection.sinkhorn import sinkhorn
from homojax.spectrum.singular_value import top_singular_pair
from homojax.theory.cases.responses import strongest_response

LARGEST_DECOMPOSED = 64  # n beyond which an assignment and four more σ₂ take longer to find than M
HOTTER = 1.25  # the second ε, over the first: a decay of the logits by a fifth


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectionCase:
    """Logits projected at ε, at a hotter ε, and at four ε near the first; with derivatives.

    The derivatives are those of the implicit function theorem. ``slope`` and ``differences`` follow
    one number for the whole matrix, ⟨W, M⟩ with the fixed W of ``_weights``.
    """

    logits: jax.Array  # [n, n]
    epsilon: jax.Array
    matrix: jax.Array  # [n, n], M
    log_matrix: jax.Array  # [n, n]
    diameter: jax.Array  # Δ(S), in the logits' units
    sigma2: jax.Array
    top_right: jax.Array  # [n], v of σ₂'s singular pair
    distance: jax.Array  # ≥ ‖M − M_ε(S)‖
    hotter: jax.Array  # [n, n], M at 1.25 ε
    hotter_sigma2: jax.Array
    hotter_distance: jax.Array
    slope: jax.Array  # ⟨W, dM/d log ε⟩
    differences: jax.Array  # [2], the same by central differences of step h and 2h
    difference_error: jax.Array  # the part of the projections' own errors in them
    sigma2_slopes: jax.Array  # [2], dσ₂/d log ε by the same differences; NaN beyond n = 64
    sigma2_slope_error: jax.Array  # the part of the projections' own errors in these
    gradient_norm: jax.Array  # ‖∂σ₂/∂S‖_F
    gradient_bound: jax.Array  # √(max M · Σ M u²v²)/ε
    response: jax.Array  # ε‖∂M/∂S W‖_F, W as sensitive a direction as was found
    hotter_response: jax.Array  # the same at 1.25 ε, in units of that
    drift: jax.Array  # [2, n], dγ/dε, γ = ε · column potential, by the same differences
    drift_error: jax.Array  # the part of the projections' own errors in (I − MᵀM) drift


class _Projected(NamedTuple):
    """A projection, or several with a leading axis."""

    matrix: jax.Array
    log_matrix: jax.Array
    row_error: jax.Array
    col_error: jax.Array
    col_potential: jax.Array


def _project(
    epsilon: jax.Array, logits: jax.Array, log_ratio: jax.Array, start: jax.Array | None = None
) -> tuple[jax.Array, _Projected]:
    """Return the matrix at ``exp(log_ratio)`` times ε, to be differentiated, and all of it."""
    result = sinkhorn(logits, epsilon * jnp.exp(log_ratio), init=start)
    projected = _Projected(
        matrix=cast(jax.Array, result.matrix),  # no factors here
        log_matrix=cast(jax.Array, result.log_matrix),
        row_error=result.row_error,
        col_error=result.col_error,
        col_potential=result.col_potential,
    )
    return projected.matrix, projected


@compiled()
def projection_case(logits: ArrayLike, epsilon: ArrayLike) -> ProjectionCase:
    """Return the case of logits [n, n] and ε > 0: six projections, one of them pulled back.

    >>> case = projection_case([[1.0, 0.0], [0.0, 1.0]], 1.0)
    >>> round(float(case.sigma2), 4)
    0.4621
    """
    logits = as_square(logits, "logits")
    dtype, n = logits.dtype, logits.shape[0]
    epsilon = jnp.asarray(epsilon, dtype)
    eps = float(jnp.finfo(dtype).eps)
    project = partial(_project, epsilon)

    # The projection itself, with its derivative.
    diameter = projective_diameter(logits)
    step = eps**0.25 / (1 + diameter / epsilon)
    zero = jnp.zeros((), dtype)
    _, pull_back, cold = jax.vjp(project, logits, zero, has_aux=True)

    # The others start from its potential, which is inverse to ε where that matters.
    ratios = jnp.stack([jnp.asarray(math.log(HOTTER), dtype), *(k * step for k in (-2, -1, 1, 2))])
    starts = cold.col_potential * jnp.exp(-ratios)[:, None]
    matrices, others = jax.vmap(project, (None, 0, 0))(logits, ratios, starts)

    # All top singular pairs in one call: σ₂ of the nearby ones only where that is cheap.
    decomposed = matrices if n <= LARGEST_DECOMPOSED else matrices[:1]
    decomposed = jax.vmap(detail)(jnp.concatenate([cold.matrix[None], decomposed]))
    tops, (u, *_), (v, *_) = jax.vmap(top_singular_pair)(decomposed)
    sigma2, hotter_sigma2 = tops[:2]
    distance = projection_distance(cold.matrix, cold.row_error, cold.col_error, sigma2)
    hotter_distance = projection_distance(
        matrices[0], others.row_error[0], others.col_error[0], hotter_sigma2
    )

    # Slopes, by differences and by the implicit function theorem.
    weights = _weights(n, dtype)
    no_slopes = jnp.full((2,), jnp.nan, dtype)
    sigma2_slopes = _differences(tops[2:], step) if n <= LARGEST_DECOMPOSED else no_slopes
    logit_error = 8 * eps * abs(logits).max() / epsilon
    gradient, _ = pull_back(jnp.outer(u, v))
    _, slope = pull_back(weights)
    weight = (cold.matrix * jnp.outer(u, v) ** 2).sum()
    responses = jax.vmap(strongest_response, (0, None))(
        jnp.stack([cold.log_matrix, others.log_matrix[0]]), weights + jnp.outer(u, v)
    )
    potentials = jnp.exp(ratios[1:])[:, None] * others.col_potential[1:]
    return ProjectionCase(
        logits=logits,
        epsilon=epsilon,
        matrix=cold.matrix,
        log_matrix=cold.log_matrix,
        diameter=diameter,
        sigma2=sigma2,
        top_right=v,
        distance=distance,
        hotter=matrices[0],
        hotter_sigma2=hotter_sigma2,
        hotter_distance=hotter_distance,
        slope=slope,
        differences=_differences((weights * matrices[1:]).sum((1, 2)), step),
        difference_error=(math.sqrt(n) * distance + logit_error) / step,
        sigma2_slopes=sigma2_slopes,
        sigma2_slope_error=4 * distance / step,
        gradient_norm=jnp.sqrt((gradient**2).sum()),
        gradient_bound=jnp.sqrt(cold.matrix.max() * weight) / epsilon,
        response=responses[0],
        hotter_response=responses[1],
        drift=_differences(potentials, step),
        drift_error=(math.sqrt(n) * distance + 8 * logit_error) / step,
    )


def _weights(n: int, dtype: DTypeLike) -> jax.Array:
    """Return a fixed W [n, n], ‖W‖_F = 1, with no part along row or column shifts."""
    unit = jnp.arange(n)
    weights = detail(jnp.cos(unit[:, None] + 2.0 * unit + 0.5 * unit**2))
    return (weights / jnp.sqrt((weights**2).sum())).astype(dtype)


def _differences(values: jax.Array, step: jax.Array) -> jax.Array:
    """Return central differences of step h and 2h, [2, …], of values at −2h, −h, h and 2h."""
    return jnp.stack([(values[2] - values[1]) / (2 * step), (values[3] - values[0]) / (4 * step)])
