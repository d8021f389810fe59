"""From logits and an entropy weight ε to a doubly stochastic matrix. theory.md §1.

M = diag(e^f) exp(S/ε) diag(e^g) is found by ``iterations`` or ``factored_solver``. It gets its
derivative from ``limit``, and is judged in ``result``.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_epsilon, as_float, as_scalar, as_square, require_count
from homojax.batching import each_lane, in_buckets
from homojax.birkhoff import detail
from homojax.loops import advance_if
from homojax.numerics import marginal_tolerance, max_or_nan, scaled_logits
from homojax.programs import compiled
from homojax.projection.errors import accepted_loss
from homojax.projection.factored_solver import project_factored
from homojax.projection.factors import FactoredLogits
from homojax.projection.iterations import (
    STEPS_WORTH_TAKING,
    Iterate,
    alternate,
    newton,
)
from homojax.projection.limit import limit
from homojax.projection.masks import drop_unused
from homojax.projection.result import (
    FactoredResult,
    SinkhornResult,
    dense_result,
    judge,
    with_mean_zero,
)
from homojax.projection.shifts import take_out_shifts

Method = Literal["auto", "alternating", "newton"]


@overload
def sinkhorn(
    logits: FactoredLogits,
    epsilon: ArrayLike,
    *,
    tol: float | None = None,
    max_steps: int = 1_000,
    init: ArrayLike | None = None,
    method: Method = "auto",
) -> FactoredResult: ...


@overload
def sinkhorn(
    logits: ArrayLike,
    epsilon: ArrayLike,
    *,
    tol: float | None = None,
    max_steps: int = 1_000,
    init: ArrayLike | None = None,
    method: Method = "auto",
) -> SinkhornResult: ...


@compiled("max_steps", "method", shared=True)
def sinkhorn(
    logits: ArrayLike | FactoredLogits,
    epsilon: ArrayLike,
    *,
    tol: float | None = None,
    max_steps: int = 1_000,
    init: ArrayLike | None = None,
    method: Method = "auto",
) -> SinkhornResult | FactoredResult:
    """Return the entropic projection M_ε(S) = argmax over 𝔅ₙ of ⟨S, M⟩ + ε H(M), and its errors.

    A logit of −inf forbids its entry. If the other entries carry a doubly stochastic matrix, M_ε(S)
    is found, 0 on those that no such matrix uses. A number such as −1e9 does the same where Newton
    steps are taken: once it would cost the others digits, and its entry is provably below the
    smallest normal number, it is taken for −inf, also in ``log_matrix``.

    Args:
        logits: S, [n, n], finite or −inf, n ≥ 2. Or factors, finite, from ``low_rank_logits`` or
            ``point_cloud_logits``: they are projected in blocks of rows, with memory O(n · block).
        epsilon: scalar > 0, in the logits' units.
        tol: largest |row or column sum − 1| accepted; by default ``marginal_tolerance(n, dtype)``.
        max_steps: most alternations and Newton steps together. For factors, most passes over the
            blocks: an alternation is one pass, and a Newton step has one for every step of
            conjugate gradients.
        init: column potential [n] to start from, e.g. of a neighbouring problem; default 0.
        method: "alternating" normalises rows and columns in turn. It shrinks the error by σ₂² a
            step in the end (theory.md 1.5), so it crawls exactly where detail survives. "newton"
            takes damped Newton steps on the semi-dual down a schedule of ε. "auto" alternates while
            the rate that it sees says that this will soon be done, and hands the rest to Newton.
            For factors it accelerates the alternation (Anderson).

    Returns:
        A SinkhornResult, or a FactoredResult, whose matrix is for products. Nothing is raised on
        values: ``status`` says what went wrong, and the errors show it. ``INFEASIBLE`` and
        ``NOT_FINITE`` come with NaN.

    Raises:
        ValueError: a shape or a method that does not exist.

    Source: Sinkhorn and Knopp (1967); Cuturi (arXiv 1306.0895); Brauer, Clason, Lorenz and Wirth
    (arXiv 1710.06635) for Newton steps; Schmitzer (arXiv 1610.06519) for scalings absorbed and
    lowered ε; theory.md §1.

    Notes:
        Where ``converged``, an entry above ``tol`` is diag(eᶠ) exp(S/ε) diag(eᵍ)'s to a relative
        64 eps (1 + |S/ε| + |f| + |g|), with S without its row and column shifts, and to eps^⅛ at
        most. ``tol`` over 1 − σ₂ is what the sums may add.

        Differentiable in both modes and to any order with respect to ``logits`` and ``epsilon``, by
        the implicit function theorem (theory.md 1.6). The derivative is that of the limit, and
        memory does not grow with the steps. Where ``converged`` is False, it is the derivative of a
        limit that was not reached. Its relative error grows as eps/(1 − σ₂²). Near a permutation
        float32 has no digit of it left: take float64, or ``balance``. For factors a derivative
        that 2,000 passes do not reach is NaN.

        Under ``jax.vmap`` the matrices are solved in buckets of like difficulty (see ``batching``),
        and none changes another's result.

    >>> result = sinkhorn([[1.0, 0.0], [0.0, 1.0]], 0.5)
    >>> round(float(result.matrix[0, 0]), 4), bool(result.converged)
    (0.8808, True)
    """
    if not isinstance(logits, FactoredLogits):
        logits = as_square(logits, "logits")
    n, dtype = logits.shape[0], logits.dtype
    max_steps = require_count("max_steps", max_steps, 0)
    epsilon = as_scalar(epsilon, "epsilon", dtype)
    if method not in ("auto", "alternating", "newton"):
        raise ValueError(f'method must be "auto", "alternating" or "newton", got {method!r}')
    if init is not None:
        init = as_float(init).astype(dtype)
        if init.shape != (n,):
            shape = list(init.shape)
            raise ValueError(f"init must be a column potential of shape [{n}], got {shape}")
    accepted = as_scalar(marginal_tolerance(n, dtype) if tol is None else tol, "tol", dtype)
    if isinstance(logits, FactoredLogits):
        return _project_factors(logits, epsilon, init, accepted, method=method, max_steps=max_steps)
    return _project(logits, epsilon, init, accepted, method=method, max_steps=max_steps)


def _project(
    logits: jax.Array,
    epsilon: jax.Array,
    init: jax.Array | None,
    tol: jax.Array,
    *,
    method: str,
    max_steps: int,
) -> SinkhornResult:
    epsilon = as_epsilon(epsilon, logits.dtype)
    logits, row_shift, col_shift = take_out_shifts(logits)
    start = jnp.zeros_like(logits[0]) if init is None else init + col_shift / epsilon
    fixed = jax.lax.stop_gradient((logits, epsilon, start, tol))
    iterate, feasible = _solve(*fixed, method=method, max_steps=max_steps, warm=init is not None)
    scaled = scaled_logits(logits, epsilon)
    log_matrix, f, g = limit(scaled, iterate.log_matrix, iterate.f, iterate.g)
    return dense_result(
        log_matrix,
        f - row_shift / epsilon,
        g - col_shift / epsilon,
        iterate.num_steps,
        tol,
        kept=_keeps_logits(jax.lax.stop_gradient(scaled), iterate, tol),
        gave_up=iterate.num_steps < max_steps,
        feasible=feasible,
    )


def _project_factors(
    logits: FactoredLogits,
    epsilon: jax.Array,
    init: jax.Array | None,
    tol: jax.Array,
    *,
    method: Method,
    max_steps: int,
) -> FactoredResult:
    epsilon = as_epsilon(epsilon, logits.dtype)
    matrix, num_steps = project_factored(
        logits, epsilon, init, tol, method=method, max_steps=max_steps
    )
    f, g = with_mean_zero(
        matrix.row_potential - logits.row_shift / epsilon,
        matrix.col_potential - logits.col_shift / epsilon,
    )
    row_error, col_error = (max_or_nan(abs(sums - 1)) for sums in matrix.sums())
    return FactoredResult(
        matrix=matrix,
        row_potential=f,
        col_potential=g,
        num_steps=num_steps,
        **judge(row_error, col_error, tol, gave_up=num_steps < max_steps),
    )


def _keeps_logits(scaled: jax.Array, iterate: Iterate, tol: jax.Array) -> jax.Array:
    """Return whether the matrix is diag(eᶠ) exp(S/ε) diag(eᵍ) where its entries count.

    Its sums may be right though rounding took the logits.
    """
    f, g = iterate.f[:, None], iterate.g[None, :]
    missed = abs(iterate.log_matrix - (scaled + f + g))
    accepted = accepted_loss(abs(scaled) + abs(f) + abs(g), scaled.dtype)
    counts = jnp.exp(iterate.log_matrix) > tol
    return (~counts | (missed <= accepted)).all()


def _solve(
    logits: jax.Array,
    epsilon: jax.Array,
    start: jax.Array,
    tol: jax.Array,
    *,
    method: str,
    max_steps: int,
    warm: bool,
) -> tuple[Iterate, jax.Array]:
    """Return the last iterate, and whether any doubly stochastic matrix is 0 where S is −inf."""
    most, patience = {
        "alternating": (max_steps, None),
        "auto": (min(STEPS_WORTH_TAKING, max_steps), STEPS_WORTH_TAKING),
        "newton": (min(int(warm), max_steps), None),  # one, to see where the start is
    }[method]

    # Each argument has a leading axis of lanes. Both conditions are on all lanes, so that what none
    # of them needs is not done.
    def solve(logits, epsilon, start, tol):
        feasible, supported, allowed = drop_unused(logits, epsilon)
        iterate = each_lane(partial(alternate, max_steps=most, patience=patience))(
            each_lane(scaled_logits)(supported, epsilon), start, tol
        )
        if method == "alternating":
            return iterate, feasible
        go_on = each_lane(partial(newton, warm=warm, max_steps=max_steps))
        left = ~(iterate.error <= tol / 2).all()
        end = advance_if(left, lambda iterate: go_on(allowed, epsilon, iterate, tol), iterate)
        return end, feasible

    def detail_per_epsilon(logits, epsilon, *_):
        """Grows with σ₂ (theory.md 1.1), and so with the steps (1.5)."""
        finite = jnp.where(logits == -jnp.inf, 0, logits)
        return jnp.linalg.norm(jax.vmap(detail)(finite), axis=(1, 2)) / epsilon

    return in_buckets(solve, detail_per_epsilon)(logits, epsilon, start, tol)
