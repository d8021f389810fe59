"""Accuracy over depth and ε (laws 3.2, effective depth, and 3.3, three depths).

    python experiments/depth.py [--quick]

Does the effective depth that is predicted at initialisation say where training fails? Four kinds of
networks are trained at every ε and depth: recall by one matrix over tokens in each layer, with a
feed-forward branch; recall by Sinkhorn attention, with a branch; copying by the matrices alone, and
with noise after every layer. A network that mixed all tokens into their mean still has the
collapsed accuracy. The measured depth is where half of the accuracy above it is left.

How deep a network can be trained depends on the optimiser. Copying has the learning rate that took
it furthest of five, from 0.001 to 0.1. Recall has one between the two best of six, from 0.001 to
0.01. Attention projects a matrix for every example and head. That is dear: it has few depths.
"""

import dataclasses
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.figure_style import BOUND, TYPICAL, WARNING
from homojax.lab.page import Table
from homojax.lab.train.config import Train
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training

COLLAPSED = {"copying": 0.32, "recall": 0.41}  # accuracy of the best answer from the tokens' mean
EPSILON = tuple(np.geomspace(0.03, 10, 8).round(4).tolist())
UNTRAINED = "#c8c8c8"
HEADER = ["network", "ε", "accuracy, fewest layers", "most layers"]
HEADER += ["measured", "start", "end", "bound"]
CAPTION = (
    "Measured: layers at which accuracy is half-way to its collapsed value. Start, end: layers at "
    "which σ₂ of the composite is ½, before and after training. Bound: layers at which its bound "
    "is ½. > and <: it is larger at every depth from the best on, or smaller at all."
)


def network(task: str = "copying", **changes) -> Train:
    """Return the training of one kind of network in full size."""
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


