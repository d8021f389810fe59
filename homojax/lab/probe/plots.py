"""The figures of the probes."""

from __future__ import annotations

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from homojax.birkhoff import entropy_deficit, isolated_unit
from homojax.lab.figure_style import BOUND, FAINT, HALO, MEASURED, TYPICAL, WARNING, shades, sheet
from homojax.lab.probe.config import Goal
from homojax.lab.store import config_of

EPSILON = "entropy weight ε (logit units)"
DEFICIT = "entropy deficit ΔH (nat)"
SIDES = {  # goal -> (the score, the score at which it is reached, what that means)
    "refute": ("lesser − greater side", 0.0, "above: violated"),
    "tighten": ("lesser / greater side", 1.0, "attained"),
}
LEAST_DRAWN = 1e-24  # a gradient's norm below it is drawn there
LEAST_POSITIVE = 1e-300  # stands for a norm of 0 where its logarithm is read
DASHES = "-", (0, (4, 2))  # in turn, so that curves that coincide are both seen
PRECISIONS = {"float32": 2.0**-23, "float64": 2.0**-52}  # name -> eps


def search_history(
    history: np.ndarray,
    *,
    goal: Goal,
    title: str,
    first_order_steps: int,
    ax: Axes | None = None,
) -> Figure:
    """Draw a search: the best score of every start so far, and where the first-order steps end."""
    label, reached, meaning = SIDES[goal]
    page = sheet(ax, size=(7.2, 4.2))
    ax = page.axes[0]
    steps = np.arange(1, len(history) + 1)
    ax.plot(steps, history, color=BOUND, lw=0.7, alpha=0.35)
    best = np.nanmax(history, axis=1)
    ax.plot(steps, best, color=MEASURED, lw=2, label="best of all starts")
    ax.axvline(first_order_steps, color=FAINT, lw=0.8, ls=":", label="end of the smooth score")
    ax.axhline(reached, color=WARNING, ls="--", lw=1.2, label=meaning)
    # Starts that are far behind at the end would flatten the rest.
    low, high = np.nanquantile(history[-1], 0.02), np.nanmax(history)
    low, high = min(low, reached), max(high, reached)
    room = 0.05 * max(high - low, 1e-3)
    ax.set(xlabel="steps", ylabel=label, ylim=(low - room, high + room))
    page.legend(ax.get_legend_handles_labels()[0])
    page.title(title)
    return page.fig


# ---------------------------------------------------------------- frontier


