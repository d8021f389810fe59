"""The entropic projection of logits given by factors, in blocks of rows: nothing of size n² is ever held. theory.md §1.

Everything is a pass: one sweep over the blocks of S = Q Kᵀ, each formed, used and dropped. A pass costs n² (2d + a few)
operations and memory O(n · block), its derivatives too (each block is formed again). What counts is how many there are.
"""

# pyright: reportCallIssue=false, reportAttributeAccessIssue=false
# chex.dataclass makes the constructor and `replace`, and pyright does not see them.

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.birkhoff import center
from homojax.numerics import marginal_tolerance, matmul, repeat_while
from homojax.projection.factors import FactoredLogits, FactoredMatrix, _over_rows
from homojax.projection.linear import conjugate_gradients

_MEMORY = 20  # passes that the accelerated alternation looks back on
_PATIENCE = 10  # passes in which its error must halve
_STEPS_IN_VAIN = 8  # Newton steps without a smaller error, before they are taken to have stalled
_DERIVATIVE_PASSES = 2_000  # of one derivative, at most


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
    """The projection of ``sinkhorn`` for factors, and the passes that it took. Nothing is raised on values.

    Differentiable in both modes with respect to the factors and ε, by the implicit function theorem (theory.md 1.6).

    Args:
        logits: S, by its factors.
        epsilon: scalar; not positive gives NaN.
        start: column potential [n] for S as given, or None.
        tol: the iteration stops at a column error of half of this.
        method: "alternating", "newton" or "auto" (accelerated alternation while its error halves soon, then Newton).
        max_steps: most passes.

    Source: Walker and Ni (2011) for Anderson's acceleration as it is used here; Brauer, Clason, Lorenz and Wirth (arXiv
    1710.06635) for Newton steps by conjugate gradients; theory.md 1.5, 1.6.
    """
    queries, keys = logits.queries / epsilon, logits.keys
    g = jnp.zeros_like(logits.col_shift) if start is None else start + logits.col_shift / epsilon
    fixed = jax.lax.stop_gradient((logits.queries, keys, epsilon, g, tol))
    iterate = _solve(*fixed, method=method, max_steps=max_steps, warm=start is not None)
    matrix = iterate.matrix(queries, keys)
    row_correction, col_correction = _limit(matrix)
    return matrix.replace(
        row_correction=row_correction, col_correction=col_correction
    ), iterate.num_steps


@partial(jax.jit, static_argnames=("method", "max_steps", "warm"))
def _solve(queries, keys, epsilon, g, tol, *, method, max_steps, warm) -> _Iterate:
    at = _start(queries / epsilon, keys, g, 0)
    if method == "alternating":
        return _alternate(queries / epsilon, keys, at, tol, max_steps=max_steps, memory=0)
    if method == "auto":
        at = _alternate(queries / epsilon, keys, at, tol, max_steps=max_steps, memory=_MEMORY)
    newton = partial(
        _newton, queries, keys, epsilon, at, tol, warm=warm or method == "auto", max_steps=max_steps
    )
    return jax.lax.cond(at.error > tol / 2, newton, lambda: at)


def _start(queries: jax.Array, keys: jax.Array, g: jax.Array, num_steps: ArrayLike) -> _Iterate:
    zero, infinite = jnp.zeros_like(g), jnp.full((), jnp.inf, g.dtype)
    return _move(
        queries, keys, _Iterate(zero, g, zero, zero, zero, infinite, jnp.asarray(num_steps)), zero
    )