def sized(config: Train, size: Size) -> Train:
    """Return the training of a network in that size."""
    if size == "full":
        return config
    changes, depths, steps = SMALLER[size]
    warmup = min(config.training.warmup, steps // 10)
    training = dataclasses.replace(config.training, steps=steps, warmup=warmup)
    kept = tuple(depth for depth in config.depths if depth in depths)
    return dataclasses.replace(config, training=training, depths=kept, **changes)


class Depths(NamedTuple):
    """The depths of one kind of network, as lists over ε."""

    config: Train
    accuracy: xr.DataArray  # mean over seeds, over depth × epsilon
    measured: list[float]  # where accuracy is half-way to its collapsed value
    start: list[float]  # where σ₂ of the composite is ½, before training
    end: list[float]  # the same after training
    bound: list[float]  # where the bound is ½, before training


def study(size: Size, bench: Bench) -> Study:
    """Return the depths at which accuracy halves, and those that were predicted."""
    kinds = {}
    for name in CHOSEN[size]:
        config = sized(NETWORKS[name], size)
        ds = bench.train(name.replace(", ", "-").replace(" ", "-"), config)
        kinds[name] = read(config, ds.isel(alpha=0, noise=0))
    rows = [
        row(name, depths, k)
        for name, depths in kinds.items()
        for k in range(len(depths.config.epsilon))
    ]
    return Study(
        text=" ".join(compare(name, depths) for name, depths in kinds.items()),
        tables=[Table(CAPTION, HEADER, rows)],
        figure=draw(kinds),
    )


def read(config: Train, ds: xr.Dataset) -> Depths:
    """Return the depths of trained networks, measured and predicted."""
    accuracy, half = ds.accuracy.mean("seed"), (1 + COLLAPSED[config.task]) / 2
    # Before training, the deepest networks tell of every depth: their first layers are as good as
    # any. After it every network has gone its own way.
    start = ds.kept_after_start.isel(depth=-1, drop=True).rename(layer="depth").median("seed")
    end = ds.kept_end.median("seed")
    bound = ds.depth_bound_start.isel(depth=-1).median("seed")

    def failing(values: xr.DataArray, level: float) -> list[float]:
        return [failing_depth(values.sel(epsilon=e), level) for e in ds.epsilon.values]

    return Depths(
        config=config,
        accuracy=accuracy,
        measured=failing(accuracy, half),
        start=failing(start, 0.5),
        end=failing(end, 0.5),
        bound=bound.values.tolist(),
    )


def failing_depth(values: xr.DataArray, level: float) -> float:
    """Return the depth at which ``values`` [depth] fall below the level, past their largest.

    It is ∞ where they never do, and 0 where all are below. Between two depths the logarithms are
    interpolated. A task may need several layers before it can be done at all.
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


def compare(name: str, depths: Depths) -> str:
    """Say how the measured depths compare with those predicted before training."""
    ratios = [
        measured / predicted
        for measured, predicted in zip(depths.measured, depths.start, strict=True)
        if 0 < measured < np.inf and 0 < predicted < np.inf
    ]
    spread = f"between {min(ratios):.2g} and {max(ratios):.2g}" if ratios else "never both seen"
    return (
        f"{name}, after {depths.config.training.steps:,} steps: measured over predicted depth "
        f"{spread}, at {len(ratios)} of {len(depths.measured)} ε."
    )


def row(name: str, depths: Depths, k: int) -> list[str]:
    """Return the row of one kind of network at its k-th ε."""
    accuracy = depths.accuracy.isel(epsilon=k).values
    numbers = (depths.measured[k], depths.start[k], depths.end[k], depths.bound[k])
    ends = (f"{float(x):.3f}" for x in accuracy[[0, -1]])
    return [name, f"{depths.config.epsilon[k]:g}", *ends, *map(shown, numbers)]


def shown(depth: float) -> str:
    """Return a depth in words."""
    return ">" if np.isinf(depth) else "<" if depth == 0 else f"{depth:.3g}"


# ---------------------------------------------------------------- figure


def draw(kinds: dict[str, Depths]) -> Figure:
    """Draw accuracy over ε and depth, with the depths, one panel for each kind of network."""
    across, down = min(len(kinds), 2), -(-len(kinds) // 2)
    size = 5.4 * across, 4.2 * down + 0.6
    fig, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for ax, (name, depths) in zip(axes.flat, kinds.items(), strict=True):
        draw_panel(ax, depths)
        ax.set_title(name)
    first = axes[0, 0]
    fig.colorbar(first.collections[0], ax=axes, label="held-out accuracy, mean of seeds")
    look = {"facecolor": "#9a9a9a", "frameon": True}
    handles, labels = first.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2, **look)
    return fig


def draw_panel(ax: Axes, depths: Depths) -> None:
    """Draw accuracy over ε and depth, and the depths as lines."""
    accuracy = depths.accuracy
    look = {"shading": "nearest", "cmap": "viridis", "vmin": 0, "vmax": 1}
    ax.pcolormesh(accuracy.epsilon, accuracy.depth, accuracy, **look)
    most = float(accuracy.depth.max())
    lines = (
        (depths.measured, "#ffffff", "-", "accuracy half-way to its collapsed value, measured"),
        (depths.start, WARNING, "--", "half of the detail is left, before training"),
        (depths.end, TYPICAL, "-.", "the same, after training"),
        (depths.bound, BOUND, ":", "the same, by the bound, before training"),
    )
    for values, colour, line, label in lines:
        seen = np.where(np.equal(values, 0), np.nan, np.clip(values, 1, most))
        ax.plot(accuracy.epsilon, seen, color=colour, ls=line, lw=2.2, label=label)
    ax.set(xscale="log", yscale="log", xlabel="entropy weight ε (logit units)", ylabel="layers")
    ticks = depths.config.depths
    ax.set_yticks(ticks, [str(depth) for depth in ticks])
    ax.minorticks_off()
    ax.grid(False)
    ax.set_facecolor(UNTRAINED)


if __name__ == "__main__":
    command(study)
