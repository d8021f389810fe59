"""Bounds on σ₂ of one doubly stochastic matrix: one theorem, one function. theory.md §2.

Each holds for M ∈ 𝔅ₙ. On a matrix that misses its row or column sums they are only as good as those: the margin
that a verdict must keep is in ``homojax.claims``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.birkhoff import detail, entropy_deficit, excess, projective_diameter
from homojax.numerics import (
    as_float,
    as_scalar,
    as_square,
    matmul,
    sqrt,
)
from homojax.row_pairs import max_over_row_pairs


def hilbert_bound(logits: ArrayLike, epsilon: ArrayLike) -> jax.Array:
    """σ₂(M_ε(S)) ≤ tanh(Δ(S)/4ε): a priori, from the logits and ε > 0 alone. Equality for every 2×2 matrix.

    Source: Birkhoff (1957), Hopf (1963): contraction in Hilbert's projective metric; theory.md §2 hilbert.

    >>> round(float(hilbert_bound([[1.0, 0.0], [0.0, 1.0]], 0.5)), 6)
    0.761594
    """
    diameter = projective_diameter(logits)
    epsilon = jnp.asarray(epsilon, diameter.dtype)
    return jnp.tanh(diameter / (4 * jnp.where(epsilon > 0, epsilon, jnp.nan)))


def dobrushin_coefficient(matrix: ArrayLike) -> jax.Array:
    """δ(M) = ½ max ‖Mᵢ − Mⱼ‖₁ over rows i, j: in [0, 1] for a row-stochastic M. Dobrushin (1956); theory.md §2.

    >>> float(dobrushin_coefficient([[1.0, 0.0], [0.25, 0.75]]))
    0.75
    """
    return max_over_row_pairs(jnp.add, lambda x: jnp.maximum(x, 0), as_square(matrix)) / 2


def dobrushin_bound(matrix: ArrayLike) -> jax.Array:
    """σ₂ ≤ √(δ(M) δ(Mᵀ)). Equality for permutations and for J. theory.md §2 dobrushin.

    >>> float(dobrushin_bound([[0.0, 1.0], [1.0, 0.0]]))
    1.0
    """
    matrix = as_square(matrix)
    return sqrt(dobrushin_coefficient(matrix) * dobrushin_coefficient(matrix.T))


def doeblin_bound(matrix: ArrayLike) -> jax.Array:
    """σ₂ ≤ 1 − n min M: what is common to all rows is forgotten. Equality for every 2×2 and for J. theory.md §2.

    >>> float(doeblin_bound([[0.75, 0.25], [0.25, 0.75]]))
    0.5
    """
    matrix = as_square(matrix)
    return 1 - matrix.shape[0] * matrix.min()


def frobenius_bounds(matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """(√(q/(n − 1)), √q) around σ₂, with q = ‖PMP‖_F², which is ‖M‖_F² − 1 on 𝔅ₙ without its cancellation near J.

    Lower equality for lazy permutations tΠ + (1 − t)J, upper for rank-one M − J. theory.md §2 frobenius.

    >>> lower, upper = frobenius_bounds([[0.75, 0.25], [0.25, 0.75]])
    >>> float(lower), float(upper)
    (0.5, 0.5)
    """
    return schatten_bounds(matrix, 1)


def schatten_bounds(matrix: ArrayLike, k: int) -> tuple[jax.Array, jax.Array]:
    """((t/(n − 1))^{1/2k}, t^{1/2k}) around σ₂, with t = tr (AᵀA)ᵏ, A = PMP, and k ≥ 1 a Python int.

    Both tend to σ₂ as k grows: ratio (n − 1)^{1/2k}. Smooth wherever M ≠ J, so they serve as differentiable surrogates
    of σ₂, ties included. theory.md §2 schatten-k.

    Raises:
        ValueError: k < 1.

    >>> lower, upper = schatten_bounds([[0.75, 0.25], [0.25, 0.75]], 3)
    >>> round(float(lower), 6), round(float(upper), 6)
    (0.5, 0.5)
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    a = detail(matrix)
    size = sqrt((a**2).sum())  # scaled out, so that a 2k-th power of a small σ₂ does not underflow
    a = a / jnp.where(size > 0, size, 1)
    upper = size * (1 if k == 1 else jnp.exp(_log_trace_of_power(matmul(a.T, a), k) / (2 * k)))
    return upper / (a.shape[0] - 1) ** (1 / (2 * k)), upper


