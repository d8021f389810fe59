"""The figures of sweeps, verifications, probes and trainings, each a matplotlib Figure; axes carry names and units."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from homojax.birkhoff import entropy_deficit, isolated_unit
from homojax.layernorm import asymptotic_cosine, critical_snr, expected_cosine
from homojax.networks.mixing import tempered

if TYPE_CHECKING:
    from homojax.lab.probe.run import Finding

STYLE: dict = {
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
LEAST = 1e-20  # share of detail that is drawn
HALO = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
MEASURED, BOUND, TYPICAL, WARNING = (
    "#1b1b1b",
    "#0072b2",
    "#009e73",
    "#d55e00",
)  # told apart by the colour-blind too


def tightness_map(ds: xr.Dataset) -> Figure:
    """Claims about matrices × families: the best tightness of a verification, and where a claim is violated."""
    bounds = ds.sel(
        claim=[
            d not in ("=", "~") and s != "noise"
            for d, s in zip(ds.direction.values, ds.scope.values, strict=True)
        ]
    )
    bounds = (
        bounds if bounds.sizes["claim"] else ds
    )  # of equalities, or signals, alone: better than nothing
    if (ds.n > 2).any():
        bounds = bounds.sel(n=bounds.n > 2)  # a 2 × 2 matrix attains nearly everything
    best = bounds.tightness_best.max("n")
    known = best.notnull().any("claim").values
    best, violated = best[:, known], (bounds.violated.sum("n") > 0)[:, known]
    fig, ax = plt.subplots(
        figsize=(3.2 + 0.36 * best.sizes["family"], 1.8 + 0.3 * best.sizes["claim"]),
        layout="constrained",
    )
    ax.set_facecolor("#e4e4e4")
    image = ax.imshow(np.clip(best, 0, 1), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    rows, cols = np.nonzero(violated.values)
    ax.plot(cols, rows, "x", color=WARNING, markersize=8, markeredgewidth=2)
    labels = [
        f"{number} {name}"
        for number, name in zip(bounds.number.values, bounds.claim.values, strict=True)
    ]
    ax.set_yticks(range(len(labels)), labels)
    ax.set_xticks(range(best.sizes["family"]), best.family.values, rotation=60, ha="right")
    ax.set(xlabel="family of cases", ylabel="claim")
    ax.grid(False)
    fig.colorbar(image, label="best tightness, lesser over greater side", shrink=0.8)
    return fig


def search_history(finding: Finding) -> Figure:
    """A probe's search: the best of every start so far, and where the first-order steps end."""
    fig, ax = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    steps = np.arange(1, len(finding.history) + 1)
    ax.plot(steps, finding.history, color=BOUND, lw=0.7, alpha=0.35)
    ax.plot(
        steps, np.nanmax(finding.history, axis=1), color=MEASURED, lw=2, label="best of all starts"
    )
    ax.axvline(finding.search.steps, color="#777777", lw=0.8, ls=":", label="first-order steps end")
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
    fig, axes = _panels(ds, height=4.2)
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
            color="#777777",
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
    asked = config(ds)
    fig, axes = _panels(ds, height=4.2)
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
        ax.plot(ds.epsilon, eps / ds.epsilon, color="#777777", ls="--", lw=1)
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


