"""The figures of an audit."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from homojax.lab.figure_style import BOUND, FAINT, MEASURED, TYPICAL, WARNING, Sheet, sheet
from homojax.lab.inputs import InputError
from homojax.lab.store import config_of

LEAST = 1e-17  # of what is drawn on a logarithmic axis
MOST_MATRICES = 12  # drawn of a model; more are taken evenly


def layers(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw, over layers: 1 − σ₂, the errors of the sums, and what the composite keeps.

    Raises:
        InputError: an axis is given.
    """
    if ax is not None:
        raise InputError(
            "this figure has 3 panels, and one axis was given: draw reach or matrices."
        )
    fig, axes = plt.subplots(1, 3, figsize=(12.4, 4.2), layout="constrained")
    page, config, x = Sheet(fig, list(axes), own=True), config_of(ds), ds.layer.values
    gap, errors, kept = axes
    handles = []
    if "tokens" in ds:
        handles += _of_tokens(ds, gap, errors, kept)
    if "sigma2" in ds:
        none = _gaps(gap, x, 1 - ds.sigma2.values, MEASURED, "o")
        none = _gaps(gap, x, ds.gap_converged.values, BOUND, "x") or none
        _dots(errors, x, np.maximum(ds.row_error, ds.col_error).values, MEASURED, "o")
        for name, colour in (("composite_sigma2", MEASURED), ("composite_sigma2_converged", BOUND)):
            left = ds[name].where(ds[name] > 0)  # nothing has no logarithm
            kept.plot(x, left, color=colour, marker=".", ms=4)
        handles += [
            Line2D([], [], color=MEASURED, marker="o", ls="", ms=5, label="as run, static part"),
            Line2D([], [], color=BOUND, marker="x", ls="", ms=6, label="converged, static part"),
        ]
        if none:
            label = f"at the lower edge: no gap, or less than {LEAST:g}"
            handles.append(Line2D([], [], color=FAINT, marker="v", ls="", ms=6, label=label))
    if ds.dynamic.any():
        _dots(gap, x, ds.gap_lower.values, WARNING, "_")
        _dots(errors, x, ds.sum_error_upper.values, WARNING, "_")
        label = "every token: gap at least, error at most"
        handles.append(Line2D([], [], color=WARNING, marker="_", ls="", ms=9, label=label))
    gap.set_ylabel("contraction gap 1 − σ₂\n(up: forgets; down: keeps)")
    errors.axhline(config["sum_error"], color=FAINT, ls=":")
    errors.set_ylabel("largest |row or column sum − 1|\n(dotted: doubly stochastic below)")
    kept.axhline(config["retention"], color=FAINT, ls=":")
    kept.set_ylabel("σ₂ of the product up to here\n(dotted: in the trap below)")
    for panel in axes:
        panel.set_yscale("log")
        low, high = panel.get_ylim()
        if high < 1.1 * low:  # one number, whose ticks would all have the same label
            panel.set_ylim(low / 3, high * 3)
        panel.set_xlabel("layer (mixing sublayer)")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    page.legend(handles)
    return fig


def _of_tokens(ds: xr.Dataset, gap: Axes, errors: Axes, kept: Axes) -> list[Line2D]:
    """Draw the range of what was recorded: medians, and from the 5 % to the 95 % quantile."""
    x, last = ds.layer.values, float(ds.layer[np.flatnonzero(ds.stacked.values)[-1]])
    error = np.maximum(ds.row_error_sample, ds.col_error_sample)
    _bars(gap, x, 1 - ds.sigma2_converged_sample, TYPICAL)
    _bars(errors, x, error, TYPICAL)
    if "composite_sigma2_converged_sample" in ds:
        _bars(kept, np.array([last]), ds.composite_sigma2_converged_sample, TYPICAL)
    label = "recorded tokens: median, 5 % to 95 % (gap, product: converged)"
    return [Line2D([], [], color=TYPICAL, marker="D", ms=4, lw=2.5, label=label)]


def _bars(ax: Axes, x: np.ndarray, quantiles: xr.DataArray, colour: str) -> None:
    low, middle, high = (
        np.maximum(np.atleast_1d(quantiles.sel(quantile=share).values), LEAST)
        for share in (0.05, 0.5, 0.95)
    )
    ax.vlines(x, low, high, color=colour, lw=2.5)
    ax.plot(x, middle, "D", color=colour, ms=4)


def _gaps(ax: Axes, x: np.ndarray, y: np.ndarray, colour: str, marker: str) -> bool:
    """Draw gaps; return whether some are no gap, or a tiny one, and stand at the lower edge."""
    none = y < LEAST
    ax.plot(x, np.where(none, np.nan, y), marker, color=colour, ms=5)
    edge = np.full(none.sum(), 0.02)
    ax.plot(x[none], edge, "v", color=colour, ms=6, transform=ax.get_xaxis_transform())
    return bool(none.any())