def frontier(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw the largest and smallest σ₂ at each entropy deficit, with the isolated unit's curve."""
    page = sheet(ax, count=ds.sizes["n"])
    for panel, n in zip(page.axes, ds.n.values, strict=True):
        _frontier_panel(panel, ds.sel(n=n), int(n))
    page.legend(page.axes[0].get_legend_handles_labels()[0], ncols=2)
    page.title("Frontier (law 2.3): σ₂ that is reached from random starts")
    return page.fig


def _frontier_panel(ax: Axes, cells: xr.Dataset, n: int) -> None:
    t = np.linspace(0, 1, 200)
    deficit = np.asarray(jax.lax.map(lambda weight: entropy_deficit(isolated_unit(n, weight)), t))
    bound = np.minimum(np.sqrt(2 * deficit), 1)
    ax.plot(deficit, t, color=TYPICAL, lw=2, label="isolated unit (1 − t)J + t(1 ⊕ J)")
    ax.plot(deficit, bound, color=FAINT, ls="--", lw=1.2, label="Pinsker bound √(2ΔH)")
    for name, marker, colour in (("largest", "o", MEASURED), ("smallest", "v", BOUND)):
        found = cells[f"sigma2_{name}"]
        ax.plot(cells.entropy_deficit, found, marker, color=colour, ms=4, label=f"{name} σ₂ found")
    excess, error = float(cells.excess.max()), float(cells.excess_error.max())
    ax.set(xlabel=DEFICIT, ylabel="σ₂", ylim=(0, 1.05))
    ax.set_title(f"n = {n}: largest excess {excess:+.0e} ± {error:.0e}", fontsize=10)


# ---------------------------------------------------------------- calibrate


def calibration(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw what is kept along ε, with the target, the calibrated ε and the worst-case rule."""
    asked = config_of(ds)
    page = sheet(ax, count=ds.sizes["n"])
    target = ds.attrs["target"]
    single = asked["retention"] is None or asked["schedule"]
    for panel, n in zip(page.axes, ds.n.values, strict=True):
        _calibration_panel(panel, ds.sel(n=n))
        panel.axhline(target, color=WARNING, ls="--", lw=1.2)
        panel.set(title=f"n = {n}", xlabel=EPSILON, ylabel="σ₂" if single else "share kept")
    handles = [
        _line("calibrated ε (hollow: not certified)", color=MEASURED, marker="o", lw=1.4),
        _line(f"target {target:.4g}", color=WARNING, ls="--"),
    ]
    if np.isfinite(ds.ceiling.isel(seed=0)).any():
        text = "above: no logits of this diameter meet it (law 2.1)"
        handles.append(_line(text, color=BOUND, ls=":"))
    page.legend(handles, title=_shown(ds))
    page.title(f"Calibrated ε, {asked['root']} root\n{ds.attrs['source']}")
    return page.fig


def _shown(ds: xr.Dataset) -> str:
    """Return whose answers are drawn, in words."""
    seed, drawn = int(ds.seed[0]), _drawn_layers(ds)
    text = f"seed {seed}" + (" (curves are known of seed 0 alone)" if seed else "")
    if len(drawn) == ds.sizes["layer"]:
        return text
    return f"{text}, layers {drawn[0]} to {drawn[-1]} of {ds.sizes['layer']}"


def _drawn_layers(ds: xr.Dataset) -> np.ndarray:
    """Return the first layers, as many as there are curves."""
    return ds.layer.values[: ds.sizes["shown_layer"]]


def _calibration_panel(ax: Axes, cells: xr.Dataset) -> None:
    """Draw the answers of the first seed, each with its curve where that was measured."""
    layers, answers = _drawn_layers(cells), cells.isel(seed=0)
    for k, colour in enumerate(shades(len(layers))):
        if answers.seed == 0 and layers[k] in cells.shown_layer:
            curve = cells.curve.sel(shown_layer=layers[k])
            ax.plot(cells.grid_epsilon, curve, color=colour, lw=1.4)
        answer = answers.isel(layer=k)
        if np.isfinite(answer.epsilon):
            face = colour if answer.certified else "white"
            ax.plot(answer.epsilon, answer.kept, "o", ms=7, zorder=4, mfc=face, color=colour)
    ends = float(cells.grid_epsilon.min()), float(cells.grid_epsilon.max())
    ceiling = float(cells.ceiling.isel(seed=0).max())
    if np.isfinite(ceiling):
        ax.axvline(ceiling, color=BOUND, ls=":", lw=1.5)
        ends = ends[0], max(ends[1], 1.2 * ceiling)
    ax.set(xscale="log", ylim=(-0.03, 1.05), xlim=ends)


# ---------------------------------------------------------------- sensitivity


def sensitivity(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw ‖∂σ₂/∂S‖ along ε, with the ε that each case is used at, and where rounding drowns it."""
    page = sheet(ax, size=(8.4, 6))
    ax, mark = page.axes[0], "_" if ds.sizes["epsilon"] == 1 else ""
    for k, colour in enumerate(shades(ds.sizes["case"], end=0.95)):
        cells, dashes = ds.isel(case=k), DASHES[k % 2]
        label, norm = str(cells.case.item()), gradient_norm_at_start(cells)
        label += f" (at ε = {float(cells.started):g}, not scanned)" if np.isnan(norm) else ""
        look = {"color": colour, "ls": dashes, "label": label, "marker": mark}
        ax.plot(ds.epsilon, cells.gradient_norm, lw=1.8, **look)
        drawn = np.maximum(norm, LEAST_DRAWN)
        ax.plot(cells.started, drawn, "o", color=colour, ms=7, mec="black", zorder=4)
    ends = np.array([ds.epsilon.min(), ds.epsilon.max()])
    ends = ends if ends[0] < ends[1] else ends * [0.5, 2]
    for name, eps in PRECISIONS.items():
        ax.plot(ends, eps / ends, color=FAINT, ls="--", lw=1)
        ax.annotate(
            f"lost to rounding in {name}",
            (0.99, eps / ends[1]),
            (0, -14),
            xycoords=ax.get_yaxis_transform(),  # x from the left edge to the right one
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color="#555555",
            bbox=HALO,
        )
    ax.set(xscale="log", yscale="log", ylim=(LEAST_DRAWN / 3, 30))
    ax.set(xlabel=EPSILON, ylabel="‖∂σ₂/∂S‖_F (per logit unit)")
    page.legend(
        ax.get_legend_handles_labels()[0],
        title=f"dots: the ε that it is used at ({LEAST_DRAWN:g} stands for less)",
    )
    page.title("Gradient trap (law 6.2): underflow at small ε, 1/(nε) at large ε")
    return page.fig


def gradient_norm_at_start(cells: xr.Dataset) -> float:
    """Return ‖∂σ₂/∂S‖ of a case at the ε that it is used at, log-linear between those scanned.

    It is NaN where that ε is outside of the scan.
    """
    if not cells.epsilon.min() <= cells.started <= cells.epsilon.max():
        return np.nan
    norms = np.log(np.maximum(cells.gradient_norm, LEAST_POSITIVE))
    norm = float(np.exp(np.interp(np.log(cells.started), np.log(cells.epsilon), norms)))
    return norm if norm > 2 * LEAST_POSITIVE else 0.0


def _line(label: str, **style) -> Line2D:
    return Line2D([], [], label=label, **style)
