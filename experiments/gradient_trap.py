"""The gradient trap (law 6.2, gradient trap): does training move the mixing of public codes?

    python experiments/gradient_trap.py [--quick]

A small character model learns the text of Python's documentation. Hyper-connections of four streams
join its layers. Their residual mixing is that of a public code: the part that does not depend on
the input, as the code starts it and runs it, in float32. Beside it stands a converged projection
that starts from normal logits at ε = 1. The first layer's matrix mixes equal streams, and the last
one's streams are averaged: only the matrices between are counted.
"""

from typing import NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from homojax import PRESETS
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.figure_style import WARNING
from homojax.lab.page import Table
from homojax.lab.train.config import Train
from homojax.lab.train.stacks import stacks_of
from homojax.networks.architecture import Architecture
from homojax.networks.mixing import mixer
from homojax.networks.run import mixing_parameters
from homojax.networks.training import Training

FEW = ("mhc-paper", "tokenbender")  # one that starts at the uniform matrix, one at the identity
MIXERS = {"smoke": ("mhc-paper", "none"), "quick": FEW, "full": ("sinkhorn", *PRESETS)}
STEPS = {"smoke": 4, "quick": 100, "full": 1000}
SEEDS = {"smoke": 1, "quick": 2, "full": 3}
DEPTH = {"smoke": 3, "quick": 4, "full": 8}
STREAMS = 4
UNMOVED = 1e-3  # ‖M_end − M_start‖_F of a matrix that stayed where it was
LEAST_SLOPE, LEAST_MOVE = 1e-12, 1e-9  # that are drawn
HEADER = ["preset", "‖∂M/∂S‖", "‖ΔS‖", "‖ΔM‖", "σ₂ start", "σ₂ end", "loss", "accuracy", "±"]
CAPTION = (
    "Medians over layers and seeds. ‖ΔS‖, ‖ΔM‖: how far training moved logits and matrices, "
    "Frobenius; σ₂: before and after training; loss: nats a character, held out."
)


class Moves(NamedTuple):
    """How far training moved the mixing between the first layer and the last, [runs × layers]."""

    ds: xr.Dataset
    slope: np.ndarray  # ‖∂M/∂S‖ at the start
    logits: np.ndarray  # ‖S_end − S_start‖
    matrices: np.ndarray  # ‖M_end − M_start‖


def study(size: Size, bench: Bench) -> Study:
    """Return how far logits and matrices moved, and the gradient that they started with."""
    moves = {name: move(size, bench, name) for name in MIXERS[size]}
    stuck = [name for name, x in moves.items() if np.median(x.matrices) < UNMOVED]
    return Study(
        text=f"Residual mixing that did not move: {', '.join(stuck) or 'none'} (median ‖ΔM‖ below "
        f"{UNMOVED:g}).",
        tables=[Table(CAPTION, HEADER, [row(name, x) for name, x in moves.items()])],
        figure=draw(moves),
    )


def move(size: Size, bench: Bench, name: str) -> Moves:
    """Train networks with one mixer, and compare their mixing with that at the start."""
    config = Train(
        task="text",
        architecture=Architecture(
            name, over="streams", depth=DEPTH[size], hidden=64, streams=STREAMS
        ),
        training=Training(steps=STEPS[size], batch=8),
        alpha=(1.0,),
        seeds=SEEDS[size],
        claims=size == "full",
    )
    ds, trained = bench.train(name, config), bench.networks(name, config)
    ends = trained.start, trained.end
    before, after = (stacks_of(trained.trainer, runs).matrices[:, 0, 1:-1] for runs in ends)
    first, last = (mixing_parameters(runs)[:, 1:-1] for runs in ends)  # [runs, L − 2, …]
    matrix = mixer(name, STREAMS).matrix
    jacobians = jax.jit(jax.vmap(jax.jacrev(lambda s: matrix(s, 1.0))))
    first, last, before, after = map(joined, (first, last, before, after))
    return Moves(
        ds=ds,
        slope=norms(jacobians(first)),
        logits=norms(last - first),
        matrices=norms(after - before),
    )


def joined(x: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """Return an array [runs, layers, …] with both in one axis."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def norms(x: jax.Array | np.ndarray) -> np.ndarray:
    """Return ‖·‖_F of each entry along the first axis; 0 of none, as "none" has no logits."""
    return np.sqrt((np.asarray(x) ** 2).sum(tuple(range(1, x.ndim))))


def row(name: str, moves: Moves) -> list[str]:
    """Return the row of one mixer, over its layers and seeds."""
    slope, ds = np.median(moves.slope), moves.ds
    inner = ds.isel(layer=slice(1, -1))
    sigma2 = (float(inner[f"sigma2_{when}"].median()) for when in ("start", "end"))
    ends = (ds.test_loss.mean(), ds.accuracy.mean(), ds.accuracy.std())
    return [
        name,
        f"{slope:.1e}" if slope else "0",
        f"{np.median(moves.logits):.2g}",
        f"{np.median(moves.matrices):.2g}",
        *(f"{x:.3f}" for x in sigma2),
        *(f"{float(x):.3f}" for x in ends),
    ]


def draw(moves: dict[str, Moves]) -> Figure:
    """Draw how far each matrix moved over the gradient that it started with."""
    fig, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for k, (name, x) in enumerate(moves.items()):
        slope, moved = np.maximum(x.slope, LEAST_SLOPE), np.maximum(x.matrices, LEAST_MOVE)
        ax.plot(slope, moved, "o", color=plt.get_cmap("tab20")(k), alpha=0.7, label=name)
    ax.axhline(UNMOVED, color=WARNING, ls="--", lw=1.2, label="did not move")
    ax.set(xscale="log", yscale="log", ylabel="‖M after − M before‖ (Frobenius)")
    ax.set_xlabel(f"‖∂M/∂S‖ at the start, float32 ({LEAST_SLOPE:g}: it is 0 or below)")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    title = (
        "How far training moves each layer's residual mixing, by the gradient that it starts with"
    )
    ax.set_title(title, fontsize=10)
    return fig


if __name__ == "__main__":
    command(study)
