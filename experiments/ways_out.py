"""Ways out of the trap (theory.md §7), one table: what each keeps, turns, and costs.

    python experiments/ways_out.py [--quick]

Networks copy tokens through layers x -> (1 − α)x + αM norm(x). Every layer adds noise of 0.1 to
every entry, so that detail that shrinks is lost. The trapped network mixes by M_ε at ε = 5.
Calibrated ε are found for each seed's own logits at the start: half of the best-kept detail is then
left after all layers. The schedules over depth have that ε as their geometric mean.
"""

import time
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from homojax import calibrate_depth, epsilon_schedule
from homojax.lab.experiment import Arrays, Bench, Size, Study, command
from homojax.lab.figure_style import WARNING
from homojax.lab.page import Table
from homojax.lab.train.config import Train
from homojax.lab.train.judgements import theorems_of
from homojax.lab.train.measures import measures_of
from homojax.lab.train.run import trainer_of
from homojax.lab.train.stacks import stacks_of
from homojax.networks.architecture import Architecture
from homojax.networks.run import Run, mixing_parameters
from homojax.networks.trainer import Trainer, side_by_side
from homojax.networks.training import Training

HOT, NOISE, RETENTION, REPORTS = 5.0, 0.1, 0.5, 10
COLLAPSED = 0.32  # accuracy of the best answer from the mean of the tokens
MOST = 1.5  # detail kept that is drawn: unconstrained composites grow without end
SUMS, NEGATIVE = 1e-4, -1e-6  # how far a matrix of 𝔅ₙ may be off, in its sums and entries


class Way(NamedTuple):
    """A way to mix: a mixer, how its ε follow from the logits at the start, and α."""

    mixer: str
    epsilon: str = "hot"
    alpha: float = 1.0


WAYS = {
    "trapped, ε = 5": Way("sinkhorn"),
    "calibrated ε": Way("sinkhorn", "calibrated"),
    "calibrated by layer": Way("sinkhorn", "own"),
    "ε geometric in depth": Way("sinkhorn", "geometric"),
    "ε a power of depth": Way("sinkhorn", "power"),
    "residual, α = 0.1": Way("sinkhorn", alpha=0.1),
    "low-rank correction": Way("low-rank"),
    "spectral filter": Way("spectral-filter", "calibrated"),
    "two blocks": Way("blocks"),
    "orthogonal": Way("orthogonal"),
    "unconstrained": Way("unconstrained"),
    "identity": Way("identity"),
}
TRAPPED = next(iter(WAYS))
UNTEMPERED = ("orthogonal", "unconstrained", "identity")  # mixers that ε does not act on
QUICK = ("sinkhorn", "orthogonal", "identity")  # each mixer is half a minute of compiling
CHOSEN = {
    "smoke": ("calibrated ε",),
    "quick": tuple(name for name in WAYS if WAYS[name].mixer in QUICK),
    "full": tuple(WAYS),
}
STEPS = {"smoke": REPORTS, "quick": 100, "full": 1500}
SEEDS = {"smoke": 2, "quick": 2, "full": 5}
DEPTH = {"smoke": 4, "quick": 6, "full": 16}
HEADER = ["way", "ε", "acc.", "±", "kept", "± ", "turn", "𝔅ₙ", "least", "cost"]
CAPTION = (
    "{} seeds. ±: their standard deviation; turn: sum over layers, rad; 𝔅ₙ: sums within 1e-4 of 1, "
    "no negative entry; least: smallest entry; cost: time of a training step over the cheapest's."
)


def study(size: Size, bench: Bench) -> Study:
    """Return what every way keeps and turns, trained from the same seeds."""

    @cache
    def logits() -> jax.Array:  # [runs, L, n, n], of all ways that mix by Sinkhorn
        _, start = begin(size, "sinkhorn", np.ones((SEEDS[size], DEPTH[size])), 1.0)
        return mixing_parameters(start).astype(float)

    ways = {}
    for done, name in enumerate(CHOSEN[size]):
        bench.progress(done, len(CHOSEN[size]), name)
        way = WAYS[name]
        digest = training(size, way.mixer).digest
        about = f"{digest} {way} {SEEDS[size]} {HOT} {NOISE} {RETENTION}"
        ways[name] = bench.measured(name, about, partial(measure, size, way, logits))
    cheapest = min(float(values["seconds"]) for values in ways.values())
    best = max(ways, key=lambda name: ways[name]["accuracy"].mean())
    text = f"Best: {best}, right in {ways[best]['accuracy'].mean():.1%}"
    if TRAPPED in ways:
        text += f"; trapped: {ways[TRAPPED]['accuracy'].mean():.1%}"
    rows = [row(name, values, cheapest) for name, values in ways.items()]
    return Study(
        text=f"{text}.",
        tables=[Table(CAPTION.format(SEEDS[size]), HEADER, rows)],
        figure=draw(ways, DEPTH[size]),
    )


# ---------------------------------------------------------------- training


def training(size: Size, mixer: str) -> Train:
    """Return the training of networks with this mixer."""
    architecture = Architecture(mixer, depth=DEPTH[size], noisy=True)
    return Train(architecture=architecture, training=Training(steps=STEPS[size], batch=32))


