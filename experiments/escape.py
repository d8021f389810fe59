"""How does training escape the trap (laws 3.1, product bound, and 5.1, residual bound)?

    python experiments/escape.py [--quick]

There are three ways out: the logits of the mixing, the residual weights α, and the feed-forward
branch. Networks copy tokens through sixteen layers. Every layer adds noise of 1 to every entry, so
that detail that shrinks is lost. None, one, two or all of the ways are trained, beside embedding,
norms and readout. α starts at ½; two networks that train the logits alone have a given α of 0.1 and
of 1. A network that mixed all tokens into their mean copies 0.32.
"""

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.figure import Figure

from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.figure_style import WARNING
from homojax.lab.page import Table
from homojax.lab.train.config import Train
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training

COLLAPSED = 0.32  # accuracy of the best answer from the mean of the tokens
WAYS = {  # what is trained, and the residual weight at the start
    "nothing": ((), 0.5),
    "logits": (("logits",), 0.5),
    "α": (("α",), 0.5),
    "branch": (("branch",), 0.5),
    "logits, α": (("logits", "α"), 0.5),
    "logits, branch": (("logits", "branch"), 0.5),
    "α, branch": (("α", "branch"), 0.5),
    "all three": (("logits", "α", "branch"), 0.5),
    "logits at α = 0.1": (("logits",), 0.1),
    "logits at α = 1": (("logits",), 1.0),
}
CHOSEN = {"smoke": ("logits",), "quick": ("logits", "all three"), "full": tuple(WAYS)}
EPSILON = {"smoke": (0.1, 1.0), "quick": (0.1, 1.0), "full": (0.07, 0.36, 1.9, 10.0)}
STEPS = {"smoke": 10, "quick": 300, "full": 2000}
SEEDS = {"smoke": 1, "quick": 1, "full": 3}
DEPTH = {"smoke": 4, "quick": 8, "full": 16}
HEADER = ["trained", "ε", "accuracy", "±", "α", "σ₂", "bound", "composite"]
CAPTION = (
    "After training. ±: standard deviation over seeds; α and σ₂: means of layers; composite: its "
    "σ₂, and bound: Π(1 − α + ασ₂), which bounds it (medians of seeds). Where nothing is trained, "
    "all are as at the start."
)


def config(size: Size, name: str) -> Train:
    """Return the training of one way out."""
    trained, alpha = WAYS[name]
    architecture = Architecture(
        depth=DEPTH[size],
        learned="logits" in trained,
        learned_alpha="α" in trained,
        hidden=32 * ("branch" in trained),
    )
    return Train(
        architecture=architecture,
        training=Training(steps=STEPS[size], batch=32, learning_rate=0.03),
        epsilon=EPSILON[size],
        alpha=(alpha,),
        noise=(1.0,),
        seeds=SEEDS[size],
        claims=size == "full",
    )


def study(size: Size, bench: Bench) -> Study:
    """Return the accuracy by what is trained, and what training made of α, σ₂ and composites."""
    trainings = {
        name: bench.train(f"way-{k}", config(size, name)).isel(depth=0, alpha=0, noise=0)
        for k, name in enumerate(CHOSEN[size])
    }
    means = (f"{name}: {float(ds.accuracy.mean()):.2f}" for name, ds in trainings.items())
    rows = [
        row(name, ds.sel(epsilon=epsilon))
        for name, ds in trainings.items()
        for epsilon in ds.epsilon.values
    ]
    return Study(
        text=f"Accuracy, mean over ε and seeds, by what is trained: {'; '.join(means)}.",
        tables=[Table(CAPTION, HEADER, rows)],
        figure=draw(trainings, DEPTH[size]),
    )


def row(name: str, runs: xr.Dataset) -> list[str]:
    """Return the row of one way at one ε, over its seeds."""
    after = (
        runs.alpha_end.mean(),
        runs.sigma2_end.mean(),
        runs.kept_predicted_end.isel(layer=-1).median(),
        runs.kept_end.median(),
    )
    accuracy = (f"{float(runs.accuracy.mean()):.3f}", f"{float(runs.accuracy.std()):.3f}")
    return [name, f"{runs.epsilon.item():g}", *accuracy, *(f"{float(x):.2g}" for x in after)]


def draw(trainings: dict[str, xr.Dataset], depth: int) -> Figure:
    """Draw the accuracy over ε and over σ₂ of the composite."""
    fig, (over_epsilon, over_kept) = plt.subplots(
        1, 2, figsize=(11, 5.2), sharey=True, layout="constrained"
    )
    for k, (name, ds) in enumerate(trainings.items()):
        line = "-" if "branch" in WAYS[name][0] else "--"
        look = {"color": f"C{k}", "marker": "osD^vP*Xhd"[k], "ms": 6}
        over_epsilon.plot(ds.epsilon, ds.accuracy.mean("seed"), label=name, ls=line, **look)
        over_kept.plot(ds.kept_end.values.ravel(), ds.accuracy.values.ravel(), ls="", **look)
    for ax in (over_epsilon, over_kept):
        ax.axhline(COLLAPSED, color=WARNING, lw=1.2, ls=":")
        ax.set(xscale="log", ylim=(0, 1.03))
    over_epsilon.set(xlabel="entropy weight ε (logit units)", title="mean of seeds")
    over_epsilon.set_ylabel("held-out accuracy")
    over_kept.set(xlabel="σ₂ of the composite after training", title="every network")
    handles, labels = over_epsilon.get_legend_handles_labels()
    title = "what is trained (full lines: with a branch)"
    fig.legend(handles, labels, loc="outside lower center", ncols=5, title=title)
    fig.suptitle(
        f"Copying through {depth} layers with noise of 1; dotted: what the mean of the tokens gives"
    )
    return fig


if __name__ == "__main__":
    command(study)
