"""Accuracy against depth and ε (3.2, 3.3): does the effective depth predicted at initialisation say where training fails?

    python experiments/depth.py [--quick]

Associative recall by one matrix over tokens a layer with a feed-forward branch, and by Sinkhorn attention with one; copying by
the matrices alone, and with noise after every layer: every ε at every depth, trained side by side. A network that mixed all into
its mean still has the collapsed accuracy; the measured depth is the one at which half of what is above that is left. How deep a
network can be trained depends on the optimiser: copying has the learning rate that took it furthest of five, from 0.001 to 0.1,
recall one between the two best of six, from 0.001 to 0.01. Attention projects a matrix for every example and head, which is
dear: it has few depths.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.plots import BOUND, TYPICAL, WARNING
from homojax.lab.train.run import Train
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training

COLLAPSED = {
    "copying": 0.32,
    "recall": 0.41,
}  # accuracy of the best answer from the mean of the tokens
EPSILON = tuple(np.geomspace(0.03, 10, 8).round(4).tolist())


def network(task: str = "copying", **changes) -> Train:
    """What is trained of one network in full size."""
    whole = {
        "architecture": Architecture(),
        "training": Training(steps=2000, batch=32, learning_rate=0.03),
        "depths": (1, 4, 8, 16, 32, 96),
        "epsilon": EPSILON,
        "seeds": 1,
    }
    return Train(task=task, **(whole | changes))


NETWORKS = {
    "recall": network(
        "recall",
        architecture=Architecture(hidden=32),
        training=Training(steps=2000, batch=32, learning_rate=5e-3, warmup=200),
    ),
    "copying": network(),
    "copying, noise of 1": network(noise=(1.0,), depths=(4, 8, 16, 32)),
    "recall, attention": network(
        "recall",
        architecture=Architecture(over="attention", hidden=64),
        training=Training(steps=1000, batch=64, learning_rate=2e-3, warmup=100),
        depths=(2, 4, 8),
    ),
}
CHOSEN = {"smoke": ("copying",), "quick": ("recall", "copying"), "full": tuple(NETWORKS)}
SMALLER = {  # what else is changed, those of the depths that are kept, and the steps
    "smoke": ({"epsilon": (0.1, 5.0), "seeds": 1, "claims": False}, (4,), 10),
    "quick": ({"epsilon": (0.05, 0.5, 5.0), "seeds": 1, "claims": False}, (4, 16), 200),
}


def sized(what: Train, size: Size) -> Train:
    """The training of a network in that size."""
    if size == "full":
        return what
    changes, depths, steps = SMALLER[size]
    training = dataclasses.replace(
        what.training, steps=steps, warmup=min(what.training.warmup, steps // 10)
    )
    return dataclasses.replace(
        what, training=training, depths=[x for x in what.depths if x in depths], **changes
    )


def study(size: Size, bench: Bench) -> Study:
    """Accuracy over depth and ε, the depths at which it halves, and those predicted before and after training."""
    across, down = min(len(CHOSEN[size]), 2), -(-len(CHOSEN[size]) // 2)
    fig, axes = plt.subplots(
        down, across, figsize=(5.4 * across, 4.2 * down + 0.6), squeeze=False, layout="constrained"
    )
    rows, text = [], ""
    for ax, name in zip(axes.flat, CHOSEN[size], strict=True):
        what = sized(NETWORKS[name], size)
        ds = bench.train(name.replace(", ", "-").replace(" ", "-"), what).isel(alpha=0, noise=0)
        accuracy = ds.accuracy.mean("seed")
        ax.pcolormesh(
            ds.epsilon, ds.depth, accuracy, shading="nearest", cmap="viridis", vmin=0, vmax=1
        )
        half = (1 + COLLAPSED[what.task]) / 2
        measured = [failing_depth(accuracy.sel(epsilon=e), half) for e in ds.epsilon.values]
        stacks = {  # before training every layer of the deepest tells of that depth; after it every network has gone its own way
            "start": ds.kept_after_start.isel(depth=-1, drop=True).rename(layer="depth"),
            "end": ds.kept_end,
        }
        predicted = {
            when: [
                failing_depth(kept.median("seed").sel(epsilon=e), 0.5) for e in ds.epsilon.values
            ]
            for when, kept in stacks.items()
        }
        bound = ds.depth_bound_start.isel(depth=-1).median("seed").values
        most = float(ds.depth.max())
        lines = (
            (measured, "#ffffff", "-", "accuracy half-way to its collapsed value, measured"),
            (predicted["start"], WARNING, "--", "half of the detail is left, before training"),
            (predicted["end"], TYPICAL, "-.", "the same, after training"),
            (bound, BOUND, ":", "the same, by the bound, before training"),
        )
        for values, colour, style, label in lines:
            seen = np.where(np.equal(values, 0), np.nan, np.clip(values, 1, most))
            ax.plot(ds.epsilon, seen, color=colour, ls=style, lw=2.2, label=label)
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="entropy weight ε (logit units)",
            ylabel="layers",
            title=name,
        )
        ax.set_yticks(what.layers, [str(depth) for depth in what.layers])
        ax.minorticks_off()
        ax.grid(False)
        ax.set_facecolor("#c8c8c8")  # what was not trained
        for i, epsilon in enumerate(ds.epsilon.values):
            numbers = [measured[i], predicted["start"][i], predicted["end"][i], bound[i]]
            cells = accuracy.sel(epsilon=epsilon)
            rows.append(
                [
                    name,
                    f"{epsilon:g}",
                    *(f"{float(x):.3f}" for x in cells.values[[0, -1]]),
                    *map(shown, numbers),
                ]
            )
        both = [
            (m, p)
            for m, p in zip(measured, predicted["start"], strict=True)
            if 0 < m < np.inf and 0 < p < np.inf
        ]
        ratios = [m / p for m, p in both]
        found = f"between {min(ratios):.2g} and {max(ratios):.2g}" if ratios else "never both seen"
        text += (
            f"{name}, after {what.training.steps:,} steps: measured over predicted depth {found}, "
        )
        text += f"at {len(ratios)} of {len(measured)} ε. "
    fig.colorbar(axes[0, 0].collections[0], ax=axes, label="held-out accuracy, mean of seeds")
    fig.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        facecolor="#9a9a9a",
        frameon=True,
    )
    header = [
        "network",
        "ε",
        "accuracy, fewest layers",
        "most layers",
        "measured",
        "start",
        "end",
        "bound",
    ]
    caption = "layers at which accuracy is half-way to its collapsed value; at which σ₂ of the composite is ½, before and after "
    caption += "training; and at which the bound is ½; > and <: it is larger at every depth from the best on, or smaller at all"
    return Study(text.strip(), [(caption, (header, rows))], fig)


def failing_depth(values: xr.DataArray, level: float) -> float:
    """The depth at which ``values`` [depth] fall below the level, past their largest; ∞: they never do, 0: all are below.

    Between two depths by their logarithms. (A task may need several layers, too, before it can be done at all.)
    """
    depth, left = np.log(values.depth.values), values.values
    best = left.argmax()
    if left[best] < level:
        return 0.0
    below = best + np.flatnonzero(left[best:] < level)
    if not len(below):
        return np.inf
    i = below[0]
    share = (left[i - 1] - level) / (left[i - 1] - left[i])
    return float(np.exp(depth[i - 1] + share * (depth[i] - depth[i - 1])))


def shown(value: float) -> str:
    return ">" if np.isinf(value) else "<" if value == 0 else f"{value:.3g}"


if __name__ == "__main__":
    command(study)
