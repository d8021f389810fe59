"""How figures look: one style, and colours that the colour-blind tell apart, too."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLE: Any = {
    "figure.dpi": 120,
    "savefig.dpi": 120,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
HALO = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}  # behind words
MEASURED, BOUND, TYPICAL, WARNING = "#1b1b1b", "#0072b2", "#009e73", "#d55e00"
FAINT = "#777777"


def panels(ds: xr.Dataset, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel for each n, side by side; ``height`` in inches."""
    count = ds.sizes["n"]
    size = 2.2 + 3.5 * count, height
    fig, axes = plt.subplots(1, count, figsize=size, squeeze=False, layout="constrained")
    return fig, list(axes[0])


def shades(count: int, name: str = "viridis", end: float = 0.85) -> list[tuple]:
    """Return ``count`` colours of a colour map, from its start to the share ``end`` of it."""
    colours = plt.get_cmap(name)
    return [colours(end * k / max(1, count - 1)) for k in range(count)]
