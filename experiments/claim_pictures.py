"""Every claim in a picture: what was measured over what it predicts, one panel a claim.

    python experiments/claim_pictures.py [--quick]

The cells are those of a small ``homojax verify`` at n = 3, 4 and 8, in float64, and of n = 3, 8 and
64 for signals in noise. A bound holds on its side of the line. Where one is attained, points lie on
the line.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.figure_style import BOUND, FAINT, MEASURED, WARNING
from homojax.lab.page import Table
from homojax.lab.verify.config import Verification
from homojax.lab.verify.plan import plan
from homojax.lab.verify.run import judge_block
from homojax.theory import CLAIMS
from homojax.theory.claim import Claim, Verdict

SIZES = {
    "smoke": {"n": (3,), "cells": 60, "stacks": 60, "signals": 6, "depth": 4},
    "quick": {"n": (4,), "cells": 600, "stacks": 300, "signals": 24, "depth": 8},
    "full": {"n": (3, 4, 8), "cells": 20_000, "stacks": 2_000, "signals": 192, "depth": 16},
}
MOST = 600  # points of a verdict in a panel: more hide each other
COLUMNS = 4
LEAST = 1e-9  # that a logarithmic axis shows
LOOK = {  # in the order in which they are drawn
    Verdict.HOLDS: {"color": MEASURED, "marker": ".", "ms": 3, "alpha": 0.5},
    Verdict.UNDECIDABLE: {"color": BOUND, "marker": ".", "ms": 3, "alpha": 0.5},
    Verdict.VIOLATED: {"color": WARNING, "marker": "x", "ms": 5},
}


class Points(NamedTuple):
    """The comparisons of a claim that apply."""

    predicted: np.ndarray
    measured: np.ndarray
    verdict: np.ndarray

    def count(self, verdict: Verdict) -> int:
        """Return how many have a verdict."""
        return int((self.verdict == verdict).sum())


def points_of(config: Verification, bench: Bench) -> dict[str, Points]:
    """Return the comparisons of every claim, by its name."""
    found, groups = defaultdict(list), plan(config)
    blocks = [(group, block) for group in groups for block in range(group.num_blocks())]
    for done, (group, block) in enumerate(blocks):
        bench.progress(done, len(blocks), f"{group.scope}, {group.family}, n = {group.n}")
        for claim, judged in judge_block(config, (group, block))[1].items():
            lesser, greater, _, applies = np.broadcast_arrays(*judged.comparison)
            sides = (greater, lesser) if claim.direction != "≥" else (lesser, greater)
            used = group.cells_of(block)
            kept = [x[:used].ravel() for x in (*sides, judged.verdict, applies)]
            found[claim.name].append([x[kept[3].astype(bool)] for x in kept[:3]])
    return {
        name: Points(*map(np.concatenate, zip(*parts, strict=True)))
        for name, parts in found.items()
    }


def draw(claims: list[Claim], points: dict[str, Points]) -> Figure:
    """Draw the claims of one section."""
    columns = min(COLUMNS, len(claims))
    rows = -(-len(claims) // columns)
    size = 2.75 * max(columns, 3), 2.9 * rows + 0.6  # as wide as the legend at least
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax, claim in zip(axes.flat, claims, strict=False):
        panel(ax, claim, points[claim.name])
    for ax in axes.flat[len(claims) :]:
        ax.set_axis_off()
    fig.supxlabel("predicted", fontsize=10)
    fig.supylabel("measured", fontsize=10)
    keys = [
        Line2D([], [], ls="", label=f"{verdict.label}", **{**look, "alpha": 1, "ms": 6})
        for verdict, look in LOOK.items()
    ]
    keys.append(Line2D([], [], color=FAINT, lw=1, label="measured = predicted"))
    fig.legend(handles=keys, ncols=4, loc="outside upper center")
    return fig


def panel(ax: Axes, claim: Claim, points: Points) -> None:
    """Draw one claim, on logarithmic axes where all is positive."""
    usable = np.isfinite(points.predicted) & np.isfinite(points.measured)
    sides = points.predicted[usable], points.measured[usable]
    verdicts = points.verdict[usable]
    rng = np.random.default_rng(0)
    for verdict, look in LOOK.items():
        which = np.flatnonzero(verdicts == verdict)
        which = rng.permutation(which)[:MOST]
        ax.plot(sides[0][which], sides[1][which], ls="", rasterized=True, **look)
    if len(verdicts):
        log = _spans_orders(np.concatenate(sides))
        if log:
            ax.set(xscale="log", yscale="log")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_minor_formatter(NullFormatter())
        ax.axline((1, 1), (2, 2), color=FAINT, lw=1, zorder=0)
        ax.set(xlim=_limits(sides[0], log), ylim=_limits(sides[1], log))
    words = ("hold", "undecidable", "violated")
    counts = [f"{points.count(x):,} {word}" for x, word in zip(LOOK, words, strict=True)]
    ax.set_title(f"{claim.number} {claim.name} ({claim.status})\n{', '.join(counts)}", fontsize=7.5)
    ax.title.set_color(WARNING if points.count(Verdict.VIOLATED) else MEASURED)
    ax.tick_params(labelsize=7, which="both")


def _limits(values: np.ndarray, log: bool) -> tuple[float, float]:
    """Return the ends of an axis, a little beyond the values; it shows nothing below ``LEAST``."""
    if log:
        low, high = max(values[values > 0].min(), LEAST), max(values.max(), LEAST)
        return min(low / 1.5, high / 10), high * 1.5
    low, high = values.min(), values.max()
    margin = max(0.06 * (high - low), 0.01 * abs(values).max()) or 0.1
    return low - margin, high + margin


def _spans_orders(values: np.ndarray) -> bool:
    """Return whether nearly all are positive, and their bulk is more than a factor of 30 wide."""
    positive = values[values > 0]
    if len(positive) < 0.9 * len(values) or not len(positive):
        return False
    low, high = np.quantile(positive, [0.05, 0.95])
    return high > 30 * low


def study(size: Size, bench: Bench) -> Study:
    """Judge a few cells, and draw them section by section."""
    points = points_of(Verification(**SIZES[size]), bench)
    sections = defaultdict(list)
    for claim in sorted(CLAIMS.values(), key=_place):
        sections[claim.number.split(".")[0]].append(claim)
    parts = {}
    for section, claims in sorted(sections.items()):
        rows = [
            [
                f"{claim.number} {claim.name}",
                textwrap.shorten(claim.statement, 60, placeholder=" …"),
                claim.status,
                *(f"{points[claim.name].count(verdict):,}" for verdict in LOOK),
            ]
            for claim in claims
        ]
        header = ["claim", "statement", "status", *(verdict.label for verdict in LOOK)]
        parts[f"section-{section}: the claims of §{section}"] = Study(
            text="", tables=[Table("", header, rows)], figure=draw(claims, points)
        )
    return Study(text="Black: the claim holds within its error.", tables=[], parts=parts)


def _place(claim: Claim) -> tuple[int, ...]:
    """Return the number of a claim, to sort by: 2 before 2.1, and that before 2.10."""
    return tuple(map(int, claim.number.split(".")))


if __name__ == "__main__":
    command(study)
