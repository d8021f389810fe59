"""Weight decay as an entropy regulariser (law 6.1, weight decay): σ₂ through training.

    python experiments/decay.py [--quick]

Networks copy tokens, with one matrix over tokens in each layer. Decoupled decay multiplies the
mixing logits by Π(1 − lr·decay), whatever the loss says. Where training does no more than that, the
measured σ₂ agrees with the σ₂ that the schedule alone predicts.
"""

from functools import partial

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from homojax import sinkhorn, spectrum
from homojax.lab.experiment import Arrays, Bench, Size, Study, command
from homojax.lab.figure_style import MEASURED, WARNING
from homojax.lab.page import Table
from homojax.lab.train.config import REPORTS, Train
from homojax.lab.train.judgements import theorems_of
from homojax.lab.train.run import trainer_of
from homojax.lab.train.stacks import stacks_of
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
SEEDS = {"smoke": 2, "quick": 2, "full": 5}
DEPTH = {"smoke": 4, "quick": 4, "full": 8}
ALPHA, ENTROPY_WEIGHT = 0.5, 1.0
HEADER = ["decay", "logits left", "σ₂ start", "predicted", "measured", "off", "accuracy", "±"]
CAPTION = (
    "Logits left: what the schedule leaves of them; σ₂: medians over layers and seeds; off: "
    "|measured − predicted| at the end."
)


def study(size: Size, bench: Bench) -> Study:
    """Return σ₂ at twenty points of every training, and what the schedule predicts for them."""
    arms = {}
    for name in CHOSEN[size]:
        mixing, others = ARMS[name]
        config = Train(
            architecture=Architecture(depth=DEPTH[size], logit_scale=2.0),
            training=Training(
                steps=STEPS[size], batch=32, mixing_decay=mixing, weight_decay=others
            ),
            seeds=SEEDS[size],
        )
        about = f"{config.digest} {ALPHA} {ENTROPY_WEIGHT}"
        arms[name] = bench.measured(name, about, partial(measure, size, bench, name, config))
    rows = [row(name, curves) for name, curves in arms.items()]
    off = "; ".join(f"{row[0]} {row[HEADER.index('off')]}" for row in rows)
    return Study(
        text=f"|measured − predicted| σ₂ at the end, median: {off}.",
        tables=[Table(CAPTION, HEADER, rows)],
        figure=draw(arms, STEPS[size]),
    )


def measure(size: Size, bench: Bench, name: str, config: Train) -> Arrays:
    """Train the networks of one arm; σ₂ is measured and predicted at every report."""
    trainer, every = trainer_of(config, DEPTH[size]), STEPS[size] // REPORTS
    keys = jax.random.split(jax.random.key(0), SEEDS[size])
    runs = side_by_side(trainer.begin, keys, epsilon=ENTROPY_WEIGHT, alpha=ALPHA)
    start = mixing_parameters(runs).astype(float)
    measured = [sigma2_of(start)]
    for report in range(REPORTS):
        bench.progress(report, REPORTS, f"decay: {name}")
        runs, _ = side_by_side(trainer.advance, runs, steps=every)
        measured.append(sigma2_of(mixing_parameters(runs).astype(float)))
    _, accuracy = side_by_side(trainer.evaluate, runs)
    left = np.asarray(decayed(config.training))[::every]
    arrays = {
        "left": left,
        "measured": np.stack(measured),  # [reports + 1, runs, L]
        "predicted": np.stack([sigma2_of(factor * start) for factor in left]),
        "accuracy": np.asarray(accuracy),
        "failed": np.asarray(runs.failed),
    }
    if size == "full":
        arrays["theorems"] = theorems_of(stacks_of(trainer, runs))
    return arrays


def sigma2_of(logits: jax.Array) -> np.ndarray:
    """Return σ₂ of the projections of logits [runs, L, n, n]."""
    return np.asarray(_sigma2_of(logits, ENTROPY_WEIGHT))


@jax.jit
def _sigma2_of(logits: jax.Array, epsilon: float) -> jax.Array:
    return jax.vmap(jax.vmap(lambda s: spectrum.sigma2(sinkhorn(s, epsilon).matrix)))(logits)


def row(name: str, curves: Arrays) -> list[str]:
    """Return the row of one arm."""
    measured, predicted, accuracy = curves["measured"], curves["predicted"], curves["accuracy"]
    off = abs(measured[-1] - predicted[-1])
    medians = (np.median(x) for x in (measured[0], predicted[-1], measured[-1], off))
    left = f"{curves['left'][-1]:.3g}"
    spread = (f"{float(accuracy.mean()):.3f}", f"{float(accuracy.std()):.3f}")
    return [name, left, *(f"{x:.3f}" for x in medians), *spread]


def draw(arms: dict[str, Arrays], steps: int) -> Figure:
    """Draw σ₂ through training, one panel for each arm."""
    size = 3.4 * len(arms) + 0.6, 4
    fig, axes = plt.subplots(
        1, len(arms), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (name, curves) in zip(axes[0], arms.items(), strict=True):
        draw_panel(ax, curves, np.arange(REPORTS + 1) * (steps // REPORTS))
        title = f"decay of {name}" if any(ARMS[name]) else "no decay"
        ax.set(xlabel="steps", title=title, ylim=(0, 1.03))
    axes[0][0].set_ylabel("σ₂ of the mixing matrices")
    axes[0][0].plot([], [], color=MEASURED, label="measured")
    axes[0][0].plot([], [], color=WARNING, ls="--", label="by the schedule alone (law 6.1)")
    axes[0][0].legend(loc="lower left")
    fig.suptitle("σ₂ through training: median and 80 % of layers and seeds")
    return fig


def draw_panel(ax: Axes, curves: Arrays, steps: np.ndarray) -> None:
    """Draw σ₂ of one arm, measured and predicted."""
    for key, colour, line in (("measured", MEASURED, "-"), ("predicted", WARNING, "--")):
        ax.plot(steps, np.median(curves[key], (1, 2)), lw=2, color=colour, ls=line)
        low, high = np.quantile(curves[key], [0.1, 0.9], (1, 2))
        ax.fill_between(steps, low, high, color=colour, alpha=0.12, lw=0)


if __name__ == "__main__":
    command(study)
