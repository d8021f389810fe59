"""Layer norm and noise (laws 4.2, expected cosine, and 4.5, critical SNR), in trained networks.

    python experiments/noise.py [--quick]

Networks copy tokens, with one matrix over tokens in each layer. Every layer adds Gaussian noise to
every entry. Each trained network runs on the same examples with its noise and without it. Its SNR
is the energy of the detail without noise over the energy of the detail that noise added, after the
last layer; the cosine is that between the two details. Layer norm acts over the features of every
token, as in practice (law 4.7, layer norm in practice).
"""

from itertools import pairwise
from typing import NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.figure_style import FAINT, MEASURED, WARNING
from homojax.lab.page import Table
from homojax.lab.train.config import Train
from homojax.lab.train.measures import directions_of, expected_cosines
from homojax.lab.train.tasks import load_task
from homojax.layernorm import critical_snr
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training

NETWORKS = {
    "no norm": {"norm": "none"},
    "layer norm before": {},
    "RMS norm before": {"norm": "rms"},
    "layer norm after": {"placement": "post"},
}
CHOSEN = {
    "smoke": ("layer norm before",),
    "quick": ("no norm", "layer norm before"),
    "full": tuple(NETWORKS),
}
NOISE = {
    "smoke": (0.0, 0.3),
    "quick": (0.0, 0.1, 0.3, 1.0),
    "full": (0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0),
}
EPSILON = {"smoke": (0.2,), "quick": (0.2, 2.0), "full": (0.1, 0.5, 2.0)}
STEPS = {"smoke": 10, "quick": 200, "full": 800}
SEEDS = {"smoke": 1, "quick": 1, "full": 3}
DEPTH = {"smoke": 4, "quick": 4, "full": 8}
WIDTH = 32
EXAMPLES = 128
OF_CRITICAL = (0, 0.01, 0.1, 1, 10, 100, np.inf)  # edges of bins, in critical SNRs
HEADER = ["network", "ε", "noise", "SNR", "cosine", "4.2", "accuracy", "±"]
CAPTION = (
    "SNR and cosine: medians over seeds, after the last layer; 4.2: the expected cosine at this "
    "SNR, by law 4.2."
)
BIN_CAPTION = "Mean accuracy (of so many networks), by SNR over the critical SNR."


class Heard(NamedTuple):
    """What trained networks of one kind hear through their noise; arrays [ε, noise, seeds]."""

    snr: np.ndarray
    cosine: np.ndarray
    accuracy: np.ndarray


def study(size: Size, bench: Bench) -> Study:
    """Return the SNR, the cosine and the accuracy of every network, against laws 4.2 and 4.5."""
    d = (load_task("copying").units - 1) * WIDTH  # directions of the details of all features
    critical = float(jax.jit(critical_snr)(d))
    networks = {name: listen(size, bench, name) for name in CHOSEN[size]}
    worst = ", ".join(f"{name} {distance_from_law(x, d):.2g}" for name, x in networks.items())
    rows = [
        row(name, heard, d, size, (i, j))
        for name, heard in networks.items()
        for i in range(len(EPSILON[size]))
        for j in range(len(NOISE[size]))
    ]
    bins = ["network", *(f"{low:g} to {high:g}" for low, high in pairwise(OF_CRITICAL))]
    shares = [[name, *accuracy_by_snr(heard, critical)] for name, heard in networks.items()]
    return Study(
        text=f"The critical SNR is {critical:.3g} (d = {d}). Largest difference of a cosine from "
        f"law 4.2: {worst}.",
        tables=[Table(BIN_CAPTION, bins, shares), Table(CAPTION, HEADER, rows)],
        figure=draw(networks, d, critical, DEPTH[size]),
    )


def listen(size: Size, bench: Bench, name: str) -> Heard:
    """Train the networks of one kind, and run them with noise and without."""
    config = Train(
        architecture=Architecture(depth=DEPTH[size], width=WIDTH, **NETWORKS[name]),
        training=Training(steps=STEPS[size], batch=32),
        epsilon=EPSILON[size],
        alpha=(0.5,),
        noise=NOISE[size],
        seeds=SEEDS[size],
        claims=size == "full",
    )
    label = name.replace(" ", "-")
    ds, trained = bench.train(label, config), bench.networks(label, config)
    snr, cosine, _ = directions_of(trained.trainer, trained.end, EXAMPLES)
    grid = len(EPSILON[size]), len(NOISE[size]), SEEDS[size]
    return Heard(
        snr=snr[:, -1].reshape(grid),
        cosine=cosine[:, -1].reshape(grid),
        accuracy=ds.accuracy.values[0][:, 0],
    )


def distance_from_law(heard: Heard, d: int) -> float:
    """Return the largest difference of a noisy network's cosine from law 4.2."""
    return abs(heard.cosine[:, 1:] - expected_cosines(heard.snr[:, 1:], d)).max()


def accuracy_by_snr(heard: Heard, critical: float) -> list[str]:
    """Return the mean accuracy of noisy networks in each bin of SNR."""
    snr, accuracy = heard.snr[:, 1:] / critical, heard.accuracy[:, 1:]
    inside = [(low <= snr) & (snr < high) for low, high in pairwise(OF_CRITICAL)]
    return [f"{accuracy[m].mean():.2f} ({m.sum()})" if m.any() else "–" for m in inside]


def row(name: str, heard: Heard, d: int, size: Size, place: tuple[int, int]) -> list[str]:
    """Return the row of one network at one ε and noise, over its seeds."""
    epsilon, noise = EPSILON[size][place[0]], NOISE[size][place[1]]
    snr, cosine = np.median(heard.snr[place]), np.median(heard.cosine[place])
    numbers = [f"{snr:.3g}", f"{cosine:.4f}", f"{float(expected_cosines(snr, d)):.4f}"]
    accuracy = heard.accuracy[place]
    return [
        name,
        f"{epsilon:g}",
        f"{noise:g}",
        *(numbers if noise else ["∞", "1", "1"]),
        f"{accuracy.mean():.3f}",
        f"{accuracy.std():.3f}",
    ]


def draw(networks: dict[str, Heard], d: int, critical: float, depth: int) -> Figure:
    """Draw accuracy and cosine over the SNR, one dot for each network."""
    fig, (accuracies, cosines) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for k, (name, heard) in enumerate(networks.items()):
        look = {"ms": 5, "color": plt.get_cmap("tab10")(k), "alpha": 0.75, "label": name}
        for values, ax in ((heard.accuracy, accuracies), (heard.cosine, cosines)):
            ax.plot(heard.snr[:, 1:].ravel(), values[:, 1:].ravel(), "o", **look)
    snrs = np.geomspace(1e-3, 1e4, 100)
    law = "law 4.2, exact for isotropic noise"
    cosines.plot(snrs, expected_cosines(snrs, d), color=MEASURED, lw=1.2, label=law)
    for ax in (accuracies, cosines):
        label = f"critical SNR {critical:.3g} (law 4.5)"
        ax.axvline(critical, color=WARNING, ls="--", lw=1.2, label=label)
        ax.set(xscale="log", xlabel="SNR of the detail after the last layer", ylim=(0, 1.05))
    accuracies.axhline(load_task("copying").chance, color=FAINT, ls=":", lw=1)
    accuracies.set_ylabel("held-out accuracy (dotted: blind)")
    cosines.set_ylabel("cosine of details with and without noise")
    cosines.legend()
    fig.suptitle(f"{depth} layers trained under noise, one dot for each network")
    return fig


if __name__ == "__main__":
    command(study)
