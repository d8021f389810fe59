"""How figures look: one style, and colours that the colour-blind tell apart, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from homojax.lab.inputs import InputError

STYLE: Any = {
    "figure.dpi": 120,
    "savefig.dpi": 120,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.formatter.min_exponent": 3,  # 0.3, not 3 × 10⁻¹, which would run into its neighbour
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
HALO = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}  # behind words
MEASURED, BOUND, TYPICAL, WARNING = "#1b1b1b", "#0072b2", "#009e73", "#d55e00"
FAINT = "#777777"


class Sheet(NamedTuple):
    """Where a figure is drawn: on a sheet of its own, or on an axis of the user's."""

    fig: Figure
    axes: list[Axes]
    own: bool

    def legend(self, handles: Sequence[Artist], title: str | None = None, ncols: int = 3) -> None:
        """Explain the lines: below the panels, in as many columns as there is room for."""
        if not self.own:
            self.axes[0].legend(handles=handles, title=title, fontsize=7.5, title_fontsize=7.5)
            return
        for columns in range(min(ncols, len(handles)), 0, -1):
            look = {"loc": "outside lower center", "title_fontsize": 8.5}
            legend = self.fig.legend(handles=handles, title=title, ncols=columns, **look)
            if columns == 1 or legend.get_window_extent().width <= self.fig.bbox.width:
                return
            legend.remove()

    def title(self, text: str) -> None:
        """Say what is drawn, above it."""
        if self.own:
            self.fig.suptitle(text, fontsize=11, wrap=True)
        else:
            self.axes[0].set_title(text, fontsize=9, wrap=True)

    def colorbar(self, colours: ScalarMappable, label: str, **look: Any) -> None:
        """Explain the colours, beside all panels."""
        self.fig.colorbar(colours, ax=self.axes, label=label, **look)


def sheet(
    ax: Axes | None, *, count: int = 1, size: tuple[float, float] | None = None, height: float = 4.2
) -> Sheet:
    """Return a sheet of ``count`` panels side by side, or the axis that is given, for one panel.

    Args:
        ax: an axis of the user's; None for a figure of its own.
        count: panels.
        size: of the figure, in inches; default: by ``count`` and ``height``.
        height: in inches.

    Raises:
        InputError: an axis is given, and there are several panels; or it is no axis.
    """
    if ax is not None:
        if not isinstance(ax, Axes):
            raise InputError(
                f"ax must be one matplotlib Axes, not {type(ax).__name__}: give one that "
                "plt.subplots returned."
            )
        if count > 1:
            raise InputError(
                f"this figure has {count} panels, and one axis was given: choose a part of the "
                "Dataset, such as ds.sel(n=[4]), or another kind of figure."
            )
        figure = ax.get_figure(root=True)
        assert figure is not None
        return Sheet(figure, [ax], own=False)
    size = size or (2.2 + 3.5 * count, height)
    fig, axes = plt.subplots(1, count, figsize=size, squeeze=False, layout="constrained")
    return Sheet(fig, list(axes[0]), own=True)


def mark_below(ax: Axes, x: Any, y: Any, floor: float, colour: Any) -> None:
    """Mark the points [K] that lie below an axis by triangles at its lower edge, and say so."""
    below = np.asarray(y) < floor
    if not below.any():
        return
    edge = ax.get_xaxis_transform()  # x as data, y from 0 at the lower edge
    height = np.full(below.sum(), 0.015)
    ax.plot(np.asarray(x)[below], height, "v", color=colour, ms=5, transform=edge, zorder=4)
    note = f"\n(▼ below {floor:g})"
    ax.set_ylabel(ax.get_ylabel().removesuffix(note) + note)


def shades(count: int, name: str = "viridis", end: float = 0.85) -> list[tuple]:
    """Return ``count`` colours of a colour map, from its start to the share ``end`` of it."""
    colours = plt.get_cmap(name)
    return [colours(end * k / max(1, count - 1)) for k in range(count)]
