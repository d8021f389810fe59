"""How training escapes the trap (3.1, 5.1): by the logits of the mixing, the residual weights, or the feed-forward branch?

    python experiments/escape.py [--quick]

Copying with noise of 1 on every entry after each of sixteen layers, so that what shrinks is lost. Of the three ways out none,
one, two or all are there to be trained, beside embedding, norms and readout; and two weights that are given: training the
logits alone at α = 0.1 and 1, where all others begin at ½. A network that mixed all into its mean copies 0.32.
"""

import dataclasses

import matplotlib.pyplot as plt

from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.plots import WARNING
from homojax.lab.train.run import Train
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
CHOSEN = {"smoke": ("all three",), "quick": ("logits", "all three"), "full": tuple(WAYS)}
EPSILON = {"smoke": (1.0,), "quick": (0.1, 1.0), "full": (0.07, 0.36, 1.9, 10.0)}
STEPS = {"smoke": 10, "quick": 300, "full": 2000}
SEEDS = {"smoke": 1, "quick": 1, "full": 3}
DEPTH = {"smoke": 2, "quick": 8, "full": 16}


def study(size: Size, bench: Bench) -> Study:
    """Accuracy by what may be trained, beside what training made of α, σ₂, the composite and its bound."""
    what = Train(
        training=Training(steps=STEPS[size], batch=32, learning_rate=0.03),
        epsilon=EPSILON[size],
        noise=(1.0,),
        seeds=SEEDS[size],
        claims=size == "full",
    )
    fig, (over_epsilon, over_kept) = plt.subplots(
        1, 2, figsize=(11, 5.2), sharey=True, layout="constrained"
    )
    rows, means = [], {}
    for k, name in enumerate(CHOSEN[size]):
        trained, alpha = WAYS[name]
        architecture = Architecture(
            depth=DEPTH[size],
            learned="logits" in trained,
            learned_alpha="α" in trained,
            hidden=32 * ("branch" in trained),
        )
        ds = bench.train(
            f"way-{k}", dataclasses.replace(what, architecture=architecture, alpha=(alpha,))
        )
        ds = ds.isel(depth=0, alpha=0, noise=0)
        means[name] = float(ds.accuracy.mean())
        style = {
            "color": f"C{k}",
            "marker": "osD^vP*Xhd"[k],
            "ms": 6,
            "ls": "-" if "branch" in trained else "--",
        }
        over_epsilon.plot(ds.epsilon, ds.accuracy.mean("seed"), label=name, **style)
        over_kept.plot(
            ds.kept_end.values.ravel(), ds.accuracy.values.ravel(), **(style | {"ls": ""})
        )
        for epsilon in ds.epsilon.values:
            runs = ds.sel(epsilon=epsilon)
            accuracy = [f"{float(runs.accuracy.mean()):.3f}", f"{float(runs.accuracy.std()):.3f}"]
            after = (
                runs.alpha_end.mean(),
                runs.sigma2_end.mean(),
                runs.kept_predicted_end.isel(layer=-1).median(),
            )
            rows.append(
                [
                    name,
                    f"{epsilon:g}",
                    *accuracy,
                    *(f"{float(x):.2g}" for x in (*after, runs.kept_end.median())),
                ]
            )
    for ax in (over_epsilon, over_kept):
        ax.axhline(COLLAPSED, color=WARNING, lw=1.2, ls=":")
        ax.set(xscale="log", ylim=(0, 1.03))
    over_epsilon.set(
        xlabel="entropy weight ε (logit units)", ylabel="held-out accuracy", title="mean of seeds"
    )
    over_kept.set(xlabel="σ₂ of the composite after training", title="every network")
    handles, labels = over_epsilon.get_legend_handles_labels()
    fig.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=5,
        title="what is trained (full lines: with a branch)",
    )
    fig.suptitle(
        f"Copying through {DEPTH[size]} layers with noise of 1; dotted: what the mean of the tokens gives"
    )
    text = (
        "Accuracy, mean over ε and seeds, by what is trained: "
        + "; ".join(f"{k}: {v:.2f}" for k, v in means.items())
        + "."
    )
    caption = "after training; ±: standard deviation over seeds; α and σ₂: means of layers; bound: Π(1 − α + ασ₂), which bounds "
    caption += "that of the composite (medians of seeds); where nothing is trained, all are as at the start"
    return Study(
        text,
        [(caption, (["trained", "ε", "accuracy", "±", "α", "σ₂", "bound", "composite"], rows))],
        fig,
    )


if __name__ == "__main__":
    command(study)
