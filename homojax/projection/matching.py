"""Perfect matchings of rows and columns: whether there is one, and the heaviest."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.loops import repeat, repeat_while


def perfect_matching(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the row matched to each column and the column matched to each row, both [n].

    −1 stands somewhere in both if there is no perfect matching. Source: Kuhn (1955).

    Args:
        mask: [n, n] bool, True where a row may be matched to a column.

    >>> row_of, column_of = perfect_matching(jnp.array([[True, True], [True, False]]))
    >>> row_of.tolist(), column_of.tolist()
    ([1, 0], [1, 0])
    """
    unit = jnp.arange(mask.shape[0], dtype=jnp.int32)
    nobody = jnp.full_like(unit, -1)

    def search(row_of, column_of):
        """Breadth first from the free rows: the row from which each column is reached, or −1."""
        free = column_of < 0

        def widen(state):
            parent, reached, _ = state
            from_row = jnp.where(mask & reached[:, None], unit[:, None], -1).max(0)
            new = (parent < 0) & (from_row >= 0)
            parent = jnp.where(new, from_row, parent)
            reached = free | (parent[column_of] >= 0)
            return parent, reached, new.any() & ~(new & (row_of < 0)).any()

        start = nobody, free, jnp.asarray(True)
        return repeat_while(lambda state: state[-1], widen, start)[0]

    def augment(state):
        row_of, column_of, _ = state
        parent = search(row_of, column_of)
        end = jnp.where((parent >= 0) & (row_of < 0), unit, -1).max()

        def flip(state):
            row_of, column_of, column = state
            row = parent[column]
            row_of = jnp.where(unit == column, row, row_of)
            return row_of, jnp.where(unit == row, column, column_of), column_of[row]

        path = row_of, column_of, end
        row_of, column_of, _ = repeat_while(lambda state: state[-1] >= 0, flip, path)
        return row_of, column_of, end

    start = nobody, nobody, jnp.zeros_like(unit[0])
    return repeat_while(lambda state: state[-1] >= 0, augment, start)[:2]


def heaviest_permutation(log_matrix: jax.Array) -> jax.Array:
    """Return the permutation with the largest sum of entries, [n] columns, one a row.

    −inf is taken where there is no other. Row after row finds the shortest augmenting path.

    Source: Kuhn (1955); Jonker and Volgenant (Computing 38, 1987).

    Args:
        log_matrix: [n, n]. With a NaN or +inf any permutation is returned.

    >>> heaviest_permutation(jnp.array([[1.0, 3.0], [0.0, 1.0]])).tolist()
    [1, 0]
    """
    n = log_matrix.shape[0]
    cost = _costs(log_matrix)
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
            distance = jnp.where(closer, reduced, distance)
            previous = jnp.where(closer, j, previous)
            nearest = jnp.where(reached, jnp.inf, distance).argmin()
            rise = jnp.where(reached, distance[nearest], 0)
            distance = distance - jnp.where(reached, 0, distance[nearest])
            row_price = row_price.at[owner].add(rise)
            return row_price, column_price - rise, distance, previous, reached, nearest

        def hand_over(state):
            owner, j = state
            return owner.at[j].set(owner[previous[j]]), previous[j]

        # The shortest path from the new row to a column that nobody has; then owners change.
        far, none = jnp.full(n + 1, jnp.inf, cost.dtype), jnp.zeros(n + 1, bool)
        start = row_price, column_price, far, jnp.full(n + 1, n), none, jnp.asarray(n)
        state = repeat_while(lambda state: owner[state[-1]] < n, reach, start)
        row_price, column_price, _, previous, _, free = state
        owner, _ = repeat_while(lambda state: state[1] != n, hand_over, (owner, free))
        return row_price, column_price, owner.at[n].set(n)

    prices = jnp.zeros(n + 1, cost.dtype)
    owner = repeat(n, add_row, (prices, prices, jnp.full(n + 1, n)))[2]
    return jnp.argsort(owner[:n])


def _costs(log_matrix: jax.Array) -> jax.Array:
    """Return finite costs, [n + 1, n + 1]: a new row waits in column n, and row n is nobody."""
    n = log_matrix.shape[0]
    finite = log_matrix > -jnp.inf
    beyond = 4 * n * (jnp.where(finite, abs(log_matrix), 0).max() + 1)
    cost = jnp.where(finite, -log_matrix, beyond)
    # Of no numbers any permutation will do: the search must end.
    cost = jnp.where(jnp.isfinite(beyond) & ~jnp.isnan(log_matrix).any(), cost, 0)
    return jnp.pad(cost, ((0, 1), (0, 1)))
