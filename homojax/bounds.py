"""Bounds on σ₂ of one doubly stochastic matrix: one theorem, one function. theory.md §2.

Each bound holds for M ∈ 𝔅ₙ. On a matrix that misses its row or column sums a bound is only as
good as those sums. ``homojax.theory`` knows the margin that a verdict has to keep.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_epsilon, as_float, as_scalar, as_square, require_count
from homojax.birkhoff import detail, entropy_deficit, excess, projective_diameter
from homojax.loops import repeat
from homojax.numerics import gram, matmul, min_or_nan, norm, sqrt
from homojax.programs import compiled
from homojax.row_pairs import max_over_row_pairs


@compiled()
def hilbert_bound(logits: ArrayLike, epsilon: ArrayLike) -> jax.Array:
    """Return tanh(Δ(S)/4ε) ≥ σ₂(M_ε(S)), from the logits and ε alone.

    Equality for every 2 × 2 matrix.

    Args:
        logits: S, [n, n], finite or −inf, which makes Δ infinite and the bound 1.
        epsilon: scalar > 0; NaN is returned for any other.

    Raises:
        ValueError: ``logits`` is not [n, n] with n ≥ 2.

    Source: law 2, hilbert; Birkhoff (1957) and Hopf (1963), contraction in Hilbert's metric.

    >>> round(float(hilbert_bound([[1.0, 0.0], [0.0, 1.0]], 0.5)), 6)
    0.761594
    """
    diameter = projective_diameter(logits)
    return jnp.tanh(diameter / (4 * as_epsilon(epsilon, diameter.dtype)))


@compiled(shared=True)
def dobrushin_coefficient(matrix: ArrayLike) -> jax.Array:
    """Return δ(M) = ½ max ‖Mᵢ − Mⱼ‖₁ over rows i and j of M [n, n].

    It is in [0, 1] where the rows of M ≥ 0 sum to 1.

    Source: Dobrushin (1956).

    >>> float(dobrushin_coefficient([[1.0, 0.0], [0.25, 0.75]]))
    0.75
    """
    return max_over_row_pairs(jnp.add, lambda x: jnp.maximum(x, 0), as_square(matrix)) / 2


@compiled()
def dobrushin_bound(matrix: ArrayLike) -> jax.Array:
    """Return √(δ(M) δ(Mᵀ)) ≥ σ₂(M), for M ∈ 𝔅ₙ [n, n]. Equality for permutations and for J.

    Source: law 2, dobrushin; Dobrushin (1956).

    >>> float(dobrushin_bound([[0.0, 1.0], [1.0, 0.0]]))
    1.0
    """
    matrix = as_square(matrix)
    return sqrt(dobrushin_coefficient(matrix) * dobrushin_coefficient(matrix.T))


@compiled()
def doeblin_bound(matrix: ArrayLike) -> jax.Array:
    """Return 1 − n min M ≥ σ₂(M), for M ∈ 𝔅ₙ [n, n]: the part that all rows share is forgotten.

    Equality for every 2 × 2 matrix and for J.

    Source: law 2, doeblin; Doeblin (1937).

    >>> float(doeblin_bound([[0.75, 0.25], [0.25, 0.75]]))
    0.5
    """
    matrix = as_square(matrix)
    return 1 - matrix.shape[0] * min_or_nan(matrix)


@compiled()
def frobenius_bounds(matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return (√(q/(n − 1)), √q), which enclose σ₂(M), with q = ‖PMP‖_F².

    On 𝔅ₙ q is ‖M‖_F² − 1; near J that difference would cancel, and q does not. Equality below for
    lazy permutations tΠ + (1 − t)J, above where M − J has rank one.

    Source: law 2, frobenius.

    >>> lower, upper = frobenius_bounds([[0.75, 0.25], [0.25, 0.75]])
    >>> float(lower), float(upper)
    (0.5, 0.5)
    """
    return schatten_bounds(matrix, 1)


