"""The gradient trap (6.2): does the residual mixing of public hyper-connection codes move at all when it is trained?

    python experiments/gradient_trap.py [--quick]

A small character model of the text of Python's documentation, whose layers are joined by hyper-connections of four streams: the
part of each preset that does not depend on the input, as its code starts and runs it, in float32, beside a converged projection
that starts from normal logits at ε = 1. The first layer's matrix mixes equal streams and the last one's is averaged away: what
is told is of those between.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from homojax import PRESETS
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.plots import WARNING
from homojax.lab.train.measures import stacks_of
from homojax.lab.train.run import Train
from homojax.networks.architecture import Architecture
from homojax.networks.mixing import mixer
from homojax.networks.run import mixing_parameters
from homojax.networks.training import Training

FEW = ("mhc-paper", "tokenbender")  # one that starts at the uniform matrix, one at the identity
MIXERS = {"smoke": FEW[:1], "quick": FEW, "full": ("sinkhorn", *PRESETS)}
STEPS = {"smoke": 4, "quick": 100, "full": 1000}
SEEDS = {"smoke": 1, "quick": 2, "full": 3}
DEPTH = {"smoke": 3, "quick": 4, "full": 8}
STREAMS = 4
UNMOVED = 1e-3  # ‖M_end − M_start‖_F of a matrix that stayed where it was


def study(size: Size, bench: Bench) -> Study:
    """How far logits and matrices came from their start, and what gradient the start had."""
    architecture = Architecture(over="streams", depth=DEPTH[size], hidden=64, streams=STREAMS)
    what = Train(
        task="text",
        architecture=architecture,
        training=Training(steps=STEPS[size], batch=8),
        alpha=(1.0,),
        seeds=SEEDS[size],
        claims=size == "full",
    )
    rows, moves = [], {}
    for name in MIXERS[size]:
        asked = dataclasses.replace(
            what, architecture=dataclasses.replace(architecture, mixer=name)
        )
        ds, trained = bench.train(name, asked), bench.networks(name, asked)
        before, after = (
            stacks_of(trained.trainer, runs).matrices[:, 0] for runs in (trained.start, trained.end)
        )
        logits = [mixing_parameters(x)[:, 1:-1] for x in (trained.start, trained.end)]
        moved = np.linalg.norm(after - before, axis=(-2, -1))[:, 1:-1]  # [runs, L − 2]
        walked = np.asarray(
            jnp.linalg.norm((logits[1] - logits[0]).reshape(*moved.shape, -1), axis=-1)
        )
        matrix = mixer(name, STREAMS).matrix
        jacobians = jax.jit(jax.vmap(jax.jacrev(lambda s, matrix=matrix: matrix(s, 1.0))))
        slope = np.asarray(
            jnp.linalg.norm(
                jacobians(logits[0].reshape(-1, *logits[0].shape[2:])).reshape(moved.size, -1),
                axis=1,
            )
        )
        moves[name] = slope, moved.ravel()
        sigma2 = [
            float(ds[f"sigma2_{when}"].isel(layer=slice(1, -1)).median())
            for when in ("start", "end")
        ]
        numbers = [
            f"{np.median(slope):.1e}" if np.median(slope) else "0",
            f"{np.median(walked):.2g}",
            f"{np.median(moved):.2g}",
        ]
        rows.append([name, *numbers, *(f"{x:.3f}" for x in sigma2)])
        rows[-1] += [
            f"{float(x):.3f}" for x in (ds.test_loss.mean(), ds.accuracy.mean(), ds.accuracy.std())
        ]
    fig, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for k, (name, (slope, moved)) in enumerate(moves.items()):
        colour = plt.get_cmap("tab10")(k)
        ax.plot(
            np.maximum(slope, 1e-12),
            np.maximum(moved, 1e-9),
            "o",
            color=colour,
            alpha=0.7,
            label=name,
        )
    ax.axhline(UNMOVED, color=WARNING, ls="--", lw=1.2, label="did not move")
    ax.set(
        xscale="log", yscale="log", xlabel="‖∂M/∂S‖ at the start, float32 (1e-12: it is 0 or below)"
    )
    ax.set_ylabel("‖M after − M before‖ (Frobenius)")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    ax.set_title(
        "How far training moves each layer's residual mixing, by the gradient that it starts with",
        fontsize=10,
    )
    stuck = [name for name, (_, moved) in moves.items() if np.median(moved) < UNMOVED]
    text = (
        "Residual mixing that did not move: "
        + (", ".join(stuck) or "none")
        + f" (median ‖ΔM‖ below {UNMOVED:g})."
    )
    caption = "medians over layers and seeds; ‖ΔS‖, ‖ΔM‖: of logits and matrices, Frobenius; σ₂: before and after training; "
    caption += "loss: nats a character, held out"
    header = ["preset", "‖∂M/∂S‖", "‖ΔS‖", "‖ΔM‖", "σ₂ start", "σ₂ end", "loss", "accuracy", "±"]
    return Study(text, [(caption, (header, rows))], fig)


if __name__ == "__main__":
    command(study)
