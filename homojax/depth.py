"""Stacks of mixing matrices: what survives a depth of L layers. theory.md §3.

A stack is [L, n, n] with layer 1 first; later layers multiply on the left, so the running product after layer l is
M_l ⋯ M_1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.birkhoff import center, detail, detail_basis
from homojax.numerics import as_float, as_square, as_stack, matmul
from homojax.spectrum import detail_singular_values


def composite(matrices: ArrayLike) -> jax.Array:
    """Running products M_l ⋯ M_1 for l = 1 … L. [L, n, n] to [L, n, n]; doubly stochastic if every M_l is. theory.md 3.1.

    >>> composite([[[0.0, 1.0], [1.0, 0.0]]] * 2)[-1].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    matrices = as_stack(matrices)

    def multiply(product, matrix):
        product = matmul(matrix, product)
        return product, product

    return jax.lax.scan(multiply, jnp.eye(matrices.shape[1], dtype=matrices.dtype), matrices)[1]


def detail_composite(matrices: ArrayLike) -> jax.Array:
    """Running P M_l ⋯ M_1 P, [L, n, n]: what of the detail is still detail after each layer. theory.md 3.1.

    Never formed as (product − J), which has only noise left once the detail is below eps. Carried instead as the block
    on V⊥ with the row that it leaks into the mean, X ← (PMP)X + (PM1)q, q ← (1ᵀMP/n)X + (1ᵀM1/n)q. So truncated projections
    keep what they pass between mean and detail, and σ₂ of a doubly stochastic product keeps its relative accuracy down to
    the product of the marginal errors: about eps², 1e-32 in float64, where the sums are right to rounding.

    >>> float(detail_composite([[[0.75, 0.25], [0.25, 0.75]]] * 2)[-1, 0, 0])
    0.125
    """
    matrices = as_stack(matrices)
    n = matrices.shape[1]

    def multiply(carry, matrix):
        block, leak = carry
        col_means = matrix.mean(0)  # 1ᵀM/n
        next_block = matmul(detail(matrix), block) + center(matrix.sum(1))[:, None] * leak
        leak = matmul(center(col_means), block) + col_means.sum() * leak
        return (next_block, leak), next_block

    start = detail(jnp.eye(n, dtype=matrices.dtype)), jnp.zeros(n, matrices.dtype)
    return jax.lax.scan(multiply, start, matrices)[1]


def effective_depth(sigma2: ArrayLike, retention: ArrayLike, *, gap: ArrayLike | None = None) -> jax.Array:
    """log ρ / log σ₂: the number of layers of this σ₂ after which a share ρ of the best-kept detail is left.

    Real-valued; ∞ at σ₂ ≥ 1, 0 at σ₂ = 0. ``retention`` is ρ in (0, 1), NaN outside. For a stack give the geometric
    mean of its σ₂, or exp of a Lyapunov exponent. ``gap`` is 1 − σ₂ where that is known to more digits than σ₂ has left
    near 1 (``contraction_gap``); where it is below ½ it stands for σ₂. theory.md 3.2.

    >>> round(float(effective_depth(0.5, 0.125)), 6)
    3.0
    >>> round(float(effective_depth(1.0, jnp.exp(-1.0), gap=1e-20)) * 1e-20, 6)
    1.0
    """
    sigma2 = as_float(sigma2)
    retention = jnp.asarray(retention, sigma2.dtype)
    log_kept = jnp.log(jnp.where((retention > 0) & (retention < 1), retention, jnp.nan))
    inside = (sigma2 > 0) & (sigma2 < 1)
    log_sigma2 = jnp.log(jnp.where(inside, sigma2, 0.5))
    if gap is not None:
        gap = jnp.asarray(gap, sigma2.dtype)
        near_one = ~(gap >= 0.5)  # NaN is not ignored
        inside = jnp.where(near_one, gap > 0, inside)
        log_sigma2 = jnp.where(near_one & inside, jnp.log1p(-jnp.where(near_one & inside, gap, 0.5)), log_sigma2)
        sigma2 = jnp.where(near_one, 1 - gap, sigma2)
    depth = log_kept / log_sigma2
    edge = jnp.where(sigma2 >= 1, jnp.inf, jnp.where(sigma2 == 0, 0, jnp.nan))
    return jnp.where(inside | jnp.isnan(depth), depth, edge)


