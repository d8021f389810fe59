"""As run against converged (1.7): the same trained networks with 10, 20, 100 alternations and with the projection's limit.

    python experiments/as_run.py [--quick]

Copying by one matrix over tokens a layer, trained with 20 alternations as mHC runs them: how much of the "mixing" that the
trained network does is truncation?
"""

import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np

from homojax.depth import composite
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.train.measures import measures_of, stacks_of
from homojax.lab.train.run import Train, trainer_of
from homojax.networks.architecture import Architecture
from homojax.networks.trainer import side_by_side
from homojax.networks.training import Training
from homojax.spectrum import distance_to_uniform

EPSILON = {"smoke": (0.1,), "quick": (0.05, 1.0), "full": (0.02, 0.05, 0.1, 0.3, 1.0, 5.0)}
STEPS = {"smoke": 10, "quick": 200, "full": 1500}
SEEDS = {"smoke": 1, "quick": 2, "full": 5}
DEPTH = {"smoke": 2, "quick": 8, "full": 16}
ALTERNATIONS = (10, 20, 100, None)  # None: converged


@jax.jit
@jax.vmap
def distance(matrices):
    """[L, n, n] -> ‖C − J‖₂ of the composite, which sees lost sums, too."""
    return distance_to_uniform(composite(matrices)[-1])


def study(size: Size, bench: Bench) -> Study:
    """Accuracy, sums and composites of every network under every number of alternations."""
    what = Train(
        architecture=Architecture(
            mixer="truncated-sinkhorn", num_iters=20, depth=DEPTH[size], logit_scale=3.0
        ),
        training=Training(steps=STEPS[size], batch=32),
        epsilon=EPSILON[size],
        alpha=(1.0,),
        seeds=SEEDS[size],
        claims=size == "full",
    )
    trained = bench.networks("trained", what)
    found, names = {}, ["10", "20 (trained)", "100", "converged"]
    for name, iterations in zip(names, ALTERNATIONS, strict=True):
        mixing = {"mixer": "sinkhorn"} if iterations is None else {"num_iters": iterations}
        of = trainer_of(
            dataclasses.replace(
                what, architecture=dataclasses.replace(what.architecture, **mixing)
            ),
            DEPTH[size],
        )
        _, accuracy = side_by_side(of.evaluate, trained.end)
        stacks = stacks_of(of, trained.end)
        measures = measures_of(stacks)
        off = np.maximum(measures["row_error"], measures["col_error"])
        numbers = (accuracy, off, distance(stacks.matrices[:, 0]), measures["kept"])
        found[name] = np.stack([np.asarray(x, float) for x in numbers]).reshape(
            4, len(EPSILON[size]), SEEDS[size]
        )
    fig, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    rows = []
    for k, epsilon in enumerate(EPSILON[size]):
        colour = plt.get_cmap("viridis")(0.85 * k / max(1, len(EPSILON[size]) - 1))
        accuracy, error, apart, kept = (
            np.array([found[name][i, k] for name in names]) for i in range(4)
        )
        axes[0].plot(names, accuracy.mean(1), "o-", color=colour, label=f"{epsilon:g}")
        axes[1].plot(names, np.median(error, 1), "o-", color=colour)
        axes[2].plot(names, np.median(kept, 1), "o-", color=colour)
        axes[2].plot(names, np.median(apart, 1), "x:", color=colour)
        for i, name in enumerate(names):
            numbers = [f"{np.median(x[i]):.4g}" for x in (error, apart, kept)]
            rows.append(
                [
                    f"{epsilon:g}",
                    name,
                    f"{accuracy[i].mean():.3f}",
                    f"{accuracy[i].std():.3f}",
                    *numbers,
                ]
            )
    axes[0].set(ylabel="held-out accuracy", ylim=(0, 1.03))
    axes[1].set(ylabel="largest |sum − 1| of a layer", yscale="log")
    axes[2].set(ylabel="composite: σ₂ (dots), ‖C − J‖₂ (crosses)", ylim=(0, None))
    for ax in axes:
        ax.set_xlabel("alternations in use")
    fig.legend(
        title="entropy weight ε (logit units)", loc="outside lower center", ncols=len(EPSILON[size])
    )
    fig.suptitle(f"{DEPTH[size]} layers trained with 20 alternations, then run with more or fewer")
    shift = {
        name: np.abs(found[name][0] - found["20 (trained)"][0]).max()
        for name in names
        if "trained" not in name
    }
    gap = np.abs(found["20 (trained)"][3] - found["converged"][3]).max()
    text = "Largest change of a network's accuracy, from its 20 alternations to "
    text += ", ".join(f"{name}: {value:.3f}" for name, value in shift.items())
    text += (
        f". The composite's σ₂ differs by up to {gap:.2g} between 20 alternations and the limit."
    )
    caption = (
        "accuracy: mean over seeds; the others medians; sums off: largest |sum − 1| of any layer"
    )
    header = ["ε", "alternations", "accuracy", "±", "sums off", "‖C − J‖₂", "σ₂ of C"]
    return Study(text, [(caption, (header, rows))], fig)


if __name__ == "__main__":
    command(study)
