"""Stacks of mixing matrices: what survives a depth of L layers. theory.md §3.

A stack is [L, n, n], layer 1 first. Later layers multiply on the left, so the running product
after layer l is M_l ⋯ M_1.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax import spectrum
from homojax.arguments import (
    as_decomposable,
    as_float,
    as_scalar,
    as_square,
    as_stack,
    as_vector,
    require_count,
)
from homojax.birkhoff import center, detail, detail_basis
from homojax.decompositions.qr import qr
from homojax.loops import scan
from homojax.numerics import matmul, max_or_nan, min_or_nan, power_of_two
from homojax.programs import compiled
from homojax.spectrum import detail_singular_values


@compiled()
def composite(matrices: ArrayLike) -> jax.Array:
    """Return the running products M_l ⋯ M_1 for l = 1 … L.

    Args:
        matrices: M_l, [L, n, n].

    Returns:
        [L, n, n]; doubly stochastic if every M_l is.

    Raises:
        ValueError: ``matrices`` is not [L, n, n] with L ≥ 1 and n ≥ 2.

    Source: law 3.1, product.

    >>> composite([[[0.0, 1.0], [1.0, 0.0]]] * 2)[-1].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    matrices = as_stack(matrices)

    def multiply(product, matrix):
        product = matmul(matrix, product)
        return product, product

    return scan(multiply, jnp.eye(matrices.shape[1], dtype=matrices.dtype), matrices)[1]


@compiled()
def detail_composite(matrices: ArrayLike, *, alpha: ArrayLike = 1.0) -> jax.Array:
    """Return the running P R_l ⋯ R_1 P for l = 1 … L: the detail that is still detail then.

    R_l is M_l, or with ``alpha`` the residual layer (1 − α)I + αM_l.

    Args:
        matrices: M_l, [L, n, n]; they may miss their row and column sums.
        alpha: α, a scalar in [0, 1], or [A] for the products of several weights at once.

    Returns:
        [L, n, n], or [A, L, n, n].

    Raises:
        ValueError: ``matrices`` is not [L, n, n] with L ≥ 1 and n ≥ 2, or ``alpha`` is neither a
            scalar nor a vector.

    Notes:
        The difference (product − J) would be noise once the detail is below eps, so it is never
        formed. The block X on V⊥ is carried, with the row q that it leaks into the mean:
        X ← (PMP)X + (PM1)q, q ← (1ᵀMP/n)X + (1ᵀM1/n)q. So truncated projections keep what they
        pass between mean and detail. And σ₂ of a doubly stochastic product keeps its relative
        accuracy down to the product of the marginal errors: about eps², 1e-32 in float64, where
        the sums are right to rounding.

        The blocks of all weights stand side by side, so M_l meets them in one product.

    Source: law 3.1, product.

    >>> float(detail_composite([[[0.75, 0.25], [0.25, 0.75]]] * 2)[-1, 0, 0])
    0.125
    """
    matrices = as_stack(matrices)
    n, dtype = matrices.shape[1], matrices.dtype
    alpha = as_float(alpha, "alpha").astype(dtype)
    if alpha.ndim > 1:
        raise ValueError(f"alpha must be a scalar or [A], got shape {list(alpha.shape)}")
    of_leak = alpha.reshape(-1, 1)  # beside [A, n]
    of_block = of_leak[None]  # beside [n, A, n]

    def divide(matrix):
        """Return PMP, PM1, 1ᵀMP/n and 1ᵀM1/n."""
        col_means = matrix.mean(0)
        return detail(matrix), center(matrix.sum(1)), center(col_means), col_means.sum()

    def multiply(carry, parts):
        (block, leak), (kept, out_of_mean, into_mean, mean) = carry, parts
        side_by_side = block.reshape(n, -1)
        passed = matmul(kept, side_by_side).reshape(block.shape)
        passed += out_of_mean[:, None, None] * leak[None]
        leaked = matmul(into_mean, side_by_side).reshape(leak.shape) + mean * leak
        next_block = (1 - of_block) * block + of_block * passed
        return (next_block, (1 - of_leak) * leak + of_leak * leaked), next_block

    weights = of_leak.shape[0]
    start = jnp.broadcast_to(detail(jnp.eye(n, dtype=dtype))[:, None], (n, weights, n))
    blocks = scan(multiply, (start, jnp.zeros((weights, n), dtype)), jax.vmap(divide)(matrices))[1]
    return jnp.moveaxis(blocks, 2, 0).reshape(*alpha.shape, *matrices.shape)


