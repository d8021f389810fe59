"""From logits and an entropy weight to the doubly stochastic matrix M = diag(e^f) exp(S/ε) diag(e^g). theory.md §1."""

from __future__ import annotations

import enum
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jax.typing import ArrayLike

from homojax.batching import in_buckets
from homojax.birkhoff import center, detail, marginal_errors
from homojax.numerics import (
    as_epsilon,
    as_float,
    as_scalar,
    as_square,
    marginal_tolerance,
    matmul,
    require_count,
    scaled_logits,
)
from homojax.projection.factored import project_factored
from homojax.projection.factors import FactoredLogits, FactoredMatrix
from homojax.projection.iterations import (
    FACTORISED_FROM,
    STEPS_WORTH_TAKING,
    Iterate,
    alternate,
    newton,
)
from homojax.projection.linear import conjugate_gradients, solve_laplacian
from homojax.projection.masks import total_support, without_stand_ins

_FACTORISED_TO = 512  # n, beyond which derivatives are cheaper by products with vectors


class Status(enum.IntEnum):
    """How a projection ended. Only ``CONVERGED`` says that both errors are within the tolerance.

    >>> Status(int(sinkhorn([[0.0, -jnp.inf], [0.0, -jnp.inf]], 1.0).status)).name
    'INFEASIBLE'
    """

    CONVERGED = 0
    STEP_LIMIT = 1  # ``max_steps`` are spent: allow more, or another method
    STALLED = 2  # the error stopped falling, or the matrix is no longer of that form: wider floats, a larger tol or a larger ε
    INFEASIBLE = 3  # no doubly stochastic matrix is 0 wherever the logits are −inf
    NOT_FINITE = 4  # a NaN (tol, too), a logit of +inf, ε that is not positive, or S/ε beyond the largest number


class SinkhornResult(NamedTuple):
    """A projection and how far to trust it. Every law about 𝔅ₙ needs the two errors beside the matrix."""

    matrix: jax.Array | FactoredMatrix  # [n, n], exp(log_matrix)
    log_matrix: (
        jax.Array | None
    )  # [n, n], logits/ε + f[:, None] + g[None, :]; −inf off the support; None for factors
    row_potential: jax.Array  # [n], f, dimensionless
    col_potential: jax.Array  # [n], g, dimensionless, mean 0
    row_error: jax.Array  # max |row sum − 1| of `matrix`
    col_error: jax.Array  # max |column sum − 1| of `matrix`
    num_steps: jax.Array  # alternations (rows and columns) and Newton steps done
    converged: (
        jax.Array
    )  # bool: both errors ≤ tol, and the logits not lost to rounding; False too if anything is NaN
    status: jax.Array  # a Status