def phase_diagram(ds: xr.Dataset) -> Figure:
    """ε × depth: the share of detail retained as measured, and the laws' contours where it falls to the retention asked."""
    retention = config(ds)["retention"]
    fig, axes = _panels(ds, height=4.2)
    low = 1e-4
    for ax, n in zip(axes, ds.n.values, strict=True):
        cells = ds.sel(n=n)
        kept = cells.composite_sigma2.median("seed")
        shown = np.clip(kept.T, low, 1)
        ax.pcolormesh(
            ds.epsilon, ds.depth, shown, norm=LogNorm(low, 1), cmap="viridis", shading="nearest"
        )
        ax.set(xscale="log", yscale="log" if ds.depth.max() >= 16 * ds.depth.min() else "linear")
        for name, colour, style in (
            ("composite_sigma2", "white", "-"),
            ("product_sigma2", WARNING, "--"),
            ("lyapunov_sigma2", "#ff9ecf", ":"),
        ):
            level = np.clip(cells[name].median("seed").T, 1e-30, 1)
            if float(level.min()) < retention < float(level.max()):
                line = ax.contour(
                    ds.epsilon,
                    ds.depth,
                    np.log(level),
                    [np.log(retention)],
                    colors=colour,
                    linestyles=style,
                    linewidths=2.2,
                )
                line.set_path_effects([withStroke(linewidth=3.6, foreground="black", alpha=0.5)])
        ticks = ds.depth.values[:: 1 + len(ds.depth) // 13]
        ax.set_yticks(ticks, [str(d) for d in ticks])
        ax.minorticks_off()
        ax.grid(False)
        ax.set(xlabel="entropy weight ε (logit units)", ylabel="depth (layers)", title=f"n = {n}")
        spread = float((ds.epsilon / cells.relative_epsilon).median())
        if not 0 < spread < np.inf:  # logits that are all alike have none
            continue
        top = ax.secondary_xaxis(
            "top", functions=(lambda e, s=spread: e / s, lambda r, s=spread: r * s)
        )
        top.set_xlabel("ε / spread of the logits", fontsize=8.5)
        top.tick_params(labelsize=8)
    fig.colorbar(
        ScalarMappable(LogNorm(low, 1), "viridis"),
        ax=axes,
        label="detail retained, σ₂ of the composite",
        extend="min",
    )
    handles = [
        Line2D(
            [],
            [],
            color="white",
            ls="-",
            lw=2.2,
            label=f"measured: {retention:.0%} left",
            path_effects=[withStroke(linewidth=4, foreground="black")],
        ),
        Line2D([], [], color=WARNING, ls="--", lw=2.2, label=f"bound Π σ₂ = {retention:g}"),
        Line2D(
            [],
            [],
            color="#ff9ecf",
            ls=":",
            lw=2.2,
            label=f"typical rate (Lyapunov) = {retention:g}",
        ),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3)
    fig.suptitle(f"What survives depth: {_label(ds)}, {_seeds(ds)}")
    return fig


def entropy_against_sigma2(ds: xr.Dataset) -> Figure:
    """Every matrix of the sweep, the isolated unit that escapes the trap at high entropy, and the bound from entropy alone."""
    fig, axes = _panels(ds, height=4.2)
    norm = LogNorm(float(ds.epsilon.min()), float(ds.epsilon.max()))
    for ax, n in zip(axes, ds.n.values, strict=True):
        cells = ds.sel(n=n)
        deficit = cells.entropy_deficit.transpose("epsilon", "seed", "layer").values.reshape(
            ds.sizes["epsilon"], -1
        )
        sigma2 = cells.sigma2.transpose("epsilon", "seed", "layer").values.reshape(
            ds.sizes["epsilon"], -1
        )
        colours = np.broadcast_to(ds.epsilon.values[:, None], sigma2.shape)
        floor = max(1e-6, float(deficit[deficit > 0].min()) if (deficit > 0).any() else 1e-6)
        ax.scatter(
            np.maximum(deficit, floor),
            sigma2,
            c=colours,
            norm=norm,
            cmap="plasma",
            s=7,
            lw=0,
            alpha=0.6,
            rasterized=True,
        )
        t = np.geomspace(1e-3, 1, 80)
        curve = np.asarray(
            jax.lax.map(lambda weight, n=int(n): entropy_deficit(isolated_unit(n, weight)), t)
        )
        ax.plot(
            curve,
            t,
            color=TYPICAL,
            lw=2,
            label="isolated unit (1 − t)J + t(1 ⊕ J), t from 0 to 1 (2.2, 2.3)",
        )
        ax.plot(curve[-1], 1, "*", color=TYPICAL, ms=13)
        share = 1 - curve[-1] / (n * np.log(n))
        ax.annotate(
            f"σ₂ = 1 at {share:.1%}\nof maximal entropy",
            (curve[-1], 1),
            (-8, -6),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            bbox=HALO,
        )
        grid = np.geomspace(floor, n * np.log(n), 200)
        ax.plot(
            grid,
            np.minimum(np.sqrt(2 * grid), 1),
            color=BOUND,
            lw=1.5,
            ls="--",
            label="Pinsker bound √(2ΔH)",
        )
        ax.plot(
            grid,
            np.minimum(np.sqrt(2 * grid / n), 1),
            color="#777777",
            lw=1,
            ls=":",
            label="√(2ΔH/n), small-ΔH expansion",
        )
        ax.set(xscale="log", ylim=(-0.03, 1.05), xlim=(floor / 1.5, 1.6 * n * np.log(n)))
        ax.set(xlabel="entropy deficit ΔH = n log n − H (nat)", ylabel="σ₂", title=f"n = {n}")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3)
    fig.colorbar(ScalarMappable(norm, "plasma"), ax=axes, label="entropy weight ε (logit units)")
    fig.suptitle(f"Entropy against σ₂, every matrix of {_label(ds)}")
    return fig


