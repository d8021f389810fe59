"""The entropic projection of logits given by factors, in blocks of rows. theory.md §1.

Nothing has size n². Everything is a pass: one sweep over the blocks of S = Q Kᵀ, each formed, used
and dropped. A pass costs n² (2d + a few) operations and memory O(n · block), and so do its
derivatives, which form each block again. Only the number of passes counts.
"""

# pyright: reportCallIssue=false, reportAttributeAccessIssue=false
# chex.dataclass makes the constructor and `replace`, and pyright does not see them.

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.batching import each_lane, in_lanes
from homojax.birkhoff import center
from homojax.decompositions.cholesky import solve_positive
from homojax.loops import repeat_while
from homojax.numerics import marginal_tolerance, matmul, max_or_nan
from homojax.projection.factors import FactoredLogits, FactoredMatrix, over_rows
from homojax.projection.linear import conjugate_gradients
from homojax.projection.newton import ABOVE, Rules, Turn, alternation_step, descend

_MEMORY = 20  # passes that the accelerated alternation looks back on
_PATIENCE = 10  # passes in which its error must halve
_DERIVATIVE_PASSES = 2_000  # of one derivative, at most
# A Newton step costs many passes. So a stage is left sooner than ``iterations`` leaves it, and so
# is a descent that has stalled.
_RULES = Rules(near=0.5, most_in_vain=8)


class _Iterate(NamedTuple):
    """Where an iteration stands: the potentials of a FactoredMatrix whose rows sum to 1."""

    row_reference: jax.Array
    col_reference: jax.Array
    row_correction: jax.Array
    col_correction: jax.Array
    col_sums: jax.Array
    error: jax.Array  # largest |column sum − 1|
    num_steps: jax.Array  # passes done

    def matrix(self, queries: jax.Array, keys: jax.Array) -> FactoredMatrix:
        return FactoredMatrix(
            queries=queries, keys=keys, **{name: getattr(self, name) for name in self._fields[:4]}
        )


def project_factored(
    logits: FactoredLogits,
    epsilon: jax.Array,
    start: jax.Array | None,
    tol: jax.Array,
    *,
    method: Literal["auto", "alternating", "newton"],
    max_steps: int,
) -> tuple[FactoredMatrix, jax.Array]:
    """Return the projection of ``sinkhorn`` for factors, and the passes that it took.

    Nothing is raised on values. Differentiable in both modes with respect to the factors and ε, by
    the implicit function theorem (theory.md 1.6).

    Args:
        logits: S, by its factors.
        epsilon: scalar; not positive gives NaN.
        start: column potential [n] for S as given, or None.
        tol: the iteration stops at a column error of half of this.
        method: "alternating", "newton" or "auto" (accelerated alternation while its error halves
            soon, then Newton).
        max_steps: most passes.

    Source: Walker and Ni (2011) for Anderson's acceleration as it is used here; Brauer, Clason,
    Lorenz and Wirth (arXiv 1710.06635) for Newton steps by conjugate gradients; theory.md 1.5, 1.6.
    """
    queries, keys = logits.queries / epsilon, logits.keys
    g = jnp.zeros_like(logits.col_shift) if start is None else start + logits.col_shift / epsilon
    fixed = jax.lax.stop_gradient((logits.queries, keys, epsilon, g, tol))
    solve = partial(_solve, method=method, max_steps=max_steps, warm=start is not None)
    iterate = in_lanes(each_lane(solve))(*fixed)
    matrix = iterate.matrix(queries, keys)
    row_correction, col_correction = _limit(matrix)
    matrix = matrix.replace(row_correction=row_correction, col_correction=col_correction)
    return matrix, iterate.num_steps


def _solve(queries, keys, epsilon, g, tol, *, method, max_steps, warm) -> _Iterate:
    at = _start(queries / epsilon, keys, g, 0)
    if method == "alternating":
        return _alternate(queries / epsilon, keys, at, tol, max_steps=max_steps, memory=0)
    if method == "auto":
        at = _alternate(queries / epsilon, keys, at, tol, max_steps=max_steps, memory=_MEMORY)
    warm = warm or method == "auto"

    def newton(state):
        at, _ = state
        at = _newton(queries, keys, epsilon, at, tol, warm=warm, max_steps=max_steps)
        return at, jnp.asarray(False)

    # A loop of one turn at most: under vmap a cond would do both sides.
    return repeat_while(lambda state: state[1], newton, (at, at.error > tol / 2))[0]


