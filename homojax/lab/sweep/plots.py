"""The figures of a sweep."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from homojax.birkhoff import entropy_deficit, isolated_unit
from homojax.lab.figure_style import (
    BOUND,
    FAINT,
    MEASURED,
    TYPICAL,
    WARNING,
    Sheet,
    mark_below,
    shades,
    sheet,
)
from homojax.lab.store import config_of
from homojax.lab.sweep.boundaries import contours
from homojax.layernorm import asymptotic_cosine, critical_snr, expected_cosine
from homojax.programs import program

EPSILON = "entropy weight ε (logit units)"
LEAST_KEPT = 1e-4  # the share of detail at which colours and axes end
LEAST_POSITIVE = 1e-300  # what a share of 0 is on a logarithmic axis, far below its end
MOST_POINTS = 20_000  # of one n that are drawn
BRACKET: Any = {"ls": "", "marker": "|", "ms": 9, "mew": 1.2, "color": MEASURED}
CONTOURS = {  # variable -> (colour, line style, what it is)
    "composite_sigma2": ("white", "-", "measured: {:.0%} left"),
    "product_sigma2": (WARNING, "--", "bound Π σ₂ = {:g}"),
    "lyapunov_sigma2": ("#ff9ecf", ":", "typical rate (Lyapunov) = {:g}"),
}


def phase_diagram(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw what survives over ε × depth, and where the laws put the retention that was asked.

    Of one ε or one depth there is no map, and ``survival`` is drawn.
    """
    if 1 in (ds.sizes["epsilon"], ds.sizes["depth"]):  # no map
        return survival(ds, ax)
    retention, refined = config_of(ds)["retention"], config_of(ds).get("refine") is not None
    page = sheet(ax, count=ds.sizes["n"])
    norm = LogNorm(LEAST_KEPT, 1)
    for panel, n in zip(page.axes, ds.n.values, strict=True):
        _phase_panel(panel, ds.sel(n=n), norm, retention)
        if refined:
            _brackets(panel, ds.sel(n=n))
    label = "detail retained, σ₂ of the composite"
    page.colorbar(ScalarMappable(norm, "viridis"), label, extend="min")
    edge = [withStroke(linewidth=4, foreground="black")]
    handles = [
        Line2D(
            *([], []),
            color=colour,
            ls=style,
            lw=2.2,
            label=text.format(retention),
            path_effects=edge if colour == "white" else None,
        )
        for colour, style, text in CONTOURS.values()
    ]
    if refined:
        shares = ", ".join(f"{share:.0%}" for share in contours(ds).share.values)
        text = f"ends of the ε between which {shares} are left"
        handles.append(Line2D([], [], label=text, **BRACKET))
    page.legend(handles, ncols=2 if refined else 3)
    page.title(f"What survives depth: {label_of(ds)}, {_seeds(ds)}")
    return page.fig


