"""The linear systems of Newton steps and derivatives: Laplacians, iterated or factorised."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.decompositions.cholesky import cholesky
from homojax.decompositions.triangular import substitute
from homojax.loops import repeat_while
from homojax.numerics import gram, wide


def solve_laplacian(
    matrix: jax.Array, extra: ArrayLike, b: jax.Array, mean: float = 0.0
) -> jax.Array:
    """Return x [n] with (diag(column sums + ``extra``) − MᵀM + ``mean``·J) x = b, by Cholesky.

    The diagonal is summed from what it balances, without cancellation, so links that hardly carry
    anything keep their digits.

    Args:
        matrix: M ≥ 0, [n, n], whose rows sum to 1.
        extra: [n] or a scalar ≥ 0 on the diagonal.
        b: [n].
        mean: weight ≥ 0 of J, which makes the system regular on the constants.

    >>> x = solve_laplacian(jnp.full((2, 2), 0.5), 0.5, jnp.array([1.0, -1.0]))
    >>> [round(entry, 4) for entry in x.tolist()]
    [0.6667, -0.6667]
    """
    dtype = wide(b.dtype)
    matrix, extra = matrix.astype(dtype), jnp.asarray(extra, dtype)
    on_diagonal = jnp.eye(len(b), dtype=bool)
    links = jnp.where(on_diagonal, 0, gram(matrix))
    dense = jnp.where(on_diagonal, links.sum(0) + extra, -links) + mean / len(b)
    return substitute(cholesky(dense), b.astype(dtype)).astype(b.dtype)


def conjugate_gradients(
    apply: Callable[[jax.Array], jax.Array],
    b: jax.Array,
    diagonal: jax.Array,
    *,
    rtol: ArrayLike,
    max_steps: ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    """Return x [n] with ``apply(x) = b``, by preconditioned conjugate gradients, and the steps.

    The residual is reduced in the 2-norm and in the preconditioner's: the latter alone is all about
    parts whose ``diagonal`` is next to nothing, the former all about the others.

    Args:
        apply: [n] -> [n], symmetric and positive semidefinite, with b in its range.
        b: [n].
        diagonal: the preconditioner, [n], > 0.
        rtol: the residual to reach, over b's; ∞ for no step.
        max_steps: most applications.

    >>> b = jnp.ones(2)
    >>> conjugate_gradients(lambda x: 2 * x, b, b, rtol=1e-6, max_steps=9)[0].tolist()
    [0.5, 0.5]
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
        direction = scaled + new_size / size * direction
        return x, residual, direction, jnp.where(regular, new_size, 0), k + 1

    scaled = b / diagonal
    start = b @ scaled
    begin = jnp.zeros_like(b), b, scaled, start, jnp.asarray(0)
    x, *_, k = repeat_while(unfinished, advance, begin)
    return x, k