def _start(queries: jax.Array, keys: jax.Array, g: jax.Array, num_steps: ArrayLike) -> _Iterate:
    zero = jnp.zeros_like(g)
    at = _Iterate(
        row_reference=zero,
        col_reference=g,
        row_correction=zero,
        col_correction=zero,
        col_sums=zero,
        error=jnp.full((), jnp.inf, g.dtype),
        num_steps=jnp.asarray(num_steps),
    )
    return _move(queries, keys, at, zero)


def _move(
    queries, keys, at: _Iterate, step: jax.Array, ratio: ArrayLike = 1, passes: ArrayLike = 0
) -> _Iterate:
    """Scale the potentials by ``ratio``, add ``step`` to the column potential, normalise rows.

    One pass. The references absorb the corrections when these are no longer small. In between, the
    rounding of large parts stays as it is.
    """
    f, g = at.row_correction, at.col_correction + step
    absorb = (ratio != 1) | (jnp.maximum(abs(f).max(), abs(g).max()) > 1)
    row_reference = jnp.where(absorb, ratio * (at.row_reference + f), at.row_reference)
    col_reference = jnp.where(
        absorb, ratio * (at.col_reference + at.col_correction) + step, at.col_reference
    )
    f, g = (jnp.where(absorb, 0, correction) for correction in (f, g))
    potentials = {
        "row_reference": row_reference,
        "col_reference": col_reference,
        "row_correction": f,
        "col_correction": g,
    }
    matrix = FactoredMatrix(queries=queries, keys=keys, **potentials)

    def form(sums, rows):
        log_block = matrix.log_block(*rows)
        largest = jnp.maximum(log_block.max(1), jnp.finfo(g.dtype).min)  # of a row of zeros too
        block = jnp.exp(log_block - largest[:, None])
        row_sums = jnp.maximum(block.sum(1), 1)
        return sums + matmul(1 / row_sums, block), rows[2] - largest - jnp.log(row_sums)

    col_sums, f = over_rows(form, jnp.zeros_like(g), queries, row_reference, f)
    return _Iterate(
        row_reference=row_reference,
        col_reference=col_reference,
        row_correction=f,
        col_correction=g,
        col_sums=col_sums,
        error=max_or_nan(abs(col_sums - 1)),
        num_steps=at.num_steps + passes + 1,
    )


def _alternate(
    queries: jax.Array,
    keys: jax.Array,
    at: _Iterate,
    tol: jax.Array,
    *,
    max_steps: int,
    memory: int,
) -> _Iterate:
    """Return where alternation ends, at one pass a step; with ``memory``, accelerated (Anderson).

    Accelerated, it gives up where its error no longer halves. The step is the combination of the
    last steps whose residuals, were alternation linear, would cancel best. Near the limit it is
    linear, with eigenvalues σᵢ². There this is the Krylov space of conjugate gradients, at no more
    than a pass a dimension.
    """
    reg = 10 * float(jnp.finfo(queries.dtype).eps)

    def unfinished(state):
        at, _, _, _, age = state
        left = (at.error > tol / 2) & (at.num_steps < max_steps)
        return left & ((age < _PATIENCE) | (memory == 0))

    def advance(state):
        at, steps, changes, best, age = state
        residual = step = alternation_step(at.col_sums)
        if memory:
            size = jnp.linalg.norm(changes, axis=1, keepdims=True)
            size = jnp.where(size > 0, size, 1)
            unit = changes / size
            gram = matmul(unit, unit.T) + reg * jnp.eye(memory, dtype=queries.dtype)
            weights = solve_positive(gram, matmul(unit, residual))
            step = residual - matmul(weights / size[:, 0], steps + changes)
        new = _move(queries, keys, at, step)
        if memory:
            slot = at.num_steps % memory
            change = alternation_step(new.col_sums) - residual
            steps, changes = steps.at[slot].set(step), changes.at[slot].set(change)
        halved = new.error < 0.5 * best
        best, age = jnp.where(halved, new.error, best), jnp.where(halved, 0, age + 1)
        return new, steps, changes, best, age

    history = jnp.zeros((memory, len(at.col_sums)), queries.dtype)
    return repeat_while(unfinished, advance, (at, history, history, at.error, jnp.asarray(0)))[0]