def begin(size: Size, mixer: str, epsilon: np.ndarray, alpha: float) -> tuple[Trainer, Run]:
    """Return networks before training, one for each seed; ε is [runs, L]."""
    trainer = trainer_of(training(size, mixer), DEPTH[size])
    keys = jax.random.split(jax.random.key(0), SEEDS[size])
    values = (jnp.full(len(keys), value, jnp.float32) for value in (alpha, NOISE))
    return trainer, side_by_side(trainer.begin, keys, epsilon.astype(jnp.float32), *values)


def measure(size: Size, way: Way, logits: Callable[[], jax.Array]) -> Arrays:
    """Train one way, and measure it."""
    epsilon = schedule(way.epsilon, logits())
    trainer, run = begin(size, way.mixer, epsilon, way.alpha)
    seconds = []
    for _ in range(REPORTS):
        began = time.perf_counter()
        run, _ = side_by_side(trainer.advance, run, steps=STEPS[size] // REPORTS)
        jax.block_until_ready(run)
        seconds.append(time.perf_counter() - began)
    _, accuracy = side_by_side(trainer.evaluate, run)
    stacks = stacks_of(trainer, run)
    measures = measures_of(stacks)
    arrays = {
        "ε": epsilon,
        "accuracy": np.asarray(accuracy),
        "kept": np.asarray(measures["kept"]),
        "turn": np.asarray(stacks.trace.turned).mean(1).sum(1),
        "off": np.maximum(measures["row_error"], measures["col_error"]).max(),
        "least": stacks.matrices.min(),
        "seconds": np.median(seconds[1:]),  # the first has the compiling in it
        "failed": np.asarray(run.failed),
    }
    if size == "full":
        arrays["theorems"] = theorems_of(stacks)
    return arrays


def schedule(name: str, logits: jax.Array) -> np.ndarray:
    """Return ε [runs, L] for logits [runs, L, n, n], by the name of a way to choose it."""
    runs, depth = logits.shape[:2]
    if name == "hot":
        return np.full((runs, depth), HOT)
    if name == "own":
        return np.asarray(calibrated_by_layer(logits))
    shapes = {
        "geometric": 10 ** np.linspace(0.5, -0.5, depth),
        "power": 1 / np.arange(1, depth + 1),
    }
    shape = shapes.get(name, np.ones(depth))
    return np.asarray(calibrated(logits))[:, None] * shape / np.exp(np.log(shape).mean())


@jax.jit
@jax.vmap
def calibrated(logits: jax.Array) -> jax.Array:
    """Return one ε for all layers of logits [L, n, n]."""
    return calibrate_depth(logits, RETENTION, kept="composite").epsilon


@jax.jit
@jax.vmap
def calibrated_by_layer(logits: jax.Array) -> jax.Array:
    """Return an ε for each layer of logits [L, n, n], [L]."""
    return epsilon_schedule(logits, RETENTION).epsilon


# ---------------------------------------------------------------- results


def is_inside(values: Arrays) -> bool:
    """Return whether all matrices of a way are in 𝔅ₙ."""
    return bool(values["off"] < SUMS and values["least"] > NEGATIVE)


def row(name: str, values: Arrays, cheapest: float) -> list[str]:
    """Return the row of one way, over its seeds."""
    accuracy, kept = values["accuracy"], values["kept"]
    return [
        name,
        "–" if WAYS[name].mixer in UNTEMPERED else epsilon_range(np.median(values["ε"], 0)),
        f"{accuracy.mean():.3f}",
        f"{accuracy.std():.3f}",
        f"{kept.mean():.2g}",
        f"{kept.std():.0e}",
        f"{values['turn'].mean():.1f}",
        "yes" if is_inside(values) else "no",
        f"{values['least']:.1g}",
        f"{values['seconds'] / cheapest:.1f}",
    ]


def epsilon_range(epsilon: np.ndarray) -> str:
    """Return the ε of the layers in words: one, or the largest and the smallest."""
    low, high = epsilon.min(), epsilon.max()
    return f"{low:.3g}" if np.isclose(low, high) else f"{high:.2g}…{low:.2g}"


def draw(ways: dict[str, Arrays], depth: int) -> Figure:
    """Draw accuracy over what is kept, one point for each way."""
    fig, ax = plt.subplots(figsize=(8.4, 4.8), layout="constrained")
    for k, (name, values) in enumerate(ways.items()):
        accuracy, kept = values["accuracy"], np.minimum(values["kept"], MOST)
        place = kept.mean(), accuracy.mean(), accuracy.std(), kept.std()
        marker = "o" if is_inside(values) else "X"
        ax.errorbar(*place, fmt=marker, ms=8, color=plt.get_cmap("tab20")(k), label=name)
    ax.axhline(COLLAPSED, color=WARNING, ls=":", lw=1.2, label="collapsed to the mean")
    ax.set(ylabel="held-out accuracy", xlim=(-0.05, None), ylim=(0, 1.05))
    ax.set_xlabel(f"kept: σ₂ of the composite ({MOST:g}: or more)")
    ax.set_title("mean and spread over seeds; crosses: not doubly stochastic", fontsize=10)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    fig.suptitle(f"Ways out of the trap: {depth} layers, noise {NOISE:g}")
    return fig


if __name__ == "__main__":
    command(study)
