"""Which entries a doubly stochastic matrix may use: zero patterns, and large numbers for −inf."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.batching import each_lane
from homojax.loops import repeat, repeat_while
from homojax.projection.matching import perfect_matching


def total_support(mask: ArrayLike) -> jax.Array:
    """Return the entries of ``mask`` that lie on a perfect matching. [n, n] bool.

    These are the entries that some doubly stochastic matrix inside the mask uses. All are False if
    the mask has no perfect matching: then no doubly stochastic matrix fits in it. Where the result
    is the mask itself, scaling rows and columns converges to a matrix with exactly that support.

    Args:
        mask: [n, n] bool, True where an entry may be positive.

    Source: Birkhoff (1946); Sinkhorn and Knopp (1967); Dulmage and Mendelsohn (1958).

    >>> total_support(jnp.array([[True, True], [False, True]])).tolist()
    [[True, False], [False, True]]
    """
    mask = jnp.asarray(mask, bool)
    n = mask.shape[0]
    row_of, column_of = perfect_matching(mask)
    # Columns as a graph: j -> k if the row that j has may take k. An entry is on a perfect matching
    # if its edge is on a cycle, so if k reaches j.
    edges = mask[row_of]
    reach = (edges | jnp.eye(n, dtype=bool)).astype(jnp.float32)
    reach = repeat((n - 1).bit_length(), lambda _, r: jnp.minimum(r @ r, 1), reach)
    return (edges & (reach.T > 0))[column_of] & (row_of >= 0).all()


def drop_stand_ins(logits: jax.Array, epsilon: ArrayLike) -> jax.Array:
    """Return ``logits`` [n, n] with −inf for numbers such as −1e9 that stand for it.

    M_ε(S) has nothing of such an entry, and it costs digits. Units that only each other may use
    have a potential that is free, and it grows to the size of the numbers beside them. Where that
    is more than 1e4·eps^(−¼) in S/ε, its rounding (some 1e-4 of eps times that, measured) is beyond
    the tolerance of the sums.

    Notes:
        A proof that these entries are below the smallest normal number in M. They lie a drop below
        all others, which carry a perfect matching. M is a mean of permutations; one of them that
        has the entry ij has a weight of at least Mᵢⱼ/n². So the product of M along it is at least
        (Mᵢⱼ/n²)ⁿ. Over the product along the matching, which is at most 1, it is exp of their
        difference in S/ε, which is a drop if any entry is below it. Of several such drops the
        lowest is taken.

    >>> drop_stand_ins(jnp.array([[1.0, -1e9], [-1e9, 0.0]]), 0.5).tolist()
    [[1.0, -inf], [-inf, 0.0]]
    """

    def replace(state):
        logits, _ = state
        return _keep_used(logits, total_support(_above_drops(logits, epsilon))), False

    # A loop of one turn at most: under vmap a cond would do both sides.
    start = logits, _any_far(logits, epsilon)
    return repeat_while(lambda state: state[1], replace, start)[0]


def drop_unused(logits: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what masks and stand-ins leave of a batch of logits [B, n, n], ε [B].

    One loop of two turns, so that ``total_support`` is compiled once. A turn that no lane needs is
    not taken: without −inf, and without numbers that are far from the others, there is no cost.

    Returns:
        Whether each mask carries a doubly stochastic matrix, [B]; the logits with −inf wherever no
        such matrix has an entry, NaN for a lane without any; and these logits without stand-ins.
    """

    def turn(state):
        first, feasible, supported, _, _ = state
        mask = jax.lax.cond(
            first,
            lambda s: s != -jnp.inf,
            lambda s: each_lane(_above_drops)(s, epsilon),
            supported,
        )
        used = each_lane(total_support)(mask)
        feasible = jnp.where(first, used.any((1, 2)), feasible)
        pruned = each_lane(_keep_used)(supported, used)
        pruned = jnp.where(feasible[:, None, None], pruned, jnp.nan)
        supported = jnp.where(first, pruned, supported)
        return jnp.asarray(False), feasible, supported, pruned, first & far

    masked = (logits == -jnp.inf).any()
    far = each_lane(_any_far)(logits, epsilon).any()
    start = masked, jnp.ones(logits.shape[0], bool), logits, logits, masked | far
    return repeat_while(lambda state: state[-1], turn, start)[1:-1]


def _costly(logits: jax.Array, epsilon: ArrayLike) -> ArrayLike:
    """Return the difference between logits from which rounding spoils the sums."""
    return 1e4 * float(jnp.finfo(logits.dtype).eps) ** -0.25 * epsilon


def _any_far(logits: jax.Array, epsilon: ArrayLike) -> jax.Array:
    """Return whether any finite logit lies that far below the largest."""
    far = (logits > -jnp.inf) & (logits < logits.max() - _costly(logits, epsilon))
    return far.any()


def _above_drops(logits: jax.Array, epsilon: ArrayLike) -> jax.Array:
    """Return the entries above the lowest drop that leaves nothing of the others, or no entry."""
    n, tiny = logits.shape[0], float(jnp.finfo(logits.dtype).tiny)
    falling = jnp.sort(logits, axis=None, descending=True)
    above, below = falling[:-1], falling[1:]
    nothing = (n - 1) * (above[0] - above) + n * epsilon * (2 * math.log(n) - math.log(tiny))
    least = jnp.maximum(nothing, _costly(logits, epsilon))
    drops = (above - below > least) & (below > -jnp.inf)
    return logits >= jnp.where(drops, above, jnp.inf).min()


def _keep_used(logits: jax.Array, used: jax.Array) -> jax.Array:
    """Return ``logits`` with −inf where they are not used, unless none is."""
    return jnp.where(used | ~used.any(), logits, -jnp.inf)