def _newton(
    queries: jax.Array,
    keys: jax.Array,
    epsilon: jax.Array,
    iterate: _Iterate,
    tol: jax.Array,
    *,
    warm: bool,
    max_steps: int,
) -> _Iterate:
    """Return where Newton steps end, each by conjugate gradients at a pass a step.

    They go from an ε so high that every entry counts down to the one asked for; a ``warm`` iterate
    that is near is gone on from.
    """
    near = warm & (iterate.error < _RULES.near)
    # A bound on the modulus of the logits, which are never formed.
    widest = jnp.linalg.norm(queries, axis=1).max() * jnp.linalg.norm(keys, axis=1).max()
    first_stage = jnp.where(near, epsilon, jnp.maximum(epsilon, widest / 2))
    blank = jax.tree.map(jnp.zeros_like, iterate)._replace(
        col_sums=jnp.ones_like(iterate.col_sums), num_steps=iterate.num_steps
    )
    begin = jax.tree.map(lambda at, zero: jnp.where(near, at, zero), iterate, blank)

    def solve(now: _Iterate, turn: Turn) -> tuple[jax.Array, jax.Array]:
        matrix = now.matrix(queries / turn.stage, keys)
        return conjugate_gradients(
            lambda x: turn.diagonal * x - matrix.gram(x),
            turn.gradient,
            turn.diagonal,
            rtol=jnp.where(turn.colder | turn.rejected, jnp.inf, jnp.full_like(epsilon, 0.1)),
            max_steps=max_steps - now.num_steps - 1,
        )

    def move(now: _Iterate, turn: Turn, step: jax.Array, passes: jax.Array):
        ratio = turn.stage / turn.next_stage
        trial = _move(queries / turn.next_stage, keys, now, step, ratio, passes)
        fall = now.row_reference - trial.row_reference + now.row_correction - trial.row_correction
        return trial, fall.sum() < 0  # of the semi-dual

    return descend(
        begin,
        jnp.where(near, epsilon, ABOVE * first_stage),
        first_stage,
        epsilon,
        tol,
        solve=solve,
        move=move,
        rules=_RULES,
        max_steps=max_steps,
    )


@jax.custom_jvp
def _limit(matrix: FactoredMatrix) -> tuple[jax.Array, jax.Array]:
    """Return both corrections, with the derivative that the converged ones have in Q and K."""
    return matrix.row_correction, matrix.col_correction


@_limit.defjvp
def _limit_jvp(primals, tangents):
    (matrix,), (tangent,) = primals, tangents
    row_correction, col_correction = _limit(matrix)
    matrix = matrix.replace(row_correction=row_correction, col_correction=col_correction)
    n, eps = matrix.shape[0], float(jnp.finfo(matrix.dtype).eps)

    def sums(queries, keys):
        return matrix.replace(queries=queries, keys=keys).sums()

    _, (a, b) = jax.jvp(sums, (matrix.queries, matrix.keys), (tangent.queries, tangent.keys))

    def operator(matrix, x):  # as in ``sinkhorn``
        return (1 + 16 * eps) * x + x.mean() - matrix.gram(x)

    def iterate(matrix, rhs):
        tol, most, apply = (
            marginal_tolerance(n, rhs.dtype),
            _DERIVATIVE_PASSES,
            partial(operator, matrix),
        )
        x, passes = conjugate_gradients(apply, rhs, jnp.ones_like(rhs), rtol=tol, max_steps=most)
        return jnp.where(passes < most, x, jnp.nan)

    dg = jax.lax.custom_linear_solve(
        partial(operator, matrix),
        center(matrix.T @ a - b),
        lambda _, rhs: in_lanes(each_lane(iterate))(matrix, rhs),
        symmetric=True,
    )
    return (row_correction, col_correction), (-a - matrix @ dg, dg)
