"""The noncentral t distribution, in the ratio of a cosine to its sine, by quadrature.

cos θ = (√κ + z)/√((√κ + z)² + R²) with independent z ~ N(0, 1) and R² ~ χ²_{d−1}. So its ratio to
the sine is τ = (√κ + z)/R, and √(d−1) τ is noncentral t with d − 1 degrees of freedom and
noncentrality √κ (law 4.1, cosine_law). All functions are of scalars.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax.scipy.special import erf, ndtr
from jax.typing import ArrayLike, DTypeLike

from homojax.loops import repeat
from homojax.numerics import matmul


def ratio_cdf(
    ratio: jax.Array,
    root_kappa: ArrayLike,
    *,
    d: jax.Array,
    above: bool = False,
    num_nodes: int = 64,
) -> jax.Array:
    """Return P(√κ + z ≤ τR) = E Φ(τR − √κ), where R ~ χ_{d−1}; for d = 1, R = 0.

    Args:
        ratio: τ.
        root_kappa: √κ ≥ 0, the noncentrality.
        d: the dimension, 1 or at least 2.
        above: return one minus that instead, to relative accuracy.
        num_nodes: of the quadrature, on each of its panels; 22 add an error of 1e-8.

    Notes:
        The mean over R is taken by Gauss and Legendre's rule on panels, which meet where Φ rises.
        Outside [mode − 6.5, mode + 9] the density of R is below 1e-17 of its peak. But of a rare
        cosine small radii are a part, so for ``above`` one more panel reaches down to mode − 14.
        Fewer nodes look less far, by which they lose least.
    """
    root_kappa = jnp.asarray(root_kappa, ratio.dtype)
    nodes, weights = gauss_legendre(ratio.dtype, num_nodes)
    mode = jnp.sqrt(jnp.maximum(d - 2, 0))
    edges = _panel_edges(ratio, root_kappa, mode, reach=(num_nodes / 64) ** 0.4)
    if above:
        edges = jnp.concatenate([jnp.maximum(mode - 14, 0)[None], edges])
    edges = jax.lax.stop_gradient(edges)
    lengths = jnp.diff(edges)
    # An empty panel may lie at radius 0, where the density has no derivative in d.
    empty = (lengths == 0)[:, None]
    radius = jnp.where(empty, 1, edges[:-1, None] + lengths[:, None] * nodes[None])
    offset = radius - mode
    log_density = (d - 2) * jnp.log(radius / jnp.where(mode > 0, mode, 1))
    density = jnp.exp(log_density - offset * (mode + offset / 2))
    height = ratio * radius - root_kappa
    # ndtr has small tails to relative accuracy, which takes longer.
    share = ndtr(-height) if above else (1 + erf(height * math.sqrt(0.5))) / 2
    # by products with the weights, as XLA for CPUs sums one number at a time
    reached, total = (matmul(x, weights) @ lengths for x in (density * share, density))
    return jnp.where(d > 1, reached / total, ndtr(root_kappa if above else -root_kappa))


def _panel_edges(
    ratio: jax.Array, root_kappa: jax.Array, mode: jax.Array, reach: float
) -> jax.Array:
    """Return the five edges of the panels in R, ascending; the integral does not depend on them."""
    low, high = jnp.maximum(mode - 6.5 * reach, 0), mode + 9 * reach
    steepness = jnp.where(abs(ratio) > 1e-30, ratio, 1e-30)
    rise, width = root_kappa / steepness, 8.3 * reach / abs(steepness)
    return jnp.stack([low, *(jnp.clip(rise + k * width, low, high) for k in (-1, 0, 1)), high])


def critical_ratio(level: jax.Array, *, d: jax.Array) -> jax.Array:
    """Return the ratio τ that a random direction exceeds with probability ``level``; d > 1."""
    # sinh reaches all directions but those within 1e-19 radians of a pole, evenly resolved.
    return jnp.sinh(
        bisect(
            lambda y: ratio_cdf(jnp.sinh(y), 0, d=d, above=True) - level, -44.0, 44.0, level.dtype
        )
    )


def bisect(
    decreasing: Callable[[jax.Array], jax.Array], low: float, high: float, dtype: DTypeLike
) -> jax.Array:
    """Return the root of a scalar function that falls through 0 on [low, high].

    By bisection to the last bits; the first derivative is that of the implicit function theorem.
    """

    def frozen(y):
        return jax.lax.stop_gradient(decreasing(y))

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        positive = frozen(middle) > 0
        return jnp.where(positive, middle, low), jnp.where(positive, high, middle)

    bracket = jnp.asarray(low, dtype), jnp.asarray(high, dtype)
    low_end, high_end = repeat(jnp.finfo(dtype).nmant + 6, halve, bracket)
    root = jax.lax.stop_gradient((low_end + high_end) / 2)
    slope = jax.lax.stop_gradient(jax.grad(decreasing)(root))
    value = decreasing(root)
    return root - jnp.where(slope < 0, (value - jax.lax.stop_gradient(value)) / slope, 0)


def gauss_legendre(dtype: DTypeLike, num_nodes: int = 64) -> tuple[jax.Array, jax.Array]:
    """Return the nodes and weights of Gauss and Legendre's rule on [0, 1].

    64 nodes resolve a Gaussian on ±12 of its standard deviations.
    """
    nodes, weights = _legendre_rule(num_nodes)
    return jnp.asarray(nodes, dtype), jnp.asarray(weights, dtype)


@lru_cache
def _legendre_rule(num_nodes: int) -> tuple[list[float], list[float]]:
    """Return nodes and weights on [0, 1], by Newton's method on the three-term recurrence."""
    nodes, weights = [], []
    for i in range(num_nodes):
        x, slope = math.cos(math.pi * (i + 0.75) / (num_nodes + 0.5)), 1.0
        for _ in range(6):
            previous, value = 1.0, x
            for k in range(2, num_nodes + 1):
                previous, value = value, ((2 * k - 1) * x * value - (k - 1) * previous) / k
            slope = num_nodes * (x * value - previous) / (x * x - 1)
            x -= value / slope
        nodes.append((x + 1) / 2)
        weights.append(1 / ((1 - x * x) * slope**2))
    return nodes, weights
