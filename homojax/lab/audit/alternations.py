"""What a model's own number of alternations can leave, over an ellipsoid of logits."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from homojax.lab.audit.ellipsoid import Ellipsoid, Rectangles
from homojax.presets import Preset

MOST_NEAR = 64  # n up to which all pairs of units are compared after each half-step
RELATIVE = 1e-9  # what the arithmetic of certificates is off by at most, relatively


class Truncated(NamedTuple):
    """What is proved of a matrix after its alternations."""

    sigma2: float  # ≥ σ₂
    least: float  # ≤ every entry
    sum_error: float  # ≥ the largest |sum − 1|


def truncated(
    ellipsoid: Ellipsoid, crossed: Rectangles, preset: Preset, num_iters: int, gap: float
) -> Truncated:
    """Return what holds after alternations of which the last makes the sums of rows 1. Law 9.4.

    A half-step shrinks the sums' distance from equal, in Hilbert's metric, by tanh(Δ/4) (Franklin
    and Lorenz 1989). A constant c in a sum s is a factor s/(s + c), so a step of log(1 + c/s),
    which the next half-step but one finds again. Sums of a mean near 1 that are near to equal are
    near to 1, so steps become small. ``_near_base`` says more where the ellipsoid is narrow: early
    on, because what logits may move adds up. From there on distances shrink.
    """
    n = round(len(ellipsoid.base) ** 0.5)
    added, spread = preset.added_to_entries, crossed.column_spread
    small = 1 / (1 + (n - 1) * _exp(spread))  # the least entry after the first normalisation
    diameter = min(crossed.diameter + 2 * math.log1p(added / small), max(crossed.diameter, spread))
    kappa = math.tanh(diameter / 4)
    step, first = _steps(crossed, preset, n, max(spread, diameter))
    # How far the sums of half-step 3 are from equal: constants left a step on that side before.
    distance = max(first, step) + min(diameter, kappa * (spread + step))
    clamped = preset.least_sum > _least_sum(n, max(spread, diameter), added)
    near = [math.inf] * (2 * num_iters + 2)
    if n <= MOST_NEAR and not clamped:
        moved = math.log1p(added / small)
        near = _near_base(ellipsoid, num_iters, n, moved, max(step, first))
    distance, before, last = min(distance, near[3]), step, step
    for h in range(3, 2 * num_iters + 1):
        before, last = last, step
        if not clamped:
            last = min(step, math.log1p(preset.added_to_sums * _exp(distance + before)))
        distance = min(before + kappa * distance, near[h + 1])
    upper = min(float(n), n / (1 + (n - 1) * _exp(-distance)))
    lower = math.exp(-last) * n / (1 + (n - 1) * _exp(distance))
    error = max(upper - 1, 1 - lower, -math.expm1(-last))
    left = distance / (1 - kappa) if kappa < 1 else math.inf
    off = math.sqrt(n) * (math.log1p(added / small) + math.expm1(min(left + step, 700)))
    least = float(entry_of(np.array(_exp(diameter)), n)) * _exp(-(left + step))
    least = max(least, _exp(-diameter) * lower * math.exp(-step) / n)
    return Truncated(
        sigma2=min(math.sqrt(upper) * (1 - gap_of_diameter(diameter)), 1 - gap + off) + RELATIVE,
        least=least * (1 - RELATIVE),
        sum_error=error * (1 + RELATIVE) + 1e-15 * n,
    )


def _steps(crossed: Rectangles, preset: Preset, n: int, distance: float) -> tuple[float, float]:
    """Return what constants move a normalisation by, and the first one, in Hilbert's metric."""
    smallest = _least_sum(n, distance, preset.added_to_entries)
    step = math.log1p(preset.added_to_sums / smallest)
    step += math.log(max(1.0, preset.least_sum / smallest))
    if preset.largest_of == "side":
        return step, 0.0
    return step, math.log1p(preset.added_to_sums * _exp(crossed.column_spread + crossed.row_spread))