@compiled("k")
def schatten_bounds(matrix: ArrayLike, k: int) -> tuple[jax.Array, jax.Array]:
    """Return ((t/(n − 1))^{1/2k}, t^{1/2k}), which enclose σ₂(M), with t = tr (AᵀA)ᵏ, A = PMP.

    Both tend to σ₂ as k grows: their ratio is (n − 1)^{1/2k}. They are smooth wherever M ≠ J, ties
    of σ₂ included, so a differentiable surrogate of σ₂.

    Args:
        matrix: M, [n, n].
        k: the order, a Python int ≥ 1.

    Raises:
        ValueError: k < 1, or ``matrix`` is not [n, n] with n ≥ 2.

    Source: law 2, schatten-k.

    >>> lower, upper = schatten_bounds([[0.75, 0.25], [0.25, 0.75]], 3)
    >>> round(float(lower), 6), round(float(upper), 6)
    (0.5, 0.5)
    """
    k = require_count("k", k, 1)
    a = detail(matrix)
    size = norm(a)  # scaled out, so that a 2k-th power of a small σ₂ does not underflow
    a = a / jnp.where(size > 0, size, 1)
    upper = size * (1 if k == 1 else jnp.exp(_log_trace_of_power(gram(a), k) / (2 * k)))
    return upper / (a.shape[0] - 1) ** (1 / (2 * k)), upper


def _log_trace_of_power(matrix: jax.Array, k: int) -> jax.Array:
    """Return log tr Gᵏ of G = AᵀA, [n, n]; 0 for G = 0.

    By squaring, with every power scaled to a largest entry of 1.
    """
    power, log_scale = matrix, jnp.zeros((), matrix.dtype)
    for bit in f"{k:b}"[1:]:
        power, log_scale = matmul(power, power), 2 * log_scale
        power = matmul(power, matrix) if bit == "1" else power
        largest = jax.lax.stop_gradient(power.max())
        largest = jnp.where(largest > 0, largest, 1)
        power, log_scale = power / largest, log_scale + jnp.log(largest)
    trace = jnp.trace(power)
    return jnp.log(jnp.where(trace > 0, trace, 1)) + log_scale


@compiled()
def pinsker_bound(matrix: ArrayLike) -> jax.Array:
    """Return √(2ΔH) ≥ σ₂(M), M [n, n], with ΔH the entropy deficit in nats.

    The only bound here that needs nothing but an entropy. It is loose by about √n, with equality
    at J only. From ΔH = ½ on it exceeds 1: high entropy does not force collapse (law 2.2,
    normalised_entropy, is false).

    Source: law 2, pinsker; Pinsker (1960), Csiszár (1967).

    >>> round(float(pinsker_bound([[0.6, 0.4], [0.4, 0.6]])), 4)
    0.2838
    """
    return sqrt(2 * jnp.maximum(entropy_deficit(matrix), 0))


@compiled()
def row_entropy_bound(matrix: ArrayLike) -> jax.Array:
    """Return √(cₙΔH) ≥ ‖M − J‖_F ≥ σ₂(M), cₙ = (n − 2)/((n − 1) log(n − 1)), M [n, n].

    c₂ = 1, c₄ = 0.61, c₆₄ = 0.24: always below ``pinsker_bound``, which has 2 for cₙ. Equality, in
    the Frobenius norm, at J and where each row is a permutation of (1 − 1/n, b, …, b). It needs no
    more than that the rows are distributions.

    Raises:
        ValueError: ``matrix`` is not [n, n] with n ≥ 2.

    Source: law 8.1, row entropy; the constant is that of two points, Kearns and Saul (UAI 1998).

    >>> lazy = 0.5 * jnp.eye(3) + 0.5 / 3
    >>> round(float(row_entropy_bound(lazy)), 6), round(float(norm(lazy - 1 / 3)), 6)
    (0.707107, 0.707107)
    """
    matrix = as_square(matrix)
    n = matrix.shape[0]
    share = (n - 2) / ((n - 1) * math.log(n - 1)) if n > 2 else 1.0
    return sqrt(share * jnp.maximum(entropy_deficit(matrix), 0))


