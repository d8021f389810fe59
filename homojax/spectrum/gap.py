"""The contraction gap 1 − σ₂ to relative accuracy, however near 1 σ₂ is. theory.md 3.2.

It is what a layer that keeps nearly all detail still loses. On V⊥ the matrix I − MᵀM is the
Laplacian of a graph on the n units, with weights (MᵀM)ⱼₖ ≥ 0. Its least eigenvalue there, 1 − σ₂²,
is found by sums, products and quotients of non-negative numbers: there is nothing to cancel.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_square
from homojax.birkhoff import detail
from homojax.loops import repeat
from homojax.numerics import log_gram
from homojax.programs import compiled
from homojax.spectrum.singular_value import sigma2, top_singular_pair


@compiled()
def contraction_gap(log_matrix: ArrayLike) -> jax.Array:
    """Return 1 − σ₂ of M = exp(log_matrix), to relative accuracy at any size.

    It is exp of ``log_contraction_gap``, which says more.

    Args:
        log_matrix: log M, [n, n], n ≥ 2; −inf is an entry of 0.

    Returns:
        A scalar; 0 where it is below the smallest normal number.

    Source: as for ``log_contraction_gap``.

    >>> bool(abs(contraction_gap([[0.0, -69.0], [-69.0, 0.0]]) / (2 * jnp.exp(-69.0)) - 1) < 1e-4)
    True
    """
    return jnp.exp(log_contraction_gap(log_matrix))


@compiled(shared=True)
def log_contraction_gap(log_matrix: ArrayLike) -> jax.Array:
    """Return log(1 − σ₂) of M = exp(log_matrix), also where 1 − σ₂ would underflow.

    Args:
        log_matrix: log M, [n, n], n ≥ 2; −inf is an entry of 0.

    Returns:
        A scalar, to absolute accuracy: −inf where M is reducible (the units fall into sets that do
        not mix), and 0 at J up to rounding. NaN where there is a NaN, a +inf, a σ₂ far above 1,
        or a row that sums to more than 2, as of an M given for its logarithm.

    Raises:
        ValueError: the shape is not [n, n], or the dtype has no decompositions.

    Source: Grassmann, Taksar and Heyman (Operations Research 33, 1985), elimination without
    subtraction; O'Cinneide (Numer. Math. 65, 1993), its entrywise accuracy; theory.md 3.2.

    Notes:
        A gap below 0.29 is taken from the weights (MᵀM)ⱼₖ, j ≠ k, alone: the diagonal of MᵀM counts
        as what they leave of the column sums' 1. So it is the gap of the doubly stochastic matrix
        whose small entries these are, and an entry that is 1 − 1e-30 and is stored as 1 does no
        harm. Where the entries are right to a relative δ, so is the gap, up to a small factor. δ is
        at least eps times the size of their logarithms. (Near a permutation, marginal errors of δ
        do not say that the entries are right to δ.)

        First derivatives are finite everywhere, in both modes. At ties they are a subgradient's. At
        gap 0 they are zero, for no change of logarithms joins what is apart. Along changes of M
        that keep its sums they are those of −σ₂. Second derivatives exist where σ₂ is simple and
        every entry is positive. O(n³) time, O(n²) memory.

    >>> round(float(log_contraction_gap([[0.0, -1000.0], [-1000.0, 0.0]])), 3)  # log 2 − 1000
    -999.307
    """
    log_matrix = as_square(log_matrix, "log_matrix")
    matrix = jnp.exp(log_matrix)
    kept = sigma2(matrix)
    log_least = _log_least_eigenvalue(log_gram(log_matrix))
    small = log_least < -math.log(2)
    least = -jnp.expm1(jnp.where(small, log_least, -1))  # 1 − λ, and λ = (1 − σ₂)(1 + σ₂)
    from_weights = log_least - jnp.log1p(jnp.sqrt(least))
    # The root of 1 − λ has no digits where λ is near 1.
    from_sigma2 = jnp.log1p(-jnp.where(small, 0, kept))
    # Of an M that is given for its logarithm the rows sum to more.
    stochastic = matrix.sum(1).max() <= 2
    return jnp.where(stochastic, jnp.where(small, from_weights, from_sigma2), jnp.nan)


@jax.custom_jvp
def _log_least_eigenvalue(log_weights: jax.Array) -> jax.Array:
    """Return log of the least eigenvalue on V⊥ of the Laplacian with these weights, [n, n].

    Their diagonal does not count.
    """
    return _softest_mode(log_weights)[0]


@_log_least_eigenvalue.defjvp
def _log_least_eigenvalue_jvp(primals, tangents):
    """λ = Σ w (xⱼ − xₖ)² over edges, so d log λ is the mean of d log w by shares of that energy.

    The current λx between the units is at most ½λ√n in any edge, so an edge's share is at most
    nλ/(4w). That stands in where w ≫ λ leaves a difference xⱼ − xₖ below the rounding of x.
    """
    (log_weights,), (dlog_weights,) = primals, tangents
    log_least, mode = _softest_mode(log_weights)
    n, eps = mode.shape[0], float(jnp.finfo(mode.dtype).eps)
    disconnected = jnp.isneginf(log_least)
    ratio = jnp.exp(jnp.minimum(log_weights - log_least, -2 * math.log(eps)))  # w/λ
    share = jnp.minimum(
        ratio * (mode[:, None] - mode[None, :]) ** 2, n / 4 / jnp.maximum(ratio, eps)
    )
    share = jnp.where(disconnected, 0, share)
    return log_least, (share * dlog_weights).sum() / 2  # every edge is there twice


def _softest_mode(log_weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (log λ, x): the Laplacian's least eigenvalue on V⊥ and its unit eigenvector, [n].

    log λ is −inf where the graph falls apart. All is in units of the graph's bottleneck, where λ is
    between about 1/n² and n. Weights far below that may underflow, and weights far above are cut:
    an edge's share of the energy is at most nλ/(4w), and cutting it at w changes log λ by no more.

    The Laplacian's pseudoinverse is PAP, with A the inverse of the Laplacian grounded at some unit,
    bordered by 0. Whichever unit that is, max A is a resistance and at most 2‖PAP‖, so what P takes
    off does not cost the largest eigenvalue its digits.
    """
    n = log_weights.shape[0]
    level = jax.lax.stop_gradient(_log_bottleneck(log_weights))
    ceiling = math.log(n**2 / jnp.finfo(log_weights.dtype).eps)
    weights = jnp.exp(jnp.minimum(log_weights - level, ceiling))
    largest, _, mode = top_singular_pair(detail(_grounded_inverse(weights)))
    return jnp.where(jnp.isneginf(level), -jnp.inf, level - jnp.log(largest)), mode


