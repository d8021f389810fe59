"""Laws as comparisons that know their own error, and the verdicts that follow: holds, violated or undecidable.

A comparison says that ``lesser ≤ greater``, and by how much both sides together can be off: through the marginal errors
of a matrix that is only nearly in 𝔅ₙ, and through rounding. The verdict is *undecidable* wherever the slack is within that
margin. So no bound is ever called satisfied on the strength of its own noise, and equality, where a bound is attained,
is undecidable too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax import bounds
from homojax.birkhoff import birkhoff_distance, center, entropy_deficit, marginal_errors, projective_diameter
from homojax.depth import detail_composite
from homojax.numerics import as_square, as_stack, matmul, rounding, sqrt
from homojax.residual import residual_bound, residual_matrix, turn_angle, turn_bound
from homojax.spectrum import subdominant_eigenvalue_modulus, subdominant_singular_value

VIOLATED, UNDECIDABLE, HOLDS, NOT_APPLICABLE = -1, 0, 1, 2


class Comparison(NamedTuple):
    """A law on one case: ``lesser ≤ greater``, with the error that both sides together can carry."""

    lesser: jax.Array
    greater: jax.Array
    margin: jax.Array  # ≥ 0; NaN where nothing can be said
    applies: jax.Array | bool = True  # the law's own premise


def verdict(comparison: Comparison) -> jax.Array:
    """int8: HOLDS (1) or VIOLATED (−1) where the slack exceeds the margin, else UNDECIDABLE (0); NOT_APPLICABLE (2) off premise.

    Anything NaN is undecidable.

    >>> int(verdict(Comparison(0.5, 0.6, 0.01))), int(verdict(Comparison(0.5, 0.5, 0.01)))
    (1, 0)
    """
    slack = jnp.asarray(comparison.greater) - comparison.lesser
    decided = jnp.where(
        slack > comparison.margin, HOLDS, jnp.where(slack < -jnp.asarray(comparison.margin), VIOLATED, UNDECIDABLE)
    )
    return jnp.where(comparison.applies, decided, NOT_APPLICABLE).astype(jnp.int8)


class MatrixCase(NamedTuple):
    """One projected matrix with what the single-matrix laws need of it."""

    logits: jax.Array  # [n, n]
    epsilon: jax.Array
    matrix: jax.Array  # [n, n]
    sigma2: jax.Array
    lambda2: jax.Array
    distance: jax.Array  # ≥ ‖M − M'‖ for some M' ∈ 𝔅ₙ, rounding included
    rounding: jax.Array  # absolute error of a norm or a sum of M


def matrix_case(
    logits: ArrayLike,
    epsilon: ArrayLike,
    matrix: ArrayLike,
    sigma2: ArrayLike | None = None,
    lambda2: ArrayLike | None = None,
) -> MatrixCase:
    """Collects what the laws of theory.md §2 compare, for a (nearly) doubly stochastic ``matrix`` projected from ``logits``.

    ``sigma2`` and ``lambda2`` are computed unless they are known already.

    >>> case = matrix_case([[1.0, 0.0], [0.0, 1.0]], 1.0, [[0.75, 0.25], [0.25, 0.75]])
    >>> round(float(case.sigma2), 6)
    0.5
    """
    logits, matrix = as_square(logits, "logits"), as_square(matrix)
    error = jnp.asarray(rounding(matrix.shape[0], matrix.dtype), matrix.dtype)
    distance = birkhoff_distance(*marginal_errors(matrix)) + error
    sigma2 = subdominant_singular_value(matrix) if sigma2 is None else jnp.asarray(sigma2, matrix.dtype)
    lambda2 = subdominant_eigenvalue_modulus(matrix) if lambda2 is None else jnp.asarray(lambda2, matrix.dtype)
    return MatrixCase(logits, jnp.asarray(epsilon, logits.dtype), matrix, sigma2, lambda2, distance, error)


def _hilbert(case: MatrixCase) -> Comparison:
    # The Hopf bound s₂ ≤ ‖M‖ tanh(Δ/4ε) holds for every positive matrix diag(·)exp(S/ε)diag(·), whatever its sums; to put
    # σ₂ for s₂ and 1 for ‖M‖ costs 3 distances. Δ/4ε carries the rounding of logits, of S/ε and of the logarithm of M.
    bound = bounds.hilbert_bound(case.logits, case.epsilon)
    exponent = projective_diameter(case.logits) / (4 * case.epsilon)
    largest = abs(case.logits).max() / case.epsilon
    off = 8 * jnp.finfo(case.logits.dtype).eps * (1 + largest)
    return Comparison(case.sigma2, bound, 3 * case.distance + jnp.tanh(exponent) - jnp.tanh(exponent - off))


def _dobrushin(case: MatrixCase) -> Comparison:
    rows, cols = bounds.dobrushin_coefficient(case.matrix), bounds.dobrushin_coefficient(case.matrix.T)
    bound = bounds.dobrushin_bound(case.matrix)
    least = sqrt(jnp.maximum(rows - case.distance, 0) * jnp.maximum(cols - case.distance, 0))
    most = sqrt((rows + case.distance) * (cols + case.distance))
    return Comparison(case.sigma2, bound, case.distance + jnp.maximum(bound - least, most - bound))


def _doeblin(case: MatrixCase) -> Comparison:
    # No entry moves by more than the distance to 𝔅ₙ, so n min M moves by n of them at most.
    n = case.matrix.shape[0]
    return Comparison(case.sigma2, bounds.doeblin_bound(case.matrix), (n + 1) * case.distance)


def _schatten(k: int, side: int) -> Callable[[MatrixCase], Comparison]:
    def compare(case: MatrixCase) -> Comparison:
        # In terms of PMP both sides are facts about any matrix: only rounding can be at fault.
        bound = bounds.schatten_bounds(case.matrix, k)[side]
        lesser, greater = (bound, case.sigma2) if side == 0 else (case.sigma2, bound)
        return Comparison(lesser, greater, 2 * case.rounding)

    return compare


def _eigenvalue(case: MatrixCase) -> Comparison:
    # Computed eigenvalues are exact for a matrix within rounding of PMP, however non-normal, and its norm is the greater side.
    return Comparison(case.lambda2, case.sigma2, 2 * case.rounding)


def _pinsker(case: MatrixCase) -> Comparison:
    # |x log x − y log y| ≤ −|x−y| log |x−y| up to |x−y| = ½ (Cover and Thomas, 17.3.3), so within distance D < ½ entropies differ
    # by at most nD log(n/D) (concavity); the rest is for rounding. Farther apart, by no more than n log n.
    n = case.matrix.shape[0]
    deficit = entropy_deficit(case.matrix)
    near = jnp.minimum(case.distance, 0.5)
    off = jnp.where(case.distance < 0.5, n * near * (1 + jnp.log(n / near)), n * (1 + jnp.log(n)))
    bound = bounds.pinsker_bound(case.matrix)
    least = sqrt(2 * jnp.maximum(deficit - off, 0))
    most = sqrt(2 * (jnp.maximum(deficit, 0) + off))
    return Comparison(case.sigma2, bound, case.distance + jnp.maximum(bound - least, most - bound))


# name -> (statement, comparison). theory.md §2; each is a theorem for M ∈ 𝔅ₙ.
MATRIX_LAWS: dict[str, tuple[str, Callable[[MatrixCase], Comparison]]] = {
    "hilbert": ("σ₂ ≤ tanh(Δ(S)/4ε)", _hilbert),
    "dobrushin": ("σ₂ ≤ √(δ(M) δ(Mᵀ))", _dobrushin),
    "doeblin": ("σ₂ ≤ 1 − n min M", _doeblin),
    "frobenius_lower": ("√(‖PMP‖²_F/(n−1)) ≤ σ₂", _schatten(1, 0)),
    "frobenius_upper": ("σ₂ ≤ ‖PMP‖_F", _schatten(1, 1)),
    "schatten_lower": ("(tr(AᵀA)⁴/(n−1))^⅛ ≤ σ₂", _schatten(4, 0)),
    "schatten_upper": ("σ₂ ≤ (tr(AᵀA)⁴)^⅛", _schatten(4, 1)),
    "eigenvalue": ("λ₂ ≤ σ₂", _eigenvalue),
    "pinsker": ("σ₂ ≤ √(2ΔH)", _pinsker),
}


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