def survival(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw what survives along depth, at a few ε, with the product bound; of one depth, along ε."""
    page = sheet(ax, count=ds.sizes["n"])
    along = "depth" if ds.sizes["depth"] > 1 else "epsilon"
    chosen = _few(ds, "epsilon") if along == "depth" else [0]
    for panel, n in zip(page.axes, ds.n.values, strict=True):
        panel.set(title=f"n = {n}", ylabel="detail retained, σ₂ of the composite")
        for k, colour in zip(chosen, shades(len(chosen), "plasma"), strict=True):
            cells = ds.sel(n=n)
            cells = cells.isel(epsilon=k) if along == "depth" else cells.isel(depth=0)
            label = f"ε = {float(cells.epsilon):.3g}" if along == "depth" else "measured"
            _survival_curve(panel, cells, along, colour, label)
        if along == "epsilon":
            panel.set(xscale="log", xlabel=EPSILON)
        else:
            panel.set(xlabel="depth (layers)")
            panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    label = "bound Π σ₂ (3.1)"
    if config_of(ds)["iterations"] is not None:  # law 3.1 has a premise
        label = "Π σ₂, a bound (3.1) only where layers are doubly stochastic"
    page.legend([*_handles(page), Line2D([], [], color=FAINT, ls="--", label=label)])
    page.title(f"What survives depth: {label_of(ds)}, {_seeds(ds)}")
    return page.fig


def _survival_curve(ax: Axes, cells: xr.Dataset, along: str, colour: tuple, label: str) -> None:
    kept, bound = (
        np.maximum(_typical(cells[name]), LEAST_POSITIVE)
        for name in ("composite_sigma2", "product_sigma2")
    )
    top = max(ax.get_ylim()[1], _upper_end(1.5, kept), _upper_end(1.5, bound))
    ax.set(yscale="log", ylim=(LEAST_KEPT, top))
    if not np.isfinite(kept).any():  # not measured yet
        return
    ax.plot(cells[along], kept, "o-", color=colour, ms=4, label=label)
    ax.plot(cells[along], bound, color=colour, ls="--", lw=1)
    mark_below(ax, cells[along], kept, LEAST_KEPT, colour)


def _few(ds: xr.Dataset, dim: str, most: int = 5) -> list[int]:
    """Return the indices of a few values of a dimension, evenly chosen, with both ends."""
    return np.unique(np.linspace(0, ds.sizes[dim] - 1, most).round().astype(int)).tolist()


def _edges(centres: np.ndarray, *, logarithmic: bool) -> np.ndarray:
    """Return the edges [K + 1] of cells around centres [K], half-way between them on their axis."""
    x = np.log(centres) if logarithmic else np.asarray(centres, float)
    between = (x[1:] + x[:-1]) / 2
    first, last = (2 * x[0] - between[0], 2 * x[-1] - between[-1]) if len(x) > 1 else x[[0, 0]]
    edges = np.concatenate([[first], between, [last]])
    edges = edges + np.array([-0.5, 0.5]) if len(x) == 1 else edges
    return np.exp(edges) if logarithmic else edges


def _phase_panel(ax: Axes, cells: xr.Dataset, norm: LogNorm, retention: float) -> None:
    epsilon, depth = cells.epsilon, cells.depth
    kept = np.clip(cells.composite_sigma2.median("seed").T, LEAST_KEPT, 1)
    wide = bool(depth.max() >= 16 * depth.min())
    edges = _edges(epsilon.values, logarithmic=True), _edges(depth.values, logarithmic=wide)
    ax.pcolormesh(*edges, kept, norm=norm, cmap="viridis")
    ax.set(xscale="log", yscale="log" if wide else "linear", title=f"n = {int(cells.n)}")
    edge: list[Any] = [withStroke(linewidth=3.6, foreground="black", alpha=0.5)]
    for name, (colour, style, _) in CONTOURS.items():
        share = np.clip(_typical(cells[name]).T, 1e-30, 1)
        if float(share.min()) < retention < float(share.max()):
            look = {"colors": colour, "linestyles": style, "linewidths": 2.2}
            line = ax.contour(epsilon, depth, np.log(share), [np.log(retention)], **look)
            line.set_path_effects(edge)
    ticks = depth.values[:: 1 + len(depth) // 13]
    ax.set_yticks(ticks, [str(tick) for tick in ticks])
    short = bool(epsilon.max() < 20 * epsilon.min())  # there may be no power of ten within
    few = np.geomspace(epsilon.min(), epsilon.max(), min(5, len(epsilon)))
    if short:
        ax.set_xticks(few, [f"{tick:.3g}" for tick in few])
    ax.minorticks_off()
    ax.grid(False)
    ax.set(xlabel=EPSILON, ylabel="depth (layers)")
    spread = float((epsilon / cells.relative_epsilon).median())
    if 0 < spread < np.inf:  # logits that are all alike have none
        top = ax.secondary_xaxis(
            "top", functions=(lambda e: np.divide(e, spread), lambda r: np.multiply(r, spread))
        )
        if short:
            top.set_xticks(few / spread, [f"{tick:.3g}" for tick in few / spread])
            top.minorticks_off()
        top.set_xlabel("ε / spread of the logits", fontsize=8.5)
        top.tick_params(labelsize=8)


def _brackets(ax: Axes, cells: xr.Dataset) -> None:
    """Mark the ends of the intervals of ε in which a share of detail is crossed."""
    found = contours(cells)
    for end in (found.lower, found.upper):
        epsilon = end.where(found.crossings > 0)
        ax.plot(epsilon.transpose("depth", "share"), epsilon.depth, **BRACKET)


def entropy_against_sigma2(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw every matrix of the sweep, the isolated unit's curve, and the bound from entropy."""
    page = sheet(ax, count=ds.sizes["n"])
    low, high = float(ds.epsilon.min()), float(ds.epsilon.max())
    norm = LogNorm(low, high) if low < high else LogNorm(low / 2, 2 * high)
    for panel, n in zip(page.axes, ds.n.values, strict=True):
        _entropy_panel(panel, ds.sel(n=n), norm)
    page.legend(_handles(page))
    shown = f"{_of_all(ds.sigma2[0].size, 'matrix', 'matrices')} of {label_of(ds)}"
    if low < high:
        page.colorbar(ScalarMappable(norm, "plasma"), EPSILON)
    else:
        shown += f" at ε = {low:.3g}"
    page.title(f"Entropy against σ₂, {shown}")
    return page.fig


def _entropy_panel(ax: Axes, cells: xr.Dataset, norm: LogNorm) -> None:
    n, most = int(cells.n), int(cells.n) * np.log(int(cells.n))
    # the matrices themselves
    shown = _few_points(cells.sigma2.size)
    deficit, sigma2 = (
        cells[name].transpose("epsilon", "seed", "layer").values.ravel()[shown]
        for name in ("entropy_deficit", "sigma2")
    )
    each = cells.sizes["seed"] * cells.sizes["layer"]
    colours = cells.epsilon.values[np.arange(cells.sigma2.size)[shown] // each]
    floor = max(1e-6, float(deficit[deficit > 0].min(initial=np.inf)))
    floor = floor if np.isfinite(floor) else 1e-6
    floor = min(floor, float(entropy_deficit(isolated_unit(n, 1.0))) / 3)  # with the star
    look = {"norm": norm, "cmap": "plasma", "s": 7, "lw": 0, "alpha": 0.6, "rasterized": True}
    ax.scatter(np.maximum(deficit, floor), sigma2, c=colours, **look)
    # the isolated unit, from J to 1 ⊕ J
    t = np.geomspace(1e-3, 1, 80)
    curve = np.asarray(jax.lax.map(lambda weight: entropy_deficit(isolated_unit(n, weight)), t))
    text = "isolated unit (1 − t)J + t(1 ⊕ J), t from 0 to 1 (2.2, 2.3)"
    ax.plot(curve, t, color=TYPICAL, lw=2, label=text)
    ax.plot(curve[-1], 1, "*", color=TYPICAL, ms=13, label="1 ⊕ J: σ₂ = 1")
    ax.set_title(f"n = {n}\n★ σ₂ = 1 at {1 - curve[-1] / most:.1%} of maximal entropy", fontsize=9)
    # what entropy alone bounds
    grid = np.geomspace(floor, most, 200)
    bounds = (
        (grid, BOUND, "--", 1.5, "Pinsker bound √(2ΔH)"),
        (grid / n, FAINT, ":", 1.0, "√(2ΔH/n), small-ΔH expansion"),
    )
    for nats, colour, style, width, label in bounds:
        bound = np.minimum(np.sqrt(2 * nats), 1)
        ax.plot(grid, bound, color=colour, ls=style, lw=width, label=label)
    ax.set(xscale="log", ylim=(-0.03, _upper_end(1.05, sigma2)), xlim=(floor / 1.5, 1.6 * most))
    ax.set(xlabel="entropy deficit ΔH = n log n − H (nat)", ylabel="σ₂")


_cosine = program(  # of each d, of each SNR
    jax.vmap(jax.vmap(lambda snr, d: expected_cosine(snr, d=d), (0, None)), (None, 0))
)
_critical = program(jax.vmap(critical_snr))


def cosine_against_snr(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw layer norm's cosines against noise on the exact law, with the critical SNR."""
    page = sheet(ax, size=(7.6, 4.6))
    ax = page.axes[0]
    snr = ds.output_snr.values
    seen = snr[(snr > 1e-7) & np.isfinite(snr)]
    grid = np.geomspace(seen.min(initial=1e-2), seen.max(initial=1e-2) * 1.5, 120)
    dimensions = ds.n.values - 1.0
    exact, critical = _cosine(grid, dimensions), _critical(dimensions)
    low, high, unseen, edge = -0.2, 1.0, 0, ax.get_xaxis_transform()
    for k, (n, colour) in enumerate(zip(ds.n.values, shades(len(ds.n)), strict=True)):
        cells = ds.sel(n=n)
        shown = _few_points(cells.output_snr.size)
        x, y, error = (
            cells[name].values.ravel()[shown]
            for name in ("output_snr", "cosine_mean", "cosine_stderr")
        )
        faint = min(0.35, 150 / max(1, len(x)))  # many points leave the curves to be seen
        ax.errorbar(x, y, 2 * error, fmt="o", ms=2.5, lw=0.6, color=colour, alpha=faint)
        low, high = min(low, np.nanmin(y, initial=low)), max(high, np.nanmax(y, initial=high))
        unseen += int((x == 0).sum())
        ax.plot(grid, exact[k], color=colour, lw=2, zorder=4, label=f"exact law 4.2, d = {n - 1}")
        if np.isfinite(critical[k]):
            ax.axvline(critical[k], color=colour, ls="--", lw=1.2)
            place = {"xycoords": edge, "textcoords": "offset points", "fontsize": 8}
            place |= {"rotation": 90, "va": "bottom", "ha": "right", "color": colour}
            ax.annotate(f"critical, d = {n - 1}", (critical[k], 0.01), (-3, 0), **place)
    limit = "large-d limit √(SNR/(1+SNR))"
    ax.plot(grid, asymptotic_cosine(grid), color=FAINT, ls=":", zorder=4, label=limit)
    ax.axhline(0, color=FAINT, lw=0.8)
    ax.set(xscale="log", ylim=(low - 0.05, high + 0.05))
    left_out = f"; {unseen:,} points at 0 are not shown" if unseen else ""
    ax.set(ylabel="cos θ (signal, layer-norm output)")
    ax.set(xlabel=f"signal-to-noise ratio after mixing, ‖Mx‖²/(dν²){left_out}")
    ax.legend(loc="upper left")
    page.title(
        f"Layer norm restores the norm, not the direction: {label_of(ds)}\n"
        f"points: mean of {config_of(ds)['samples']} draws ± 2 standard errors; dashed: 5 % level, "
        "95 % power"
    )
    return page.fig


def retention_against_turn(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw what α buys in retention, and what it costs in transformation, with both bounds."""
    depth = int(ds.depth[len(ds.depth) // 2])
    page = sheet(ax, count=ds.sizes["n"], height=4.4)
    chosen = _few(ds, "epsilon")
    for panel, n in zip(page.axes, ds.n.values, strict=True):
        panel.set(yscale="log", xlim=(-4, 184), ylim=(LEAST_KEPT, 1.6), xticks=range(0, 181, 30))
        panel.set(ylabel="σ₂ of the composite: retention")
        for k, colour in zip(chosen, shades(len(chosen), "plasma"), strict=True):
            _residual_curve(panel, ds.sel(n=n, depth=depth).isel(epsilon=k), colour)
        panel.set(xlabel="turn of detail (degrees): transformation")
        panel.set(title=f"n = {n}, {depth} layer{'s' * (depth > 1)}")
    page.legend(
        _handles(page),
        title="dot size: α from 0 to 1;  dashed: bounds 5.1 and 5.2,\nwhere 5.2 has its premise",
        ncols=len(chosen),
    )
    which = f"\nthe middle one of {len(ds.depth)} depths" if len(ds.depth) > 1 else ""
    page.title(f"Retention against transformation under residual weights: {label_of(ds)}{which}")
    return page.fig


def _residual_curve(ax: Axes, cells: xr.Dataset, colour: tuple) -> None:
    turn, kept = np.degrees(cells.turn).median("seed"), cells.residual_sigma2.median("seed")
    if not kept.notnull().any():  # not measured yet
        return
    kept = np.maximum(kept, LEAST_POSITIVE)
    mark_below(ax, turn, kept, LEAST_KEPT, colour)
    ax.plot(turn, kept, color=colour, lw=1.3, alpha=0.8)
    size, label = 12 + 50 * cells.alpha.values, f"ε = {float(cells.epsilon):.3g}"
    ax.scatter(turn, kept, s=size, color=colour, zorder=3, label=label)
    bound = cells.turn_bound.median("seed").values
    bounded, valid = cells.residual_sigma2_bound.median("seed").values, bound < np.pi
    ends = _upper_end(1.6, kept), _upper_end(1.6, bounded[valid])
    ax.set_ylim(top=max(ax.get_ylim()[1], *ends))
    ax.plot(np.degrees(bound[valid]), bounded[valid], color=colour, ls="--", lw=1)


def _handles(page: Sheet) -> list[Any]:
    """Return one handle for each label that any panel has."""
    pairs = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in page.axes]
    named = {label: handle for panel in pairs for handle, label in panel}
    return list(named.values())


def label_of(ds: xr.Dataset) -> str:
    """Return what a sweep is called."""
    return ds.attrs["title"].removeprefix("homojax sweep: ")


def _typical(values: xr.DataArray) -> xr.DataArray:
    """Return the median over seeds, of what each of them has."""
    return values.median("seed") if "seed" in values.dims else values


def _upper_end(room: float, shares: xr.DataArray | np.ndarray) -> float:
    """Return where an axis of shares ends: above 1, and above what truncated matrices amplify."""
    values = np.asarray(shares)
    return room * float(np.max(values[np.isfinite(values)], initial=1.0))


def _few_points(count: int) -> np.ndarray | slice:
    """Return which of so many points are drawn: all, or as many as can be told apart, by chance."""
    if count <= MOST_POINTS:
        return slice(None)
    return np.unique(np.random.default_rng(0).integers(count, size=MOST_POINTS))


def _of_all(count: int, one: str, many: str) -> str:
    """Return how many of so many points are drawn, in words."""
    return f"every {one}" if count <= MOST_POINTS else f"{MOST_POINTS:,} of {count:,} {many} an n"


def _seeds(ds: xr.Dataset) -> str:
    return "one stack" if ds.sizes["seed"] == 1 else f"median of {ds.sizes['seed']} stacks"
