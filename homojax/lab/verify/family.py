"""What a family of cases is: a name, the n that it exists at, and how its cells are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from homojax.lab.inputs import InputError


class Cells(NamedTuple):
    """Cases of one size, float64."""

    logits: np.ndarray  # [count, n, n]; log(matrix), −inf at its zeros, where a matrix is given
    epsilon: np.ndarray  # [count]; 1 where a matrix is given
    matrix: np.ndarray | None  # [count, n, n], in 𝔅ₙ to rounding, or truncated; None: projected


class Sizes(NamedTuple):
    """The n that a family exists at, as a predicate and in words."""

    exist: Callable[[int], bool]
    needs: str


class Family(NamedTuple):
    """Cases of one kind. ``draw`` refuses an n that ``sizes`` does, with an InputError."""

    name: str
    description: str
    sizes: Callable[[int], bool]  # whether it exists at n
    draw: Callable[[np.random.Generator, int, int], Cells]  # (rng, n, count)
    needs: str  # what n must be


FAMILIES: dict[str, Family] = {}  # in the order of declaration


def is_prime(n: int) -> bool:
    """Return whether n is a prime."""
    return n >= 2 and all(n % k for k in range(2, int(n**0.5) + 1))


def plane_order(n: int) -> int | None:
    """Return the prime q with q² + q + 1 = n, if there is one.

    >>> plane_order(7), plane_order(8)
    (2, None)
    """
    q = round((n - 0.75) ** 0.5 - 0.5) if n >= 7 else 0
    return q if q * q + q + 1 == n and is_prime(q) else None


ANY = Sizes(lambda n: n >= 2, "n ≥ 2")
TWO = Sizes(lambda n: n == 2, "n = 2")
FOUR = Sizes(lambda n: n == 4, "n = 4")
FOURS = Sizes(lambda n: n >= 4 and n % 4 == 0, "n a multiple of 4")
BITS = Sizes(lambda n: n >= 2 and n & (n - 1) == 0, "a power of 2, n ≥ 2")
TWO_BITS = Sizes(lambda n: n >= 4 and n & (n - 1) == 0, "a power of 2, n ≥ 4")
IMAGES = Sizes(lambda n: 2 <= n <= 1797, "2 ≤ n ≤ 1797, the number of images")
DESIGNS = Sizes(
    lambda n: (n % 4 == 3 and is_prime(n)) or plane_order(n) is not None,
    "a prime 4k − 1, or q² + q + 1 with q prime: n = 3, 7, 11, 13, 19, 23, 31 …",
)


def logit_family(name: str, description: str, sizes: Sizes = ANY) -> Callable:
    """Return a decorator that registers a family of logits to be projected.

    It is for a function of (rng, n, count) that returns logits [count, n, n] and ε, [count] or one.
    """

    def cells(drawn: tuple) -> Cells:
        logits, epsilon = drawn
        return Cells(logits, np.broadcast_to(np.asarray(epsilon, float), len(logits)).copy(), None)

    return _family(name, description, sizes, cells)


def matrix_family(name: str, description: str, sizes: Sizes = ANY) -> Callable:
    """Return a decorator that registers a family of matrices.

    It is for a function of (rng, n, count) that returns matrices [count, n, n].
    """

    def cells(matrix: np.ndarray) -> Cells:
        with np.errstate(divide="ignore"):
            return Cells(np.log(matrix), np.ones(len(matrix)), matrix)

    return _family(name, description, sizes, cells)


def _family(name: str, description: str, sizes: Sizes, cells: Callable) -> Callable:
    """Return a decorator that registers a function; ``cells`` makes Cells of what it returns."""

    def register(function: Callable) -> Callable:
        def draw(rng: np.random.Generator, n: int, count: int) -> Cells:
            if not sizes.exist(n):
                raise InputError(f"family {name} needs {sizes.needs}, and n = {n} was asked.")
            return cells(function(rng, n, count))

        FAMILIES[name] = Family(name, description, sizes.exist, draw, sizes.needs)
        return function

    return register