def measured_depth(composite_sigma2: ArrayLike, retention: ArrayLike) -> jax.Array:
    """Depth at which a measured retention curve first falls to ρ, log-linear between layers; ∞ if it never does.

    ``composite_sigma2`` is [L], σ₂ of the products of 1 … L layers; depth 0 counts as 1. NaN for ρ outside (0, 1). theory.md
    3.3.

    >>> round(float(measured_depth([0.5, 0.25, 0.125], 0.25)), 6)
    2.0
    """
    kept = as_float(composite_sigma2)
    log_kept = jnp.log(jnp.concatenate([jnp.ones(1, kept.dtype), kept]))
    retention = jnp.asarray(retention, kept.dtype)
    log_target = jnp.log(jnp.where((retention > 0) & (retention < 1), retention, jnp.nan))
    below = log_kept <= log_target
    after = jnp.argmax(below)
    above, under = log_kept[after - 1], log_kept[after]
    share = jnp.where(jnp.isneginf(under), 1, (above - log_target) / (above - under))
    depth = jnp.where(below.any(), after - 1 + share, jnp.inf)
    return jnp.where(jnp.isnan(kept).any() | jnp.isnan(log_target), jnp.nan, depth)


def lyapunov_exponents(matrices: ArrayLike) -> jax.Array:
    """Lyapunov exponents of the product on V⊥, [n − 1], in nats a layer, descending.

    (1/L) log |diag R| accumulated over QR re-orthonormalisations (Benettin et al. 1980), sorted: over few layers QR need not
    find the top one first. Each is at most the mean of log σ₂, for every L. −∞ where detail is lost altogether. theory.md 3.3.

    >>> round(float(lyapunov_exponents([[[0.75, 0.25], [0.25, 0.75]]])[0]), 4)
    -0.6931
    """
    matrices = as_stack(matrices)
    basis = detail_basis(matrices.shape[1], matrices.dtype)
    blocks = jnp.einsum("ia,lij,jb->lab", basis, matrices, basis, precision="highest")

    def orthonormalise(frame, block):
        frame, r = jnp.linalg.qr(matmul(block, frame))
        growth = abs(jnp.diagonal(r))
        return frame, jnp.where(growth > 0, jnp.log(jnp.where(growth > 0, growth, 1)), -jnp.inf)

    growths = jax.lax.scan(orthonormalise, jnp.eye(blocks.shape[1], dtype=blocks.dtype), blocks)[1]
    return jnp.sort(growths.mean(0), descending=True)


def amax_gain(matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """(forward, backward) = (max absolute row sum, max absolute column sum), with y = M @ x. theory.md 3.4.

    Exactly 1 for doubly stochastic products: it sees lost feasibility and is blind to collapse. Report it beside σ₂.
    Source: mHC, arXiv 2512.24880.

    >>> forward, backward = amax_gain([[1.0, 1.0], [0.0, 0.0]])
    >>> float(forward), float(backward)
    (2.0, 1.0)
    """
    matrix = abs(as_square(matrix))
    return matrix.sum(1).max(), matrix.sum(0).max()


def suppression_ratios(matrix: ArrayLike) -> jax.Array:
    """Kept over input energy σ_k² of each singular direction of a composite on V⊥, [n − 1], descending. theory.md 3.5.

    >>> round(float(suppression_ratios([[0.75, 0.25], [0.25, 0.75]])[0]), 6)
    0.25
    """
    return detail_singular_values(matrix) ** 2


def composite_doeblin_bound(matrices: ArrayLike) -> jax.Array:
    """Π(1 − n min M_l) over the first 1 … L layers, [L]: bounds ‖M_l ⋯ M_1 − J‖₂. theory.md 3.6.

    >>> composite_doeblin_bound([[[0.75, 0.25], [0.25, 0.75]]] * 2).tolist()
    [0.5, 0.25]
    """
    matrices = as_stack(matrices)
    return jnp.cumprod(1 - matrices.shape[1] * matrices.min((1, 2)))