def _log_bottleneck(log_weights: jax.Array) -> jax.Array:
    """Return the least weight in the heaviest spanning tree (Prim's), −inf if there is none."""
    unit = jnp.arange(log_weights.shape[0])

    def join(_, state):
        level, reach, outside = state
        reach = jnp.where(outside, reach, -jnp.inf)
        nearest = reach.argmax()
        return (
            jnp.minimum(level, reach.max()),
            jnp.maximum(reach, log_weights[nearest]),
            outside & (unit != nearest),
        )

    start = jnp.full((), jnp.inf, log_weights.dtype), log_weights[0], unit > 0
    return repeat(len(unit) - 1, join, start)[0]


def _grounded_inverse(weights: jax.Array) -> jax.Array:
    """Return the inverse of the Laplacian grounded at the last unit, with 0 for that unit, [n, n].

    Every entry is right to relative accuracy. Unit after unit is eliminated. Between two units that
    are left stand the weights of the network that remains. Between one left and one gone stands the
    share of the latter's walks that end in the former. Between two gone stands the inverse of their
    block. One rank-one update serves all three, and subtracts nothing, for the pivot is the sum of
    the weights that the unit has left.
    """
    unit = jnp.arange(weights.shape[0])

    def eliminate(p, x):
        row = jnp.where(unit == p, 1, x[p])
        share = row / jnp.where(unit > p, row, 0).sum()
        at_p = unit == p
        return jnp.where(at_p[:, None] | at_p[None, :], 0, x) + row[:, None] * share[None, :]

    inverse = repeat(len(unit) - 1, eliminate, weights)
    ground = unit == len(unit) - 1
    return jnp.where(ground[:, None] | ground[None, :], 0, inverse)
