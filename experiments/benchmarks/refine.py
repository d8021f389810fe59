"""How many cells does a refined sweep measure, beside the even grid that knows as much?

Both say between which ε the detail that is left falls through 0.9, 0.5 and 0.1, at each n and
depth. The script prints a table for several widths, and fails where one of these intervals of the
even grid does not meet that of the refined one. Even grids of more than ``--even`` cells are
counted, not measured. Cells are counted, and no time is.

    python experiments/benchmarks/refine.py [--width 0.1]
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import tyro
import xarray as xr

from homojax.lab.page import markdown_table
from homojax.lab.sweep.boundaries import contours, even_size
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.run import sweep


def main(
    width: tuple[float, ...] = (0.1, 0.01, 0.001),
    n: tuple[int, ...] = (4, 16),
    seeds: int = 8,
    even: int = 20_000,
) -> None:
    """Print how many ε and cells each takes.

    Args:
        width: in ln ε.
        n: numbers of mixed units.
        seeds: independent stacks.
        even: the most cells of an even grid that is measured.
    """
    jax.config.update("jax_enable_x64", True)
    config = Sweep(n=n, seeds=seeds, measure=("depth",))
    rows = []
    for one in width:
        ds = sweep(dataclasses.replace(config, refine=one))
        found, each = contours(ds), len(n) * seeds
        epsilons = ds.sizes["epsilon"], even_size(ds, one)
        same = "not measured"
        if epsilons[1] * each <= even:
            grid = np.geomspace(min(config.epsilon), max(config.epsilon), epsilons[1])
            same = _meet(found, contours(sweep(dataclasses.replace(config, epsilon=tuple(grid)))))
        rows.append(
            [
                f"{one:g}",
                str(int((found.crossings > 0).sum())),
                *(f"{count:,}" for count in epsilons),
                *(f"{count * each:,}" for count in epsilons),
                f"{epsilons[1] / epsilons[0]:.1f}",
                same,
            ]
        )
    header = ["width in ln ε", "contours", "ε refined", "ε even", "cells refined", "cells even"]
    print(markdown_table([*header, "ratio", "the two meet"], *rows))


def _meet(refined: xr.Dataset, even: xr.Dataset) -> str:
    """Say that both have each contour in intervals that meet; fail where they do not."""
    meet = np.maximum(refined.lower, even.lower) <= np.minimum(refined.upper, even.upper)
    if not meet.all():
        raise SystemExit(f"{int((~meet).sum())} contours of the two grids do not meet.")
    return f"all {meet.size}"


if __name__ == "__main__":
    tyro.cli(main)