def _log_trace_of_power(gram: jax.Array, k: int) -> jax.Array:
    """log tr Gᵏ of G = AᵀA by squaring, each power scaled to a largest entry of 1; 0 for G = 0."""
    power, log_scale = gram, jnp.zeros((), gram.dtype)
    for bit in f"{k:b}"[1:]:
        power, log_scale = matmul(power, power), 2 * log_scale
        power = matmul(power, gram) if bit == "1" else power
        largest = jax.lax.stop_gradient(power.max())
        largest = jnp.where(largest > 0, largest, 1)
        power, log_scale = power / largest, log_scale + jnp.log(largest)
    trace = jnp.trace(power)
    return jnp.log(jnp.where(trace > 0, trace, 1)) + log_scale


def pinsker_bound(matrix: ArrayLike) -> jax.Array:
    """σ₂ ≤ √(2ΔH), ΔH the entropy deficit in nats: the only bound here from entropy alone, loose by about √n.

    Equality at J only. Says nothing (> 1) from ΔH = ½ on: high entropy does not force collapse. theory.md §2 pinsker, 2.2.

    >>> round(float(pinsker_bound([[0.6, 0.4], [0.4, 0.6]])), 4)
    0.2838
    """
    return sqrt(2 * jnp.maximum(entropy_deficit(matrix), 0))


def isolated_unit_frontier(deficit: ArrayLike, n: int) -> jax.Array:
    """σ₂ = t of the isolated-unit matrix (1 − t)J + t(1 ⊕ J_{n−1}) with this entropy deficit ΔH, in nats: 1 from t = 1 on.

    Conjectured to be the largest σ₂ at a given deficit, for every n ≥ 2. By bisection, to the last bits; NaN for a negative
    deficit. theory.md 2.3.

    >>> round(float(isolated_unit_frontier(entropy_deficit([[0.75, 0.25], [0.25, 0.75]]), 2)), 6)
    0.5
    """
    deficit = as_scalar(deficit, "deficit")

    def deficit_at(t):
        corner, cross, rest = (
            (n - 1) * t,
            -t,
            t / (n - 1),
        )  # nM − 1 at 1, 2(n − 1) and (n − 1)² entries
        return (excess(corner) + 2 * (n - 1) * excess(cross) + (n - 1) ** 2 * excess(rest)) / n

    def halve(_, bracket):
        low, high = bracket
        middle = jnp.sqrt(low * high)
        below = deficit_at(middle) < fixed
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    fixed = jax.lax.stop_gradient(deficit)
    tiny, one = (
        jnp.asarray(jnp.finfo(deficit.dtype).eps ** 2, deficit.dtype),
        jnp.ones((), deficit.dtype),
    )
    low, high = jax.lax.fori_loop(0, jnp.finfo(deficit.dtype).nmant + 10, halve, (tiny, one))
    inside = (deficit > 0) & (deficit < deficit_at(one))
    root = jnp.where(inside, (low + high) / 2, 0.5)
    slope = jax.grad(deficit_at)(root)
    root = (
        root + jnp.where(inside, deficit - fixed, 0) / slope
    )  # its derivative, by the implicit function theorem
    return jnp.where(inside, root, jnp.where(deficit > 0, 1, jnp.where(deficit == 0, 0, jnp.nan)))


def logit_budget(retention: ArrayLike, depth: ArrayLike) -> jax.Array:
    """Least R/ε, with every |Sᵢⱼ| ≤ R, at which ``depth`` layers can keep a share ``retention`` in (0, 1) of detail.

    artanh(ρ^{1/L}): below it the hilbert bound forbids that depth, whatever the logits. NaN outside the ranges.
    theory.md 2.1.

    >>> round(float(logit_budget(0.5, 1)), 4)
    0.5493
    """
    retention = as_float(retention)
    depth = jnp.asarray(depth, retention.dtype)
    valid = (retention > 0) & (retention < 1) & (depth > 0)
    log_kept = jnp.where(
        valid, jnp.log(retention) / depth, jnp.nan
    )  # artanh(e^−x) = −½ log tanh(x/2), exact as x → 0
    return -jnp.log(jnp.tanh(-log_kept / 2)) / 2


def path_length_bound(entropy_rise: ArrayLike, log_ratio: ArrayLike, n: int) -> jax.Array:
    """√((1 − 1/n) D ℓ) for D = H(M_ε₁) − H(M_ε₀) in nats and ℓ = |log(ε₁/ε₀)|: how far M_ε can have come on the way.

    It bounds ‖M_ε₁ − M_ε₀‖₂, and the way in arcsin σ₂ (radians). So at every ε between, arcsin σ₂ is at least half of
    (its values at the ends, less this), and at most half of (these, and this). Negative D counts as 0. theory.md 1.6.

    >>> round(float(path_length_bound(0.5, 0.25, 2)), 4)
    0.25
    """
    entropy_rise = as_float(entropy_rise)
    return sqrt(
        (1 - 1 / n) * jnp.maximum(entropy_rise, 0) * abs(jnp.asarray(log_ratio, entropy_rise.dtype))
    )
