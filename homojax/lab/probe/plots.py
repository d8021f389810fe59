"""The figures of probes."""

from __future__ import annotations

import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from homojax.birkhoff import entropy_deficit, isolated_unit
from homojax.lab.runs import config_of
from homojax.lab.style import BOUND, FAINT, MEASURED, TYPICAL, WARNING, panels


def search_history(finding: Finding) -> Figure:
    """A probe's search: the best of every start so far, and where the first-order steps end."""
    fig, ax = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    steps = np.arange(1, len(finding.history) + 1)
    ax.plot(steps, finding.history, color=BOUND, lw=0.7, alpha=0.35)
    ax.plot(
        steps, np.nanmax(finding.history, axis=1), color=MEASURED, lw=2, label="best of all starts"
    )
    ax.axvline(finding.search.steps, color=FAINT, lw=0.8, ls=":", label="first-order steps end")
    ax.axhline(
        0 if finding.goal == "refute" else 1,
        color=WARNING,
        ls="--",
        lw=1.2,
        label=_GOALS[finding.goal][1],
    )
    ax.set(xlabel="steps", ylabel=_GOALS[finding.goal][0])
    low, high = np.nanquantile(finding.history[-1], 0.02), np.nanmax(finding.history)
    ax.set_ylim(
        *sorted((min(low, 0 if finding.goal == "refute" else low) - 0.05, max(high, 0) + 0.05))
    )
    ax.legend(loc="lower right")
    ax.set_title(
        f"{finding.goal} {finding.claim.number} {finding.claim.name}: {finding.claim.statement}",
        fontsize=10,
    )
    return fig


_GOALS = {
    "refute": ("lesser − greater side", "above: violated"),
    "tighten": ("lesser / greater side", "attained"),
}


def frontier(ds: xr.Dataset) -> Figure:
    """Per n: the largest and smallest σ₂ found at each entropy deficit, the isolated unit's curve and Pinsker's bound."""
    fig, axes = panels(ds, height=4.2)
    for ax, n in zip(axes, ds.n.values, strict=True):
        cells = ds.sel(n=n)
        t = np.linspace(0, 1, 200)
        curve = np.asarray(
            jax.lax.map(lambda weight, n=int(n): entropy_deficit(isolated_unit(n, weight)), t)
        )
        ax.plot(curve, t, color=TYPICAL, lw=2, label="isolated unit (1 − t)J + t(1 ⊕ J)")
        ax.plot(
            cells.entropy_deficit,
            cells.sigma2_largest,
            "o",
            color=MEASURED,
            ms=4,
            label="largest σ₂ found",
        )
        ax.plot(
            cells.entropy_deficit,
            cells.sigma2_smallest,
            "v",
            color=BOUND,
            ms=4,
            label="smallest σ₂ found",
        )
        ax.plot(
            curve,
            np.minimum(np.sqrt(2 * curve), 1),
            color=FAINT,
            ls="--",
            lw=1.2,
            label="Pinsker bound √(2ΔH)",
        )
        worst = float(cells.excess.max())
        ax.set(xlabel="entropy deficit ΔH (nat)", ylabel="σ₂", ylim=(0, 1.05))
        ax.set_title(
            f"n = {n}: largest excess {worst:+.0e} ± {float(cells.excess_error.max()):.0e}",
            fontsize=10,
        )
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2)
    fig.suptitle("The entropy–σ₂ frontier (2.3): what optimisation from random starts reaches")
    return fig


def calibration(ds: xr.Dataset) -> Figure:
    """Per n: what is kept along ε, the target, the calibrated ε and the worst-case rule."""
    asked = config_of(ds)
    fig, axes = panels(ds, height=4.2)
    target = asked["sigma2"] or asked["retention"]
    if asked["schedule"]:
        target = target ** (1 / ds.sizes["layer"])
    for ax, n in zip(axes, ds.n.values, strict=True):
        cells = ds.sel(n=n)
        for k in range(ds.sizes["shown_layer"]):
            colour = plt.get_cmap("viridis")(0.85 * k / max(1, ds.sizes["shown_layer"] - 1))
            ax.plot(cells.grid_epsilon, cells.curve.isel(shown_layer=k), color=colour, lw=1.4)
            found = cells.isel(seed=0, layer=k)
            if np.isfinite(found.epsilon):
                style = {"mfc": colour if found.certified else "white", "color": colour}
                ax.plot(found.epsilon, found.kept, "o", ms=7, zorder=4, **style)
        ax.axhline(target, color=WARNING, ls="--", lw=1.2)
        ceiling = float(cells.ceiling.isel(seed=0).max())
        if np.isfinite(ceiling):
            ax.axvline(ceiling, color=BOUND, ls=":", lw=1.5)
        ax.set(
            xscale="log",
            ylim=(-0.03, 1.05),
            xlim=(cells.grid_epsilon.min(), cells.grid_epsilon.max()),
            title=f"n = {n}",
        )
        ax.set(
            xlabel="entropy weight ε (logit units)",
            ylabel="σ₂" if asked["retention"] is None or asked["schedule"] else "kept",
        )
    handles = [
        Line2D(
            [], [], color=MEASURED, marker="o", lw=1.4, label="calibrated ε (hollow: not certified)"
        ),
        Line2D([], [], color=WARNING, ls="--", label=f"target {target:.4g}"),
        Line2D([], [], color=BOUND, ls=":", label="above: no logits of this diameter can (2.1)"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3 if ds.sizes["n"] > 1 else 1)
    fig.suptitle(
        f"Calibrated ε, {asked['root']} root\n{ds.attrs['source']}", fontsize=10, wrap=True
    )
    return fig


def sensitivity(ds: xr.Dataset) -> Figure:
    """‖∂σ₂/∂S‖ along ε, with the ε that each case is used at, and where rounding drowns a gradient."""
    fig, ax = plt.subplots(figsize=(8.4, 6), layout="constrained")
    for k, case in enumerate(ds.case.values):
        cells = ds.sel(case=case)
        colour = plt.get_cmap("viridis")(0.95 * k / max(1, ds.sizes["case"] - 1))
        ax.plot(ds.epsilon, cells.gradient_norm, color=colour, lw=1.6, label=str(case))
        at = np.interp(
            np.log(cells.started),
            np.log(ds.epsilon),
            np.log(np.maximum(cells.gradient_norm, 1e-300)),
        )
        ax.plot(
            cells.started,
            np.maximum(np.exp(at), 1e-24),
            "o",
            color=colour,
            ms=7,
            mec="black",
            zorder=4,
        )
    for eps, name in ((2.0**-23, "float32"), (2.0**-52, "float64")):
        ax.plot(ds.epsilon, eps / ds.epsilon, color=FAINT, ls="--", lw=1)
        ax.annotate(
            f"lost to rounding in {name}",
            (ds.epsilon[0], eps / ds.epsilon[0]),
            (4, -10),
            textcoords="offset points",
            fontsize=8,
            color="#555555",
        )
    ax.set(xscale="log", yscale="log", ylim=(3e-25, 30))
    ax.set(xlabel="entropy weight ε (logit units)", ylabel="‖∂σ₂/∂S‖_F (per logit unit)")
    fig.legend(
        loc="outside lower center",
        ncols=3,
        title="dots: the ε that it is used at (1e-24 stands for less)",
        title_fontsize=8.5,
    )
    ax.set_title(
        "Where a gradient reaches the logits (6.2): underflow when cold, 1/(nε) when hot",
        fontsize=11,
    )
    return fig
