"""The logits that a layer can have, over every token there can be: an ellipsoid."""

from __future__ import annotations

import itertools
from functools import cache
from typing import NamedTuple

import numpy as np

from homojax.lab.audit.layers import Layer
from homojax.lab.audit.tensors import Precision


class Ellipsoid(NamedTuple):
    """The points base + δ with ⟨a, δ⟩ ≤ √(aᵀ gram a) + ⟨|a|, slack⟩ for all directions a.

    Parameters are counted in row-major order and divided by the preset's temperature. Those of a
    square of logits stand as in the matrix that is applied as y = M x.
    """

    base: np.ndarray  # [p]
    gram: np.ndarray | None  # [p, p]; None where nothing depends on the token
    slack: np.ndarray  # [p], what the rounding of stored numbers may have moved

    def most(self, directions: np.ndarray) -> np.ndarray:
        """Return the largest ⟨a, S⟩ for each direction a, [..., p] -> [...]."""
        most = directions @ self.base + abs(directions) @ self.slack
        if self.gram is None:
            return most
        squares = np.einsum("...i,...i->...", directions @ self.gram, directions)
        return most + np.sqrt(np.maximum(squares, 0))

    def farthest(self) -> float:
        """Return how far any one parameter can be from its base."""
        radii = self.slack if self.gram is None else self.slack + _root(np.diagonal(self.gram))
        return float(radii.max(initial=0))

    def transposed(self) -> Ellipsoid:
        """Return the ellipsoid of the transposes of square logits."""
        n = round(len(self.base) ** 0.5)
        order = np.arange(n * n).reshape(n, n).T.reshape(-1)
        gram = None if self.gram is None else self.gram[np.ix_(order, order)]
        return Ellipsoid(self.base[order], gram, self.slack[order])


def ellipsoid_of(layer: Layer) -> Ellipsoid:
    """Return the parameters that a layer can have, whichever the token. Law 9.1, ellipsoid.

    Where nothing depends on the token it is a point, within the rounding of the stored numbers.
    """
    slack = _moved(layer.base_precision, layer.base).reshape(-1)
    epsilon, gram = layer.preset.epsilon, layer.gram if layer.dynamic else None
    if gram is not None:
        reach = abs(layer.scale) * layer.radius
        if layer.fn_precision is not None:
            # Of each number of a row no more is lost than unit times the largest of its block.
            lost = layer.fn_precision.unit * layer.fn_precision.block**0.5
            slack = slack + lost * reach * _root(np.diagonal(gram))
        gram = gram * (reach / epsilon) ** 2
    found = Ellipsoid(layer.base.reshape(-1) / epsilon, gram, slack / epsilon)
    return found.transposed() if layer.turned else found


def _moved(precision: Precision, numbers: np.ndarray) -> np.ndarray:
    """Return how far each stored number may be from the one that was rounded to it."""
    largest = abs(numbers) if precision.block == 1 else np.full(numbers.shape, abs(numbers).max())
    return precision.unit * largest


# ---------------------------------------------------------------- rectangles


class Rectangles(NamedTuple):
    """The largest logarithms of cross ratios over an ellipsoid of square logits."""

    against: np.ndarray  # [n, n]: of Mᵢₗ Mₖⱼ / Mᵢⱼ Mₖₗ, over k and l
    favour: np.ndarray  # [n, n]: of Mᵢⱼ Mₖₗ / Mᵢₗ Mₖⱼ, over k and l
    column_spread: float  # of Mᵢⱼ / Mₖⱼ
    row_spread: float  # of Mᵢⱼ / Mᵢₗ

    @property
    def diameter(self) -> float:
        """The largest projective diameter of all tokens."""
        return float(self.against.max())


def rectangles(ellipsoid: Ellipsoid) -> Rectangles:
    """Return the largest cross ratios: of Sᵢₗ + Sₖⱼ − Sᵢⱼ − Sₖₗ each a closed form. O(n⁴) time."""
    n = round(len(ellipsoid.base) ** 0.5)
    base, slack = ellipsoid.base.reshape(n, n), ellipsoid.slack.reshape(n, n)
    if ellipsoid.gram is None:
        return _of_a_box(base, slack)
    gram = ellipsoid.gram.reshape(n, n, n, n)
    against, favour, columns = np.zeros((n, n)), np.zeros((n, n)), 0.0
    every = np.arange(n)
    own = gram[every, :, every, :]  # [k, n, n], of row k with itself
    for i in range(n):
        others = np.delete(every, i)
        between = gram[i, :, others, :]  # [k, n, n], of row i with row k
        spread = own[i] + own[others] - between - between.transpose(0, 2, 1)
        middle = base[i] - base[others]  # [k, n]: Sᵢ − Sₖ
        rounding = slack[i] + slack[others]
        squares = np.diagonal(spread, axis1=1, axis2=2)
        columns = max(columns, (abs(middle) + _root(squares) + rounding).max())
        # [k, j, l]: the largest (Sᵢₗ − Sₖₗ) − (Sᵢⱼ − Sₖⱼ)
        most = (
            middle[:, None, :]
            - middle[:, :, None]
            + _root(squares[:, None, :] + squares[:, :, None] - 2 * spread)
            + rounding[:, None, :]
            + rounding[:, :, None]
        )
        most[:, every, every] = 0
        against[i], favour[i] = most.max((0, 2)), most.max((0, 1))
    return Rectangles(against, favour, float(columns), _row_spread(base, slack, own))


