"""Layer norm and noise (4.2, 4.5, 4.7): accuracy and direction of trained networks against the signal-to-noise ratio.

    python experiments/noise.py [--quick]

Copying by one matrix over tokens a layer, trained with Gaussian noise on every entry after every layer. The SNR of a network is
the energy of its detail without noise over that of what the noise added to it, after the last layer; the cosine is that between
the details with and without. Layer norm acts over the features of every token, as it does in practice.
"""

from itertools import pairwise

import jax
import matplotlib.pyplot as plt
import numpy as np

from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.plots import MEASURED, WARNING
from homojax.lab.sources import load_task
from homojax.lab.train.measures import directions_of, expected_cosines
from homojax.lab.train.run import Train
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
DEPTH = {"smoke": 2, "quick": 4, "full": 8}
WIDTH = 32
OF_CRITICAL = (0, 0.01, 0.1, 1, 10, 100, np.inf)


def study(size: Size, bench: Bench) -> Study:
    """Each network run with its noise and, on the same examples, without."""
    task = load_task("copying")
    d = (task.units - 1) * WIDTH  # the details of all features
    critical = float(jax.jit(critical_snr)(d))
    fig, (accuracies, cosines) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    rows, off, by_snr = [], {}, []
    for k, name in enumerate(CHOSEN[size]):
        what = Train(
            architecture=Architecture(depth=DEPTH[size], width=WIDTH, **NETWORKS[name]),
            training=Training(steps=STEPS[size], batch=32),
            epsilon=EPSILON[size],
            alpha=(0.5,),
            noise=NOISE[size],
            seeds=SEEDS[size],
            claims=size == "full",
        )
        ds, trained = (
            bench.train(name.replace(" ", "-"), what),
            bench.networks(name.replace(" ", "-"), what),
        )
        grid = (len(EPSILON[size]), len(NOISE[size]), SEEDS[size])
        snr, cosine = (
            x[:, -1].reshape(grid) for x in directions_of(trained.trainer, trained.end, 128)[:2]
        )
        accuracy = ds.accuracy.values[0][:, 0]
        colour = plt.get_cmap("tab10")(k)
        for x, ax in ((accuracy, accuracies), (cosine, cosines)):
            ax.plot(
                snr[:, 1:].ravel(),
                x[:, 1:].ravel(),
                "o",
                ms=5,
                color=colour,
                alpha=0.75,
                label=name,
            )
        off[name] = abs(cosine[:, 1:] - expected_cosines(snr[:, 1:], d)).max()
        of_critical = snr[:, 1:] / critical
        inside = [
            (low <= of_critical) & (of_critical < high) for low, high in pairwise(OF_CRITICAL)
        ]
        by_snr.append(
            [
                name,
                *(
                    f"{accuracy[:, 1:][m].mean():.2f} ({m.sum()})" if m.any() else "–"
                    for m in inside
                ),
            ]
        )
        for i, epsilon in enumerate(EPSILON[size]):
            for j, noise in enumerate(NOISE[size]):
                cell = np.median(snr[i, j]), np.median(cosine[i, j])
                cell = (*cell, float(expected_cosines(cell[0], d)))
                shown = (
                    [f"{cell[0]:.3g}", f"{cell[1]:.4f}", f"{cell[2]:.4f}"]
                    if noise
                    else ["∞", "1", "1"]
                )
                rows.append(
                    [
                        name,
                        f"{epsilon:g}",
                        f"{noise:g}",
                        *shown,
                        f"{accuracy[i, j].mean():.3f}",
                        f"{accuracy[i, j].std():.3f}",
                    ]
                )
    snrs = np.geomspace(1e-3, 1e4, 100)
    cosines.plot(
        snrs,
        expected_cosines(snrs, d),
        color=MEASURED,
        lw=1.2,
        label="4.2, exact for isotropic noise",
    )
    for ax in (accuracies, cosines):
        ax.axvline(
            critical, color=WARNING, ls="--", lw=1.2, label=f"critical SNR {critical:.3g} (4.5)"
        )
        ax.set(xscale="log", xlabel="SNR of the detail after the last layer", ylim=(0, 1.05))
    accuracies.axhline(task.chance, color="#777777", ls=":", lw=1)
    accuracies.set_ylabel("held-out accuracy (dotted: blind)")
    cosines.set_ylabel("cosine of details with and without noise")
    cosines.legend()
    fig.suptitle(f"{DEPTH[size]} layers trained under noise, one dot a network")
    text = f"The critical SNR is {critical:.3g} (d = {d}). "
    text += (
        "Largest difference of a cosine from 4.2: "
        + ", ".join(f"{k} {v:.2g}" for k, v in off.items())
        + "."
    )
    header = ["network", "ε", "noise", "SNR", "cosine", "4.2", "accuracy", "±"]
    caption = "SNR and cosine: medians over seeds, after the last layer; 4.2: the expected cosine at that SNR"
    bins = ["network", *(f"{low:g} to {high:g}" for low, high in pairwise(OF_CRITICAL))]
    shares = ("mean accuracy (of so many networks), by SNR over the critical one", (bins, by_snr))
    return Study(text, [shares, (caption, (header, rows))], fig)


if __name__ == "__main__":
    command(study)