@compiled()
def effective_depth(
    sigma2: ArrayLike, *, retention: ArrayLike, gap: ArrayLike | None = None
) -> jax.Array:
    """Return log ρ/log σ₂: after so many layers of this σ₂, a share ρ of the detail is left.

    Args:
        sigma2: σ₂ of every layer, an array; for a stack the geometric mean of its σ₂, or exp of a
            Lyapunov exponent.
        retention: ρ in (0, 1), an array alike; NaN is returned for any other.
        gap: 1 − σ₂, an array alike, where it is known to more digits than σ₂ has left near 1
            (``contraction_gap``). Where it is below ½ it stands for σ₂.

    Returns:
        A real number of layers, an array alike: ∞ at σ₂ ≥ 1, 0 at σ₂ = 0.

    Source: law 3.2, effective_depth.

    >>> round(float(effective_depth(0.5, retention=0.125)), 6)
    3.0
    >>> round(float(effective_depth(1.0, retention=jnp.exp(-1.0), gap=1e-20)) * 1e-20, 6)
    1.0
    """
    sigma2 = as_float(sigma2)
    retention = as_float(retention, "retention").astype(sigma2.dtype)
    log_kept = jnp.log(jnp.where((retention > 0) & (retention < 1), retention, jnp.nan))
    inside = (sigma2 > 0) & (sigma2 < 1)
    log_sigma2 = jnp.log(jnp.where(inside, sigma2, 0.5))
    if gap is not None:
        gap = as_float(gap, "gap").astype(sigma2.dtype)
        near_one = ~(gap >= 0.5)  # NaN is not ignored
        inside = jnp.where(near_one, gap > 0, inside)
        used = near_one & inside
        log_sigma2 = jnp.where(used, jnp.log1p(-jnp.where(used, gap, 0.5)), log_sigma2)
        sigma2 = jnp.where(near_one, 1 - gap, sigma2)
    depth = log_kept / log_sigma2
    edge = jnp.where(sigma2 == 0, 0, jnp.full_like(sigma2, jnp.nan))
    edge = jnp.where(sigma2 >= 1, jnp.inf, edge)
    return jnp.where(inside | jnp.isnan(depth), depth, edge)


@compiled()
def measured_depth(kept: ArrayLike, *, retention: ArrayLike) -> jax.Array:
    """Return the depth at which a measured curve of kept shares first falls to ρ.

    Args:
        kept: [L], σ₂ of the products of 1 … L layers; depth 0 counts as 1.
        retention: ρ, scalar in (0, 1).

    Returns:
        A real number of layers, log-linear between them. ∞ if the curve never falls to ρ, NaN for
        another ρ or a NaN in the curve.

    Raises:
        ValueError: ``kept`` is not [L] with L ≥ 1, or ``retention`` is no scalar.

    Source: law 3.3, three depths.

    >>> round(float(measured_depth([0.5, 0.25, 0.125], retention=0.25)), 6)
    2.0
    """
    kept = as_vector(kept, "kept")
    log_kept = jnp.log(jnp.concatenate([jnp.ones(1, kept.dtype), kept]))
    retention = as_scalar(retention, "retention", kept.dtype)
    log_target = jnp.log(jnp.where((retention > 0) & (retention < 1), retention, jnp.nan))
    below = log_kept <= log_target
    after = jnp.argmax(below)
    above, under = log_kept[after - 1], log_kept[after]
    share = jnp.where(jnp.isneginf(under), 1, (above - log_target) / (above - under))
    whole = (after - 1).astype(kept.dtype)
    depth = jnp.where(below.any(), whole + share, jnp.inf)
    return jnp.where(jnp.isnan(kept).any() | jnp.isnan(log_target), jnp.nan, depth)