def sinkhorn(
    logits: ArrayLike | FactoredLogits,
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
    ``converged`` is False it is the derivative of a limit that was not reached. Its relative error grows as eps/(1 − σ₂²), and
    near a permutation float32 has no digit of it left: take float64, or ``balance``.

    A logit of −inf forbids its entry. If the entries allowed carry a doubly stochastic matrix, M_ε(S) is found, 0 on those
    that no such matrix uses; if they do not, the result is NaN and the status ``INFEASIBLE``. A number such as
    −1e9 does the same where Newton steps are taken: once it would cost the others digits, and its entry is provably below the
    smallest normal number, it is taken for −inf (``support.without_stand_ins``), and so in ``log_matrix``.

    Logits given by factors (``low_rank_logits``, ``point_cloud_logits``) are projected in blocks of rows, with memory
    O(n · block) for value and derivative: ``matrix`` is then a FactoredMatrix, for products, and ``log_matrix`` None. A
    derivative that 2,000 passes do not reach, near a permutation, is NaN.

    Under ``jax.vmap`` the matrices are solved in buckets of like difficulty (see ``lanes``), and none changes another's result.

    Args:
        logits: S, [n, n], finite or −inf, n ≥ 2; or a FactoredLogits, finite.
        epsilon: scalar > 0, in the logits' units.
        tol: largest |row or column sum − 1| accepted; by default ``marginal_tolerance(n, dtype)``.
        max_steps: most alternations and Newton steps together; for factors, most passes over the blocks, of which an alternation
            is one and a Newton step has one for every step of conjugate gradients.
        init: column potential [n] to start from, e.g. of a neighbouring problem; default 0.
        method: "alternating" normalises rows and columns in turn, and shrinks the error by σ₂² a step in the end (theory.md
            1.5), so it crawls exactly where detail survives. "newton" takes damped Newton steps on the semi-dual down a
            schedule of ε. "auto" alternates while the rate it sees says that this will soon be done, and hands the rest to
            Newton. For factors it accelerates the alternation (Anderson).

    Returns:
        A SinkhornResult. Nothing is raised on values: whatever went wrong is in ``status``, with the errors to show for it.

    Raises:
        ValueError: a shape or a method that does not exist.

    Source: Sinkhorn and Knopp (1967); Cuturi (arXiv 1306.0895); Brauer, Clason, Lorenz and Wirth (arXiv 1710.06635) for
    Newton steps; Schmitzer (arXiv 1610.06519) for scalings absorbed and lowered ε; theory.md §1.

    >>> result = sinkhorn([[1.0, 0.0], [0.0, 1.0]], 0.5)
    >>> round(float(result.matrix[0, 0]), 4), bool(result.converged)
    (0.8808, True)
    """
    if isinstance(logits, FactoredLogits):
        epsilon = as_epsilon(epsilon, logits.dtype)
    else:
        logits, epsilon = _checked(logits, epsilon)
    n, dtype = logits.shape[0], logits.dtype
    if method not in ("auto", "alternating", "newton"):
        raise ValueError(f'method must be "auto", "alternating" or "newton", got {method!r}')
    start = jnp.zeros(n, dtype) if init is None else as_float(init).astype(dtype)
    if start.shape != (n,):
        raise ValueError(f"init must be a column potential of shape [{n}], got {list(start.shape)}")
    accepted = as_scalar(marginal_tolerance(n, dtype) if tol is None else tol, "tol", dtype)

    if isinstance(logits, FactoredLogits):
        warm = None if init is None else start
        matrix, num_steps = project_factored(
            logits, epsilon, warm, accepted, method=method, max_steps=max_steps
        )
        f, g = (
            matrix.row_potential - logits.row_shift / epsilon,
            matrix.col_potential - logits.col_shift / epsilon,
        )
        row_error, col_error = (abs(sums - 1).max() for sums in matrix.sums())
        result, feasible = (
            _judged(matrix, None, f, g, row_error, col_error, num_steps, accepted),
            True,
        )
    else:
        fixed = jax.lax.stop_gradient((logits, epsilon, start, accepted))
        iterate, feasible = _solve(
            *fixed, method=method, max_steps=max_steps, warm=init is not None
        )
        limit = _limit(scaled_logits(logits, epsilon), iterate.log_matrix, iterate.f, iterate.g)
        result = _result(*limit, iterate.num_steps, accepted)
        of_form = _of_form(*fixed[:2], iterate, accepted)
        lost = result.converged & ~of_form
        result = result._replace(
            converged=result.converged & of_form,
            status=jnp.where(lost, Status.STALLED, result.status),
        )
    gave_up = (result.status == Status.STEP_LIMIT) & (result.num_steps < max_steps)
    status = jnp.where(
        jnp.isnan(accepted), Status.NOT_FINITE, jnp.where(gave_up, Status.STALLED, result.status)
    )
    return result._replace(status=jnp.where(feasible, status, Status.INFEASIBLE))


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
        logits: S, [n, n], finite or −inf (at least one finite in each row and column), n ≥ 2.
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
    num_iters = require_count("num_iters", num_iters, 1)
    if last not in ("rows", "columns"):
        raise ValueError(f'last must be "rows" or "columns", got {last!r}')
    logits, epsilon = _checked(logits, epsilon)
    scaled = scaled_logits(logits, epsilon)
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
    return _result(
        log_matrix, f, g, jnp.asarray(num_iters), marginal_tolerance(scaled.shape[0], scaled.dtype)
    )


def _checked(logits: ArrayLike, epsilon: ArrayLike) -> tuple[jax.Array, jax.Array]:
    logits = as_square(logits, "logits")
    return logits, as_epsilon(epsilon, logits.dtype)


def _result(
    log_matrix: jax.Array, f: jax.Array, g: jax.Array, num_steps: jax.Array, tol: ArrayLike
) -> SinkhornResult:
    matrix = jnp.exp(log_matrix)
    return _judged(matrix, log_matrix, f, g, *marginal_errors(matrix), num_steps, tol)


def _judged(matrix, log_matrix, f, g, row_error, col_error, num_steps, tol) -> SinkhornResult:
    shift = (
        g.mean()
    )  # (f + s, g − s) give the same matrix: mean(g) = 0 picks one, so that derivatives are unique
    converged = (row_error <= tol) & (col_error <= tol)
    finite = jnp.isfinite(row_error) & jnp.isfinite(col_error)
    status = jnp.where(
        converged, Status.CONVERGED, jnp.where(finite, Status.STEP_LIMIT, Status.NOT_FINITE)
    )
    return SinkhornResult(
        matrix, log_matrix, f + shift, g - shift, row_error, col_error, num_steps, converged, status
    )


@partial(jax.jit, static_argnames=("method", "max_steps", "warm"))
def _solve(logits, epsilon, start, tol, *, method, max_steps, warm) -> tuple[Iterate, jax.Array]:
    """The last iterate, and whether any doubly stochastic matrix is 0 where the logits are −inf."""
    limit, patience = {
        "alternating": (max_steps, None),
        "auto": (min(STEPS_WORTH_TAKING, max_steps), STEPS_WORTH_TAKING),
        "newton": (min(int(warm), max_steps), None),  # one, to see where the start is
    }[method]

    def solve(
        logits, epsilon, start, tol
    ):  # each with a leading axis of lanes: both conditions are on all of them
        masked = logits == -jnp.inf
        support = jax.lax.cond(masked.any(), jax.vmap(total_support), jnp.ones_like, ~masked)
        feasible = support.any((1, 2))
        logits = jnp.where(feasible[:, None, None], jnp.where(support, logits, -jnp.inf), jnp.nan)
        iterate = jax.vmap(partial(alternate, max_steps=limit, patience=patience))(
            jax.vmap(scaled_logits)(logits, epsilon), start, tol
        )

        def go_on(logits, epsilon, iterate, tol):
            allowed = jax.vmap(without_stand_ins)(logits, epsilon)
            return jax.vmap(partial(newton, warm=warm, max_steps=max_steps))(
                allowed, epsilon, iterate, tol
            )

        if method != "alternating":
            left = ~(iterate.error <= tol / 2).all()
            iterate = jax.lax.cond(
                left, go_on, lambda *lanes: lanes[2], logits, epsilon, iterate, tol
            )
        return iterate, feasible

    def detail_per_epsilon(logits, epsilon, *_):
        """Grows with σ₂ (theory.md 1.1), and so with the steps (1.5)."""
        finite = jnp.where(logits == -jnp.inf, 0, logits)
        return jnp.linalg.norm(jax.vmap(detail)(finite), axis=(1, 2)) / epsilon

    return in_buckets(solve, detail_per_epsilon)(logits, epsilon, start, tol)


def _of_form(logits: jax.Array, epsilon: jax.Array, iterate: Iterate, tol: jax.Array) -> jax.Array:
    """Whether the matrix is diag(eᶠ) exp(S/ε) diag(eᵍ) where it counts: its sums may be right though rounding took the logits."""
    missed = abs(
        iterate.log_matrix
        - (scaled_logits(logits, epsilon) + iterate.f[:, None] + iterate.g[None, :])
    )
    return (
        jnp.where(jnp.exp(iterate.log_matrix) > tol, missed, 0).max()
        < float(jnp.finfo(logits.dtype).eps) ** 0.125
    )


@jax.custom_jvp
def _limit(scaled, log_matrix, f, g):
    """(log_matrix, f, g), with the derivative that the converged ones have with respect to S/ε. theory.md 1.6."""
    return log_matrix, f, g


@_limit.defjvp
def _limit_jvp(primals, tangents):
    scaled, dscaled = primals[0], tangents[0]
    log_matrix, f, g = _limit(*primals)
    n, eps = scaled.shape[0], float(jnp.finfo(scaled.dtype).eps)
    matrix = jnp.exp(log_matrix)
    dscaled = jnp.where(log_matrix == -jnp.inf, 0, dscaled)
    weighted = matrix * dscaled
    a, b = weighted.sum(1), weighted.sum(0)

    # On V⊥ the operator is I − MᵀM. Where the support falls apart, and at a permutation, it has null directions, along which
    # dM = 0 whatever dg is: 16 eps on the diagonal keep rounding from feeding them, and change dg by 16 eps/(1 − σ₂²) elsewhere.
    def operator(x):
        return (1 + 16 * eps) * x + x.mean() - matmul(matmul(matrix, x), matrix)

    def solve(operator, rhs):
        if FACTORISED_FROM <= n <= _FACTORISED_TO:  # no lane waits for another one's iteration
            return solve_laplacian(matrix, 16 * eps, rhs, mean=1.0)
        diagonal = jnp.maximum(1 - (matrix * matrix).sum(0), 0) + 1 / n + eps
        return conjugate_gradients(operator, rhs, diagonal, rtol=eps, max_steps=4 * n)[0]

    dg = jax.lax.custom_linear_solve(operator, center(matmul(a, matrix) - b), solve, symmetric=True)
    df = -a - matmul(matrix, dg)
    dlog_matrix = jnp.where(log_matrix == -jnp.inf, 0, dscaled + df[:, None] + dg[None, :])
    return (log_matrix, f, g), (dlog_matrix, df, dg)
