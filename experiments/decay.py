"""Weight decay as an entropy regulariser (6.1): σ₂ through training, against what the schedule alone predicts.

    python experiments/decay.py [--quick]

Copying by one matrix over tokens a layer. Decoupled decay multiplies the mixing logits by Π(1 − lr·decay) whatever the loss
says; where training does no more than that, measured and predicted σ₂ agree.
"""

from functools import partial

import jax
import matplotlib.pyplot as plt
import numpy as np

from homojax import sinkhorn, spectrum
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.plots import MEASURED, WARNING
from homojax.lab.train.measures import stacks_of, theorems_of
from homojax.lab.train.run import REPORTS, Train, trainer_of
from homojax.networks.architecture import Architecture
from homojax.networks.optimiser import decayed
from homojax.networks.run import mixing_parameters
from homojax.networks.trainer import side_by_side
from homojax.networks.training import Training

ARMS = {  # (decay of the mixing logits, decay of all others)
    "none": (0.0, 0.0),
    "all but mixing": (0.0, 1.0),
    "mixing, 0.3": (0.3, 0.0),
    "mixing, 1": (1.0, 0.0),
    "mixing, 3": (3.0, 0.0),
}
CHOSEN = {
    "smoke": ("mixing, 3",),
    "quick": ("none", "all but mixing", "mixing, 1", "mixing, 3"),
    "full": tuple(ARMS),
}
STEPS = {"smoke": REPORTS, "quick": 400, "full": 3000}
SEEDS = {"smoke": 1, "quick": 2, "full": 5}
DEPTH = {"smoke": 2, "quick": 4, "full": 8}


@jax.jit
def sigma2_of(logits, epsilon):
    """σ₂ of logits [runs, L, n, n]."""
    return jax.vmap(jax.vmap(lambda s: spectrum.sigma2(sinkhorn(s, epsilon).matrix)))(logits)


def study(size: Size, bench: Bench) -> Study:
    """σ₂ at twenty points of every training, and at as many of the schedule."""
    chosen, epsilon = CHOSEN[size], 1.0
    fig, axes = plt.subplots(
        1,
        len(chosen),
        figsize=(3.4 * len(chosen) + 0.6, 4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )

    def measure(name, what):
        of = trainer_of(what, DEPTH[size])
        runs = side_by_side(
            of.begin, jax.random.split(jax.random.key(0), SEEDS[size]), epsilon=epsilon, alpha=0.5
        )
        start, measured = mixing_parameters(runs).astype(float), []
        for report in range(REPORTS + 1):
            measured.append(np.asarray(sigma2_of(mixing_parameters(runs).astype(float), epsilon)))
            if report < REPORTS:
                bench.tell(report, REPORTS, f"decay: {name}")
                runs, _ = side_by_side(of.advance, runs, steps=STEPS[size] // REPORTS)
        _, accuracy = side_by_side(of.evaluate, runs)
        left = np.asarray(decayed(what.training))[:: STEPS[size] // REPORTS]
        predicted = [
            np.asarray(sigma2_of(factor * start, epsilon)) for factor in left
        ]  # as measured: [reports + 1, runs, L]
        theorems = {"theorems": theorems_of(stacks_of(of, runs))} if size == "full" else {}
        curves = {"left": left, "measured": np.stack(measured), "predicted": np.stack(predicted)}
        return {
            **curves,
            **theorems,
            "accuracy": np.asarray(accuracy),
            "failed": np.asarray(runs.failed),
        }

    rows = []
    for ax, name in zip(axes[0], chosen, strict=True):
        mixing, others = ARMS[name]
        training = Training(steps=STEPS[size], batch=32, mixing_decay=mixing, weight_decay=others)
        what = Train(
            architecture=Architecture(depth=DEPTH[size], logit_scale=2.0),
            training=training,
            seeds=SEEDS[size],
        )
        found = bench.measured(name, f"{what.digest} {epsilon}", partial(measure, name, what))
        left, measured, predicted, accuracy = (
            found[key] for key in ("left", "measured", "predicted", "accuracy")
        )
        steps = np.arange(REPORTS + 1) * (STEPS[size] // REPORTS)
        for values, style in (
            (measured, {"color": MEASURED}),
            (predicted, {"color": WARNING, "ls": "--"}),
        ):
            ax.plot(steps, np.median(values, (1, 2)), lw=2, **style)
            ax.fill_between(
                steps,
                *np.quantile(values, [0.1, 0.9], (1, 2)),
                color=style["color"],
                alpha=0.12,
                lw=0,
            )
        ax.set(
            xlabel="steps",
            title=f"decay of {name}" if mixing or others else "no decay",
            ylim=(0, 1.03),
        )
        numbers = [
            np.median(x)
            for x in (measured[0], predicted[-1], measured[-1], abs(measured[-1] - predicted[-1]))
        ]
        rows.append([name, f"{left[-1]:.3g}", *(f"{x:.3f}" for x in numbers)])
        rows[-1] += [f"{float(accuracy.mean()):.3f}", f"{float(accuracy.std()):.3f}"]
    axes[0][0].set_ylabel("σ₂ of the mixing matrices")
    axes[0][0].plot([], [], color=MEASURED, label="measured")
    axes[0][0].plot([], [], color=WARNING, ls="--", label="by the schedule alone (6.1)")
    axes[0][0].legend(loc="lower left")
    fig.suptitle("σ₂ through training: median and 80 % of layers and seeds")
    text = (
        "|measured − predicted| σ₂ at the end, median: "
        + "; ".join(f"{row[0]} {row[5]}" for row in rows)
        + "."
    )
    caption = "logits left: what the schedule leaves of them; σ₂: medians over layers and seeds; off: |measured − predicted| at the end"
    header = ["decay", "logits left", "σ₂ start", "predicted", "measured", "off", "accuracy", "±"]
    return Study(text, [(caption, (header, rows))], fig)


if __name__ == "__main__":
    command(study)
