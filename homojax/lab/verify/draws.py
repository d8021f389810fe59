"""Random pieces that families of cases are made of, many at once."""

from __future__ import annotations

import numpy as np


def draw_log_uniform(rng: np.random.Generator, low: float, high: float, count: int) -> np.ndarray:
    """Return numbers whose logarithm is uniform, [count]."""
    return np.exp(rng.uniform(np.log(low), np.log(high), count))


def draw_epsilons(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return ε from 0.05 to 20, [count]."""
    return draw_log_uniform(rng, 0.05, 20, count)


def draw_weights(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return t in (0, 1], [count, 1, 1].

    Half are uniform; half are at or next to an edge: about 1e-6, 1 − 1e-9, or 1.
    """
    low, high = draw_log_uniform(rng, 1e-6, 1, count), 1 - draw_log_uniform(rng, 1e-9, 1e-3, count)
    kind = rng.integers(6, size=count)
    return np.choose(np.maximum(kind - 2, 0), [1 - rng.random(count), low, high, np.ones(count)])[
        :, None, None
    ]


def draw_orders(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Return permutations of n, [count, n]."""
    return rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)


def draw_permutations(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Return permutation matrices, [count, n, n]."""
    return (draw_orders(rng, n, count)[:, :, None] == np.arange(n)).astype(float)


def draw_simplex(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Return points of the simplex, [count, n]: flat Dirichlet on the first k, k random."""
    shares = rng.standard_exponential((count, n)) * (
        np.arange(n) < rng.integers(1, n + 1, (count, 1))
    )
    return shares / shares.sum(-1, keepdims=True)


def draw_groups(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Return ascending labels of contiguous groups, [count, n]: 2 to n of them, many or few."""
    cuts = rng.random((count, n - 1)) < rng.random((count, 1)) ** 2
    cuts[np.arange(count), rng.integers(n - 1, size=count)] = True
    return np.pad(cuts.cumsum(-1), ((0, 0), (1, 0)))


def draw_mixture(rng: np.random.Generator, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return Σ wₖΠₖ, [count, n, n], with random permutations Πₖ that keep to groups.

    ``rows`` and ``cols`` are labels of groups, [count, n].
    """
    count, n = rows.shape
    entries, start = np.zeros(count * n * n), n * (n * np.arange(count)[:, None] + rows.argsort(-1))
    for weight in draw_simplex(rng, n, count).T:
        drawn = weight > 0
        order = (cols[drawn] + rng.random((drawn.sum(), n))).argsort(-1)
        entries[start[drawn] + order] += weight[drawn, None]
    return entries.reshape(count, n, n)


def relabel(rng: np.random.Generator, matrix: np.ndarray, count: int) -> np.ndarray:
    """Return one matrix [n, n] with its units in random orders, [count, n, n]."""
    order = draw_orders(rng, len(matrix), count)
    return matrix[order[:, :, None], order[:, None, :]]
