"""The figure of a truncated sweep beside its converged twin."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from homojax.lab.figure_style import BOUND, FAINT, MEASURED, TYPICAL, WARNING
from homojax.lab.store import config_of
from homojax.lab.sweep.plots import label_of

LEAST_ERROR = 1e-17  # of a marginal error that is drawn
CONVERGED_ERROR = 1e-3  # a marginal error above it is drawn as a warning


def as_run_against_converged(as_run: xr.Dataset, converged: xr.Dataset) -> Figure:
    """Draw the same logits truncated as their model runs them, and projected to convergence."""
    epsilon = float(as_run.epsilon[0])
    fig, axes = plt.subplots(
        *(2, 2), figsize=(10, 6.4), sharex=True, sharey="row", layout="constrained"
    )
    titles = (
        f"as run: {config_of(as_run)['iterations']} alternations",
        "projected to convergence",
    )
    for column, ds in enumerate((as_run, converged)):
        cells = ds.isel(n=0, seed=0).sel(epsilon=epsilon)
        _composite_panel(axes[0, column], cells)
        _error_panel(axes[1, column], cells)
        axes[0, column].set_title(titles[column])
    axes[0, 0].set_ylabel("norm on the detail subspace")
    axes[1, 0].set_ylabel("max |row or column sum − 1|")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    error_handles, error_labels = axes[1, 0].get_legend_handles_labels()
    fig.legend(
        *(handles + error_handles, labels + error_labels), loc="outside lower center", ncols=3
    )
    question = "collapse over depth, or an unconverged projection?"
    fig.suptitle(f"{label_of(converged)} at ε = {epsilon:g}: {question}")
    return fig


def _composite_panel(ax: Axes, cells: xr.Dataset) -> None:
    lines = (
        ("composite_sigma2", "o-", MEASURED, "σ₂ of the composite C, ‖PCP‖₂"),
        ("composite_distance", "s--", WARNING, "‖C − J‖₂"),
        ("product_sigma2", ":", BOUND, "Π σ₂, a bound for doubly stochastic layers"),
    )
    for name, style, colour, label in lines:
        ax.plot(cells.depth, cells[name], style, color=colour, ms=4, label=label)
    ax.set(ylim=(0, None))


def _error_panel(ax: Axes, cells: xr.Dataset) -> None:
    error = np.maximum(cells.row_error, cells.col_error).values
    shown = np.maximum(error, LEAST_ERROR)
    for missed, colour in ((False, TYPICAL), (True, WARNING)):
        bars = (error > CONVERGED_ERROR) == missed
        label = f"error {'above' if missed else 'at most'} {CONVERGED_ERROR:g} (dotted)"
        ax.bar(cells.layer[bars], shown[bars], bottom=LEAST_ERROR, color=colour, label=label)
    ax.axhline(CONVERGED_ERROR, color=FAINT, lw=0.8, ls=":")
    ax.set(yscale="log", ylim=(LEAST_ERROR, 10), xlabel="depth (layers)", xticks=cells.layer.values)
