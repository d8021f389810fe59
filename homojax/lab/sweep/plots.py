"""The figures of a sweep."""

from __future__ import annotations

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
from homojax.lab.runs import config_of
from homojax.lab.style import BOUND, FAINT, HALO, MEASURED, TYPICAL, WARNING, panels
from homojax.layernorm import asymptotic_cosine, critical_snr, expected_cosine


def phase_diagram(ds: xr.Dataset) -> Figure:
    """ε × depth: the share of detail retained as measured, and the laws' contours where it falls to the retention asked."""
    retention = config_of(ds)["retention"]
    fig, axes = panels(ds, height=4.2)
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
    fig, axes = panels(ds, height=4.2)
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
            color=FAINT,
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
        grid, asymptotic_cosine(grid), color=FAINT, ls=":", label="large-d limit √(SNR/(1+SNR))"
    )
    ax.axhline(0, color=FAINT, lw=0.8)
    ax.set(
        xscale="log",
        ylim=(-0.25, 1.05),
        xlabel="signal-to-noise ratio after mixing, ‖Mx‖²/(dν²)",
        ylabel="cos θ (signal, layer-norm output)",
    )
    ax.legend(loc="upper left")
    draws = config_of(ds)["samples"]
    ax.set_title(
        f"Layer norm restores the norm, not the direction: {_label(ds)}\n"
        f"points: mean of {draws} draws ± 2 standard errors; dashed: 5 % level, 95 % power",
        fontsize=10,
    )
    return fig


def retention_against_turn(ds: xr.Dataset) -> Figure:
    """Residual weights: what α buys in retention it pays in transformation. Measured, with the bounds of 5.1 and 5.2."""
    depth = int(ds.depth[len(ds.depth) // 2])
    fig, axes = panels(ds, height=4.4)
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
    steps = config_of(as_run)["iterations"]
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
        bottom.axhline(1e-3, color=FAINT, lw=0.8, ls=":")
        bottom.set(yscale="log", ylim=(1e-17, 10), xlabel="depth (layers)", xticks=ds.layer.values)
    axes[0, 0].set_ylabel("norm on the detail subspace")
    axes[1, 0].set_ylabel("max |row or column sum − 1|")
    fig.suptitle(
        f"{_label(converged)} at ε = {epsilon:g}: collapse over depth, or an unconverged projection?"
    )
    return fig


def _seeds(ds: xr.Dataset) -> str:
    return "one stack" if ds.sizes["seed"] == 1 else f"median of {ds.sizes['seed']} stacks"


def _label(ds: xr.Dataset) -> str:
    return ds.attrs["title"].removeprefix("homojax sweep: ")