def _dots(ax: Axes, x: np.ndarray, y: np.ndarray, colour: str, marker: str) -> None:
    ax.plot(x, np.clip(y, LEAST, None), marker, color=colour, ms=9 if marker == "_" else 5)


def matrices(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw the matrices of up to twelve layers, as run above and converged below.

    Raises:
        InputError: an axis is given.
    """
    if ax is not None:
        raise InputError("this figure has a panel a matrix, and one axis was given: leave ax out.")
    if "matrix" not in ds:
        raise InputError("matrices were recorded alone: there is no static part to draw.")
    shown = np.unique(np.linspace(0, ds.sizes["layer"] - 1, MOST_MATRICES).astype(int))
    size = max(3.6, 1.1 * len(shown) + 1.6)
    fig, axes = plt.subplots(2, len(shown), figsize=(size, 2.7), squeeze=False, layout="compressed")
    image = None
    for column, i in enumerate(shown):
        n = int(ds.n[i])
        for row, name in enumerate(("matrix", "matrix_converged")):
            panel = axes[row, column]
            values = ds[name].values[i, :n, :n]
            image = panel.imshow(values, vmin=0, vmax=1, cmap="viridis")
            panel.set(xticks=[], yticks=[])
        axes[0, column].set_title(f"layer {int(ds.layer[i])}", fontsize=8)
    axes[0, 0].set_ylabel("as run\noutput", fontsize=9)
    axes[1, 0].set_ylabel("converged\noutput", fontsize=9)
    for panel in axes[1]:
        panel.set_xlabel("input", fontsize=8)
    assert image is not None
    fig.colorbar(image, ax=list(axes.flat), label="entry of M", shrink=0.8)
    return fig


def reach(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw how much of what a layer writes each later layer reads, converged.

    Raises:
        InputError: the checkpoint has no weights of reading and writing.
    """
    if "reach_converged" not in ds:
        raise InputError(
            "this checkpoint has no weights of reading and writing: there is no reach."
        )
    page = sheet(ax, size=(5.6, 4.6))
    axis = page.axes[0]
    values = np.log10(np.maximum(ds.reach_converged.values, 1e-6))
    most = float(np.nanmax(abs(values), initial=0.1))
    first, last = float(ds.layer[0]) - 0.5, float(ds.layer[-1]) + 0.5
    edges = (float(ds.reader[0]) - 0.5, float(ds.reader[-1]) + 0.5, first, last)
    image = axis.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, origin="lower", extent=edges)
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.set(xlabel="layer that reads", ylabel="layer that writes")
    page.colorbar(image, "log₁₀ of what is read over an even mix")
    page.title("Reach: what is written here and read there, converged")
    return page.fig


def trajectory(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw, over several checkpoints: σ₂ of each layer and of the product, converged.

    Raises:
        InputError: there was one checkpoint, or an axis is given.
    """
    if "checkpoint" not in ds.dims:
        raise InputError("one checkpoint was audited: give several for a trajectory.")
    if ax is not None:
        raise InputError("this figure has 2 panels, and one axis was given: leave ax out.")
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained")
    page, stepped = Sheet(fig, list(axes), own=True), "step" in ds.coords
    x = ds["step"].values if stepped else np.arange(1, ds.sizes["checkpoint"] + 1)
    each, product = axes
    each.plot(x, ds.trajectory_sigma2_converged.values, color=BOUND, lw=0.8, alpha=0.4)
    each.plot(x, ds.trajectory_sigma2_converged.mean("layer"), color=BOUND, marker="x")
    each.plot(x, ds.trajectory_sigma2.mean("layer"), color=MEASURED, marker="o", ms=4)
    product.plot(x, ds.trajectory_composite_sigma2_converged, color=BOUND, marker="x")
    product.plot(x, ds.trajectory_composite_sigma2, color=MEASURED, marker="o", ms=4)
    handles = [
        Line2D([], [], color=BOUND, marker="x", label="converged: mean, product"),
        Line2D([], [], color=BOUND, lw=0.8, alpha=0.4, label="converged: each layer"),
        Line2D([], [], color=MEASURED, marker="o", ms=4, label="as run: mean, product"),
    ]
    if "trajectory_sigma2_decayed" in ds:
        each.plot(x, ds.trajectory_sigma2_decayed.mean("layer"), color=WARNING, ls="--")
        product.plot(x, ds.trajectory_composite_sigma2_decayed, color=WARNING, ls="--")
        label = "decay alone, of the first checkpoint (6.1)"
        handles.append(Line2D([], [], color=WARNING, ls="--", label=label))
    each.set_ylabel("σ₂ of a layer")
    product.set_ylabel("σ₂ of the product of all layers")
    each.set_ylim(0, 1.03)
    product.set_yscale("log")
    for panel in axes:
        panel.set_xlabel("training step" if stepped else "checkpoint, in order")
        if len(x) <= 6:
            panel.set_xticks(x)
        else:
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    page.legend(handles)
    page.title("What changed from checkpoint to checkpoint, at the static parts")
    return fig
