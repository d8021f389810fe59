"""The figure of a training."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from homojax.lab.runs import config_of
from homojax.lab.style import WARNING

LEAST = 1e-20  # share of detail that is drawn


def training(ds: xr.Dataset) -> Figure:
    """Loss along training, accuracy over the grid, σ₂ of every layer before and after, and what of the detail is kept so far."""
    across, apart = _axes_of_grid(ds)
    fig, (losses, accuracy, layers, kept) = plt.subplots(
        1, 4, figsize=(17, 4.2), layout="constrained"
    )
    values, deepest = ds[apart].values, int(ds.depth.max())
    own = apart == "epsilon" and not tempered(config_of(ds)["architecture"]["mixer"])
    for k, value in enumerate(values):
        colour = plt.get_cmap("viridis")(0.85 * k / max(1, len(values) - 1))
        runs = ds.sel({apart: value})
        rest = [name for name in runs.loss.dims if name != "report"]
        seen = runs.loss.dropna("report", how="all")  # runs may all have stopped
        if seen.sizes["report"]:
            losses.plot(seen.report, seen.median(rest), color=colour)
            losses.fill_between(
                seen.report, *seen.quantile([0.1, 0.9], rest), color=colour, alpha=0.12, lw=0
            )
        rest = [name for name in runs.accuracy.dims if name != across]
        low, middle, high = (
            runs.accuracy.min(rest),
            runs.accuracy.mean(rest),
            runs.accuracy.max(rest),
        )
        x = ds[across].values
        accuracy.errorbar(
            x,
            middle,
            [middle - low, high - middle],
            fmt="o-",
            ms=4,
            lw=1.2,
            capsize=2,
            color=colour,
        )
        if "depth" in runs.dims:
            runs = runs.sel(depth=deepest)  # layers of networks of another depth are other layers
        rest = [name for name in runs.sigma2_end.dims if name != "layer"]
        layers.plot(ds.layer, runs.sigma2_start.median(rest), color=colour, ls=":")
        layers.plot(
            ds.layer,
            runs.sigma2_end.median(rest),
            color=colour,
            marker=".",
            label="its own, or none" if own else f"{value:.3g}",
        )
        for share, style in (
            (runs.kept_predicted_end, {"ls": ":"}),
            (runs.kept_after_end, {"marker": "."}),
        ):
            kept.plot(ds.layer, np.maximum(share.median(rest), LEAST), color=colour, **style)
    accuracy.axhline(ds.attrs["chance"], color=WARNING, ls="--", lw=1.2, label="blind")
    losses.set(xlabel="steps", ylabel="training loss (nat)", title="median and 80 % of runs")
    if (
        across != "seed"
        and (ds[across] > 0).all()
        and float(ds[across].max() / ds[across].min()) > 8
    ):
        accuracy.set_xscale("log")
    if across == "depth":
        accuracy.set_xticks(ds.depth.values, [str(depth) for depth in ds.depth.values])
        accuracy.minorticks_off()
    accuracy.set(
        xlabel=_GRID_LABELS[across],
        ylabel="held-out accuracy",
        ylim=(0, 1.03),
        title="mean, least and most of runs",
    )
    accuracy.legend(loc="best")
    of = "" if apart == "depth" else f"{deepest} layers, "
    layers.set(
        xlabel="layer",
        ylabel="σ₂ of its matrix",
        ylim=(0, None),
        title=f"{of}median; dotted: before training",
    )
    kept.set(xlabel="layers passed", ylabel="share of the best-kept detail left", yscale="log")
    faint = min(line.get_ydata().min() for line in kept.lines) == LEAST
    title = f"{of}trained; dotted: bound 5.1" + (f"\n({LEAST:g}: or less)" if faint else "")
    kept.set(ylim=(None, max(1.5, kept.get_ylim()[1])), title=title)
    for ax in (layers, kept):
        ax.xaxis.get_major_locator().set_params(integer=True)
    if across == "seed":
        accuracy.set_xticks(ds.seed.values)
    fig.legend(
        *layers.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(10, len(values)),
        title=_GRID_LABELS[apart],
    )
    networks = (
        "1 trained network" if ds.accuracy.size == 1 else f"{ds.accuracy.size} trained networks"
    )
    fig.suptitle(f"{networks}: {ds.attrs['statement']}", fontsize=10)
    return fig


_GRID_LABELS = {
    "depth": "layers",
    "epsilon": "entropy weight ε (logit units)",
    "alpha": "residual weight α",
    "noise": "standard deviation of the noise",
    "seed": "seed",
}


def _axes_of_grid(ds: xr.Dataset) -> tuple[str, str]:
    """Of what a training varied: the name for a horizontal axis, and the one for colours."""
    varied = [name for name in ("depth", "epsilon", "alpha", "noise") if ds.sizes[name] > 1]
    across, *rest = [*varied, "epsilon", "depth"] if varied else ["seed", "epsilon"]
    return across, next(name for name in rest if name != across)
