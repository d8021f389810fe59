"""Mixing in float32, bfloat16 and float16: the errors of sums, of σ₂ and of the gap 1 − σ₂.

    python experiments/precision.py [--quick]

Networks copy tokens, with one matrix over tokens in each layer. They are trained in each precision.
The exact values come from the same trained logits, projected in float64.
"""

from typing import NamedTuple, cast

import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from homojax import contraction_gap, sinkhorn, spectrum
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.page import Table
from homojax.lab.train.config import Train
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
SEEDS = {"smoke": 2, "quick": 2, "full": 5}
DEPTH = {"smoke": 4, "quick": 8, "full": 16}
LEAST = 1e-12  # error that is drawn
HEADER = ["precision", "ε", "σ₂", "sums off", "error of σ₂", "gap error"]
HEADER += ["accuracy", "±", "stopped"]
CAPTION = (
    "σ₂: exact, median; sums off and error of σ₂: largest; gap error: median of "
    "|error of 1 − σ₂| / (1 − σ₂)."
)


class Errors(NamedTuple):
    """The errors of mixing in one precision."""

    ds: xr.Dataset  # of the training, over epsilon × seed
    sigma2: np.ndarray  # exact, [ε, seeds, L]
    sums: np.ndarray  # largest |sum − 1| of a network, [ε, seeds]
    error: np.ndarray  # of σ₂, [ε, seeds, L]
    gap_error: np.ndarray  # of 1 − σ₂, relative, [ε, seeds, L]


def study(size: Size, bench: Bench) -> Study:
    """Return the errors of sums, σ₂ and gaps as mixed, against float64 on the same logits."""
    precisions = {dtype: compare(size, bench, dtype) for dtype in DTYPES[size]}
    worst = (
        f"{dtype} {x.sums.max():.1e} and {x.error.max():.1e}" for dtype, x in precisions.items()
    )
    rows = [
        row(dtype, errors, i)
        for dtype, errors in precisions.items()
        for i in range(len(EPSILON[size]))
    ]
    return Study(
        text=f"Largest |sum − 1| and error of σ₂: {'; '.join(worst)}.",
        tables=[Table(CAPTION, HEADER, rows)],
        figure=draw(precisions, DEPTH[size]),
    )


def compare(size: Size, bench: Bench, dtype: str) -> Errors:
    """Train networks that mix in one precision, and compare their matrices with exact ones."""
    config = Train(
        architecture=Architecture(depth=DEPTH[size], mixing_dtype=dtype),  # type: ignore[arg-type]
        training=Training(steps=STEPS[size], batch=32),
        epsilon=EPSILON[size],
        alpha=(1.0,),
        seeds=SEEDS[size],
        claims=size == "full",
    )
    ds = bench.train(dtype, config).isel(depth=0, alpha=0, noise=0)
    logits = mixing_parameters(bench.networks(dtype, config).end).astype(float)
    epsilons = np.repeat(EPSILON[size], SEEDS[size])[:, None] * np.ones(DEPTH[size])
    sigma2 = ds.sigma2_end.values
    true_sigma2, true_gap = (np.asarray(x).reshape(sigma2.shape) for x in exact(logits, epsilons))
    return Errors(
        ds=ds,
        sigma2=true_sigma2,
        sums=np.maximum(ds.row_error_end, ds.col_error_end).values,
        error=abs(sigma2 - true_sigma2),
        gap_error=abs(1 - sigma2 - true_gap) / true_gap,
    )


@jax.jit
def exact(logits: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (σ₂, 1 − σ₂) of logits [runs, L, n, n] in float64."""

    def one(logits: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, jax.Array]:
        result = sinkhorn(logits, epsilon)
        return spectrum.sigma2(result.matrix), contraction_gap(cast(jax.Array, result.log_matrix))

    return jax.vmap(jax.vmap(one))(logits, epsilon)


def row(dtype: str, errors: Errors, i: int) -> list[str]:
    """Return the row of one precision at the i-th ε, over its seeds."""
    runs = errors.ds.isel(epsilon=i)
    return [
        dtype,
        f"{runs.epsilon.item():g}",
        f"{np.median(errors.sigma2[i]):.4f}",
        f"{errors.sums[i].max():.1e}",
        f"{errors.error[i].max():.1e}",
        f"{np.median(errors.gap_error[i]):.1e}",
        f"{float(runs.accuracy.mean()):.3f}",
        f"{float(runs.accuracy.std()):.3f}",
        str(int((runs.failed_step >= 0).sum())),
    ]


def draw(precisions: dict[str, Errors], depth: int) -> Figure:
    """Draw each error over ε, one line for each precision."""
    fig, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    for k, (dtype, errors) in enumerate(precisions.items()):
        curves = (
            errors.sums.max(1),
            errors.error.max((1, 2)),
            np.median(errors.gap_error, (1, 2)),
        )
        colour = plt.get_cmap("viridis")(0.4 * k)
        for ax, values in zip(axes, curves, strict=True):
            drawn = np.maximum(values, LEAST)
            ax.plot(errors.ds.epsilon, drawn, "o-", color=colour, label=dtype)
    names = "largest |sum − 1|", "largest error of σ₂", "median relative error of 1 − σ₂"
    for ax, name in zip(axes, names, strict=True):
        ax.set(xscale="log", yscale="log", xlabel="entropy weight ε (logit units)", ylabel=name)
    axes[0].legend()
    fig.suptitle(
        f"Mixing matrices of {depth} trained layers, as computed in each precision, against float64"
    )
    return fig


if __name__ == "__main__":
    command(study)