def cosine_against_snr(ds: xr.Dataset) -> Figure:
    """Layer norm against noise: Monte Carlo points of every cell on the exact curve of 4.2, the critical SNR marked."""
    fig, ax = plt.subplots(figsize=(7.6, 4.6), layout="constrained")
    seen = ds.output_snr.values[(ds.output_snr.values > 1e-7) & np.isfinite(ds.output_snr.values)]
    grid = np.geomspace(seen.min(initial=1e-2), seen.max(initial=1e-2) * 1.5, 120)
    exact = jax.jit(jax.vmap(jax.vmap(expected_cosine, (0, None)), (None, 0)))(
        grid, ds.n.values - 1.0
    )
    critical = jax.jit(jax.vmap(critical_snr))(ds.n.values - 1.0)
    for k, n in enumerate(ds.n.values):
        colour = plt.get_cmap("viridis")(0.85 * k / max(1, len(ds.n) - 1))
        cells = ds.sel(n=n)
        x, y, error = (
            cells[v].values.ravel() for v in ("output_snr", "cosine_mean", "cosine_stderr")
        )
        ax.errorbar(x, y, 2 * error, fmt="o", ms=2.5, lw=0.6, color=colour, alpha=0.35)
        ax.plot(grid, exact[k], color=colour, lw=2, label=f"exact law 4.2, d = {n - 1}")
        if np.isfinite(critical[k]):
            ax.axvline(critical[k], color=colour, ls="--", lw=1.2)
            place = {"rotation": 90, "va": "bottom", "ha": "right"}
            ax.annotate(
                f"critical, d = {n - 1}", (critical[k], -0.23), fontsize=8, color=colour, **place
            )
    ax.plot(
        grid, asymptotic_cosine(grid), color="#777777", ls=":", label="large-d limit √(SNR/(1+SNR))"
    )
    ax.axhline(0, color="#777777", lw=0.8)
    ax.set(
        xscale="log",
        ylim=(-0.25, 1.05),
        xlabel="signal-to-noise ratio after mixing, ‖Mx‖²/(dν²)",
        ylabel="cos θ (signal, layer-norm output)",
    )
    ax.legend(loc="upper left")
    draws = config(ds)["samples"]
    ax.set_title(
        f"Layer norm restores the norm, not the direction: {_label(ds)}\n"
        f"points: mean of {draws} draws ± 2 standard errors; dashed: 5 % level, 95 % power",
        fontsize=10,
    )
    return fig


