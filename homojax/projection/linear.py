"""The linear systems of Newton steps and derivatives: Laplacians, by conjugate gradients or a factorisation."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jax.typing import ArrayLike

from homojax.numerics import matmul, repeat_while


def solve_laplacian(
    matrix: jax.Array, extra: ArrayLike, b: jax.Array, mean: float = 0.0
) -> jax.Array:
    """x [n] with (diag(column sums + ``extra``) − MᵀM + ``mean``·J) x = b, by Cholesky's factors, for M ≥ 0 whose rows sum to 1.

    The diagonal is summed from what it balances, without cancellation: links that hardly carry anything keep their digits.
    """
    gram = matmul(matrix.T, matrix)
    links = gram - jnp.diag(jnp.diagonal(gram))
    dense = jnp.diag(links.sum(0) + extra) - links + mean / len(b)
    return cho_solve((jnp.linalg.cholesky(dense, symmetrize_input=False), True), b)


def conjugate_gradients(
    apply: Callable[[jax.Array], jax.Array],
    b: jax.Array,
    diagonal: jax.Array,
    *,
    rtol: ArrayLike,
    max_steps: ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    """x [n] with ``apply(x) = b`` to a residual of ``rtol`` times b's, in the 2-norm and the preconditioner's; the steps taken.

    The latter alone is all about parts whose ``diagonal`` is next to nothing, the former all about the others.

    ``apply`` is symmetric and positive semidefinite, with b in its range; ``diagonal`` > 0 preconditions.
    """

    def unfinished(state):
        _, residual, _, size, k = state
        reduced = (size <= rtol**2 * start) & (residual @ residual <= rtol**2 * (b @ b))
        return ~reduced & (size > 0) & (k < max_steps)

    def advance(state):
        x, residual, direction, size, k = state
        image = apply(direction)
        curvature = direction @ image
        regular = curvature > 0
        length = jnp.where(regular, size / jnp.where(regular, curvature, 1), 0)
        x, residual = x + length * direction, residual - length * image
        scaled = residual / diagonal
        new_size = residual @ scaled
        return (
            x,
            residual,
            scaled + new_size / size * direction,
            jnp.where(regular, new_size, 0),
            k + 1,
        )

    scaled = b / diagonal
    start = b @ scaled
    x, *_, k = repeat_while(
        unfinished, advance, (jnp.zeros_like(b), b, scaled, start, jnp.asarray(0))
    )
    return x, k