@compiled("n")
def isolated_unit_frontier(deficit: ArrayLike, *, n: int) -> jax.Array:
    """Return σ₂ = t of the matrix (1 − t)J + t(1 ⊕ J_{n−1}) that has this entropy deficit.

    That is conjectured to be the largest σ₂ at the deficit, for every n ≥ 2.

    Args:
        deficit: ΔH, a scalar ≥ 0, in nats.
        n: the number of units, at least 2.

    Returns:
        A scalar in [0, 1], by bisection to the last bits; 1 from the deficit of t = 1 on, and NaN
        for a negative deficit.

    Raises:
        ValueError: ``deficit`` is not a scalar.

    Source: law 2.3, frontier.

    >>> deficit = entropy_deficit([[0.75, 0.25], [0.25, 0.75]])
    >>> round(float(isolated_unit_frontier(deficit, n=2)), 6)
    0.5
    """
    n = require_count("n", n, 2)
    deficit = as_scalar(deficit, "deficit")
    fixed = jax.lax.stop_gradient(deficit)

    def deficit_at(t):
        # nM − 1 takes three values: at 1, at 2(n − 1) and at (n − 1)² entries.
        corner, cross, rest = (n - 1) * t, -t, t / (n - 1)
        return (excess(corner) + 2 * (n - 1) * excess(cross) + (n - 1) ** 2 * excess(rest)) / n

    def halve(_, bracket):
        low, high = bracket
        middle = jnp.sqrt(low * high)
        below = deficit_at(middle) < fixed
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    info, one = jnp.finfo(deficit.dtype), jnp.ones((), deficit.dtype)
    tiny = jnp.asarray(info.eps**2, deficit.dtype)
    low, high = repeat(info.nmant + 10, halve, (tiny, one))
    inside = (deficit > 0) & (deficit < deficit_at(one))
    root = jnp.where(inside, (low + high) / 2, 0.5)
    # Adds 0, and the derivative that the implicit function theorem gives.
    root = root + jnp.where(inside, deficit - fixed, 0) / jax.grad(deficit_at)(root)
    edge = jnp.where(deficit == 0, 0, jnp.full_like(deficit, jnp.nan))
    return jnp.where(inside, root, jnp.where(deficit > 0, 1, edge))


@compiled()
def logit_budget(*, retention: ArrayLike, depth: ArrayLike) -> jax.Array:
    """Return artanh(ρ^{1/L}), the least R/ε, |Sᵢⱼ| ≤ R, at which L layers can keep a share ρ.

    Below it the Hilbert bound (law 2, hilbert) forbids that depth, whatever the logits.

    Args:
        retention: ρ in (0, 1), an array.
        depth: L > 0, an array alike.

    Returns:
        An array alike; NaN outside the ranges.

    Source: law 2.1, logit_budget.

    >>> round(float(logit_budget(retention=0.5, depth=1)), 4)
    0.5493
    """
    retention = as_float(retention)
    depth = as_float(depth, "depth").astype(retention.dtype)
    valid = (retention > 0) & (retention < 1) & (depth > 0)
    log_kept = jnp.where(valid, jnp.log(retention) / depth, jnp.nan)
    return -jnp.log(jnp.tanh(-log_kept / 2)) / 2  # artanh(e^−x) = −½ log tanh(x/2), exact as x → 0


@compiled("n")
def path_length_bound(entropy_rise: ArrayLike, *, log_ratio: ArrayLike, n: int) -> jax.Array:
    """Return √((1 − 1/n) D ℓ), which bounds how far M_ε and arcsin σ₂ move from ε₀ to ε₁.

    It bounds ‖M_ε₁ − M_ε₀‖₂, and the length of the path of arcsin σ₂, in radians. So at every ε
    between ε₀ and ε₁, arcsin σ₂ is at least half of its values at the ends less this bound, and at
    most half of those values and this bound.

    Args:
        entropy_rise: D = H(M_ε₁) − H(M_ε₀), in nats, an array; a negative D counts as 0.
        log_ratio: ℓ = log(ε₁/ε₀), an array alike, of either sign.
        n: the number of units, at least 2.

    Source: law 1.6, sigma2_path.

    >>> round(float(path_length_bound(0.5, log_ratio=0.25, n=2)), 4)
    0.25
    """
    n = require_count("n", n, 2)
    entropy_rise = as_float(entropy_rise)
    length = abs(as_float(log_ratio, "log_ratio").astype(entropy_rise.dtype))
    return sqrt((1 - 1 / n) * jnp.maximum(entropy_rise, 0) * length)
