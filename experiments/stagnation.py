"""Identity stagnation (5.2, 5.3): what a trained network keeps of the detail against how far it turns it, over residual weights.

    python experiments/stagnation.py [--quick]

Copying by one matrix over tokens a layer. "linear": no norm, where 5.2 bounds the turn; "pre-norm": the norm before the
mixing; "branch": a feed-forward branch after it, which 5.2 knows nothing of. 5.2 says something of a layer where ασ₂ < 1 − α;
layers whose detail is down to where float32 has no direction left are not counted.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.plots import MEASURED
from homojax.lab.train.run import Train
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training
from homojax.residual import turn_bound

ALPHA = {
    "smoke": (0.1, 1.0),
    "quick": (0.05, 0.2, 0.5, 1.0),
    "full": (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0),
}
EPSILON = {"smoke": (1.0,), "quick": (0.2, 5.0), "full": (0.1, 0.5, 1.0, 5.0)}
STEPS = {"smoke": 10, "quick": 200, "full": 800}
SEEDS = {"smoke": 1, "quick": 2, "full": 3}
DEPTH = {"smoke": 2, "quick": 8, "full": 16}
FAINT = 1e-6  # of the energy that the detail began with
RESOLVED = 1e-3  # rad a layer, to which float32 has the direction of detail that is not faint
NETWORKS = {"linear": {"norm": "none"}, "pre-norm": {}, "branch": {"hidden": 32}}
CHOSEN = {"smoke": ("branch",), "quick": tuple(NETWORKS), "full": tuple(NETWORKS)}


def study(size: Size, bench: Bench) -> Study:
    """Retention against turn, and the bound of 5.2 beside them."""
    what = Train(
        architecture=Architecture(depth=DEPTH[size]),
        training=Training(steps=STEPS[size], batch=32),
        epsilon=EPSILON[size],
        alpha=ALPHA[size],
        seeds=SEEDS[size],
        claims=size == "full",
    )
    chosen = CHOSEN[size]
    fig, axes = plt.subplots(
        1,
        len(chosen),
        figsize=(4.3 * len(chosen), 4.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    rows, beyond = [], {}
    for ax, name in zip(axes[0], chosen, strict=True):
        ds = bench.train(
            name,
            dataclasses.replace(
                what, architecture=dataclasses.replace(what.architecture, **NETWORKS[name])
            ),
        )
        ds = ds.isel(depth=0, noise=0)
        energy = ds.energy_end.transpose(..., "after").values
        clear = ds.turned_end.transpose(..., "layer").copy(
            data=np.minimum(energy[..., :-1], energy[..., 1:]) > FAINT * energy[..., :1]
        )
        bounded = clear & (ds.alpha * ds.sigma2_end < 1 - ds.alpha)
        turned, kept = ds.turned_end.where(clear).sum("layer"), ds.kept_end
        bounds = xr.apply_ufunc(
            lambda s, a: np.asarray(turn_bound(s, alpha=a)), ds.sigma2_end, ds.alpha
        )
        bound = (
            bounds.where(bounded).sum("layer").where((bounded == clear).all("layer"))
        )  # NaN: there is none for some layer
        over = ((ds.turned_end - bounds).where(bounded) > RESOLVED).any("layer")
        beyond[name] = f"{int(over.sum())} of {int(bounded.any('layer').sum())}"
        for k, epsilon in enumerate(ds.epsilon.values):
            colour = plt.get_cmap("viridis")(0.85 * k / max(1, ds.sizes["epsilon"] - 1))
            cells = [x.sel(epsilon=epsilon).median("seed") for x in (turned, kept, ds.accuracy)]
            ax.plot(cells[0], cells[1], color=colour, lw=0.8)
            ax.scatter(
                cells[0],
                cells[1],
                s=10 + 120 * cells[2] ** 2,
                color=colour,
                label=f"ε = {epsilon:g}",
                zorder=3,
            )
            start = ds.sel(epsilon=epsilon).median("seed")
            ax.plot(start.turned_start.sum("layer"), start.kept_start, "x", ms=4, color=colour)
            for alpha in ds.alpha.values:
                at = {"epsilon": epsilon, "alpha": alpha}
                numbers = (float(x.sel(at).median(skipna=False)) for x in (kept, turned, bound))
                accuracy = ds.accuracy.sel(at)
                rows.append(
                    [
                        name,
                        f"{epsilon:g}",
                        f"{alpha:g}",
                        *("–" if np.isnan(x) else f"{x:.3f}" for x in numbers),
                    ]
                )
                rows[-1] += [
                    f"{float(accuracy.mean()):.3f}",
                    f"{float(accuracy.std()):.3f}",
                    f"{int(over.sel(at).sum())}",
                ]
        ax.set(xlabel="turn of the detail, sum over layers (rad)", title=name)
        ax.plot([], [], "x", color=MEASURED, label="before training")
    axes[0, 0].set_ylabel("kept: σ₂ of the composite")
    axes[0, 0].legend(title="size: accuracy")
    fig.suptitle(
        "Retention against transformation, one line an ε, from the smallest α (left) to the largest"
    )
    text = "Networks with a layer that turns detail more than 5.2 allows, of those with one that it bounds: "
    text += ", ".join(f"{k} {v}" for k, v in beyond.items()) + "."
    header = ["network", "ε", "α", "kept", "turn", "bound", "accuracy", "±", "beyond"]
    caption = "medians over seeds, after training; turn and bound by 5.2: rad, –: none; beyond: networks with a layer over it"
    return Study(text, [(caption, (header, rows))], fig)


if __name__ == "__main__":
    command(study)
