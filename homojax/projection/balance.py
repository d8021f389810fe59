"""The doubly stochastic scaling of a matrix, every entry to relative accuracy. theory.md §1.

However near to a permutation it is. Newton's step for the column potential solves
(diag(column sums) − MᵀM) dg = 1 − column sums, rows normalised. That matrix is the Laplacian of a
network between the columns, with weights wⱼₖ = (MᵀM)ⱼₖ. Near a permutation these are tiny, and the
right side is lost in rounding. But a permutation Q has the same sums. With it subtracted
analytically, the right side is a sum of currents Σᵢ (Mᵢₖ Qᵢⱼ − Mᵢⱼ Qᵢₖ) along the edges. A current
over its weight is an electromotive force, of order 1. And a network with forces can be eliminated
by positive weights and means of forces, where nothing cancels.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jax.typing import ArrayLike

from homojax.arguments import as_square
from homojax.batching import each_lane, in_lanes
from homojax.birkhoff import marginal_errors
from homojax.loops import repeat, repeat_while
from homojax.numerics import log_gram, marginal_tolerance
from homojax.programs import compiled
from homojax.projection.errors import accepted_loss
from homojax.projection.masks import drop_stand_ins
from homojax.projection.matching import heaviest_permutation
from homojax.projection.result import BalanceResult
from homojax.projection.shifts import take_out_shifts


@compiled(shared=True)
def balance(log_matrix: ArrayLike, *, max_steps: int = 200) -> BalanceResult:
    """Return the logarithm of the doubly stochastic diag(e^f) exp(log_matrix) diag(e^g).

    Each entry is right to eps times its size. ``balance(logits / epsilon)`` is the entropic
    projection. ``sinkhorn`` gets its row and column sums right, which near a permutation says
    little of the small entries. Here each entry is right, and so is ``contraction_gap`` of them, be
    it 1e-78.

    Args:
        log_matrix: log M, [n, n], n ≥ 2; −inf is an entry of 0, and stays one. −1e9 counts as −inf,
            as in ``sinkhorn``.
        max_steps: most Newton steps.

    Returns:
        A BalanceResult. ``converged`` is False, and the matrix is what the last step left, where
        ``max_steps`` do not do, where no doubly stochastic matrix has this support, and where there
        is a NaN or +inf.

    Source: theory.md 1.6; the reduction of a network with forces is the star–mesh transform with
    Thévenin's sources.

    Notes:
        Bounded Newton steps down a schedule of temperatures, without line search: 4 to 26 in all
        where this was measured. O(n³) a step, in logarithms: dearer than ``sinkhorn``.
        Differentiable in both modes. The derivative is that of the limit (theory.md 1.6), with the
        same accuracy.

    >>> result = balance([[0.0, -80.0], [-100.0, 0.0]])
    >>> [round(x, 3) for x in result.log_matrix.ravel().tolist()]
    [0.0, -90.0, -90.0, 0.0]
    """
    log_matrix, _, _ = take_out_shifts(as_square(log_matrix, "log_matrix"))
    solve = in_lanes(each_lane(partial(_newton, max_steps=max_steps)))
    result = solve(jax.lax.stop_gradient(log_matrix))
    return result._replace(log_matrix=_limit(log_matrix, result.log_matrix))


_LARGEST_STEP, _COOLING, _NEAR = 2.0, 0.35, 0.5


def _newton(log_matrix: jax.Array, max_steps: ArrayLike) -> BalanceResult:
    """Return where bounded Newton steps end, from entries that differ by at most e⁴ downwards.

    A force is at most 1/M along the permutation. Its entries are of order 1 in the solution if the
    sum of their logarithms is the largest (at least n⁻ⁿ, by van der Waerden's bound on the
    permanent).
    """
    log_matrix = drop_stand_ins(log_matrix, 1.0)
    tolerance = float(jnp.finfo(log_matrix.dtype).eps) ** 0.5
    finite = log_matrix > -jnp.inf
    largest = jnp.where(finite, log_matrix, -jnp.inf).max()
    span = largest - jnp.where(finite, log_matrix, jnp.inf).min()
    row_of = jnp.argsort(heaviest_permutation(log_matrix))  # by column

    def unfinished(state):
        *_, stage, size, num_steps = state
        return ((size > tolerance) | (stage < 1)) & (num_steps < max_steps)  # NaN ends it

    def step(state):
        current, g, stage, _, num_steps = state
        log_weights = log_gram(current)
        share = jnp.exp(current[row_of] - _or_zero(log_weights))  # −inf where the weight is
        change = _potentials(log_weights, share.T - share)
        size = abs(change).max()
        change = change * jnp.minimum(1, _LARGEST_STEP / size)
        colder = (size < _NEAR) & (stage < 1)
        next_stage = jnp.where(colder, jnp.minimum(1, stage / _COOLING), stage)
        size = jnp.where(colder, jnp.inf, size)
        g = (g + change) * (next_stage / stage)
        # From ``log_matrix`` anew: what rounding took from an entry near 1 beside one of −1e9 would
        # grow from stage to stage.
        current = jnp.where(colder, log_matrix * next_stage + g[None, :], current + change[None, :])
        return _normalise_rows(current), g, next_stage, size, num_steps + 1

    stage = jnp.minimum(1, 4 / span)
    unmoved, never = jnp.zeros_like(log_matrix[0]), jnp.full_like(stage, jnp.inf)
    start = _normalise_rows(log_matrix * stage), unmoved, stage, never, jnp.asarray(0)
    solution, g, _, size, num_steps = repeat_while(unfinished, step, start)
    _, col_error = marginal_errors(jnp.exp(solution))
    within = (size <= tolerance) & (col_error <= marginal_tolerance(len(row_of), stage.dtype))
    # As in ``sinkhorn``: a row is its logits, the columns' potentials and one number more, or the
    # logits were lost.
    row, counts = solution - log_matrix - g[None, :], solution > math.log(tolerance)
    spread = jnp.where(counts, row, -jnp.inf).max(1) - jnp.where(counts, row, jnp.inf).min(1)
    size = jnp.where(counts, abs(log_matrix) + abs(g[None, :]), 0).max(1)
    kept = (spread <= accepted_loss(2 * size, log_matrix.dtype)).all()
    return BalanceResult(solution, num_steps, within & kept)


@jax.custom_jvp
def _limit(log_matrix: jax.Array, solution: jax.Array) -> jax.Array:
    """Return ``solution``, with the derivative that the scaling of ``log_matrix`` has there."""
    return solution


@_limit.defjvp
def _limit_jvp(primals, tangents):
    """(I − MᵀM) dg = Mᵀa − b (theory.md 1.6), by forces.

    The one along jk is the mean of dSᵢⱼ − dSᵢₖ by the weight of i in wⱼₖ.
    """
    solution, dlog = _limit(*primals), tangents[0]
    log_weights = log_gram(solution)

    def forces(of_column):
        log_entries, log_w, d = of_column
        share = jnp.exp(log_entries[:, None] + solution - _or_zero(log_w)[None, :])
        return (share * (d[:, None] - dlog)).sum(0)

    dg = _potentials(log_weights, jax.lax.map(forces, (solution.T, log_weights, dlog.T)))
    moved = dlog + dg[None, :]
    return solution, moved - (jnp.exp(solution) * moved).sum(1, keepdims=True)


def _normalise_rows(log_matrix: jax.Array) -> jax.Array:
    return log_matrix - logsumexp(log_matrix, axis=1, keepdims=True)


def _or_zero(x: jax.Array) -> jax.Array:
    """Return a logarithm to subtract from others that are −inf where it is."""
    return jnp.where(jnp.isneginf(x), 0, x)


def _potentials(log_weights: jax.Array, forces: jax.Array) -> jax.Array:
    """Return v [n] with Σₖ wⱼₖ (vⱼ − vₖ + eⱼₖ) = 0 for all j, and v = 0 at the last unit.

    To absolute accuracy, and linear in the forces. A unit p that goes leaves a detour j–p–k between
    any two others, of weight wⱼₚwₚₖ/Σwₚ and of force eⱼₚ + eₚₖ. Two edges in parallel have the sum
    of the weights, and the mean of the forces by weight. Then every vₚ is the mean of vₖ − eₚₖ over
    the edges that p had when it went.

    Args:
        log_weights: log w, [n, n], symmetric.
        forces: e, [n, n], antisymmetric.
    """
    n = forces.shape[0]
    unit = jnp.arange(n)

    def star(log_w, p):
        """Return logarithms of p's weights to the units left, and of their shares in the sum."""
        row = jnp.where(unit > p, log_w[p], -jnp.inf)
        return row, row - _or_zero(logsumexp(row))

    def eliminate(p, state):
        log_w, e = state
        row, log_share = star(log_w, p)
        detour = row[:, None] + log_share[None, :]
        total = jnp.logaddexp(log_w, detour)
        share = jnp.exp(detour - _or_zero(total))
        return total, e + share * (e[p][None, :] - e[p][:, None] - e)

    def substitute(i, v):
        p = n - 2 - i
        return v.at[p].set((jnp.exp(star(log_w, p)[1]) * (v - e[p])).sum())

    log_w, e = repeat(n - 1, eliminate, (log_weights, forces))
    return repeat(n - 1, substitute, jnp.zeros(n, forces.dtype))