def _least_sum(n: int, distance: float, added: float) -> float:
    """Return a sum that none is below, of n that are so far from equal in Hilbert's metric."""
    return 1 / (1 + (n - 1) * _exp(distance)) / (1 + n * added)


def _exp(x: float) -> float:
    return math.exp(min(x, 345.0))  # whose square is a number, too


@np.errstate(over="ignore")  # ∞ proves nothing, and says so
def _near_base(
    ellipsoid: Ellipsoid, num_iters: int, n: int, moved: float, step: float
) -> list[float]:
    """Return how far from equal the sums of half-step h can be, by how far logits can move, [h].

    In Hilbert's metric, from the base. Constants move a logit by ``moved`` at most, and the
    logarithm of a sum by ``step``. Let s_h be the sums that half-step h divides by, and E_h the
    means with its weights, which then sum to 1. Along a path dS of logits,

        d log s_h = −E_h[d log s_{h−1}] + (E_h − E_{h−2})[dS + dp_{h−3}],

    with potentials p_h = p_{h−2} − log s_h. The first term shrinks spreads by Dobrushin's
    coefficient of the weights. The second one is at most tanh(spread of log s_{h−1}/4), which
    bounds how far the weights differ, times a spread. A constant c adds c/(s + c) times at most one
    and the size of what is averaged, which is h(η + step) at most, at either end of a difference.
    """
    # Shifts of columns do nothing: the first half-step takes them off.
    slack = ellipsoid.slack.reshape(n, n)
    eta = float((slack * (1 - 2 / n) + slack.mean(0, keepdims=True)).max())
    if ellipsoid.gram is not None:
        single = np.eye(n * n).reshape(n, n, n, n)
        single = (single - single.mean(0, keepdims=True)).reshape(-1, n * n)
        eta = float((ellipsoid.most(single) - single @ ellipsoid.base).max())
    eta += moved
    constant = 2 * step * (1 + (2 * num_iters + 1) * (eta + step))
    s = ellipsoid.base.reshape(n, n)
    changed = {-2: 0.0, -1: 0.0, 0: 0.0}  # spread of what a potential changes by
    potential, before, earlier, found = [np.zeros(n), np.zeros(n)], 0.0, 0.0, [math.inf]
    for h in range(1, 2 * num_iters + 2):
        axis = (h - 1) % 2  # 0: columns are normalised
        shifted = s + (potential[1][:, None] if axis == 0 else potential[0][None, :])
        sums = np.logaddexp.reduce(shifted, axis)
        weights = np.exp(shifted - (sums[None, :] if axis == 0 else sums[:, None]))
        spread = float(np.ptp(sums + potential[axis]))  # of log s_h at base
        weights = weights.T if axis == 0 else weights
        shared = min(np.minimum(weights[i], weights[k]).sum() for i in range(n) for k in range(i))
        rate = 1 - shared * math.exp(-min(700.0, 2 * eta + changed[h - 1]))
        if h <= 2:
            change = 2 * eta + rate * before
        else:
            difference = math.tanh((earlier + before) / 4)
            change = rate * before + 2 * difference * (2 * eta + changed[h - 3])
        change += constant
        found.append(spread + change)
        changed[h] = changed[h - 2] + change
        potential[axis] = -sums
        before, earlier = change, spread
    return found


def entry_of(ratio: np.ndarray, n: int) -> np.ndarray:
    """Return the entry of a doubly stochastic M whose largest Mᵢₗ Mₖⱼ / Mᵢⱼ Mₖₗ is ``ratio``.

    At most so many times its smallest: Mᵢⱼ(n − 2 + Mᵢⱼ) ≥ (1 − Mᵢⱼ)²/ratio, summed over k ≠ i and
    l ≠ j, and the other way for its largest.
    """
    root = np.sqrt(((n - 2) * ratio) ** 2 + 4 * (n - 1) * ratio)
    return 2 / ((n - 2) * ratio + 2 + root)


def gap_of_diameter(diameter: float) -> float:
    """Return 1 − tanh(Δ/4). Law 2, hilbert."""
    return 2 / (math.exp(min(diameter, 1400) / 2) + 1) * (1 - RELATIVE)
