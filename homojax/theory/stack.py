"""What a stack of matrices keeps of detail and how far residual layers turn it, with the error of each law. theory.md §3, §5."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.birkhoff import birkhoff_distance, center, marginal_errors
from homojax.claims import Comparison
from homojax.depth import detail_composite
from homojax.numerics import as_stack, matmul, rounding
from homojax.residual import residual_bound, residual_matrix, turn_angle, turn_bound
from homojax.spectrum import subdominant_singular_value


class StackCase(NamedTuple):
    """A stack of matrices, layer 1 first, with what the laws of depth need of it."""

    matrices: jax.Array  # [L, n, n]
    sigma2: jax.Array  # [L]
    row_error: jax.Array  # [L]
    col_error: jax.Array  # [L]


def stack_case(matrices: ArrayLike) -> StackCase:
    """Collects what the laws of theory.md §3 and §5 compare, for a stack [L, n, n] of (nearly) doubly stochastic matrices.

    >>> stack_case([[[0.75, 0.25], [0.25, 0.75]]] * 3).sigma2.shape
    (3,)
    """
    matrices = as_stack(matrices)
    return StackCase(matrices, jax.vmap(subdominant_singular_value)(matrices), *jax.vmap(marginal_errors)(matrices))


def product_comparison(case: StackCase, depths: ArrayLike) -> Comparison:
    """σ₂(M_l ⋯ M_1) ≤ Π σ₂(M_k) after each number of layers l in ``depths`` [D]; all fields [D]. theory.md 3.1.

    It does not apply at l = 1, where it says nothing.

    >>> comparison = product_comparison(stack_case([[[0.75, 0.25], [0.25, 0.75]]] * 2), [1, 2])
    >>> [round(bound, 6) for bound in comparison.greater.tolist()]
    [0.5, 0.25]
    """
    return residual_comparison(case, 1.0, depths)._replace(applies=jnp.asarray(depths) > 1)


def residual_comparison(case: StackCase, alpha: ArrayLike, depths: ArrayLike) -> Comparison:
    """σ₂ of the product of l layers R_α ≤ Π (1 − α + ασ₂(M_k)), l in ``depths`` [D]; all fields [D]. theory.md 5.1, 3.1.

    It does not apply at α = 0, where both sides are 1.

    >>> comparison = residual_comparison(stack_case([[[0.75, 0.25], [0.25, 0.75]]]), 0.5, [1])
    >>> [round(bound, 6) for bound in comparison.greater.tolist()]
    [0.75]
    """
    last = jnp.asarray(depths) - 1
    alpha = jnp.asarray(alpha, case.matrices.dtype)
    products = detail_composite(jax.vmap(residual_matrix, (0, None))(case.matrices, alpha))[last]
    kept = jax.vmap(subdominant_singular_value)(products)
    factors = residual_bound(case.sigma2, alpha)
    margin = _product_margin(case, factors, alpha)
    return Comparison(kept, jnp.cumprod(factors)[last], margin[last], jnp.broadcast_to(alpha > 0, last.shape))


def turn_comparison(case: StackCase, alpha: ArrayLike, probe: ArrayLike, depths: ArrayLike) -> Comparison:
    """Angle by which l layers R_α turn the detail of ``probe`` [n] ≤ Σ arcsin(ασ₂/(1 − α)), l in ``depths`` [D]. theory.md 5.2.

    All fields [D], radians. The detail is re-centred at every layer. It applies while every layer has ασ₂ < 1 − α and the
    sum is below π, and at α > 0.

    >>> case = stack_case([[[0.75, 0.25], [0.25, 0.75]]])
    >>> int(verdict(turn_comparison(case, 0.25, [1.0, -1.0], [1]))[0])
    1
    """
    last = jnp.asarray(depths) - 1
    dtype, error = case.matrices.dtype, rounding(case.matrices.shape[1], case.matrices.dtype)
    alpha, start = jnp.asarray(alpha, dtype), center(jnp.asarray(probe, dtype))

    def step(x, matrix):
        x = center(matmul(residual_matrix(matrix, alpha), x))
        x = x / jnp.maximum(abs(x).max(), jnp.finfo(dtype).tiny)  # only its direction counts
        return x, turn_angle(start, x)

    turned = jax.lax.scan(step, start, case.matrices)[1]
    per_layer = turn_bound(case.sigma2, alpha)
    shrunk = jnp.maximum(1 - alpha - alpha * case.sigma2, error)  # a layer may shrink the vector to this, and not its rounding
    margin = jnp.cumsum(turn_bound(case.sigma2 + error, alpha) - per_layer + error / shrunk)
    bound = jnp.cumsum(per_layer)
    return Comparison(turned[last], bound[last], margin[last], ((alpha > 0) & (bound < jnp.pi))[last])


def _product_margin(case: StackCase, factors: jax.Array, alpha: jax.Array) -> jax.Array:
    """How far σ₂ of a product of residual layers and Π factors can be off together, [L].

    The norms [[μ, c], [r, σ]] of the blocks of R_α between mean and detail bound those of the product by the product of these
    2 × 2 matrices; r and c are the marginal errors. Each side of the comparison gets this allowance.
    """
    error = rounding(case.matrices.shape[1], case.matrices.dtype)
    row, col = alpha * (case.row_error + error), alpha * (case.col_error + error)
    distance = alpha * birkhoff_distance(case.row_error, case.col_error) + error
    blocks = jnp.stack([jnp.stack([1 + row, col], -1), jnp.stack([row, factors + distance], -1)], -2)

    def multiply(product, block):
        product = matmul(block, product)
        return product, product[1, 1]

    _, upper = jax.lax.scan(multiply, jnp.eye(2, dtype=factors.dtype), blocks)
    return 2 * (upper - jnp.cumprod(factors))
