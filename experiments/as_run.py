"""As run against converged (law 1.7, truncated norm): trained networks with more or fewer steps.

    python experiments/as_run.py [--quick]

Networks copy tokens, with one matrix over tokens in each layer. They are trained with 20
alternations, as mHC runs them, and then run with 10, 20, 100 and with the projection's limit. How
much of the "mixing" of a trained network is truncation?
"""

import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from homojax.depth import composite
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.figure_style import shades
from homojax.lab.page import Table
from homojax.lab.train.config import Train
from homojax.lab.train.measures import measures_of
from homojax.lab.train.run import Trained, trainer_of
from homojax.lab.train.stacks import stacks_of
from homojax.networks.architecture import Architecture
from homojax.networks.trainer import side_by_side
from homojax.networks.training import Training
from homojax.spectrum import distance_to_uniform

EPSILON = {"smoke": (0.1,), "quick": (0.05, 1.0), "full": (0.02, 0.05, 0.1, 0.3, 1.0, 5.0)}
STEPS = {"smoke": 10, "quick": 200, "full": 1500}
SEEDS = {"smoke": 2, "quick": 2, "full": 5}
DEPTH = {"smoke": 4, "quick": 8, "full": 16}
AS_TRAINED, LIMIT = "20 (trained)", "converged"
ALTERNATIONS = {
    "10": {"num_iters": 10},
    AS_TRAINED: {},
    "100": {"num_iters": 100},
    LIMIT: {"mixer": "sinkhorn"},
}
MEASURES = ("accuracy", "sums", "distance", "kept")
HEADER = ["ε", "alternations", "accuracy", "±", "sums off", "‖C − J‖₂", "σ₂ of C"]
CAPTION = (
    "Accuracy: mean over seeds; the others: medians; sums off: largest |sum − 1| of any layer; "
    "C: the composite."
)

Measured = dict[str, np.ndarray]  # measure -> [ε, seeds]


def study(size: Size, bench: Bench) -> Study:
    """Return accuracy, sums and composites of every network under every number of alternations."""
    config = Train(
        architecture=Architecture(
            mixer="truncated-sinkhorn", num_iters=20, depth=DEPTH[size], logit_scale=3.0
        ),
        training=Training(steps=STEPS[size], batch=32),
        epsilon=EPSILON[size],
        alpha=(1.0,),
        seeds=SEEDS[size],
        claims=size == "full",
    )
    trained = bench.networks("trained", config)
    runs = {name: run_with(config, trained, changes) for name, changes in ALTERNATIONS.items()}
    rows = [
        row(name, epsilon, {key: values[k] for key, values in runs[name].items()})
        for k, epsilon in enumerate(EPSILON[size])
        for name in runs
    ]
    return Study(
        text=describe(runs),
        tables=[Table(CAPTION, HEADER, rows)],
        figure=draw(runs, EPSILON[size], DEPTH[size]),
    )


def run_with(config: Train, trained: Trained, changes: dict) -> Measured:
    """Return the measures of trained networks whose mixing is changed."""
    architecture = dataclasses.replace(config.architecture, **changes)
    changed = dataclasses.replace(config, architecture=architecture)
    trainer = trainer_of(changed, config.architecture.depth)
    _, accuracy = side_by_side(trainer.evaluate, trained.end)
    stacks = stacks_of(trainer, trained.end)
    measures = measures_of(stacks)
    sums = np.maximum(measures["row_error"], measures["col_error"])
    numbers = (accuracy, sums, distance(stacks.matrices[:, 0]), measures["kept"])
    shape = len(config.epsilon), config.seeds
    return {
        name: np.asarray(values, float).reshape(shape)
        for name, values in zip(MEASURES, numbers, strict=True)
    }


@jax.jit
@jax.vmap
def distance(matrices: jax.Array) -> jax.Array:
    """Return ‖C − J‖₂ of the composite C of matrices [L, n, n]; it sees lost sums, too."""
    return distance_to_uniform(composite(matrices)[-1])


def describe(runs: dict[str, Measured]) -> str:
    """Say how far accuracy and σ₂ of the composite move from those of 20 alternations."""
    trained = runs[AS_TRAINED]
    shifts = ", ".join(
        f"{name}: {np.abs(run['accuracy'] - trained['accuracy']).max():.3f}"
        for name, run in runs.items()
        if name != AS_TRAINED
    )
    gap = np.abs(trained["kept"] - runs[LIMIT]["kept"]).max()
    return (
        f"Largest change of a network's accuracy, from its 20 alternations to {shifts}. The "
        f"composite's σ₂ differs by up to {gap:.2g} between 20 alternations and the limit."
    )


def row(name: str, epsilon: float, cells: Measured) -> list[str]:
    """Return the row of one ε and number of alternations; cells are over seeds."""
    accuracy = cells["accuracy"]
    medians = (f"{np.median(cells[key]):.4g}" for key in MEASURES[1:])
    return [f"{epsilon:g}", name, f"{accuracy.mean():.3f}", f"{accuracy.std():.3f}", *medians]


def draw(runs: dict[str, Measured], epsilons: tuple[float, ...], depth: int) -> Figure:
    """Draw accuracy, sums and composites over the alternations, one line for each ε."""
    fig, (accuracies, sums, composites) = plt.subplots(
        1, 3, figsize=(13, 4.2), layout="constrained"
    )
    names = list(runs)
    for k, (epsilon, colour) in enumerate(zip(epsilons, shades(len(epsilons)), strict=True)):
        accuracy, error, distances, kept = (
            np.array([run[key][k] for run in runs.values()]) for key in MEASURES
        )
        accuracies.plot(names, accuracy.mean(1), "o-", color=colour, label=f"{epsilon:g}")
        sums.plot(names, np.median(error, 1), "o-", color=colour)
        composites.plot(names, np.median(kept, 1), "o-", color=colour)
        composites.plot(names, np.median(distances, 1), "x:", color=colour)
    accuracies.set(ylabel="held-out accuracy", ylim=(0, 1.03))
    sums.set(ylabel="largest |sum − 1| of a layer", yscale="log")
    composites.set(ylabel="composite: σ₂ (dots), ‖C − J‖₂ (crosses)", ylim=(0, None))
    for ax in (accuracies, sums, composites):
        ax.set_xlabel("alternations in use")
    title = "entropy weight ε (logit units)"
    fig.legend(title=title, loc="outside lower center", ncols=len(epsilons))
    fig.suptitle(f"{depth} layers trained with 20 alternations, then run with more or fewer")
    return fig


if __name__ == "__main__":
    command(study)
