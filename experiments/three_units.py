"""Conjecture 2.3 (frontier) at n = 3, by boxes: where it is certain, and where it is not.

    python experiments/three_units.py [--low 0.1 --high 0.97 --near 0.05]

Let Mv = σ₂u with unit vectors u, v ⊥ 1. Row i of M is a distribution over the entries of v with the
mean σ₂uᵢ. So its relative entropy to the uniform one is at least I_v(σ₂uᵢ), with Cramér's rate
I_v(x) = max_λ λx − log mean e^{λv}, and ΔH ≥ Σᵢ I_v(σ₂uᵢ). The same holds of the columns, with u
and v exchanged. Both are equalities for the isolated unit.

At n = 3 the vectors are two angles, u ∝ cos(α + 2πi/3) and v ∝ cos(β + 2πi/3). By permutations and
signs 0 ≤ α ≤ π/6 and 0 ≤ β ≤ π/3 are enough. So 2.3 follows if nowhere both sums are below the
deficit of the isolated unit, which is at α = β = 0.

A box of (α, β, σ₂) is certain if a lower bound is positive in all of it. Any λ gives one. It is
expanded around the centre to first order, with a bound of the second. Boxes that are not certain
are halved. The arithmetic is float64, with a margin of 1e-11. At α = β = 0 nothing is left over, so
boxes near it are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tyro
from rich.console import Console

from homojax.lab.page import Table, print_table

MARGIN = 1e-11
MOST = 2_000_000  # boxes at once
LARGEST = 40.0  # |λ|
K = np.sqrt(2 / 3)
PLACES = 2 * np.pi * np.arange(3) / 3
Moving = tuple[np.ndarray, np.ndarray]  # vectors and their derivatives, [B, 3] each


class Boxes(NamedTuple):
    """Boxes of (α, β, σ₂): their centres and half their lengths, [B, 3] each."""

    centre: np.ndarray
    half: np.ndarray


def unit(angle: np.ndarray) -> Moving:
    """Return the unit vectors of angles [B], and their derivatives, [B, 3] each."""
    places = angle[:, None] + PLACES
    return K * np.cos(places), -K * np.sin(places)


def deficit(sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ΔH of the isolated unit and its derivative; the second one grows beyond σ₂ = ¼."""
    alone, beside, others = 1 + 2 * sigma, 1 - sigma, 1 + sigma / 2
    value = alone * np.log(alone) + 4 * beside * np.log(beside) + 4 * others * np.log(others)
    slope = 2 * np.log(alone) - 4 * np.log(beside) + 2 * np.log(others)
    return value / 3, slope / 3


def curvature_of_deficit(sigma: np.ndarray) -> np.ndarray:
    """Return the second derivative of ``deficit``, which is convex in σ₂."""
    return (4 / (1 + 2 * sigma) + 4 / (1 - sigma) + 1 / (1 + sigma / 2)) / 3


