"""Which entries a doubly stochastic matrix may use: zero patterns, and the perfect matchings that carry them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.projection.matching import _perfect_matching


def total_support(mask: ArrayLike) -> jax.Array:
    """The entries of ``mask`` that some doubly stochastic matrix inside it uses: those on a perfect matching. [n, n] bool.

    All False if the mask has no perfect matching: then no doubly stochastic matrix fits in it. Where the result is the mask
    itself, scaling rows and columns converges to a matrix with exactly that support.

    Args:
        mask: [n, n] bool, True where an entry may be positive.

    Source: Birkhoff (1946); Sinkhorn and Knopp (1967); Kuhn (1955) for augmenting paths; Dulmage and Mendelsohn (1958).

    >>> total_support(jnp.array([[True, True], [False, True]])).tolist()  # an entry off the diagonal would unbalance it
    [[True, False], [False, True]]
    """
    mask = jnp.asarray(mask, bool)
    n = mask.shape[0]
    row_of = _perfect_matching(mask)
    # Rows as a graph: i -> k if i may take the column that k has. An entry is on a perfect matching if its edge is on a cycle.
    edges = mask[:, row_of.argsort()]  # [i, k]: columns in the order of the rows that have them
    reach = (edges | jnp.eye(n, dtype=bool)).astype(jnp.float32)
    reach = jax.lax.fori_loop(0, (n - 1).bit_length(), lambda _, r: jnp.minimum(r @ r, 1), reach)
    return mask & (reach.T > 0)[:, row_of] & (row_of >= 0).all()


def without_stand_ins(logits: jax.Array, epsilon: ArrayLike) -> jax.Array:
    """``logits`` [n, n] with −inf for numbers such as −1e9 that stand for it: of which M_ε(S) has nothing, and which cost digits.

    Units that only each other may use have a potential that is free, and comes to the size of what is beside. Where that is more
    than 1e4·eps^(−¼) in S/ε, its rounding (some 1e-4 of eps times that, measured) is beyond the tolerance of the sums.

    That these entries are below the smallest normal number in M is proven. They lie a drop below all others, which carry a
    perfect matching. Of the permutations that M is a mean of, one that has an entry ij has a weight of at least Mᵢⱼ/n², and the
    product of M along it is at least (Mᵢⱼ/n²)ⁿ; over that along the matching, which is at most 1, it is exp of their difference
    in S/ε, which is a drop if any entry is below it. Of several such drops the lowest is taken.

    >>> without_stand_ins(jnp.array([[1.0, -1e9], [-1e9, 0.0]]), 0.5).tolist()
    [[1.0, -inf], [-inf, 0.0]]
    """
    n, info = logits.shape[0], jnp.finfo(logits.dtype)
    costly = 1e4 * float(info.eps) ** -0.25 * epsilon

    def replaced(state):
        logits, _ = state
        falling = jnp.sort(logits, axis=None, descending=True)
        above, below = falling[:-1], falling[1:]
        nothing = (n - 1) * (above[0] - above) + n * epsilon * (
            2 * math.log(n) - math.log(info.tiny)
        )
        drops = (above - below > jnp.maximum(nothing, costly)) & (below > -jnp.inf)
        used = total_support(logits >= jnp.where(drops, above, jnp.inf).min())  # of the others
        return jnp.where(used | ~used.any(), logits, -jnp.inf), False

    far = (logits > -jnp.inf) & (logits < logits.max() - costly)
    # a loop of one turn at most: of a cond, vmap would do both sides
    return jax.lax.while_loop(lambda state: state[1], replaced, (logits, far.any()))[0]
