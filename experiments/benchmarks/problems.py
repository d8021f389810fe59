"""The problems that several benchmarks pose, and how they time a program."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PATIENCE = 60  # seconds, after which a program is not run again


class Grid(NamedTuple):
    """Gaussian logits, one matrix for each ε."""

    name: str
    n: int
    batch: int
    least: float  # ε from here
    most: float  # to here, geometrically

    def draw(self, batch: int | None = None) -> tuple[jax.Array, jax.Array]:
        """Return logits [B, n, n] and ε [B], float32."""
        lanes = batch or self.batch
        logits = jax.random.normal(jax.random.key(self.n), (lanes, self.n, self.n), jnp.float32)
        return logits, jnp.geomspace(self.least, self.most, lanes, dtype=jnp.float32)


GRIDS = {
    f"{name}-{n}": Grid(name, n, batch, least, most)
    for name, hardest, most in (("hard", 0.1, 5), ("easy", 1, 20))
    for n, batch in ((4, 4096), (16, 1024), (64, 256), (256, 32))
    for least in [0.05 if (name, n) == ("hard", 4) else hardest]
}
# Gradients, where a derivative has digits in float32.
SLOPES = {n: Grid("slopes", n, batch, 0.2, 5) for n, batch in ((16, 256), (64, 64))}


class Clouds(NamedTuple):
    """Two clouds of Gaussian points, to be projected without a matrix."""

    features: int = 64
    tol: float = 1e-4  # float32 promises 6e-5 at n = 16,384
    max_steps: int = 2_000

    def draw(self, n: int) -> np.ndarray:
        """Return both clouds, [2, n, features], float32."""
        return np.random.default_rng(n).normal(size=(2, n, self.features)).astype(np.float32)


CLOUDS = Clouds()


class Timed(NamedTuple):
    """A program that was run several times."""

    seconds: float  # the median of a run, without the first
    compile_seconds: float  # what the first one took above that
    result: Any


def timed(program: Callable, repeats: int, *args: Any) -> Timed:
    """Return how long a program takes, and its result."""
    spent, result = [], None
    while len(spent) < repeats + 1 and sum(spent) < PATIENCE:
        start = time.perf_counter()
        result = jax.block_until_ready(program(*args))
        spent.append(time.perf_counter() - start)
    median = float(np.median(spent[1:] or spent))
    return Timed(median, max(0.0, spent[0] - median), result)


def largest_errors(matrices: Any) -> np.ndarray:
    """Return each matrix's largest |row or column sum − 1|, [B], summed in float64."""
    matrices = np.asarray(matrices, np.float64)
    return np.maximum(abs(matrices.sum(1) - 1).max(1), abs(matrices.sum(2) - 1).max(1))
