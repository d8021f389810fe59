"""Perfect matchings of rows and columns: whether there is one, and the heaviest."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def _perfect_matching(mask: jax.Array) -> jax.Array:
    """The row matched to each column, [n]; −1 somewhere if not all can be."""
    n = mask.shape[0]

    def search(row_of):
        """Breadth first from the free rows: (parent row of each column reached, the free column that ends a path or −1)."""

        def widen(state):
            frontier, visited, parent, _ = state
            edges = mask & frontier[:, None] & ~visited[None, :]
            found = edges.any(0)
            parent = jnp.where(found, edges.argmax(0), parent)
            free = found & (row_of < 0)
            frontier = (
                jnp.zeros(n, bool).at[jnp.where(found & ~free, row_of, n)].set(True, mode="drop")
            )
            return frontier, visited | found, parent, jnp.where(free.any(), free.argmax(), -1)

        free_rows = jnp.ones(n, bool).at[jnp.where(row_of < 0, n, row_of)].set(False, mode="drop")
        start = free_rows, jnp.zeros(n, bool), jnp.full(n, -1), jnp.asarray(-1)
        *_, parent, end = jax.lax.while_loop(lambda s: s[0].any() & (s[3] < 0), widen, start)
        return parent, end

    def augment(state):
        row_of, _ = state
        parent, end = search(row_of)

        def flip(state):
            row_of, column = state
            row = parent[column]
            previous = jnp.where((row_of == row).any(), (row_of == row).argmax(), -1)
            return row_of.at[column].set(row), previous

        row_of, _ = jax.lax.while_loop(lambda s: s[1] >= 0, flip, (row_of, end))
        return row_of, end

    return jax.lax.while_loop(
        lambda s: (s[0] < 0).any() & (s[1] >= 0), augment, (jnp.full(n, -1), jnp.asarray(0))
    )[0]


def heaviest_permutation(log_matrix: jax.Array) -> jax.Array:
    """The permutation with the largest sum of entries: [n] columns, one a row. −inf is taken where there is no other.

    Row after row finds the shortest augmenting path. Source: Kuhn (1955); Jonker and Volgenant (Computing 38, 1987).

    >>> heaviest_permutation(jnp.array([[1.0, 3.0], [0.0, 1.0]])).tolist()
    [1, 0]
    """
    n = log_matrix.shape[0]
    finite = log_matrix > -jnp.inf
    beyond = 4 * n * (jnp.where(finite, abs(log_matrix), 0).max() + 1)
    cost = jnp.where(finite, -log_matrix, beyond)
    cost = jnp.where(
        jnp.isfinite(beyond) & ~jnp.isnan(log_matrix).any(), cost, 0
    )  # of no numbers any permutation: the search must end
    cost = jnp.pad(cost, ((0, 1), (0, 1)))  # column n is where a new row waits, row n is nobody
    column = jnp.arange(n + 1)

    def add_row(i, state):
        row_price, column_price, owner = state
        owner = owner.at[n].set(i)

        def reach(state):
            row_price, column_price, distance, previous, reached, j = state
            reached = reached | (column == j)
            i = owner[j]
            reduced = cost[i] - row_price[i] - column_price
            closer = ~reached & (reduced < distance)
            distance, previous = (
                jnp.where(closer, reduced, distance),
                jnp.where(closer, j, previous),
            )
            nearest = jnp.where(reached, jnp.inf, distance).argmin()
            rise = jnp.where(reached, distance[nearest], 0)
            distance = distance - jnp.where(reached, 0, distance[nearest])
            return (
                row_price.at[owner].add(rise),
                column_price - rise,
                distance,
                previous,
                reached,
                nearest,
            )

        def hand_over(state):
            owner, j = state
            return owner.at[j].set(owner[previous[j]]), previous[j]

        far, none = jnp.full(n + 1, jnp.inf, cost.dtype), jnp.zeros(n + 1, bool)
        start = row_price, column_price, far, jnp.full(n + 1, n), none, jnp.asarray(n)
        state = jax.lax.while_loop(lambda state: owner[state[-1]] < n, reach, start)
        row_price, column_price, _, previous, _, free = state
        owner, _ = jax.lax.while_loop(lambda state: state[1] != n, hand_over, (owner, free))
        return row_price, column_price, owner.at[n].set(n)

    prices = jnp.zeros(n + 1, cost.dtype)
    owner = jax.lax.fori_loop(0, n, add_row, (prices, prices, jnp.full(n + 1, n)))[2]
    return jnp.argsort(owner[:n])
