"""Ways out of the trap (theory.md §7), one table: what each keeps, how far it turns, whether it stays in 𝔅ₙ, what it costs.

    python experiments/ways_out.py [--quick]

Copying through layers x -> (1 − α)x + αM norm(x) with noise of 0.1 on every entry after each, so that what shrinks is lost. The
trapped network mixes by M_ε at ε = 5. ε is calibrated, for each seed's own logits at the start, to keep half of the best-kept
detail through all layers; the schedules over depth have that ε as their geometric mean.
"""

import time
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from homojax import calibrate_depth, epsilon_schedule
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.plots import WARNING
from homojax.lab.train.measures import measures_of, stacks_of, theorems_of
from homojax.lab.train.run import Train, trainer_of
from homojax.networks.architecture import Architecture
from homojax.networks.run import mixing_parameters
from homojax.networks.trainer import side_by_side
from homojax.networks.training import Training

HOT, NOISE, RETENTION, REPORTS = 5.0, 0.1, 0.5, 10
MOST = 1.5  # detail kept that is drawn: unconstrained composites grow without end


class Way(NamedTuple):
    """A way to mix: a mixer, how its ε follow from the logits [L, n, n] at the start, and α."""

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
QUICK = ("sinkhorn", "orthogonal", "identity")  # each mixer is half a minute of compiling
CHOSEN = {
    "smoke": ("calibrated ε",),
    "quick": tuple(name for name in WAYS if WAYS[name].mixer in QUICK),
    "full": tuple(WAYS),
}
STEPS = {"smoke": REPORTS, "quick": 100, "full": 1500}
SEEDS = {"smoke": 1, "quick": 2, "full": 5}
DEPTH = {"smoke": 2, "quick": 6, "full": 16}


@jax.jit
@jax.vmap
def calibrated(logits):
    """One ε for all layers of logits [L, n, n]."""
    return calibrate_depth(logits, RETENTION, kept="composite").epsilon


@jax.jit
@jax.vmap
def own(logits):
    """One for each, [L]."""
    return epsilon_schedule(logits, RETENTION).epsilon


def schedule(name, logits):
    """ε [runs, L] for logits [runs, L, n, n]."""
    runs, depth = logits.shape[:2]
    shapes = {
        "geometric": 10 ** np.linspace(0.5, -0.5, depth),
        "power": 1 / np.arange(1, depth + 1),
    }
    if name == "hot":
        return np.full((runs, depth), HOT)
    if name == "own":
        return np.asarray(own(logits))
    shape = shapes.get(name, np.ones(depth))
    return np.asarray(calibrated(logits))[:, None] * shape / np.exp(np.log(shape).mean())


