"""What holds for every token that there can be, proved from the ellipsoid of a layer's logits."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from homojax.lab.audit.alternations import RELATIVE, entry_of, gap_of_diameter, truncated
from homojax.lab.audit.connectivity import connectivity, least_connectivity
from homojax.lab.audit.ellipsoid import (
    MOST_CYCLES,
    Cut,
    Ellipsoid,
    cuts,
    cycles,
    ellipsoid_of,
    rectangles,
)
from homojax.lab.audit.layers import Layer
from homojax.lab.audit.measures import converged
from homojax.presets import Preset

POWERS = 1, 2, 4, 8  # weights of outputs that are tried, by how far logits reach with each


class Certificate(NamedTuple):
    """Bounds that no token's matrix crosses. What is "run" is after the model's alternations."""

    diameter: float  # ≥ Δ(S)/ε
    gap: float  # ≤ 1 − σ₂, converged
    sigma2: float  # ≥ σ₂ as run; 1 or more says nothing
    least: np.ndarray  # [n, n] ≤ M, converged
    largest: np.ndarray  # [n, n] ≥ M, converged
    least_run: float  # ≤ min M as run
    sum_error: float  # ≥ the largest |sum − 1| as run

    @property
    def dist_to_uniform(self) -> float:
        """The largest ‖M − J‖_F, converged."""
        n = len(self.least)
        return float(np.sqrt((np.maximum(self.largest - 1 / n, 1 / n - self.least) ** 2).sum()))

    @property
    def saturation(self) -> float:
        """The largest (‖M‖_F² − 1)/(n − 1), converged: rows and columns sum to 1."""
        squares = (self.largest**2).sum(), self.largest.max(0).sum(), self.largest.max(1).sum()
        return min(1.0, (float(min(squares)) - 1) / (len(self.largest) - 1))


def certify(layer: Layer) -> Certificate:
    """Return what is proved of every token's matrix. Laws 9.1 to 9.4."""
    ellipsoid, preset = ellipsoid_of(layer), layer.preset
    if preset.num_iters is not None:
        return _of_alternations(ellipsoid, preset, preset.num_iters)
    least, largest, gap = _WEIGHTED[preset.parametrization](ellipsoid, layer.n)
    if preset.orientation == "inputs-first":
        least, largest = least.T, largest.T
    with np.errstate(divide="ignore"):
        diameter = 2 * float(np.log(largest.max() / least.min()))
    rounding = layer.n * float(np.finfo(float).eps)
    return Certificate(diameter, gap, 1 - gap, least, largest, float(least.min()), rounding)


# ---------------------------------------------------------------- projections


def _of_alternations(ellipsoid: Ellipsoid, preset: Preset, num_iters: int) -> Certificate:
    if preset.last == "columns":  # then of the transposes
        ellipsoid = ellipsoid.transposed()
    n = round(len(ellipsoid.base) ** 0.5)
    crossed = rectangles(ellipsoid)
    least = entry_of(np.exp(np.minimum(crossed.against, 345)), n)
    largest = entry_of(np.exp(-crossed.favour), n)
    near, far = _near_base(ellipsoid, n)
    least, largest = np.maximum(least, near), np.minimum(largest, far)
    least, largest = within_sums(least * (1 - RELATIVE), largest * (1 + RELATIVE))
    gap = max(gap_of_diameter(crossed.diameter), _gap_between(least))
    if n <= MOST_CYCLES and ellipsoid.gram is not None:
        gap = max(gap, _gap_by_cuts(ellipsoid, least, crossed.diameter, n))
    run = truncated(ellipsoid, crossed, preset, num_iters, gap)
    if preset.last == "columns":
        least, largest = least.T, largest.T
    return Certificate(crossed.diameter, gap, run.sigma2, least, largest, run.least, run.sum_error)