def best_multipliers(v: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return λ [B, 3] under which the entries of v have these means, nearly: Newton's steps."""
    multiplier = np.zeros_like(mean)
    for _ in range(18):
        share = np.exp(multiplier[:, :, None] * v[:, None, :])
        share /= share.sum(-1, keepdims=True)
        average = (share * v[:, None]).sum(-1)
        variance = (share * v[:, None] ** 2).sum(-1) - average**2
        step = np.clip((mean - average) / np.maximum(variance, 1e-3), -4, 4)
        multiplier = np.clip(multiplier + step, -LARGEST, LARGEST)
    return multiplier


class Expansion(NamedTuple):
    """A sum of rates at the centres, its first derivatives, and bounds of the second; [B] each.

    ``own`` is the angle of the vector whose entries are means, ``other`` that of the values. No
    second derivative mixes the two; none in ``other`` and σ₂.
    """

    value: np.ndarray
    own: np.ndarray
    other: np.ndarray
    sigma: np.ndarray
    own_own: np.ndarray  # over σ₂
    other_other: np.ndarray
    own_sigma: np.ndarray


def rates(means: Moving, values: Moving, sigma: np.ndarray) -> Expansion:
    """Return Σᵢ λᵢσ₂uᵢ − log mean e^{λᵢv} around the centres, with λ fixed."""
    (u, du), (v, dv) = means, values
    multiplier = best_multipliers(v, sigma[:, None] * u)
    weight = np.exp(multiplier[:, :, None] * v[:, None, :])
    share = weight / weight.sum(-1, keepdims=True)
    size = abs(multiplier)
    return Expansion(
        value=(multiplier * sigma[:, None] * u).sum(1) - np.log(weight.mean(-1)).sum(1),
        own=sigma * (multiplier * du).sum(1),
        other=-(multiplier * (share * dv[:, None]).sum(-1)).sum(1),
        sigma=(multiplier * u).sum(1),
        own_own=K * size.sum(1),
        other_other=(size * K + size**2 * K**2).sum(1),
        own_sigma=K * size.sum(1),
    )


def least(boxes: Boxes) -> np.ndarray:
    """Return a lower bound of the larger sum of rates over ΔH of the isolated unit, [B]."""
    alpha, beta, sigma = boxes.centre.T
    a, b, s = boxes.half.T
    u, v = unit(alpha), unit(beta)
    rows, columns = rates(u, v, sigma), rates(v, u, sigma)
    value, slope = deficit(sigma)
    bend = np.maximum(curvature_of_deficit(sigma + s), curvature_of_deficit(sigma - s))
    bounds = []
    for row, column in ((0.5, 0.5), (1, 0), (0, 1)):  # the larger is at least any mean of both
        first = (
            abs(row * rows.own + column * columns.other) * a
            + abs(row * rows.other + column * columns.own) * b
            + abs(row * rows.sigma + column * columns.sigma - slope) * s
        )
        second = (
            (row * rows.own_own * (sigma + s) + column * columns.other_other) * a**2 / 2
            + (row * rows.other_other + column * columns.own_own * (sigma + s)) * b**2 / 2
            + (row * rows.own_sigma * a + column * columns.own_sigma * b) * s
            + bend * s**2 / 2
        )
        bounds.append(row * rows.value + column * columns.value - value - first - second)
    return np.max(bounds, axis=0)


def begin(low: float, high: float) -> Boxes:
    """Return some boxes that cover all angles, and σ₂ from ``low`` to ``high``."""
    edges = [
        np.linspace(0, np.pi / 6, 13),
        np.linspace(0, np.pi / 3, 25),
        np.linspace(low, high, 25),
    ]
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    centre = np.stack([x.ravel() for x in np.meshgrid(*middles, indexing="ij")], 1)
    half = np.array([(edge[1] - edge[0]) / 2 for edge in edges])
    return Boxes(centre, np.broadcast_to(half, centre.shape).copy())


def halve(boxes: Boxes) -> Boxes:
    """Return the two halves of every box, across its longest side."""
    rows, longest = np.arange(len(boxes.half)), boxes.half.argmax(1)
    half, shift = boxes.half.copy(), np.zeros_like(boxes.half)
    half[rows, longest] /= 2
    shift[rows, longest] = half[rows, longest]
    both = np.concatenate([boxes.centre + shift, boxes.centre - shift])
    return Boxes(both, np.concatenate([half, half]))


def certify(low: float, high: float, near: float) -> tuple[int, Boxes]:
    """Return how many boxes are certain, and those that are not, where memory ended.

    Args:
        low: the least σ₂.
        high: the largest, below 1.
        near: boxes within this distance, in radians, of α = β = 0 are left out.
    """
    boxes, certain = begin(low, high), 0
    while len(boxes.centre) and len(boxes.centre) <= MOST:
        corner = boxes.centre[:, :2] + boxes.half[:, :2]
        far = (corner**2).sum(1) > near**2
        boxes = Boxes(boxes.centre[far], boxes.half[far])
        parts = range(0, len(boxes.centre), 50_000)
        bound = [least(Boxes(*(x[k : k + 50_000] for x in boxes))) for k in parts]
        left = ~(np.concatenate([*bound, np.zeros(0)]) > MARGIN)
        certain += int((~left).sum())
        boxes = halve(Boxes(boxes.centre[left], boxes.half[left]))
    return certain, boxes


def main(low: float = 0.1, high: float = 0.97, near: float = 0.05) -> None:
    """Say whether 2.3 is certain for σ₂ from ``low`` to ``high``, further away than ``near``."""
    certain, left = certify(low, high, near)
    rows = [[f"{low:g} to {high:g}", f"{near:g}", f"{certain:,}", f"{len(left.centre):,}"]]
    header = ["σ₂", "left out, radians", "certain boxes", "others"]
    print_table(Table("2.3 (frontier) at n = 3", header, rows), Console())


if __name__ == "__main__":
    tyro.cli(main)
