"""The figure of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from homojax.lab.figure_style import WARNING, Sheet, shades, sheet
from homojax.lab.inputs import InputError

LEAST = 1e-20  # share of detail that is drawn
OWN = "its own, or none"  # of ε
LINEAR = 0.3  # least share from which on an axis is linear
WIDE = 8  # largest over smallest value from which on an axis is logarithmic
LABELS = {
    "depth": "layers",
    "epsilon": "entropy weight ε (logit units)",
    "alpha": "residual weight α",
    "noise": "standard deviation of the noise",
    "seed": "seed",
}


def training(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw the loss, the accuracy, σ₂ of every layer, and how much detail is left after it.

    Raises:
        InputError: an axis is given; ``loss`` and the others draw on one.
    """
    if ax is not None:
        raise InputError(
            "this figure has 4 panels, and one axis was given: draw loss, accuracy, layers or kept."
        )
    across, coloured = axes_of_grid(ds)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    fig, axes = plt.subplots(2, 2, figsize=(10.4, 7.4), layout=layout)
    _loss_panel(axes[0, 0], ds, coloured)
    _accuracy_panel(axes[0, 1], ds, across, coloured)
    _layer_panel(axes[1, 0], ds, coloured)
    _kept_panel(axes[1, 1], ds, coloured)
    page = Sheet(fig, list(axes.flat), own=True)
    page.legend(_colours(ds, coloured), title=LABELS[coloured], ncols=10)
    page.title(_title(ds))
    return fig