def bounded(
    entries: np.ndarray, moved: np.ndarray | float, error: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest entries whose logarithms move by no more than ``moved``.

    From e⁷⁰⁰ on, which float64 barely holds, nothing is known but that they are at most 1.
    """
    far = np.greater_equal(moved, 700)
    largest = np.minimum(1, (entries + error) * np.exp(np.minimum(moved, 700)))
    return (entries - error) * np.exp(-np.asarray(moved)), np.where(far, 1, largest)


def within_sums(least: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return tighter bounds of entries: a row, or a column, has what the others leave of 1."""
    for _ in range(8):
        for axis in (0, 1):
            others = largest.sum(axis, keepdims=True) - largest
            least = np.maximum(least, 1 - others - RELATIVE)
            others = least.sum(axis, keepdims=True) - least
            largest = np.minimum(largest, 1 - others + RELATIVE)
    return least, largest


def _near_base(ellipsoid: Ellipsoid, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest entries by how far they can be from those at base.

    d log M is the voltage that dS drives round a network of conductances M. By Kirchhoff's theorem
    it is a mean over spanning trees of ⟨cycle, dS⟩, so that no entry's logarithm moves by more than
    the largest ⟨cycle, δ⟩ of the cycles through it.
    """
    if n <= MOST_CYCLES:
        around = cycles(n)
        widths = ellipsoid.most(around) - around @ ellipsoid.base
        moved = np.where(around != 0, widths[:, None], 0).max(0).reshape(n, n)
    else:
        moved = np.full((n, n), 2 * n * ellipsoid.farthest())  # of 2n corners at most
    middle, _, error = converged(ellipsoid.base.reshape(n, n))
    error = error * n
    return bounded(middle, moved, error)


# ---------------------------------------------------------------- the gap


def _gap_between(least: np.ndarray) -> float:
    """Return a gap that all doubly stochastic matrices above these entries have.

    1 − σ₂² is the least eigenvalue on V⊥ of the Laplacian with weights MᵀM, and grows with each.
    """
    weights = np.stack([least.T @ least, least @ least.T])
    return _gap_of_square(float(connectivity(weights).max()))


def _gap_of_square(square: float) -> float:
    """Return 1 − σ₂ of 1 − σ₂²."""
    square = min(1.0, square * (1 - RELATIVE))
    return square / (1 + math.sqrt(1 - square))


def _gap_by_cuts(ellipsoid: Ellipsoid, least: np.ndarray, diameter: float, n: int) -> float:
    """Return a gap that all tokens have, by what leaks over each cut of the units.

    What leaks from A to all but B is ℓ = Σ Mᵢⱼ, i ∈ B, j ∉ A. As many pairs of entries lead over
    the cut as stay: ℓ² = Σ Mᵢₗ Mₖⱼ exp(−rectangle), and by Jensen's inequality that is at least
    (a − ℓ)(n − a − ℓ) exp(−mean). The mean of the rectangles is largest where M is a permutation on
    either side, but for a share of ℓ. Then A's cut in the graph with weights MᵀM, and B's in that
    with MMᵀ, is at least ℓ max(1, 2 − 2ℓ), for the B, or the A, with the least ℓ.
    """
    inputs: dict[tuple[int, ...], float] = {}
    outputs: dict[tuple[int, ...], float] = {}
    for cut in cuts(n):
        leak = _leak(cut, ellipsoid, diameter)
        over = leak * max(1.0, 2 - 2 * leak)
        inputs[cut.inputs] = min(over, inputs.get(cut.inputs, math.inf))
        outputs[cut.outputs] = min(over, outputs.get(cut.outputs, math.inf))
    return _gap_of_square(
        max(
            least_connectivity(least.T @ least, list(inputs), list(inputs.values())),
            least_connectivity(least @ least.T, list(outputs), list(outputs.values())),
        )
    )


def _leak(cut: Cut, ellipsoid: Ellipsoid, diameter: float) -> float:
    """Return a leak that no token is below, by M itself as weights or by weights q of outputs.

    With weights of outputs ℓ² is at least (1 − ℓ)² exp(entropy of q, and of even weights on B)
    exp(−mean). Logits that reach farther by some outputs than by others are bounded by the others.
    The leak is the ℓ below which the inequality fails, found by halving.
    """
    a, b = len(cut.outputs), len(cut.rectangles)
    mean = float(ellipsoid.most(cut.directions()).max())
    entropy, even = math.log(a * b), True
    single = ellipsoid.most(cut.rectangles).max(1)
    for power in POWERS if single.min() > 0 else ():
        weights = (single / single.min()) ** -power
        weights = weights / weights.sum()
        own = float(ellipsoid.most(cut.directions(weights)).max())
        disorder = math.log(a) - float((weights * np.log(weights)).sum())
        if own - disorder < mean - entropy:
            mean, entropy, even = own, disorder, False
    low, high = math.log(1e-300), math.log(a * b / (a + b) * (1 - RELATIVE))
    for _ in range(48):
        middle = (low + high) / 2
        leak = math.exp(middle)
        # A share of the mean may be as large as the largest diameter.
        if even:
            logarithm = math.log((a - leak) * (b - leak))
            stray = leak * ((a - 1) / (a - leak) + (b - 1) / (b - leak))
        else:
            left = max(1 - leak, 1e-300)
            logarithm, stray = entropy + 2 * math.log(left), leak / left * ((a > 1) + (b > 1))
        exponent = mean + min(1.0, stray) * max(0.0, diameter - mean)
        fails = 2 * middle < logarithm - exponent
        low, high = (middle, high) if fails else (low, middle)
    return math.exp(low)


# ---------------------------------------------------------------- weights of permutations

Entries = tuple[np.ndarray, np.ndarray, float]  # the least, the largest, and the gap


def _of_permutations(ellipsoid: Ellipsoid, n: int) -> Entries:
    """Of Σ softmax(S)_π Π_π: no weight is below 1/Σ_σ exp(the largest S_σ − S_π)."""
    base, gram, slack = ellipsoid
    widths = (slack[:, None] + slack[None, :]) * (1 - np.eye(len(base)))
    if gram is not None:
        squares = np.diagonal(gram)
        widths += np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0))
    rises = base[None, :] - base[:, None]  # [π, σ]
    with np.errstate(over="ignore"):
        least = 1 / np.exp(rises + widths).sum(1) * (1 - RELATIVE)
        largest = 1 / np.exp(rises - widths).sum(1) * (1 + RELATIVE)
    places = np.eye(n)[np.array(list(itertools.permutations(range(n))))]
    low, high = (np.tensordot(weights, places, 1) for weights in (least, largest))
    others = low.sum(1, keepdims=True) - low
    return low, np.minimum(1 - others, high), _gap_between(low)


def _of_factors(ellipsoid: Ellipsoid, n: int) -> Entries:
    """Of ⊗ₖ [[p, q], [q, p]], whose σ₂ is the largest |p − q|."""
    low, high, gap = np.ones((1, 1)), np.ones((1, 1)), 1.0
    for k in range(n.bit_length() - 1):
        a = np.zeros(len(ellipsoid.base))
        a[2 * k], a[2 * k + 1] = 1, -1
        q, p = (
            (1 - RELATIVE) / (1 + math.exp(min(700.0, float(ellipsoid.most(way)))))
            for way in (a, -a)
        )
        low = np.kron(low, np.array([[p, q], [q, p]]))
        high = np.kron(high, 1 - np.array([[q, p], [p, q]]))
        gap = min(gap, 2 * p, 2 * q)
    return low, high, gap


_WEIGHTED = {
    "birkhoff": _of_permutations,
    "kronecker": _of_factors,
    "identity": lambda _, n: (np.eye(n), np.eye(n), 0.0),
}
