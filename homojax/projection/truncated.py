"""The projection cut off after a few alternations, as models in use run it. theory.md 1.7, §6."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jax.nn import logsumexp
from jax.typing import ArrayLike

from homojax.arguments import as_epsilon, as_square, require_count
from homojax.loops import repeat
from homojax.numerics import marginal_tolerance, scaled_logits
from homojax.programs import compiled
from homojax.projection.result import SinkhornResult, dense_result


@compiled("num_iters", "last", shared=True)
def truncated_sinkhorn(
    logits: ArrayLike,
    epsilon: ArrayLike,
    num_iters: int,
    *,
    last: Literal["rows", "columns"] = "columns",
) -> SinkhornResult:
    """Return what exactly ``num_iters`` alternations make of exp(S/ε), as models in use run it.

    It is not doubly stochastic: see the errors. The side named by ``last`` is normalised last, and
    exactly; the other keeps its error (theory.md 1.7). The derivative is that of these steps,
    unrolled.

    Args:
        logits: S, [n, n], finite or −inf (at least one finite in each row and column), n ≥ 2.
        epsilon: scalar > 0 (mHC's τ).
        num_iters: alternations, each normalising both sides once; a Python int ≥ 1.
        last: "columns" (rows first) or "rows".

    Returns:
        A SinkhornResult with ``num_steps == num_iters``; ``converged`` says if the errors happen to
        be within ``marginal_tolerance(n, dtype)``. A row or column of −inf alone is INFEASIBLE.

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
    logits = as_square(logits, "logits")
    scaled = scaled_logits(logits, as_epsilon(epsilon, logits.dtype))
    first_axis = 1 if last == "columns" else 0  # the axis summed over: 1 normalises rows

    def alternate(_, potentials):
        first, second = potentials
        first = -logsumexp(scaled + jnp.expand_dims(second, 1 - first_axis), axis=first_axis)
        second = -logsumexp(scaled + jnp.expand_dims(first, first_axis), axis=1 - first_axis)
        return first, second

    zero = jnp.zeros_like(scaled[0])
    first, second = repeat(num_iters, alternate, (zero, zero))
    f, g = (first, second) if last == "columns" else (second, first)
    tol = marginal_tolerance(len(scaled), scaled.dtype)
    log_matrix = scaled + f[:, None] + g[None, :]
    empty = (scaled == -jnp.inf).all(0).any() | (scaled == -jnp.inf).all(1).any()
    return dense_result(log_matrix, f, g, jnp.asarray(num_iters), tol, feasible=~empty)
