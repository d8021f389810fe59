"""The derivative of a projection, by the implicit function theorem. theory.md 1.6."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from homojax.batching import each_lane, in_lanes
from homojax.birkhoff import center
from homojax.numerics import matmul
from homojax.projection.iterations import FACTORISED_FROM
from homojax.projection.linear import conjugate_gradients, solve_laplacian

_FACTORISED_TO = 512  # n, beyond which derivatives are cheaper by products with vectors


@jax.custom_jvp
def limit(
    scaled: jax.Array, log_matrix: jax.Array, f: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (log_matrix, f, g), with the derivative that the converged ones have in S/ε.

    Args:
        scaled: S/ε, [n, n], of which alone this is a function.
        log_matrix: log M, [n, n]; −inf off the support, where nothing moves.
        f: row potential [n].
        g: column potential [n].
    """
    return log_matrix, f, g


@limit.defjvp
def _limit_jvp(primals, tangents):
    scaled, dscaled = primals[0], tangents[0]
    log_matrix, f, g = limit(*primals)
    n, eps = scaled.shape[0], float(jnp.finfo(scaled.dtype).eps)
    matrix = jnp.exp(log_matrix)
    dscaled = jnp.where(log_matrix == -jnp.inf, 0, dscaled)
    weighted = matrix * dscaled
    a, b = weighted.sum(1), weighted.sum(0)

    # On V⊥ the operator is I − MᵀM. Where the support falls apart, and at a permutation, it has
    # null directions, along which dM = 0 whatever dg is. 16 eps on the diagonal keep rounding from
    # feeding them, and change dg by 16 eps/(1 − σ₂²) elsewhere.
    def operator(matrix, x):
        return (1 + 16 * eps) * x + x.mean() - matmul(matmul(matrix, x), matrix)

    def iterate(matrix, rhs):
        diagonal = jnp.maximum(1 - (matrix * matrix).sum(0), 0) + 1 / n + eps
        apply = partial(operator, matrix)
        return conjugate_gradients(apply, rhs, diagonal, rtol=eps, max_steps=4 * n)[0]

    def solve(_, rhs):
        if FACTORISED_FROM <= n <= _FACTORISED_TO:  # no lane waits for another one's iteration
            return solve_laplacian(matrix, 16 * eps, rhs, mean=1.0)
        return in_lanes(each_lane(iterate))(matrix, rhs)

    rhs = center(matmul(a, matrix) - b)
    dg = jax.lax.custom_linear_solve(partial(operator, matrix), rhs, solve, symmetric=True)
    df = -a - matmul(matrix, dg)
    dlog_matrix = jnp.where(log_matrix == -jnp.inf, 0, dscaled + df[:, None] + dg[None, :])
    return (log_matrix, f, g), (dlog_matrix, df, dg)
