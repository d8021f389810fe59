"""Low precision: the mixing in float32, bfloat16 and float16. What becomes of the sums, of σ₂ and of the gap 1 − σ₂?

    python experiments/precision.py [--quick]

Copying by one matrix over tokens a layer. Networks are trained in each precision; the exact values beside the measured ones
come from the same trained logits projected in float64.
"""

import dataclasses
from typing import cast

import jax
import matplotlib.pyplot as plt
import numpy as np

from homojax import contraction_gap, sinkhorn, spectrum
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.train.run import Train
from homojax.networks.architecture import Architecture
from homojax.networks.run import mixing_parameters
from homojax.networks.training import Training

DTYPES = {
    "smoke": ("bfloat16",),
    "quick": ("float32", "bfloat16"),
    "full": ("float32", "bfloat16", "float16"),
}
EPSILON = {
    "smoke": (0.1,),
    "quick": (0.05, 0.3, 5.0),
    "full": (0.02, 0.05, 0.1, 0.3, 1.0, 2.0, 5.0, 20.0),
}
STEPS = {"smoke": 10, "quick": 200, "full": 1000}
SEEDS = {"smoke": 1, "quick": 2, "full": 5}
DEPTH = {"smoke": 2, "quick": 8, "full": 16}


@jax.jit
def exact(logits, epsilon):
    """(σ₂, 1 − σ₂) of logits [runs, L, n, n] in float64."""

    def one(logits, epsilon):
        result = sinkhorn(logits, epsilon)
        return spectrum.sigma2(result.matrix), contraction_gap(cast(jax.Array, result.log_matrix))

    return jax.vmap(jax.vmap(one))(logits, epsilon)


def study(size: Size, bench: Bench) -> Study:
    """Sums, σ₂ and gaps as mixed, against float64 on the same logits."""
    what = Train(
        architecture=Architecture(depth=DEPTH[size]),
        training=Training(steps=STEPS[size], batch=32),
        epsilon=EPSILON[size],
        alpha=(1.0,),
        seeds=SEEDS[size],
        claims=size == "full",
    )
    fig, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    rows, worst = [], {}
    for k, dtype in enumerate(DTYPES[size]):
        label = {"label": dtype, "color": plt.get_cmap("viridis")(0.4 * k)}
        asked = dataclasses.replace(
            what, architecture=dataclasses.replace(what.architecture, mixing_dtype=dtype)
        )
        ds = bench.train(dtype, asked).isel(depth=0, alpha=0, noise=0)
        epsilons = np.repeat(EPSILON[size], SEEDS[size])[:, None] * np.ones(DEPTH[size])
        logits = mixing_parameters(bench.networks(dtype, asked).end).astype(float)
        sigma2, off = (
            ds.sigma2_end.values,
            np.maximum(ds.row_error_end, ds.col_error_end).values,
        )  # [ε, seeds, L], [ε, seeds]
        true_sigma2, true_gap = (
            np.asarray(x).reshape(sigma2.shape) for x in exact(logits, epsilons)
        )
        error, gap_error = abs(sigma2 - true_sigma2), abs(1 - sigma2 - true_gap) / true_gap
        for ax, values in zip(
            axes, (off.max(1), error.max((1, 2)), np.median(gap_error, (1, 2))), strict=True
        ):
            ax.plot(EPSILON[size], np.maximum(values, 1e-12), "o-", **label)
        worst[dtype] = off.max(), error.max()
        for i, epsilon in enumerate(EPSILON[size]):
            accuracy = ds.accuracy.sel(epsilon=epsilon)
            stopped = int((ds.failed_step.sel(epsilon=epsilon) >= 0).sum())
            numbers = [f"{x:.1e}" for x in (off[i].max(), error[i].max(), np.median(gap_error[i]))]
            rows.append([dtype, f"{epsilon:g}", f"{np.median(true_sigma2[i]):.4f}", *numbers])
            rows[-1] += [
                f"{float(accuracy.mean()):.3f}",
                f"{float(accuracy.std()):.3f}",
                str(stopped),
            ]
    for ax, name in zip(
        axes,
        ("largest |sum − 1|", "largest error of σ₂", "median relative error of 1 − σ₂"),
        strict=True,
    ):
        ax.set(xscale="log", yscale="log", xlabel="entropy weight ε (logit units)", ylabel=name)
    axes[0].legend()
    fig.suptitle(
        f"Mixing matrices of {DEPTH[size]} trained layers, as computed in each precision, against float64"
    )
    text = (
        "Largest |sum − 1| and error of σ₂: "
        + "; ".join(f"{k} {a:.1e} and {b:.1e}" for k, (a, b) in worst.items())
        + "."
    )
    caption = "σ₂: exact, median; sums off and error of σ₂: largest; gap error: median of |error of 1 − σ₂| / (1 − σ₂)"
    header = [
        "precision",
        "ε",
        "σ₂",
        "sums off",
        "error of σ₂",
        "gap error",
        "accuracy",
        "±",
        "stopped",
    ]
    return Study(text, [(caption, (header, rows))], fig)


if __name__ == "__main__":
    command(study)