def loss(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw the training loss."""
    _, coloured = axes_of_grid(ds)
    return _alone(ds, ax, coloured, lambda panel: _loss_panel(panel, ds, coloured))


def accuracy(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw the held-out accuracy over the grid."""
    across, coloured = axes_of_grid(ds)
    return _alone(ds, ax, coloured, lambda panel: _accuracy_panel(panel, ds, across, coloured))


def layers(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw σ₂ of every layer, before training and after."""
    _, coloured = axes_of_grid(ds)
    return _alone(ds, ax, coloured, lambda panel: _layer_panel(panel, ds, coloured))


def kept(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw the share of detail that is left after each layer, with its bound."""
    _, coloured = axes_of_grid(ds)
    return _alone(ds, ax, coloured, lambda panel: _kept_panel(panel, ds, coloured))


def _alone(ds: xr.Dataset, ax: Axes | None, coloured: str, draw: Callable[[Axes], None]) -> Figure:
    """Return the figure of one panel."""
    page = sheet(ax, size=(6.4, 4.6))
    draw(page.axes[0])
    page.legend(_colours(ds, coloured), title=LABELS[coloured], ncols=6)
    if page.own:  # a panel's own title says what its lines are
        page.title(_title(ds))
    return page.fig


def _title(ds: xr.Dataset) -> str:
    count = ds.accuracy.size
    networks = "1 trained network" if count == 1 else f"{count} trained networks"
    return f"{networks}: {ds.attrs['statement']}"


def _colours(ds: xr.Dataset, coloured: str) -> list[Line2D]:
    """Return what explains the colours."""
    own = coloured == "epsilon" and not ds.attrs["tempered"]
    return [
        Line2D(
            [], [], color=colour, marker=".", label="its own, or none" if own else f"{value:.3g}"
        )
        for value, _, colour in _groups(ds, coloured)
    ]


def axes_of_grid(ds: xr.Dataset) -> tuple[str, str]:
    """Return, of the values that a training varied, one for an axis and one for colours."""
    varied = [name for name in ("depth", "epsilon", "alpha", "noise") if ds.sizes[name] > 1]
    across, *rest = [*varied, "epsilon", "depth"] if varied else ["seed", "epsilon"]
    return across, next(name for name in rest if name != across)


def _groups(ds: xr.Dataset, coloured: str) -> Iterator[tuple[float, xr.Dataset, tuple]]:
    """Yield (value, the runs that have it, their colour) for each value that has a colour."""
    values = ds[coloured].values
    for value, colour in zip(values, shades(len(values)), strict=True):
        yield value, ds.sel({coloured: value}), colour


def _others(values: xr.DataArray, axis: str) -> list[str]:
    return [str(name) for name in values.dims if name != axis]


def _loss_panel(ax: Axes, ds: xr.Dataset, coloured: str) -> None:
    for _, runs, colour in _groups(ds, coloured):
        loss, rest = runs.loss.dropna("report", how="all"), _others(runs.loss, "report")
        if loss.sizes["report"]:  # all runs may have stopped
            ax.plot(loss.report, loss.median(rest), color=colour)
            band = loss.quantile([0.1, 0.9], rest)
            ax.fill_between(loss.report, *band, color=colour, alpha=0.12, lw=0)
    ax.set(xlabel="steps", ylabel="training loss (nat)", title="median and 80 % of runs")


def _accuracy_panel(ax: Axes, ds: xr.Dataset, across: str, coloured: str) -> None:
    x = ds[across].values
    look = {"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2}
    for _, runs, colour in _groups(ds, coloured):
        rest = _others(runs.accuracy, across)
        least, mean, most = (
            getattr(runs.accuracy, statistic)(rest) for statistic in ("min", "mean", "max")
        )
        ax.errorbar(x, mean, [mean - least, most - mean], color=colour, **look)
    ax.axhline(ds.attrs["chance"], color=WARNING, ls="--", lw=1.2, label="blind")
    if across != "seed" and x.min() > 0 and x.max() / x.min() > WIDE:
        ax.set(xscale="log", xlim=(0.9 * float(x.min()), 1.1 * float(x.max())))
    if across == "depth":
        ax.set_xticks(x, [str(depth) for depth in x])
        ax.minorticks_off()
    elif across == "seed":
        ax.set_xticks(x)
    title = "mean, least and most of runs"
    ax.set(xlabel=LABELS[across], ylabel="held-out accuracy", ylim=(0, 1.03), title=title)
    ax.legend(loc="best")


def _layer_panel(ax: Axes, ds: xr.Dataset, coloured: str) -> None:
    for _, runs, colour in _groups(_deepest(ds, coloured), coloured):
        rest = _others(runs.sigma2_end, "layer")
        ax.plot(ds.layer, runs.sigma2_start.median(rest), color=colour, ls=":")
        ax.plot(ds.layer, runs.sigma2_end.median(rest), color=colour, marker=".")
    title = f"{_depth_drawn(ds, coloured)}median; dotted: before training"
    ax.set(xlabel="layer", ylabel="σ₂ of its matrix", ylim=(0, None), title=title)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _kept_panel(ax: Axes, ds: xr.Dataset, coloured: str) -> None:
    for _, runs, colour in _groups(_deepest(ds, coloured), coloured):
        rest = _others(runs.kept_after_end, "layer")
        bound, left = (
            np.maximum(share.median(rest), LEAST)
            for share in (runs.kept_predicted_end, runs.kept_after_end)
        )
        ax.plot(ds.layer, bound, color=colour, ls=":")
        ax.plot(ds.layer, left, color=colour, marker=".")
    ax.set(xlabel="layers passed", ylabel="share of the best-kept detail left")
    drawn = np.concatenate([np.asarray(line.get_ydata()) for line in ax.lines])
    if np.nanmin(drawn, initial=np.inf) < LINEAR:
        ax.set_yscale("log")
    faint = np.nanmin(drawn, initial=np.inf) == LEAST
    least = f"\n({LEAST:g}: or less)" if faint else ""
    title = f"{_depth_drawn(ds, coloured)}trained; dotted: bound (law 5.1){least}"
    ax.margins(y=0.06)
    ax.set(title=title)
    ax.set_ylim(None, max(1.02, ax.get_ylim()[1]))  # the whole share is always seen
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _depth_drawn(ds: xr.Dataset, coloured: str) -> str:
    return "" if coloured == "depth" else f"{int(ds.depth.max())} layers, "


def _deepest(ds: xr.Dataset, coloured: str) -> xr.Dataset:
    """Return the deepest networks, where depths have no colours: other depths have other layers."""
    return ds if coloured == "depth" else ds.sel(depth=[ds.depth.max()])