def _of_a_box(base: np.ndarray, slack: np.ndarray) -> Rectangles:
    """Return the rectangles where nothing depends on the token, in O(n³) time and O(n²) memory."""
    n, columns, rows = len(base), 0.0, 0.0
    against, favour = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        middle = np.delete(base[i] - base, i, axis=0)  # [k, n]
        rounding = np.delete(slack[i] + slack, i, axis=0)
        up, down = middle + rounding, rounding - middle
        columns = max(columns, up.max(), down.max())
        against[i] = np.maximum(0, (up.max(1)[:, None] + down).max(0))
        favour[i] = np.maximum(0, (down.max(1)[:, None] + up).max(0))
        rows = max(rows, float((base[i] + slack[i]).max() - (base[i] - slack[i]).min()))
    return Rectangles(against, favour, float(columns), rows)


def _row_spread(base: np.ndarray, slack: np.ndarray, own: np.ndarray) -> float:
    squares = np.diagonal(own, axis1=1, axis2=2)
    between = _root(squares[:, None, :] + squares[:, :, None] - 2 * own)
    most = abs(base[:, None, :] - base[:, :, None]) + between
    return float((most + slack[:, None, :] + slack[:, :, None]).max())


def _root(squares: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(squares, 0))


# ---------------------------------------------------------------- cycles and cuts

MOST_CYCLES = 4  # n up to which cycles and cuts are listed; no released model has more streams


@cache
def cycles(n: int) -> np.ndarray:
    """Return the simple cycles through the entries of an n × n matrix, [cycles, n²], of ±1.

    >>> cycles(2).tolist()
    [[1, -1, -1, 1], [-1, 1, 1, -1]]
    """
    found = []
    for length in range(2, n + 1):
        for rows in itertools.permutations(range(n), length):
            if rows[0] != min(rows):
                continue
            for columns in itertools.permutations(range(n), length):
                a = np.zeros((n, n), int)
                a[list(rows), list(columns)] = 1
                a[list(rows), list(columns[1:] + columns[:1])] = -1
                found.append(a.reshape(-1))
    return np.array(found)


class Cut(NamedTuple):
    """Ways in which a permutation can carry the units of A onto as many of B, and the rest.

    A rectangle of a way has one output of B and one of the rest. As a direction of logits, ⟨·, S⟩
    is large where they keep A and B together.
    """

    inputs: tuple[int, ...]  # A, of at most n/2 units
    outputs: tuple[int, ...]  # B
    # [n − |B|, ways, n²]: the mean rectangle with each output of the rest
    rectangles: np.ndarray

    def directions(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the mean rectangle of each way, [ways, n²], by weights of the rest's outputs."""
        if weights is None:
            return self.rectangles.mean(0)
        return np.tensordot(weights, self.rectangles, 1)


@cache
def cuts(n: int) -> list[Cut]:
    """Return the cuts of all pairs of sets A and B of at most n/2 units."""
    sets = [x for size in range(1, n // 2 + 1) for x in itertools.combinations(range(n), size)]
    return [_cut(n, a, b) for a in sets for b in sets if len(a) == len(b)]


def _cut(n: int, a: tuple[int, ...], b: tuple[int, ...]) -> Cut:
    outside = [j for j in range(n) if j not in a]
    rest = [i for i in range(n) if i not in b]
    ways = list(itertools.product(itertools.permutations(a), itertools.permutations(outside)))
    found = np.zeros((len(rest), len(ways), n, n))
    for way, (kept, others) in enumerate(ways):
        for (i, own), (index, (k, j)) in itertools.product(
            zip(b, kept, strict=True), enumerate(zip(rest, others, strict=True))
        ):
            for row, column, sign in ((i, own, 1), (k, j, 1), (i, j, -1), (k, own, -1)):
                found[index, way, row, column] += sign / len(b)
    return Cut(a, b, found.reshape(len(rest), len(ways), -1))
