"""Lower bounds of a graph's least Laplacian eigenvalue on V⊥, from its edges and its cuts."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import NamedTuple

import numpy as np

MOST_UNITS = 4  # up to which all graphs with given cuts are compared


def connectivity(weights: np.ndarray) -> np.ndarray:
    """Return the least eigenvalue on V⊥ of Laplacians with weights [..., n, n], or less: [...].

    >>> round(float(connectivity(np.ones((3, 3)))), 6)
    3.0
    """
    n = weights.shape[-1]
    laplacian = np.eye(n) * weights.sum(-1, keepdims=True) - weights
    constants = weights.sum((-2, -1), keepdims=True) / n  # that is, out of the way
    values = np.linalg.eigvalsh(laplacian + constants)
    return np.maximum(0.0, values[..., 0] - 8 * n * np.finfo(float).eps * values[..., -1])


def least_connectivity(
    weights: np.ndarray, sides: list[tuple[int, ...]], cuts: list[float]
) -> float:
    """Return what ``connectivity`` is at least of graphs with at least these edges and cuts.

    It grows with every weight and is concave. So on the polyhedron of those graphs it is least at a
    vertex. Up to ``MOST_UNITS`` all vertices are tried. Beyond, it is at least that of a path whose
    edges are the smallest cut (Fiedler 1973).

    Args:
        weights: of the least edges, [n, n]; the diagonal does not count.
        sides: the units on one side of each cut.
        cuts: what leads over each of them, at least.

    >>> round(least_connectivity(np.zeros((3, 3)), [(0,), (1,), (2,)], [1.0, 1.0, 1.0]), 6)
    1.0
    """
    n = len(weights)
    path = 2 * (1 - math.cos(math.pi / n)) * min(cuts)
    known_least = max(path, float(connectivity(weights)))
    if n > MOST_UNITS:
        return known_least
    graph = _graph(n)
    known = np.array([weights[i, j] for i, j in graph.edges])
    least = np.zeros(len(graph.sides))
    for side, cut in zip(sides, cuts, strict=True):
        index = graph.sides[_one_side(n, side)]
        least[index] = max(least[index], cut)
    over = graph.tight[: len(least)]
    needed = np.concatenate([np.maximum(0, least - over @ known), np.zeros(len(known))])
    added = np.einsum("vij,vj->vi", graph.inverses, needed[graph.vertices])
    most = needed.max(initial=0)
    if most == 0:
        return known_least
    added = added[(added @ graph.tight.T >= needed - 1e-9 * most).all(1)]
    vertices = _weights(n, np.maximum(known + added, 0))
    return max(known_least, float(connectivity(vertices).min()))


class _Graph(NamedTuple):
    """The polyhedron of graphs on n units: which of its constraints meet in a vertex."""

    edges: list[tuple[int, int]]
    sides: dict[tuple[int, ...], int]  # the units with unit 0, and which constraint that cut is
    tight: np.ndarray  # [constraints, edges]: cuts, then single edges
    vertices: np.ndarray  # [V, edges], constraints that can meet
    inverses: np.ndarray  # [V, edges, edges]


@cache
def _graph(n: int) -> _Graph:
    edges = list(itertools.combinations(range(n), 2))
    others = [x for size in range(n - 1) for x in itertools.combinations(range(1, n), size)]
    sides = {(0, *x): index for index, x in enumerate(others)}
    over = [[(i in side) != (j in side) for i, j in edges] for side in sides]
    tight = np.concatenate([np.array(over, float), np.eye(len(edges))])
    chosen = np.array(list(itertools.combinations(range(len(tight)), len(edges))))
    chosen = chosen[abs(np.linalg.det(tight[chosen])) > 0.5]  # determinants are whole numbers
    return _Graph(edges, sides, tight, chosen, np.linalg.inv(tight[chosen]))


def _one_side(n: int, side: tuple[int, ...]) -> tuple[int, ...]:
    """Return the side of a cut that has unit 0."""
    return tuple(sorted(side if 0 in side else set(range(n)) - set(side)))


def _weights(n: int, edges: np.ndarray) -> np.ndarray:
    """Return the matrices [V, n, n] of edges [V, n(n − 1)/2]."""
    weights = np.zeros((len(edges), n, n))
    rows, columns = np.triu_indices(n, 1)
    weights[:, rows, columns] = weights[:, columns, rows] = edges
    return weights
