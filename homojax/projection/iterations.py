"""The iterations behind ``sinkhorn``: alternation, and Newton's method. One matrix, no derivatives.

Both work on the scaled logits [n, n], keep ``log_matrix = scaled + f[:, None] + g[None, :]``, and
stop at an ``error`` of tol/2: the rest is left to rounding. Entries of −inf stay out of everything.
A step takes products of the matrix and vectors, n² work each. Only where a Newton step at large n
would take too many of them is its Hessian factorised.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from homojax.loops import repeat_while
from homojax.numerics import matmul, max_or_nan, sum_rounding
from homojax.projection.linear import conjugate_gradients, solve_laplacian
from homojax.projection.newton import ABOVE, Rules, Turn, descend

# Alternations that cost about as much as a whole projection by Newton's method, at any n.
STEPS_WORTH_TAKING = 64
# The n from which lanes are solved one at a time, and n/4 products by M and Mᵀ take as long as to
# factorise.
FACTORISED_FROM = 128
_RULES = Rules(near=0.1, most_in_vain=32)


class Iterate(NamedTuple):
    """Where an iteration stands."""

    log_matrix: jax.Array  # [n, n]
    f: jax.Array  # [n]
    g: jax.Array  # [n]
    error: jax.Array  # the largest |row sum − 1| or |column sum − 1|
    num_steps: jax.Array


def alternate(
    scaled: jax.Array, start: jax.Array, tol: jax.Array, max_steps: int, patience: int | None = None
) -> Iterate:
    """Return the iterate where rows and columns, normalised in turn, end: columns last.

    The steps are products with the matrix, into which the scalings are absorbed before they grow
    beyond what keeps digits. Each absorption is one alternation in the log domain, which reveals
    entries that had underflowed. It ends, too, where the error is all rounding and no longer falls.

    Args:
        scaled: S/ε, [n, n].
        start: column potential [n].
        tol: it ends at an error of half of this.
        max_steps: most alternations.
        patience: with it, it ends where the rate seen so far (theory.md 1.5) says that more steps
            than that are to come.
    """
    hopeful = _hope(scaled, tol, patience)

    def unfinished(state):
        at, previous = state
        left = (at.error > tol / 2) & (at.num_steps < max_steps)
        return left & hopeful(at.error, previous, at.num_steps)

    def absorb(state):
        """One alternation in the log domain, and then as many products as keep digits."""
        at, _ = state
        row = logsumexp(at.log_matrix, axis=1)
        log_matrix = at.log_matrix - row[:, None]
        col = logsumexp(log_matrix, axis=0)
        log_matrix = log_matrix - col[None, :]
        matrix = jnp.exp(log_matrix)

        def inside(state):
            u, v, _, error, previous, num_steps = state
            left = (error > tol / 2) & (num_steps < max_steps)
            return _moderate(u, v) & left & hopeful(error, previous, num_steps)

        def rows_and_columns(state):
            _, _, row_sums, error, _, num_steps = state
            u = 1 / row_sums
            v = 1 / matmul(u, matrix)
            row_sums = matmul(matrix, v)
            return u, v, row_sums, abs(u * row_sums - 1).max(), error, num_steps + 1

        one, row_sums = jnp.ones_like(row), matrix.sum(1)
        begin = one, one, row_sums, abs(row_sums - 1).max(), at.error, at.num_steps + 1
        u, v, _, error, previous, num_steps = repeat_while(inside, rows_and_columns, begin)
        u, v = jnp.log(u), jnp.log(v)
        log_matrix = log_matrix + u[:, None] + v[None, :]
        return Iterate(log_matrix, at.f - row + u, at.g - col + v, error, num_steps), previous

    infinite = jnp.full((), jnp.inf, scaled.dtype)
    begin = Iterate(scaled + start[None, :], jnp.zeros_like(start), start, infinite, jnp.asarray(0))
    return repeat_while(unfinished, absorb, (begin, infinite))[0]


def _hope(
    scaled: jax.Array, tol: jax.Array, patience: int | None
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Return whether to alternate on, as a function of the last two errors and the steps done."""
    floor = sum_rounding(scaled.shape[0], scaled.dtype)

    def hopeful(error, previous, num_steps):
        if patience is None:
            return (error > floor) | (error < previous)
        log_rate = jnp.log(error / previous)
        soon = jnp.log(error / (tol / 2)) < -log_rate * patience
        return (num_steps < 3) | ((log_rate < 0) & soon)

    return hopeful


def _moderate(u: jax.Array, v: jax.Array) -> jax.Array:
    """Return whether both scalings [n] are still of a size that keeps digits."""
    widest = jnp.finfo(u.dtype).max ** 0.125
    largest, least = jnp.maximum(u.max(), v.max()), jnp.minimum(u.min(), v.min())
    return jnp.maximum(largest, 1 / least) < widest


class _Rows(NamedTuple):
    """An iterate of Newton's method: the rows of ``matrix`` sum to 1."""

    log_matrix: jax.Array  # [n, n]
    matrix: jax.Array  # [n, n], its exponential
    f: jax.Array  # [n]
    g: jax.Array  # [n]
    col_sums: jax.Array  # [n], of ``matrix``
    error: jax.Array  # largest |column sum − 1|
    num_steps: jax.Array


