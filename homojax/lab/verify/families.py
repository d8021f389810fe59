"""Families of cases for the claims to be tried on: logits to be projected, and doubly stochastic matrices of known spectrum.

Each draws any number of cells of one size at once. Where a family has a parameter its draws reach the edges, because that is
where bounds are attained and where rounding decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from homojax.lab.inputs import InputError, nearest
from homojax.lab.datasets import standardised_digits, trained_mhc


class Cells(NamedTuple):
    """Cases of one size, float64."""

    logits: np.ndarray  # [count, n, n]; log(matrix), −inf at its zeros, where a matrix is given
    epsilon: np.ndarray  # [count]; 1 where a matrix is given
    matrix: (
        np.ndarray | None
    )  # [count, n, n], doubly stochastic to rounding or truncated; None: to be projected


class Family(NamedTuple):
    """Cases of one kind. ``draw(rng, n, count)`` refuses an n that ``sizes`` does with an InputError."""

    name: str
    description: str
    sizes: Callable[[int], bool]  # whether it exists at n
    draw: Callable[[np.random.Generator, int, int], Cells]
    needs: str  # what n must be


FAMILIES: dict[str, Family] = {}


def choose_families(names: Sequence[str]) -> list[Family]:
    """The families of these names, in this order.

    Raises:
        InputError: there is none of a name; the nearest is offered.

    >>> [family.name for family in choose_families(["uniform", "de-bruijn"])]
    ['uniform', 'de-bruijn']
    """
    for name in names:
        if name not in FAMILIES:
            raise InputError(f'there is no family "{name}": {nearest(name, FAMILIES)}')
    return [FAMILIES[name] for name in names]


# ---------------------------------------------------------------- sizes


class _Sizes(NamedTuple):
    exist: Callable[[int], bool]
    needs: str


def _is_prime(n: int) -> bool:
    return n >= 2 and all(n % k for k in range(2, int(n**0.5) + 1))


def _plane_order(n: int) -> int | None:
    """The prime q with q² + q + 1 = n."""
    q = round((n - 0.75) ** 0.5 - 0.5) if n >= 7 else 0
    return q if q * q + q + 1 == n and _is_prime(q) else None


_ANY = _Sizes(lambda n: n >= 2, "n ≥ 2")
_TWO = _Sizes(lambda n: n == 2, "n = 2")
_FOUR = _Sizes(lambda n: n == 4, "n = 4")
_FOURS = _Sizes(lambda n: n >= 4 and n % 4 == 0, "n a multiple of 4")
_BITS = _Sizes(lambda n: n >= 2 and n & (n - 1) == 0, "a power of 2, n ≥ 2")
_TWO_BITS = _Sizes(lambda n: n >= 4 and n & (n - 1) == 0, "a power of 2, n ≥ 4")
_IMAGES = _Sizes(lambda n: 2 <= n <= 1797, "2 ≤ n ≤ 1797, the number of images")
_DESIGNS = _Sizes(
    lambda n: (n % 4 == 3 and _is_prime(n)) or _plane_order(n) is not None,
    "a prime 4k − 1, or q² + q + 1 with q prime: n = 3, 7, 11, 13, 19, 23, 31 …",
)


def _family(name: str, description: str, sizes: _Sizes, cells: Callable) -> Callable:
    """Registers a function of (rng, n, count) under ``name``; ``cells`` makes Cells of what it returns."""

    def register(function):
        def draw(rng: np.random.Generator, n: int, count: int) -> Cells:
            if not sizes.exist(n):
                raise InputError(f"family {name} needs {sizes.needs}, and n = {n} was asked.")
            return cells(function(rng, n, count))

        FAMILIES[name] = Family(name, description, sizes.exist, draw, sizes.needs)
        return function

    return register


def _projected(name: str, description: str, sizes: _Sizes = _ANY) -> Callable:
    """Of a function that returns (logits [count, n, n], ε [count] or a number)."""

    def cells(drawn):
        logits, epsilon = drawn
        return Cells(logits, np.broadcast_to(np.asarray(epsilon, float), len(logits)).copy(), None)

    return _family(name, description, sizes, cells)


def _matrices(name: str, description: str, sizes: _Sizes = _ANY) -> Callable:
    """Of a function that returns matrices [count, n, n]."""

    def cells(matrix):
        with np.errstate(divide="ignore"):
            return Cells(np.log(matrix), np.ones(len(matrix)), matrix)

    return _family(name, description, sizes, cells)


# ---------------------------------------------------------------- draws; every one starts (rng, n, count)


def _log_uniform(rng: np.random.Generator, low: float, high: float, count: int) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), count))


def _epsilon(rng: np.random.Generator, count: int) -> np.ndarray:
    return _log_uniform(rng, 0.05, 20, count)


def _weight(rng: np.random.Generator, count: int) -> np.ndarray:
    """t in (0, 1], [count, 1, 1]: half uniform, half at or next to an edge: about 1e-6, 1 − 1e-9, or 1."""
    low, high = _log_uniform(rng, 1e-6, 1, count), 1 - _log_uniform(rng, 1e-9, 1e-3, count)
    kind = rng.integers(6, size=count)
    return np.choose(np.maximum(kind - 2, 0), [1 - rng.random(count), low, high, np.ones(count)])[
        :, None, None
    ]


def _orders(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Permutations of n, [count, n]."""
    return rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)