def study(size: Size, bench: Bench) -> Study:
    """Every way trained from the same seeds, and measured."""
    keys = jax.random.split(jax.random.key(0), SEEDS[size])

    def training(mixer):
        architecture = Architecture(mixer, depth=DEPTH[size], noisy=True)
        return Train(architecture=architecture, training=Training(steps=STEPS[size], batch=32))

    def begin(mixer, epsilon, alpha):
        of = trainer_of(training(mixer), DEPTH[size])
        values = (jnp.full(len(keys), value, jnp.float32) for value in (alpha, NOISE))
        return of, side_by_side(of.begin, keys, epsilon.astype(jnp.float32), *values)

    @cache
    def logits():
        _, start = begin("sinkhorn", np.ones((len(keys), DEPTH[size])), 1.0)
        return mixing_parameters(start).astype(float)

    def measure(way):
        epsilon = schedule(way.epsilon, logits())
        of, run = begin(way.mixer, epsilon, way.alpha)
        seconds = []
        for _ in range(REPORTS):
            began = time.perf_counter()
            run = jax.block_until_ready(
                side_by_side(of.advance, run, steps=STEPS[size] // REPORTS)[0]
            )
            seconds.append(time.perf_counter() - began)
        _, accuracy = side_by_side(of.evaluate, run)
        stacks = stacks_of(of, run)
        measures = measures_of(stacks)
        return {
            "ε": epsilon,
            "accuracy": np.asarray(accuracy),
            "kept": np.asarray(measures["kept"]),
            "turn": np.asarray(stacks.trace.turned).mean(1).sum(1),
            "off": np.maximum(measures["row_error"], measures["col_error"]).max(),
            "least": stacks.matrices.min(),
            "seconds": np.median(seconds[1:]),
            "failed": np.asarray(run.failed),
        } | ({"theorems": theorems_of(stacks)} if size == "full" else {})

    found = {}
    for done, name in enumerate(CHOSEN[size]):
        bench.tell(done, len(CHOSEN[size]), name)
        way = WAYS[name]
        about = f"{training(way.mixer).digest} {way} {SEEDS[size]} {HOT} {NOISE} {RETENTION}"
        found[name] = bench.measured(name, about, partial(measure, way))
    cheapest = min(values["seconds"] for values in found.values())
    rows = []
    fig, ax = plt.subplots(figsize=(8.4, 4.8), layout="constrained")
    for k, name in enumerate(CHOSEN[size]):
        values = found[name]
        accuracy, kept = values["accuracy"], values["kept"]
        tempered = WAYS[name].mixer not in ("orthogonal", "unconstrained", "identity")
        epsilon = np.median(values["ε"], 0) if tempered else np.array([])
        low, high = (epsilon.min(), epsilon.max()) if tempered else (0, 0)
        shown = (
            "–"
            if not tempered
            else f"{low:.3g}"
            if np.isclose(low, high)
            else f"{high:.2g}…{low:.2g}"
        )
        inside = values["off"] < 1e-4 and values["least"] > -1e-6
        rows.append(
            [
                name,
                shown,
                f"{accuracy.mean():.3f}",
                f"{accuracy.std():.3f}",
                f"{kept.mean():.2g}",
                f"{kept.std():.0e}",
            ]
        )
        rows[-1] += [f"{values['turn'].mean():.1f}", "yes" if inside else "no"]
        rows[-1] += [f"{values['least']:.1g}", f"{values['seconds'] / cheapest:.1f}"]
        marker = "o" if inside else "X"
        colour = plt.get_cmap("tab20")(k)
        at = np.minimum(kept, MOST)
        ax.errorbar(
            at.mean(),
            accuracy.mean(),
            accuracy.std(),
            at.std(),
            fmt=marker,
            ms=8,
            color=colour,
            label=name,
        )
    ax.axhline(0.32, color=WARNING, ls=":", lw=1.2, label="collapsed to the mean")
    ax.set(
        xlabel=f"kept: σ₂ of the composite ({MOST:g}: or more)",
        xlim=(-0.05, None),
        ylabel="held-out accuracy",
        ylim=(0, 1.05),
    )
    ax.set_title("mean and spread over seeds; crosses: not doubly stochastic", fontsize=10)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    fig.suptitle(f"Ways out of the trap: {DEPTH[size]} layers, noise {NOISE:g}")
    best = max(found, key=lambda name: found[name]["accuracy"].mean())
    text = f"Best: {best}, right in {found[best]['accuracy'].mean():.1%}"
    if "trapped, ε = 5" in found:
        text += f"; trapped: {found['trapped, ε = 5']['accuracy'].mean():.1%}"
    caption = f"{SEEDS[size]} seeds; ±: their standard deviation; turn: sum over layers, rad; 𝔅ₙ: sums within 1e-4 "
    caption += "of 1, no negative entry; least: smallest entry; cost: time of a training step over the cheapest's"
    header = ["way", "ε", "acc.", "±", "kept", "± ", "turn", "𝔅ₙ", "least", "cost"]
    return Study(text + ".", [(caption, (header, rows))], fig)


if __name__ == "__main__":
    command(study)