@compiled()
def product_depth(sigma2: ArrayLike, *, retention: ArrayLike) -> jax.Array:
    """Return the depth from which on the product bound leaves a stack at most ρ of its detail.

    Within the stack it is where Π σ₂ falls to ρ, log-linear between layers; no ``measured_depth``
    of the stack lies beyond. Where Π σ₂ stays above ρ, layers go on as their geometric mean.

    Args:
        sigma2: σ₂ of layers 1 … L, [L].
        retention: ρ, scalar in (0, 1).

    Returns:
        A real number of layers; ∞ where no σ₂ is below 1, NaN for another ρ or a NaN.

    Raises:
        ValueError: ``sigma2`` is not [L] with L ≥ 1, or ``retention`` is no scalar.

    Source: law 3.1, product bound; law 3.3, three depths.

    >>> [round(float(product_depth([0.25, 1.0], retention=x)), 6) for x in (0.5, 0.0625)]
    [0.5, 4.0]
    """
    sigma2 = as_vector(sigma2, "sigma2")
    within = measured_depth(jnp.cumprod(sigma2), retention=retention)
    mean = jnp.exp(jnp.log(sigma2).mean())
    beyond = effective_depth(mean, retention=as_scalar(retention, "retention", sigma2.dtype))
    return jnp.where(jnp.isinf(within), beyond, within)


@compiled()
def lyapunov_exponents(matrices: ArrayLike) -> jax.Array:
    """Return the Lyapunov exponents of the product on V⊥, descending, in nats a layer.

    They are (1/L) log |diag R|, accumulated over QR re-orthonormalisations and sorted: over few
    layers QR need not find the top one first. Each is at most the mean of log σ₂, for every L.

    Args:
        matrices: [L, n, n].

    Returns:
        [n − 1]; −∞ where detail is lost altogether, NaN where a layer has a NaN or an infinity.

    Raises:
        ValueError: ``matrices`` is not [L, n, n] with L ≥ 1 and n ≥ 2.

    Source: law 3.3, lyapunov; Benettin et al. (1980).

    >>> round(float(lyapunov_exponents([[[0.75, 0.25], [0.25, 0.75]]])[0]), 4)
    -0.6931
    """
    return jnp.sort(_log_growths(matrices).mean(0), descending=True)


@compiled("num_blocks")
def lyapunov_spectrum(matrices: ArrayLike, *, num_blocks: int = 8) -> tuple[jax.Array, jax.Array]:
    """Return the Lyapunov exponents and their standard errors, in nats a layer.

    The errors say how far another stack of this kind may be from this one.

    Args:
        matrices: [L, n, n].
        num_blocks: the means over so many blocks of consecutive layers give the errors, from 2 to
            L. A block has L // num_blocks layers; the first L mod num_blocks layers are left out.

    Returns:
        The exponents [n − 1] as ``lyapunov_exponents`` has them, and the errors [n − 1]; an error
        is NaN beside an exponent of −∞.

    Raises:
        ValueError: ``num_blocks`` is below 2 or above L.

    Notes:
        The errors are right where a block is long against the memory of the layers and of the
        frame, which is some 1/(gap between exponents) layers. An exponent's deviation over its
        error is then Student's with num_blocks − 1 degrees of freedom. The bias of the first
        frame, of order 1/L, is not in it.

    Source: law 3.3, lyapunov.

    >>> stack = [[[0.75, 0.25], [0.25, 0.75]], [[1.0, 0.0], [0.0, 1.0]]] * 4
    >>> exponents, errors = lyapunov_spectrum(stack, num_blocks=2)
    >>> round(float(exponents[0]), 4), float(errors[0])
    (-0.3466, 0.0)
    """
    growths = _log_growths(matrices)
    layers, d = growths.shape
    num_blocks = require_count("num_blocks", num_blocks, 2)
    if not 2 <= num_blocks <= layers:
        raise ValueError(
            f"num_blocks must be at least 2 and at most the {layers} layers, got {num_blocks}"
        )
    exponents = growths.mean(0)
    blocks = growths[layers % num_blocks :].reshape(num_blocks, -1, d).mean(1)
    order = jnp.argsort(exponents, descending=True)
    return exponents[order], (blocks.std(0, ddof=1) / math.sqrt(num_blocks))[order]


