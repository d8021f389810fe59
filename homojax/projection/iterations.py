"""The iterations behind ``sinkhorn``: alternation, and Newton's method on the semi-dual. One matrix at a time, no derivatives.

Both work on the scaled logits [n, n], keep ``log_matrix = scaled + f[:, None] + g[None, :]``, and stop at an ``error`` of tol/2:
the rest is left to rounding. Entries of −inf stay out of everything. A step takes products of the matrix and vectors, n² work
each; only where a Newton step at large n would take too many of them is its Hessian factorised.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from homojax.birkhoff import center
from homojax.numerics import matmul, repeat_while, sum_rounding
from homojax.projection.linear import conjugate_gradients, solve_laplacian

STEPS_WORTH_TAKING = (
    64  # alternations that cost about as much as a whole projection by Newton's method, at any n
)
# The n from which lanes are solved one at a time, and n/4 products by M and Mᵀ take as long as to factorise.
FACTORISED_FROM = 128
STEPS_IN_VAIN = 32  # without a smaller error, before Newton's method is taken to have stalled


class Iterate(NamedTuple):
    """Where an iteration stands. ``error`` is the largest |row sum − 1| or |column sum − 1|."""

    log_matrix: jax.Array
    f: jax.Array
    g: jax.Array
    error: jax.Array
    num_steps: jax.Array


def alternate(
    scaled: jax.Array, start: jax.Array, tol: jax.Array, max_steps: int, patience: int | None = None
) -> Iterate:
    """Normalise rows and columns in turn, columns last, from the column potential ``start``.

    By products with the matrix, into which the scalings are absorbed before they grow beyond what keeps digits; each absorption
    is one alternation in the log domain, which reveals entries that had underflowed. Ends, too, where the error is all rounding
    and no longer falls; with ``patience``, where the rate seen so far (theory.md 1.5) says that more steps than that are to come.
    """
    widest, floor = jnp.finfo(scaled.dtype).max ** 0.125, sum_rounding(len(start), scaled.dtype)

    def hopeful(error, previous, num_steps):
        if patience is None:
            return (error > floor) | (error < previous)
        log_rate = jnp.log(error / previous)
        return (num_steps < 3) | (
            (log_rate < 0) & (jnp.log(error / (tol / 2)) < -log_rate * patience)
        )

    def unfinished(state):
        current, previous = state
        return (
            (current.error > tol / 2)
            & (current.num_steps < max_steps)
            & hopeful(current.error, previous, current.num_steps)
        )

    def absorb(state):
        current, _ = state
        row = logsumexp(current.log_matrix, axis=1)
        log_matrix = current.log_matrix - row[:, None]
        col = logsumexp(log_matrix, axis=0)
        log_matrix = log_matrix - col[None, :]
        matrix = jnp.exp(log_matrix)

        def inside(state):
            u, v, _, error, previous, num_steps = state
            moderate = (
                jnp.maximum(jnp.maximum(u.max(), v.max()), 1 / jnp.minimum(u.min(), v.min()))
                < widest
            )
            return (
                moderate
                & (error > tol / 2)
                & (num_steps < max_steps)
                & hopeful(error, previous, num_steps)
            )

        def rows_and_columns(state):
            _, _, row_sums, error, _, num_steps = state
            u = 1 / row_sums
            v = 1 / matmul(u, matrix)
            row_sums = matmul(matrix, v)
            return u, v, row_sums, abs(u * row_sums - 1).max(), error, num_steps + 1

        one, row_sums = jnp.ones_like(row), matrix.sum(1)
        begin = one, one, row_sums, abs(row_sums - 1).max(), current.error, current.num_steps + 1
        u, v, _, error, previous, num_steps = repeat_while(inside, rows_and_columns, begin)
        u, v = jnp.log(u), jnp.log(v)
        log_matrix = log_matrix + u[:, None] + v[None, :]
        f, g = current.f - row + u, current.g - col + v
        return Iterate(log_matrix, f, g, error, num_steps), previous

    infinite = jnp.full((), jnp.inf, scaled.dtype)
    begin = Iterate(scaled + start[None, :], jnp.zeros_like(start), start, infinite, jnp.asarray(0))
    return repeat_while(unfinished, absorb, (begin, infinite))[0]


def newton(
    logits: jax.Array,
    epsilon: jax.Array,
    iterate: Iterate,
    tol: jax.Array,
    *,
    warm: bool,
    max_steps: int,
) -> Iterate:
    """Newton steps for the column potential, rows kept normalised; nothing to do if ``iterate`` has converged.

    From an ε so high that every entry counts down to the one asked for; only a ``warm`` iterate that is near is gone on from.
    (One that alternation brought near may sit where the Hessian has lost the direction that is missing.)

    The semi-dual Σ log Σ exp(S/ε + g) − Σg is convex, with gradient (column sums − 1) and Hessian diag(column sums) − MᵀM,
    whose kernel is 1: conjugate gradients never leave the complement. Levenberg-Marquardt damping on diag(column sums), in
    proportion to the error, so that it stays below the least curvature 1 − σ₂² as the error does; a step is kept if the
    semi-dual or the error falls, and after one that was not comes one of alternation, which always descends and feeds columns
    that have starved. What is carried is the logarithm of the matrix, not only the potentials: these grow to S/ε, and in
    float32 could no longer resolve the last corrections, while the entries that matter stay O(1) in it.
    """
    n, dtype = logits.shape[0], logits.dtype
    eps, tiny = float(jnp.finfo(dtype).eps), jnp.finfo(dtype).tiny
    cg_limit = 10 * n if n < FACTORISED_FROM else n // 4

    def unfinished(state):
        at, _, stage, _, _, _, age = state
        return (
            ((at.error > tol / 2) | (stage > epsilon))
            & (at.num_steps < max_steps)
            & (age < STEPS_IN_VAIN)
        )

    def advance(state):
        """One Newton step, or the move to the next, colder stage."""
        at, matrix, stage, damping, rejected, best, age = state
        colder = (at.error < 0.1) & (stage > epsilon)
        next_stage = jnp.where(colder, jnp.maximum(epsilon, 0.35 * stage), stage)
        ratio = stage / next_stage

        col_sums = matrix.sum(0)
        damped = jnp.maximum(
            damping * jnp.minimum(at.error, 1), 4 * eps
        )  # else rounding moves parts that hardly touch apart
        diagonal = col_sums + damped * jnp.maximum(col_sums, eps**0.5)
        newton_step, cg_steps = conjugate_gradients(
            lambda x: diagonal * x - matmul(matmul(matrix, x), matrix),
            center(1 - col_sums),
            jnp.maximum(diagonal - (matrix * matrix).sum(0), eps * diagonal),
            rtol=jnp.where(
                colder | rejected,
                jnp.inf,
                jnp.maximum(jnp.minimum(at.error, 0.1), 8 * eps / at.error),
            ),
            max_steps=cg_limit,
        )
        if n >= FACTORISED_FROM:

            def factorise(state):
                held, *_ = jax.lax.optimization_barrier(
                    (matrix, *state)
                )  # or XLA takes it out of the loop, needed or not
                return solve_laplacian(
                    held, diagonal - col_sums, center(1 - col_sums)
                ), jnp.asarray(0)

            # a loop of one turn at most: of a cond, vmap would do both sides
            newton_step, _ = jax.lax.while_loop(
                lambda state: state[1] == cg_limit, factorise, (newton_step, cg_steps)
            )
        step = jnp.where(
            colder,
            0,
            center(jnp.where(rejected, -jnp.log(jnp.maximum(col_sums, tiny)), newton_step)),
        )
        # Colder from the logits themselves: what rounding took from those of order 1 beside −1e9 would grow from stage to stage.
        anew = logits / next_stage + (ratio * at.f)[:, None] + (ratio * at.g)[None, :]
        moved = jnp.where(colder, anew, at.log_matrix + step[None, :])
        log_matrix, trial_matrix, row_sums, error = _normalise_rows(moved)
        descends = row_sums.sum() < -n * eps * jnp.maximum(abs(row_sums).max(), 1)
        keep = (colder | rejected | descends | (error < at.error)) & jnp.isfinite(error)

        eased = damping * jnp.where(rejected, 1, jnp.where(error < 0.5 * at.error, 0.05, 0.3))
        next_damping = jnp.clip(jnp.where(keep, eased, jnp.maximum(8 * damping, 1e-3)), eps, 1e6)
        trial = Iterate(
            log_matrix, ratio * at.f - row_sums, ratio * at.g + step, error, at.num_steps
        )
        at, matrix = jax.tree.map(
            lambda new, old: jnp.where(keep, new, old), (trial, trial_matrix), (at, matrix)
        )
        fruitful = colder | (at.error < 0.99 * best)
        at = at._replace(num_steps=at.num_steps + ~colder)
        damping = jnp.where(colder, damping, next_damping)
        return (
            at,
            matrix,
            next_stage,
            damping,
            ~keep,
            jnp.where(fruitful, at.error, best),
            jnp.where(fruitful, 0, age + 1),
        )

    near = warm & (iterate.error < 0.1)
    stage = jnp.where(near, epsilon, jnp.maximum(epsilon, _quarter_spread(logits)))
    f, g = (jnp.where(near, potential, 0) for potential in (iterate.f, iterate.g))
    log_matrix, matrix, row_sums, error = _normalise_rows(
        jnp.where(near, iterate.log_matrix, logits / stage)
    )
    done = iterate.error <= tol / 2
    begin = Iterate(log_matrix, f - row_sums, g, jnp.where(done, 0, error), iterate.num_steps)
    start = (
        begin,
        matrix,
        stage,
        jnp.asarray(0.01, dtype),
        jnp.asarray(False),
        error,
        jnp.asarray(0),
    )
    current, *_ = repeat_while(unfinished, advance, start)
    return jax.tree.map(lambda new, old: jnp.where(done, old, new), current, iterate)


def _normalise_rows(log_matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """log_matrix and its exponential, with rows that sum to 1; the logs of the row sums; the largest |column sum − 1|."""
    largest = log_matrix.max(1)
    matrix = jnp.exp(log_matrix - largest[:, None])
    row_sums = matrix.sum(1)
    matrix = matrix / row_sums[:, None]
    log_row_sums = largest + jnp.log(row_sums)
    return log_matrix - log_row_sums[:, None], matrix, log_row_sums, abs(matrix.sum(0) - 1).max()


def _quarter_spread(logits: jax.Array) -> jax.Array:
    """A quarter of the difference between the largest and the least of the finite logits."""
    return logits.max() / 4 - jnp.where(logits > -jnp.inf, logits, jnp.inf).min() / 4