def newton(
    logits: jax.Array,
    epsilon: jax.Array,
    iterate: Iterate,
    tol: jax.Array,
    *,
    warm: bool,
    max_steps: int,
) -> Iterate:
    """Return where Newton's method ends, or ``iterate`` itself if it has converged.

    It goes from an ε so high that every entry counts down to the one asked for. Only a ``warm``
    iterate that is near is gone on from: one that alternation brought near may sit where the
    Hessian has lost the missing direction.

    The logarithm of the matrix is carried, not only the potentials. These grow to S/ε, and in
    float32 could no longer resolve the last corrections. The entries that matter stay O(1) in it.

    Args:
        logits: S, [n, n].
        epsilon: ε, a scalar.
        iterate: what alternation came to.
        tol: it ends at an error of half of this.
        warm: whether a start was given.
        max_steps: most steps, those of ``iterate`` included.
    """
    finished = iterate.error <= tol / 2
    near = warm & (iterate.error < _RULES.near)
    first_stage = jnp.where(near, epsilon, jnp.maximum(epsilon, _quarter_spread(logits)))
    stage = jnp.where(finished, epsilon, ABOVE * first_stage)

    def begin(potential: jax.Array) -> jax.Array:
        """At ``stage``, of which the first turn makes that of ``first_stage``."""
        moved = jnp.where(near, potential / ABOVE, 0 * first_stage)
        return jnp.where(finished, potential, moved)

    start = _Rows(
        log_matrix=iterate.log_matrix,
        matrix=jnp.zeros_like(logits),
        f=begin(iterate.f),
        g=begin(iterate.g),
        col_sums=jnp.ones_like(iterate.g),
        error=jnp.where(finished, iterate.error, 0),
        num_steps=iterate.num_steps,
    )
    end = descend(
        start,
        stage,
        first_stage,
        epsilon,
        tol,
        solve=_solve_damped,
        move=partial(_move, logits),
        rules=_RULES,
        max_steps=max_steps,
    )
    return Iterate(end.log_matrix, end.f, end.g, end.error, end.num_steps)


def _solve_damped(now: _Rows, turn: Turn) -> tuple[jax.Array, jax.Array]:
    """Return the Newton step [n], and no cost: a step of this iteration counts as one."""
    matrix, diagonal, n = now.matrix, turn.diagonal, len(turn.diagonal)
    eps = float(jnp.finfo(matrix.dtype).eps)
    limit = 10 * n if n < FACTORISED_FROM else n // 4
    idle = turn.colder | turn.rejected  # what is solved for would not be used
    accuracy = jnp.maximum(jnp.minimum(now.error, 0.1), 8 * eps / now.error)
    step, cg_steps = conjugate_gradients(
        lambda x: diagonal * x - matmul(matmul(matrix, x), matrix),
        turn.gradient,
        jnp.maximum(diagonal - (matrix * matrix).sum(0), eps * diagonal),
        rtol=jnp.where(idle, jnp.inf, accuracy),
        max_steps=limit,
    )

    def factorise(state):
        # Without the barrier XLA takes the factorisation out of the loop, needed or not.
        held, *_ = jax.lax.optimization_barrier((matrix, *state))
        return solve_laplacian(held, diagonal - now.col_sums, turn.gradient), jnp.asarray(0)

    if n >= FACTORISED_FROM:
        # A loop of one turn at most: under vmap a cond would do both sides.
        spent = step, cg_steps
        step, _ = repeat_while(lambda state: state[1] == limit, factorise, spent)
    return step, jnp.asarray(0)


def _move(
    logits: jax.Array, now: _Rows, turn: Turn, step: jax.Array, cost: jax.Array
) -> tuple[_Rows, jax.Array]:
    """Return the iterate after a step, or at the next stage, and whether the semi-dual fell."""
    n, eps = len(step), float(jnp.finfo(step.dtype).eps)
    ratio = turn.stage / turn.next_stage
    f, g = ratio * now.f, ratio * now.g + step
    # Colder from the logits themselves: what rounding took from those of order 1 beside −1e9 would
    # grow from stage to stage.
    anew = logits / turn.next_stage + f[:, None] + g[None, :]
    moved = jnp.where(turn.colder, anew, now.log_matrix + step[None, :])

    largest = moved.max(1)
    matrix = jnp.exp(moved - largest[:, None])
    row_sums = matrix.sum(1)
    matrix = matrix / row_sums[:, None]
    log_row_sums = largest + jnp.log(row_sums)
    col_sums = matrix.sum(0)
    trial = _Rows(
        log_matrix=moved - log_row_sums[:, None],
        matrix=matrix,
        f=f - log_row_sums,
        g=g,
        col_sums=col_sums,
        error=max_or_nan(abs(col_sums - 1)),
        num_steps=now.num_steps + cost + jnp.where(turn.colder, 0, 1),
    )
    return trial, log_row_sums.sum() < -n * eps * jnp.maximum(abs(log_row_sums).max(), 1)


def _quarter_spread(logits: jax.Array) -> jax.Array:
    """Return a quarter of the difference between the largest and the least finite logit."""
    return logits.max() / 4 - jnp.where(logits > -jnp.inf, logits, jnp.inf).min() / 4