def _permutations(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Permutation matrices, [count, n, n]."""
    return (_orders(rng, n, count)[:, :, None] == np.arange(n)).astype(float)


def _simplex(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """[count, n] on the simplex: flat Dirichlet on the first k, 0 beyond, k from 1 to n at random."""
    weights = rng.standard_exponential((count, n)) * (
        np.arange(n) < rng.integers(1, n + 1, (count, 1))
    )
    return weights / weights.sum(-1, keepdims=True)


def _groups(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Ascending labels of contiguous groups, [count, n]: 2 to n of them, many or few."""
    cuts = rng.random((count, n - 1)) < rng.random((count, 1)) ** 2
    cuts[np.arange(count), rng.integers(n - 1, size=count)] = True
    return np.pad(cuts.cumsum(-1), ((0, 0), (1, 0)))


def _mixture(rng: np.random.Generator, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Σ wₖΠₖ, [count, n, n], with random permutations that keep to groups, from labels of rows and columns [count, n]."""
    count, n = rows.shape
    entries, start = np.zeros(count * n * n), n * (n * np.arange(count)[:, None] + rows.argsort(-1))
    for weight in _simplex(rng, n, count).T:
        drawn = weight > 0
        order = (cols[drawn] + rng.random((drawn.sum(), n))).argsort(-1)
        entries[start[drawn] + order] += weight[drawn, None]
    return entries.reshape(count, n, n)


def _relabelled(rng: np.random.Generator, matrix: np.ndarray, count: int) -> np.ndarray:
    """The same matrix [n, n] with its units in random orders, [count, n, n]: its eigenvalues stay."""
    order = _orders(rng, len(matrix), count)
    return matrix[order[:, :, None], order[:, None, :]]


# ---------------------------------------------------------------- logits to be projected


@_projected("gaussian", "standard normal logits, ε from 0.05 to 20")
def _gaussian(rng, n, count):
    return rng.standard_normal((count, n, n)), _epsilon(rng, count)


@_projected("student", "logits of Student's t with 3 degrees of freedom, ε from 0.05 to 20")
def _student(rng, n, count):
    return rng.standard_t(3, (count, n, n)), _epsilon(rng, count)


@_projected(
    "two-by-two", "normal logits times 0.1, 1 or 10: every 2 × 2 matrix attains hilbert", _TWO
)
def _two_by_two(rng, n, count):
    return rng.standard_normal((count, n, n)) * rng.choice([0.1, 1, 10], (count, 1, 1)), 1


@_projected(
    "symmetric-pair",
    "logits [[R, −R], [−R, R]], R/ε of either sign and 1e-4 to 40: the least for their σ₂",
    _TWO,
)
def _symmetric_pair(rng, n, count):
    epsilon = _epsilon(rng, count)
    size = epsilon * _log_uniform(rng, 1e-4, 40, count) * rng.choice([-1, 1], count)
    return size[:, None, None] * np.array([[1, -1], [-1, 1]]), epsilon


@_projected(
    "gamma", "logarithms of Gamma(a) variates, a = 0.1, 1 or 10: matrices like Dirichlet draws"
)
def _gamma(rng, n, count):
    variates = rng.standard_gamma(rng.choice([0.1, 1, 10], (count, 1, 1)), (count, n, n))
    return np.log(np.maximum(variates, np.finfo(float).tiny)), 1


@_projected("near-permutation", "a random permutation raised by 2 to 40 above normal noise")
def _near_permutation(rng, n, count):
    return rng.standard_normal((count, n, n)) + rng.uniform(2, 40, (count, 1, 1)) * _permutations(
        rng, n, count
    ), 1


@_projected("weak-links", "random groups, with the logits between groups lowered by up to 60")
def _weak_links(rng, n, count):
    groups = rng.permuted(_groups(rng, n, count), axis=1)
    apart = groups[:, :, None] != groups[:, None, :]
    return rng.standard_normal((count, n, n)) - rng.uniform(0, 60, (count, 1, 1)) * apart, 1


@_projected(
    "rank-one",
    "logits β u vᵀ of centred unit u and v, half of them equal, β from 0.01 to 1000 (theory.md 2.3)",
)
def _rank_one(rng, n, count):
    u, v = rng.standard_t(
        3, (2, count, n)
    )  # heavy tails, so that some come near the isolated direction
    v = np.where(rng.random((count, 1)) < 0.5, u, v)
    u, v = (x - x.mean(-1, keepdims=True) for x in (u, v))
    u, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (u, v))
    return _log_uniform(rng, 0.01, 1000, count)[:, None, None] * u[:, :, None] * v[:, None, :], 1


@_projected(
    "digits", "scaled dot products XXᵀ/√64 of n handwritten digits, ε from 0.05 to 20", _IMAGES
)
def _digits(rng, n, count):
    products = _digit_products()
    chosen = np.empty((count, n), int)
    for k, last in enumerate(
        range(len(products) - n, len(products))
    ):  # distinct: Floyd's sampling (Bentley and Floyd, 1987)
        drawn = rng.integers(last + 1, size=count)
        chosen[:, k] = np.where((chosen[:, :k] == drawn[:, None]).any(-1), last, drawn)
    return products[chosen[:, :, None], chosen[:, None, :]], _epsilon(rng, count)


@cache
def _digit_products() -> np.ndarray:
    images = standardised_digits()
    return images @ images.T / np.sqrt(images.shape[1])


@_projected(
    "trained-mhc", "the twelve trained logits that ship with the package, ε from 0.02 to 20", _FOUR
)
def _trained_mhc(rng, n, count):
    logits = np.array([layer["logits"] for layer in trained_mhc()["layers"]], float)
    return logits[rng.integers(len(logits), size=count)], _log_uniform(rng, 0.02, 20, count)


@_projected(
    "rising",
    "logits whose σ₂ rises with ε although entropy rises, a little perturbed (theory.md 1.4)",
    _FOURS,
)
def _rising(rng, n, count):
    """Every unit of a 4 × 4 example n/4 times over: M ⊗ J has the σ₂ of M."""
    found = np.array(
        [
            [2.7, 2.7, 9.3, -14.7],
            [5.2, 3.2, -11.5, 3.1],
            [2.7, -14.7, 9.3, 2.7],
            [-10.6, 8.9, -7.1, 8.8],
        ]
    )
    copies = np.kron(found, np.ones((n // 4, n // 4)))
    return copies + 0.1 * rng.standard_normal((count, n, n)), rng.uniform(1.2, 2, count)


# ---------------------------------------------------------------- matrices


@_matrices(
    "permutations",
    "convex combinations of 1 to n random permutations, weights flat Dirichlet (mHC-lite)",
)
def _of_permutations(rng, n, count):
    alike = np.zeros((count, n))
    return _mixture(rng, alike, alike)


@_matrices(
    "isolated-unit",
    "(1 − t)J + t(1 ⊕ J) with the unit at a random place: σ₂ = t at the most entropy (theory.md 2.2)",
)
def _isolated_unit(rng, n, count):
    row, col = np.arange(n) == rng.integers(n, size=(2, count, 1))
    row, col, t = row[:, :, None], col[:, None, :], _weight(rng, count)
    return (1 - t) / n + t * np.where(row & col, 1, np.where(row | col, 0, 1 / (n - 1)))


@_matrices("lazy-permutation", "tΠ + (1 − t)J: every detail singular value is t")
def _lazy_permutation(rng, n, count):
    t = _weight(rng, count)
    return t * _permutations(rng, n, count) + (1 - t) / n


@_matrices(
    "cyclic", "permutation matrices that are one n-cycle: periodic, eigenvalues the n-th roots of 1"
)
def _cyclic(rng, n, count):
    return _relabelled(rng, np.roll(np.eye(n), 1, 0), count)


@_matrices(
    "circulant",
    "Σ cₖCᵏ with dense to sparse weights: normal, eigenvalues the discrete Fourier transform of c",
)
def _circulant(rng, n, count):
    weights = rng.permuted(_simplex(rng, n, count), axis=1)
    return weights[:, (np.arange(n)[:, None] - np.arange(n)) % n]


@_matrices(
    "blocks",
    "reducible: ⊕ of random doubly stochastic blocks, rows and columns shuffled apart: σ₂ = 1",
)
def _blocks(rng, n, count):
    groups, t = _groups(rng, n, count), _weight(rng, count)
    rows, cols = rng.permuted(groups, axis=1), rng.permuted(groups, axis=1)
    same = (rows[:, :, None] == cols[:, None, :]).astype(float)
    return (1 - t) * same / same.sum(-1, keepdims=True) + t * _mixture(rng, rows, cols)


@_matrices(
    "kronecker",
    "⊗ of [[p, q], [q, p]], p, q = softmax(0, b): singular values are products of tanh(|b|/2)",
    _TWO_BITS,
)
def _kronecker(rng, n, count):
    matrix = np.ones((count, 1, 1))
    for _ in range(n.bit_length() - 1):
        b = rng.standard_normal(count) * rng.choice([0.3, 1, 3, 10], count)
        p, q = 1 / (1 + np.exp(b)), 1 / (1 + np.exp(-b))
        factor = np.stack([p, q, q, p], -1).reshape(count, 2, 2)
        matrix = np.einsum("cij,ckl->cikjl", matrix, factor).reshape(count, 2 * matrix.shape[1], -1)
    return matrix


@_matrices(
    "de-bruijn",
    "t times the walk that shifts in a fair bit, + (1 − t)J, relabelled: σ₂ = t but λ₂ = 0",
    _TWO_BITS,
)
def _de_bruijn(rng, n, count):
    word = np.arange(n)
    walk = 0.5 * (word // 2 == word[:, None] % (n // 2))
    t = _weight(rng, count)
    return t * _relabelled(rng, walk, count) + (1 - t) / n


@_matrices(
    "design",
    "incidence of a Paley design, a projective plane or a complement, shuffled: all detail σ equal",
    _DESIGNS,
)
def _design(rng, n, count):
    """Symmetric (n, k, λ) designs over k: MMᵀ = (k − λ)/k² I + λ/k² 11ᵀ. Beth, Jungnickel and Lenz, Design Theory (1999)."""
    designs, q = [], _plane_order(n)
    if n % 4 == 3 and _is_prime(n):
        squares = np.unique(np.arange(1, n) ** 2 % n)
        designs.append(np.isin((np.arange(n)[:, None] - np.arange(n)) % n, squares))
    if q is not None:
        points = np.array(
            [(1, a, b) for a in range(q) for b in range(q)]
            + [(0, 1, a) for a in range(q)]
            + [(0, 0, 1)]
        )
        designs.append(points @ points.T % q == 0)
    kinds = np.array([x / x.sum(0) for design in designs for x in (design, ~design)])
    rows, cols = _orders(rng, n, count), _orders(rng, n, count)
    return kinds[
        rng.integers(len(kinds), size=count)[:, None, None], rows[:, :, None], cols[:, None, :]
    ]


@_matrices(
    "periodic",
    "blocks of J shifted round, of a random period p that divides n, relabelled: p eigenvalues of modulus 1",
)
def _periodic(rng, n, count):
    period = rng.choice([p for p in range(2, n + 1) if n % p == 0], (count, 1))
    block = rng.permuted(np.arange(n) // (n // period), axis=1)
    follows = (block[:, :, None] + 1) % period[:, :, None] == block[:, None, :]
    return follows * (period / n)[:, :, None]


@_matrices("uniform", "J, the barycentre")
def _uniform(rng, n, count):
    return np.full((count, n, n), 1 / n)


@_matrices("identity", "I: nothing is mixed")
def _identity(rng, n, count):
    return np.tile(np.eye(n), (count, 1, 1))


@_matrices(
    "gossip",
    "Metropolis weights on a random connected graph, tree to complete: symmetric (Xiao and Boyd, 2004)",
)
def _gossip(rng, n, count):
    edge = np.triu(rng.random((count, n, n)) < rng.random((count, 1, 1)) ** 2, 1)
    earlier = (rng.random((count, n - 1)) * np.arange(1, n)).astype(
        int
    )  # each later unit has an edge to an earlier one
    edge[np.arange(count)[:, None], earlier, np.arange(1, n)] = True
    edge |= edge.swapaxes(1, 2)
    degree = edge.sum(-1)
    matrix = edge / (1.0 + np.maximum(degree[:, :, None], degree[:, None, :]))
    matrix[:, np.arange(n), np.arange(n)] = 1 - matrix.sum(-1)
    return matrix


@_matrices(
    "hypercube", "walk on {0, 1}ᵐ that stays with probability t: eigenvalues 1 − 2(1 − t)j/m", _BITS
)
def _hypercube(rng, n, count):
    apart, stay = np.bitwise_count(np.arange(n)[:, None] ^ np.arange(n)), _weight(rng, count)
    return np.where(apart == 0, stay, np.where(apart == 1, (1 - stay) / (n.bit_length() - 1), 0))


@_matrices(
    "truncated",
    "20 alternations, columns last, from normal logits times 1, 3 or 6: rows not exact (mHC)",
)
def _truncated(rng, n, count):
    logits = rng.standard_normal((count, n, n)) * rng.choice([1, 3, 6], (count, 1, 1))
    kernel = np.exp(logits - logits.max((1, 2), keepdims=True))
    row, col = np.ones((2, count, n))
    for _ in range(20):
        row = 1 / np.einsum("cij,cj->ci", kernel, col)
        col = 1 / np.einsum("ci,cij->cj", row, kernel)
    return row[:, :, None] * kernel * col[:, None, :]
