"""From logits and an entropy weight to the doubly stochastic matrix M = diag(e^f) exp(S/ε) diag(e^g). theory.md §1."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jax.typing import ArrayLike

from homojax.birkhoff import center, marginal_errors
from homojax.numerics import as_float, as_square, marginal_tolerance, matmul


class SinkhornResult(NamedTuple):
    """A projection and how far to trust it. Every law about 𝔅ₙ needs the two errors beside the matrix."""

    matrix: jax.Array  # [n, n], exp(log_matrix)
    log_matrix: jax.Array  # [n, n], logits/ε + row_potential[:, None] + col_potential[None, :]
    row_potential: jax.Array  # [n], f, dimensionless
    col_potential: jax.Array  # [n], g, dimensionless, mean 0
    row_error: jax.Array  # max |row sum − 1| of `matrix`
    col_error: jax.Array  # max |column sum − 1| of `matrix`
    num_steps: jax.Array  # full (row and column) alternations done
    converged: jax.Array  # bool: both errors ≤ tol; False too if anything is NaN


def sinkhorn(
    logits: ArrayLike,
    epsilon: ArrayLike,
    *,
    tol: float | None = None,
    max_steps: int = 1_000,
    init: ArrayLike | None = None,
    method: Literal["auto", "alternating", "newton"] = "auto",
) -> SinkhornResult:
    """The entropic projection M_ε(S) = argmax over 𝔅ₙ of ⟨S, M⟩ + ε H(M), to the tolerance or with an honest no.

    Differentiable in both modes and to any order with respect to ``logits`` and ``epsilon``, by the implicit function
    theorem (theory.md 1.6): the derivative is that of the limit, and memory does not grow with the steps. Where
    ``converged`` is False it is the derivative of a limit that was not reached.

    Args:
        logits: S, [n, n], finite, n ≥ 2.
        epsilon: scalar > 0, in the logits' units.
        tol: largest |row or column sum − 1| accepted; by default ``marginal_tolerance(n, dtype)``.
        max_steps: most alternations and Newton steps together.
        init: column potential [n] to start from, e.g. of a neighbouring problem; default 0.
        method: "alternating" normalises rows and columns in turn, and shrinks the error by σ₂² a step in the end (theory.md
            1.5), so it crawls exactly where detail survives. "newton" takes damped Newton steps on the semi-dual down a
            schedule of ε. "auto" alternates a little, which is enough in the trap, and hands the rest to Newton.

    Returns:
        A SinkhornResult. Nothing is raised on values: NaN logits, ε ≤ 0 or too few steps give ``converged=False``
        with the errors to show for it.

    Raises:
        ValueError: a shape or a method that does not exist.

    Source: Sinkhorn and Knopp (1967); Cuturi (arXiv 1306.0895); Brauer, Clason, Lorenz and Wirth (arXiv 1710.06635) for
    Newton steps; theory.md §1.

    >>> result = sinkhorn([[1.0, 0.0], [0.0, 1.0]], 0.5)
    >>> round(float(result.matrix[0, 0]), 4), bool(result.converged)
    (0.8808, True)
    """
    logits, epsilon = _checked(logits, epsilon)
    n, dtype = logits.shape[0], logits.dtype
    if method not in ("auto", "alternating", "newton"):
        raise ValueError(f'method must be "auto", "alternating" or "newton", got {method!r}')
    start = jnp.zeros(n, dtype) if init is None else as_float(init).astype(dtype)
    if start.shape != (n,):
        raise ValueError(f"init must be a column potential of shape [{n}], got {list(start.shape)}")
    tol = marginal_tolerance(n, dtype) if tol is None else tol

    fixed = jax.lax.stop_gradient((logits, epsilon, start))
    first_steps = {"auto": min(_STEPS_BEFORE_NEWTON, max_steps), "alternating": max_steps, "newton": 0}[method]
    iterate = _alternate(*fixed, tol, first_steps)
    if method != "alternating":
        iterate = _newton(*fixed[:2], iterate, tol, max_steps, warm=init is not None)
    return _result(*_limit(logits / epsilon, iterate.log_matrix, iterate.f, iterate.g), iterate.num_steps, tol)


def truncated_sinkhorn(
    logits: ArrayLike,
    epsilon: ArrayLike,
    num_iters: int,
    *,
    last: Literal["rows", "columns"] = "columns",
) -> SinkhornResult:
    """Exactly ``num_iters`` alternations from exp(S/ε), as models in use run it. Not doubly stochastic: see the errors.

    The side named by ``last`` is normalised last, and exactly; the other keeps its error (theory.md 1.7). The derivative
    is that of these steps, unrolled.

    Args:
        logits: S, [n, n], finite, n ≥ 2.
        epsilon: scalar > 0 (mHC's τ).
        num_iters: alternations, each normalising both sides once; a Python int ≥ 1.
        last: "columns" (rows first) or "rows".

    Returns:
        A SinkhornResult with ``num_steps == num_iters``; ``converged`` says if the errors happen to be within
        ``marginal_tolerance(n, dtype)``.

    Raises:
        ValueError: ``num_iters`` < 1 or an unknown ``last``.

    Source: mHC, arXiv 2512.24880 (20 alternations); theory.md §6.

    >>> result = truncated_sinkhorn([[3.0, 0.0], [0.0, 0.0]], 1.0, 1)
    >>> float(result.col_error) < 1e-6 < 0.1 < float(result.row_error)
    True
    """
    if num_iters < 1:
        raise ValueError(f"num_iters must be at least 1, got {num_iters}")
    if last not in ("rows", "columns"):
        raise ValueError(f'last must be "rows" or "columns", got {last!r}')
    logits, epsilon = _checked(logits, epsilon)
    scaled = logits / epsilon
    first_axis = 1 if last == "columns" else 0  # the axis summed over: 1 normalises rows

    def alternate(_, potentials):
        first, second = potentials
        first = -logsumexp(scaled + jnp.expand_dims(second, 1 - first_axis), axis=first_axis)
        second = -logsumexp(scaled + jnp.expand_dims(first, first_axis), axis=1 - first_axis)
        return first, second

    zero = jnp.zeros_like(scaled[0])
    first, second = jax.lax.fori_loop(0, num_iters, alternate, (zero, zero))
    f, g = (first, second) if last == "columns" else (second, first)
    log_matrix = scaled + f[:, None] + g[None, :]
    return _result(log_matrix, f, g, jnp.asarray(num_iters), marginal_tolerance(scaled.shape[0], scaled.dtype))


def _checked(logits: ArrayLike, epsilon: ArrayLike) -> tuple[jax.Array, jax.Array]:
    logits = as_square(logits, "logits")
    epsilon = jnp.asarray(epsilon, logits.dtype)
    if epsilon.ndim:
        raise ValueError(f"epsilon must be a scalar, got shape {list(epsilon.shape)}; batch with jax.vmap")
    return logits, jnp.where(epsilon > 0, epsilon, jnp.nan)


def _result(log_matrix: jax.Array, f: jax.Array, g: jax.Array, num_steps: jax.Array, tol: float) -> SinkhornResult:
    shift = g.mean()  # (f + s, g − s) give the same matrix: mean(g) = 0 picks one, so that derivatives are unique
    matrix = jnp.exp(log_matrix)
    row_error, col_error = marginal_errors(matrix)
    converged = (row_error <= tol) & (col_error <= tol)
    return SinkhornResult(matrix, log_matrix, f + shift, g - shift, row_error, col_error, num_steps, converged)


_STEPS_BEFORE_NEWTON = 32


class _Iterate(NamedTuple):
    """log_matrix = logits/ε + f[:, None] + g[None, :], and the ``error`` of its row or column sums."""

    log_matrix: jax.Array
    f: jax.Array
    g: jax.Array
    error: jax.Array
    num_steps: jax.Array


def _alternate(logits, epsilon, start, tol, max_steps) -> _Iterate:
    """Alternate, columns last, until the rows miss their sums by at most tol/2 (the rest is left to rounding)."""
    scaled = logits / epsilon

    def row_update(g):
        return -logsumexp(scaled + g[None, :], axis=1)

    def unfinished(state):
        _, _, _, row_error, num_steps = state
        return (row_error > tol / 2) & (num_steps < max_steps)  # a NaN error ends the loop

    def alternate(state):
        _, f, _, _, num_steps = state
        g = -logsumexp(scaled + f[:, None], axis=0)
        next_f = row_update(g)
        return f, next_f, g, abs(jnp.expm1(f - next_f)).max(), num_steps + 1

    f = row_update(start)
    state = f, f, start, jnp.full((), jnp.inf, scaled.dtype), jnp.asarray(0)
    f, _, g, _, num_steps = jax.lax.while_loop(unfinished, alternate, state)
    log_matrix = scaled + f[:, None] + g[None, :]
    return _Iterate(log_matrix, f, g, jnp.maximum(*marginal_errors(jnp.exp(log_matrix))), num_steps)


def _newton(logits, epsilon, iterate: _Iterate, tol, max_steps, *, warm: bool) -> _Iterate:
    """Newton steps for the column potential, rows kept normalised; nothing to do if ``iterate`` has converged.

    From an ε so high that every entry counts down to the one asked for; only a ``warm`` iterate that is near is gone on from.
    (One that alternation brought near may sit where the Hessian has lost the direction that is missing.)

    The semi-dual Σ log Σ exp(S/ε + g) − Σg is convex, with gradient (column sums − 1) and Hessian diag(column sums) − MᵀM,
    whose kernel is 1. Levenberg-Marquardt damping on diag(column sums), in proportion to the error, so that it stays below the
    least curvature 1 − σ₂² as the error does; a step is kept if the semi-dual or the error falls, and after one that was
    not comes one of alternation, which always descends and feeds columns that have starved. What is carried is the logarithm
    of the matrix, not only the potentials: these grow to S/ε, and in float32 could no longer resolve the last corrections,
    while the entries that matter stay O(1) in it.
    """
    n, dtype = logits.shape[0], logits.dtype
    eps = float(jnp.finfo(dtype).eps)

    def normalise_rows(log_matrix):
        row_sums = logsumexp(log_matrix, axis=1)
        log_matrix = log_matrix - row_sums[:, None]
        return log_matrix, row_sums, abs(jnp.exp(log_matrix).sum(0) - 1).max()

    def unfinished(state):
        current, stage, *_ = state
        return ((current.error > tol / 2) | (stage > epsilon)) & (current.num_steps < max_steps)

    def newton_step(state):
        (log_matrix, f, g, error, num_steps), stage, damping, rejected = state
        matrix = jnp.exp(log_matrix)
        col_sums = matrix.sum(0)
        diagonal = col_sums + damping * jnp.minimum(error, 1) * jnp.maximum(col_sums, eps**0.5)
        hessian = jnp.diag(diagonal) - matmul(matrix.T, matrix)
        newton = jnp.linalg.solve(hessian + 1 / n, 1 - col_sums)
        step = center(jnp.where(rejected, -jnp.log(col_sums), newton))
        trial, row_sums, trial_error = normalise_rows(log_matrix + step[None, :])
        keep = (rejected | (row_sums.sum() < 0) | (trial_error < error)) & jnp.isfinite(trial_error)
        eased = damping * jnp.where(rejected, 1, jnp.where(trial_error < 0.5 * error, 0.05, 0.3))
        damping = jnp.clip(jnp.where(keep, eased, jnp.maximum(8 * damping, 1e-3)), eps, 1e6)
        log_matrix, f, g = jax.tree.map(
            lambda new, old: jnp.where(keep, new, old), (trial, f - row_sums, g + step), (log_matrix, f, g)
        )
        error = jnp.where(keep, trial_error, error)

        colder = (error < 0.1) & (stage > epsilon)
        next_stage = jnp.where(colder, jnp.maximum(epsilon, 0.35 * stage), stage)
        ratio = stage / next_stage
        trial, row_sums, trial_error = normalise_rows(ratio * log_matrix)
        log_matrix = jnp.where(colder, trial, log_matrix)
        f, g = jnp.where(colder, ratio * f - row_sums, f), ratio * g
        error = jnp.where(colder, trial_error, error)
        return _Iterate(log_matrix, f, g, error, num_steps + 1), next_stage, damping, ~keep

    near = warm & (iterate.error < 0.1)
    stage = jnp.where(near, epsilon, jnp.maximum(epsilon, (logits.max() - logits.min()) / 4))
    f, g = (jnp.where(near, potential, 0) for potential in (iterate.f, iterate.g))
    log_matrix, row_sums, error = normalise_rows(logits / stage + f[:, None] + g[None, :])
    done = iterate.error <= tol
    begin = _Iterate(log_matrix, f - row_sums, g, jnp.where(done, 0, error), iterate.num_steps)
    start = begin, stage, jnp.asarray(0.01, dtype), jnp.asarray(False)
    current, *_ = jax.lax.while_loop(unfinished, newton_step, start)
    return jax.tree.map(lambda new, old: jnp.where(done, old, new), current, iterate)


@jax.custom_jvp
def _limit(scaled, log_matrix, f, g):
    """(log_matrix, f, g), with the derivative that the converged ones have with respect to S/ε. theory.md 1.6."""
    return log_matrix, f, g


@_limit.defjvp
def _limit_jvp(primals, tangents):
    scaled, dscaled = primals[0], tangents[0]
    log_matrix, f, g = _limit(*primals)
    n, eps = scaled.shape[0], jnp.finfo(scaled.dtype).eps
    matrix = jnp.exp(log_matrix)
    weighted = matrix * dscaled
    a, b = weighted.sum(1), weighted.sum(0)
    # On V⊥ the operator is I − MᵀM; 1/n on the mean makes it regular there. At a permutation V⊥ is all null space and dM = 0
    # whatever dg is: eps on the diagonal keeps dg finite, and elsewhere changes it by eps/(1 − σ₂²) at most.
    operator = (1 + eps) * jnp.eye(n, dtype=scaled.dtype) + 1 / n - matmul(matrix.T, matrix)
    dg = jnp.linalg.solve(operator, center(matmul(matrix.T, a) - b))
    df = -a - matmul(matrix, dg)
    return (log_matrix, f, g), (dscaled + df[:, None] + dg[None, :], df, dg)