def _move(
    queries, keys, at: _Iterate, step: jax.Array, ratio: ArrayLike = 1, passes: ArrayLike = 0
) -> _Iterate:
    """The potentials times ``ratio``, the column potential plus ``step``, and then rows normalised. One pass.

    The references absorb the corrections when these are no longer small; in between, the rounding of large parts stays as it is.
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
        log_block = matrix._log_block(*rows)
        largest = jnp.maximum(log_block.max(1), jnp.finfo(g.dtype).min)  # of a row of zeros too
        block = jnp.exp(log_block - largest[:, None])
        row_sums = jnp.maximum(block.sum(1), 1)
        return sums + matmul(1 / row_sums, block), rows[2] - largest - jnp.log(row_sums)

    col_sums, f = _over_rows(form, jnp.zeros_like(g), queries, row_reference, f)
    return _Iterate(
        row_reference,
        col_reference,
        f,
        g,
        col_sums,
        abs(col_sums - 1).max(),
        at.num_steps + passes + 1,
    )


def _alternation(col_sums: jax.Array) -> jax.Array:
    """What one alternation adds to g, in the complement of the constants."""
    return center(-jnp.log(jnp.maximum(col_sums, jnp.finfo(col_sums.dtype).tiny)))


def _alternate(
    queries: jax.Array,
    keys: jax.Array,
    at: _Iterate,
    tol: jax.Array,
    *,
    max_steps: int,
    memory: int,
) -> _Iterate:
    """Alternation, one pass a step. With ``memory``, Anderson's acceleration, which gives up where its error no longer halves.

    The step is that combination of the last steps whose residuals, were alternation linear, would cancel best: near the limit,
    where it is linear with eigenvalues σᵢ², that is the Krylov space of conjugate gradients at no more than a pass a dimension.
    """
    reg = 10 * float(jnp.finfo(queries.dtype).eps)

    def unfinished(state):
        at, _, _, _, age = state
        return (
            (at.error > tol / 2) & (at.num_steps < max_steps) & ((age < _PATIENCE) | (memory == 0))
        )

    def advance(state):
        at, steps, changes, best, age = state
        residual = step = _alternation(at.col_sums)
        if memory:
            size = jnp.linalg.norm(changes, axis=1, keepdims=True)
            unit = changes / jnp.where(size > 0, size, 1)
            weights = jnp.linalg.solve(
                matmul(unit, unit.T) + reg * jnp.eye(memory, dtype=queries.dtype),
                matmul(unit, residual),
            )
            step = residual - matmul(weights / jnp.where(size > 0, size, 1)[:, 0], steps + changes)
        new = _move(queries, keys, at, step)
        if memory:
            slot = at.num_steps % memory
            steps, changes = (
                steps.at[slot].set(step),
                changes.at[slot].set(_alternation(new.col_sums) - residual),
            )
        halved = new.error < 0.5 * best
        return (
            new,
            steps,
            changes,
            jnp.where(halved, new.error, best),
            jnp.where(halved, 0, age + 1),
        )

    history = jnp.zeros((memory, len(at.col_sums)), queries.dtype)
    return repeat_while(unfinished, advance, (at, history, history, at.error, jnp.asarray(0)))[0]


def _newton(
    queries, keys, epsilon, iterate: _Iterate, tol, *, warm: bool, max_steps: int
) -> _Iterate:
    """``solver.newton`` for factors: damped Newton steps on the semi-dual down a schedule of ε, each by conjugate gradients.

    From an ε so high that every entry counts down to the one asked for; a ``warm`` iterate that is near is gone on from.
    """
    eps = float(jnp.finfo(queries.dtype).eps)

    def unfinished(state):
        at, stage, _, _, _, age = state
        return (
            ((at.error > tol / 2) | (stage > epsilon))
            & (at.num_steps < max_steps)
            & (age < _STEPS_IN_VAIN)
        )

    def advance(state):
        """One Newton step, or the move to the next, colder stage."""
        at, stage, damping, rejected, best, age = state
        colder = (at.error < 0.5) & (stage > epsilon)
        next_stage = jnp.where(colder, jnp.maximum(epsilon, 0.35 * stage), stage)
        ratio = stage / next_stage

        matrix = at.matrix(queries / stage, keys)
        damped = jnp.maximum(damping * jnp.minimum(at.error, 1), 4 * eps)
        diagonal = at.col_sums + damped * jnp.maximum(at.col_sums, eps**0.5)
        newton_step, passes = conjugate_gradients(
            lambda x: diagonal * x - matrix.gram(x),
            center(1 - at.col_sums),
            diagonal,
            rtol=jnp.where(colder | rejected, jnp.inf, 0.1),
            max_steps=max_steps - at.num_steps - 1,
        )
        step = jnp.where(
            colder, 0, jnp.where(rejected, _alternation(at.col_sums), center(newton_step))
        )
        trial = _move(queries / next_stage, keys, at, step, ratio, passes)
        lower = (
            at.row_reference - trial.row_reference + at.row_correction - trial.row_correction
        ).sum() < 0  # the semi-dual
        keep = (colder | rejected | lower | (trial.error < at.error)) & jnp.isfinite(trial.error)

        eased = damping * jnp.where(rejected, 1, jnp.where(trial.error < 0.5 * at.error, 0.05, 0.3))
        next_damping = jnp.clip(jnp.where(keep, eased, jnp.maximum(8 * damping, 1e-3)), eps, 1e6)
        at = jax.tree.map(lambda new, old: jnp.where(keep, new, old), trial, at)._replace(
            num_steps=trial.num_steps
        )
        fruitful = colder | (at.error < 0.99 * best)
        best, age = jnp.where(fruitful, at.error, best), jnp.where(fruitful, 0, age + 1)
        return at, next_stage, jnp.where(colder, damping, next_damping), ~keep, best, age

    near = warm & (iterate.error < 0.5)
    widest = (
        jnp.linalg.norm(queries, axis=1).max() * jnp.linalg.norm(keys, axis=1).max()
    )  # a bound on the logits' modulus
    stage = jnp.where(near, epsilon, jnp.maximum(epsilon, widest / 2))
    hot = partial(
        _start, queries / stage, keys, jnp.zeros_like(iterate.col_sums), iterate.num_steps
    )
    begin = jax.lax.cond(near, lambda: iterate, hot)
    start = (
        begin,
        stage,
        jnp.asarray(0.01, queries.dtype),
        jnp.asarray(False),
        begin.error,
        jnp.asarray(0),
    )
    return repeat_while(unfinished, advance, start)[0]


@jax.custom_jvp
def _limit(matrix: FactoredMatrix) -> tuple[jax.Array, jax.Array]:
    """Both corrections, with the derivative that the converged ones have with respect to Q and K. theory.md 1.6."""
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

    def operator(x):  # as in ``sinkhorn``
        return (1 + 16 * eps) * x + x.mean() - matrix.gram(x)

    def solve(operator, rhs):
        tol, most = marginal_tolerance(n, matrix.dtype), _DERIVATIVE_PASSES
        x, passes = conjugate_gradients(operator, rhs, jnp.ones_like(rhs), rtol=tol, max_steps=most)
        return jnp.where(passes < most, x, jnp.nan)

    dg = jax.lax.custom_linear_solve(operator, center(matrix.T @ a - b), solve, symmetric=True)
    return (row_correction, col_correction), (-a - matrix @ dg, dg)