def retention_against_turn(ds: xr.Dataset) -> Figure:
    """Residual weights: what α buys in retention it pays in transformation. Measured, with the bounds of 5.1 and 5.2."""
    depth = int(ds.depth[len(ds.depth) // 2])
    fig, axes = _panels(ds, height=4.4)
    chosen = ds.epsilon.values[
        np.unique(np.linspace(0, ds.sizes["epsilon"] - 1, 5).round().astype(int))
    ]
    for ax, n in zip(axes, ds.n.values, strict=True):
        for k, epsilon in enumerate(chosen):
            colour = plt.get_cmap("plasma")(0.85 * k / max(1, len(chosen) - 1))
            cells = ds.sel(n=n, epsilon=epsilon, depth=depth)
            turn, kept = (
                np.degrees(cells.turn).median("seed"),
                cells.residual_sigma2.median("seed"),
            )
            ax.plot(turn, kept, color=colour, lw=1.3, alpha=0.8)
            ax.scatter(
                turn,
                kept,
                s=12 + 50 * ds.alpha.values,
                color=colour,
                zorder=3,
                label=f"ε = {epsilon:.3g}",
            )
            bound = cells.turn_bound.median("seed").values
            valid = bound < np.pi
            ax.plot(
                np.degrees(bound[valid]),
                cells.residual_sigma2_bound.median("seed").values[valid],
                color=colour,
                ls="--",
                lw=1,
            )
        ax.set(yscale="log", xlim=(-4, 184), ylim=(1e-4, 1.6), xticks=range(0, 181, 30))
        ax.set(
            xlabel="turn of detail (degrees): transformation",
            ylabel="σ₂ of the composite: retention",
            title=f"n = {n}, {depth} layer{'s' * (depth > 1)}",
        )
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(chosen),
        title="dot size: α from 0 to 1;  dashed: bounds 5.1 and 5.2, where 5.2 has its premise",
        title_fontsize=8.5,
    )
    fig.suptitle(f"Retention against transformation under residual weights: {_label(ds)}")
    return fig


def as_run_against_converged(as_run: xr.Dataset, converged: xr.Dataset) -> Figure:
    """The same logits truncated as their model runs them and projected to convergence, with the marginal error of each."""
    epsilon = float(as_run.epsilon[0])
    steps = config(as_run)["iterations"]
    fig, axes = plt.subplots(
        2, 2, figsize=(10, 6.4), sharex=True, sharey="row", layout="constrained"
    )
    for column, (ds, title) in enumerate(
        ((as_run, f"as run: {steps} alternations"), (converged, "projected to convergence"))
    ):
        cells = ds.isel(n=0, seed=0).sel(epsilon=epsilon)
        top, bottom = axes[:, column]
        top.plot(
            ds.depth,
            cells.composite_sigma2,
            "o-",
            color=MEASURED,
            label="σ₂ of the composite, ‖PCP‖₂",
        )
        top.plot(ds.depth, cells.composite_distance, "s--", color=WARNING, ms=4, label="‖C − J‖₂")
        top.plot(
            ds.depth,
            cells.product_sigma2,
            ":",
            color=BOUND,
            lw=2,
            label="Π σ₂, a bound for doubly stochastic layers",
        )
        top.set(title=title, ylim=(0, None))
        top.legend(loc="lower left", bbox_to_anchor=(0, 0.08))
        error = np.maximum(cells.row_error, cells.col_error)
        shown = np.maximum(error, 1e-17)
        bottom.bar(
            ds.layer,
            shown,
            bottom=1e-17,
            color=[WARNING if e > 1e-3 else TYPICAL for e in error.values],
        )
        bottom.axhline(1e-3, color="#777777", lw=0.8, ls=":")
        bottom.set(yscale="log", ylim=(1e-17, 10), xlabel="depth (layers)", xticks=ds.layer.values)
    axes[0, 0].set_ylabel("norm on the detail subspace")
    axes[1, 0].set_ylabel("max |row or column sum − 1|")
    fig.suptitle(
        f"{_label(converged)} at ε = {epsilon:g}: collapse over depth, or an unconverged projection?"
    )
    return fig


def training(ds: xr.Dataset) -> Figure:
    """Loss along training, accuracy over the grid, σ₂ of every layer before and after, and what of the detail is kept so far."""
    across, apart = _axes_of_grid(ds)
    fig, (losses, accuracy, layers, kept) = plt.subplots(
        1, 4, figsize=(17, 4.2), layout="constrained"
    )
    values, deepest = ds[apart].values, int(ds.depth.max())
    own = apart == "epsilon" and not tempered(config(ds)["architecture"]["mixer"])
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


@xr.register_dataset_accessor("homojax")
class _Drawing:
    """``ds.homojax.plot()``: the figure of a probe's or a training's Dataset."""

    def __init__(self, ds: xr.Dataset):
        self._ds = ds

    def plot(self) -> Figure:
        """The figure that its own page has."""
        draw = {
            "frontier": frontier,
            "calibrate": calibration,
            "sensitivity": sensitivity,
            "train": training,
        }
        return draw[self._ds.attrs["title"].split()[-1]](self._ds)


def _panels(ds: xr.Dataset, height: float):
    count = ds.sizes["n"]
    fig, axes = plt.subplots(
        1, count, figsize=(2.2 + 3.5 * count, height), squeeze=False, layout="constrained"
    )
    return fig, axes[0]


def config(ds: xr.Dataset) -> dict:
    """What was asked for."""
    return json.loads(ds.attrs["config"])


def _seeds(ds: xr.Dataset) -> str:
    return "one stack" if ds.sizes["seed"] == 1 else f"median of {ds.sizes['seed']} stacks"


def _label(ds: xr.Dataset) -> str:
    return ds.attrs["title"].removeprefix("homojax sweep: ")