def _log_growths(matrices: ArrayLike) -> jax.Array:
    """Return log |diag R| of every layer's QR re-orthonormalisation on V⊥, [L, n − 1].

    −∞ where a direction is lost.
    """
    matrices = as_decomposable(as_stack(matrices))
    matrices = jnp.where(jnp.isfinite(matrices).all(), matrices, jnp.nan)
    basis = detail_basis(matrices.shape[1], matrices.dtype)
    blocks = jnp.einsum("ia,lij,jb->lab", basis, matrices, basis, precision="highest")

    def orthonormalise(frame, block):
        frame, r = qr(matmul(block, frame))
        growth = abs(jnp.diagonal(r))
        lost = growth == 0
        return frame, jnp.where(lost, -jnp.inf, jnp.log(jnp.where(lost, 1, growth)))

    return scan(orthonormalise, jnp.eye(blocks.shape[1], dtype=blocks.dtype), blocks)[1]


@compiled("depth")
def transient_gain(matrix: ArrayLike, depth: int) -> jax.Array:
    """Return σ₂(Mˡ)/λ₂ˡ for l = 1 … ``depth``: what a shared layer keeps above its last rate.

    It is at least 1, and 1 for a normal M. Its largest value is the transient of a non-normal M:
    an extrapolation by λ₂ is too low by that factor.

    Args:
        matrix: M, [n, n], the same in every layer.
        depth: number of layers, a Python int ≥ 1.

    Returns:
        [depth]; ∞ where it overflows or λ₂ = 0 < σ₂(Mˡ), NaN where both are 0.

    Raises:
        ValueError: ``depth`` < 1.

    Notes:
        The powers of PMP are scaled, so nothing underflows, however deep. A relative error of δ in
        λ₂ is one of lδ here: near a defective M, such as a de Bruijn walk, rounding makes δ large.

    Source: law 3.3, shared; Trefethen and Embree, Spectra and Pseudospectra (2005), §14 to 16.

    >>> [round(x, 4) for x in transient_gain([[0.25, 0.75], [0.75, 0.25]], 3).tolist()]
    [1.0, 1.0, 1.0]
    """
    depth = require_count("depth", depth, 1)
    matrix = detail(matrix)
    matrix = matrix / power_of_two(abs(matrix).max())  # the gain has no scale

    def multiply(carry, _):
        power, log_size = carry
        power = matmul(matrix, power)
        size = abs(power).max()
        carry = power / jnp.where(size > 0, size, 1), log_size + jnp.log(size)
        return carry, carry

    start = detail(jnp.eye(len(matrix), dtype=matrix.dtype)), jnp.zeros((), matrix.dtype)
    _, (powers, log_sizes) = scan(multiply, start, length=depth)
    log_kept = log_sizes + jnp.log(jax.vmap(spectrum.sigma2)(powers))
    layers = jnp.arange(1, depth + 1, dtype=matrix.dtype)
    return jnp.exp(log_kept - layers * jnp.log(spectrum.lambda2(matrix)))


@compiled()
def amax_gain(matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return (forward, backward): the largest absolute row sum and column sum of M [n, n].

    Both are 1 for doubly stochastic products: the gain sees lost feasibility and is blind to
    collapse. Report it beside σ₂.

    Source: law 3.4, amax_gain; mHC, arXiv 2512.24880.

    >>> forward, backward = amax_gain([[1.0, 1.0], [0.0, 0.0]])
    >>> float(forward), float(backward)
    (2.0, 1.0)
    """
    matrix = abs(as_square(matrix))
    return max_or_nan(matrix.sum(1)), max_or_nan(matrix.sum(0))


@compiled()
def suppression_ratios(matrix: ArrayLike) -> jax.Array:
    """Return σ_k² of a composite [n, n] on V⊥, [n − 1], descending.

    That is kept energy over input energy in each singular direction.

    Source: law 3.5, horn.

    >>> round(float(suppression_ratios([[0.75, 0.25], [0.25, 0.75]])[0]), 6)
    0.25
    """
    return detail_singular_values(matrix) ** 2


@compiled()
def composite_doeblin_bound(matrices: ArrayLike) -> jax.Array:
    """Return Π(1 − n min M_l) over the first 1 … L layers [L, n, n], which bounds ‖M_l ⋯ M_1 − J‖₂.

    The bound is [L], one for each depth.

    Source: law 3.6, doeblin_composed.

    >>> composite_doeblin_bound([[[0.75, 0.25], [0.25, 0.75]]] * 2).tolist()
    [0.5, 0.25]
    """
    matrices = as_stack(matrices)
    return jnp.cumprod(1 - matrices.shape[1] * min_or_nan(matrices, (1, 2)))
