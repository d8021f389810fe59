"""Twenty alternations at n = 4 (law 8.10, twenty alternations): a published table beside ours.

    python experiments/twenty.py [--quick]

The table is that of arXiv 2606.07574: 10⁴ normal logit matrices, and the L1 error of what stands
for their projection. The error's definition was not at hand. The reading tested here is the only
one of those tried that gives its means: the sum of |sum − 1| over the four rows and the four
columns of one matrix, in float32, where the alternation adds 1e-6 to every sum that it divides by.
Beside it stand the alternation without a constant, and the converged projection with its status.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from homojax import PRESETS, sinkhorn, truncated_sinkhorn
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.page import Table
from homojax.projection.result import Status

N, ITERATIONS = 4, 20
MATRICES = {"smoke": 100, "quick": 10_000, "full": 10_000}
SEEDS = {"smoke": 2, "quick": 3, "full": 20}
SCALES = (1.0, 10.0)  # of the logits
PUBLISHED = {  # scale -> (mean, largest) of twenty alternations, and of the paper's Newton method
    1.0: {"twenty": (8.34e-6, 1.38e-3)},
    10.0: {"twenty": (7.25e-2, 0.83), "Newton": (1.59e-3, 0.091)},
}
LEAST = 1e-17  # error that is drawn
HEADER = ["logits", "precision", "method", "mean", "lowest", "highest", "largest", "lowest"]
HEADER += ["highest", "converged"]
CAPTION = (
    "L1 error: Σ|sum − 1| over rows and columns. Mean and largest of 10,000 matrices: the median, "
    "the lowest and the highest of all seeds. Converged: share of all matrices, by their status."
)


class Errors(NamedTuple):
    """The errors of one method at one scale, and how its matrices ended."""

    l1: np.ndarray  # [seeds, matrices]
    status: np.ndarray  # [seeds, matrices], of ``Status``


Method = Callable[[jax.Array], tuple[jax.Array, jax.Array]]  # logits -> (matrix, status)


def _alternate(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    result = truncated_sinkhorn(logits, 1.0, ITERATIONS)
    return cast(jax.Array, result.matrix), result.status


def _add_to_sums(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return what MaxText's alternation gives without its constant on the entries."""
    matrix = PRESETS["maxtext"]._replace(added_to_entries=0.0).matrix(logits)
    return matrix, jnp.asarray(Status.STEP_LIMIT)


def _converge(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    result = sinkhorn(logits, 1.0)
    return cast(jax.Array, result.matrix), result.status


METHODS: dict[str, Method] = {
    "20 alternations, sums + 1e-6": _add_to_sums,
    "20 alternations": _alternate,
    "converged": _converge,
}


def study(size: Size, bench: Bench) -> Study:
    """Return the errors of every method at both scales, in float32 and float64."""
    keys = [(s, d, m) for s in SCALES for d in ("float32", "float64") for m in METHODS]
    found = {}
    for done, (scale, dtype, method) in enumerate(keys):
        bench.progress(done, len(keys), f"{method}, {dtype}, logits of scale {scale:g}")
        found[scale, dtype, method] = measure(METHODS[method], scale, dtype, size)
    rows = [row(scale, dtype, method, x) for (scale, dtype, method), x in found.items()]
    return Study(
        text=verdict(found),
        tables=[Table(CAPTION, HEADER, rows + published())],
        figure=draw(found),
    )


def measure(method: Method, scale: float, dtype: str, size: Size) -> Errors:
    """Return the errors of one method on as many matrices and seeds as the size has."""
    run, shape = jax.jit(jax.vmap(partial(_judge, method))), (MATRICES[size], N, N)
    found = []
    for seed in range(SEEDS[size]):
        logits = scale * np.random.default_rng(seed).normal(size=shape)
        found.append(run(logits.astype(dtype)))
    return Errors(np.array([l1 for l1, _ in found]), np.array([status for _, status in found]))


def _judge(method: Method, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the L1 error of one matrix, its sums in float64, and its status."""
    matrix, status = method(logits)
    matrix = matrix.astype(float)
    return abs(matrix.sum(0) - 1).sum() + abs(matrix.sum(1) - 1).sum(), status


def verdict(found: dict[tuple[float, str, str], Errors]) -> str:
    """Say where the published figures lie among ours."""
    sentences = []
    for scale in SCALES:
        l1 = found[scale, "float32", "20 alternations, sums + 1e-6"].l1
        mean, largest = PUBLISHED[scale]["twenty"]
        sentences.append(
            f"Logits N(0, {scale:g}²): published mean {mean:.3g}, ours {_span(l1.mean(1))}; "
            f"largest {largest:.3g}, ours {_span(l1.max(1))}."
        )
    plain = found[1.0, "float64", "20 alternations"].l1.mean()
    sentences.append(
        f"Without the constant, in float64, the mean at N(0, 1) is {plain:.2g}: the published one "
        "is the constant's, 8 sums times 1e-6."
    )
    return " ".join(sentences)


def _span(values: np.ndarray) -> str:
    return f"{values.min():.3g} to {values.max():.3g} over {len(values)} seeds"


def row(scale: float, dtype: str, method: str, errors: Errors) -> list[str]:
    """Return the row of one method."""
    figures = (errors.l1.mean(1), errors.l1.max(1))
    spans = [f"{pick(x):.2e}" for x in figures for pick in (np.median, np.min, np.max)]
    converged = f"{(errors.status == Status.CONVERGED).mean():.2%}"
    told = "not judged" if method.endswith("1e-6") else converged
    return [f"N(0, {scale:g}²)", dtype, method, *spans, told]


def published() -> list[list[str]]:
    """Return the rows of the paper."""
    return [
        [f"N(0, {scale:g}²)", "–", f"published, {name}"]
        + [figure for x in values for figure in (f"{x:.2e}", "–", "–")]
        + ["–"]
        for scale, methods in PUBLISHED.items()
        for name, values in methods.items()
    ]


def draw(found: dict[tuple[float, str, str], Errors]) -> Figure:
    """Draw the share of matrices with a larger error, one panel for each scale."""
    fig, axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained", sharey=True)
    for ax, scale in zip(axes, SCALES, strict=True):
        for k, method in enumerate(METHODS):
            for dtype, style in (("float32", "--"), ("float64", "-")):
                l1 = np.sort(found[scale, dtype, method].l1.ravel())
                share, drawn = 1 - np.arange(l1.size) / l1.size, np.maximum(l1, LEAST)
                label, width = f"{method}, {dtype}", 3.5 - k
                ax.plot(drawn, share, style, color=f"C{k}", lw=width, label=label)
        for name, values in PUBLISHED[scale].items():
            style = {"color": "k" if name == "twenty" else "0.6", "ls": ":", "lw": 1.3}
            for value, label in zip(values, (f"published, {name}", None), strict=True):
                ax.axvline(value, label=label, **style)
        ax.set(xscale="log", yscale="log", xlabel="L1 error of the eight sums")
        ax.set_title(f"logits N(0, {scale:g}²)", fontsize=10)
    axes[0].set_ylabel("share of matrices with a larger error")
    fig.legend(*axes[1].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    fig.suptitle("Twenty alternations at n = 4. Dotted: the published mean and largest error")
    return fig


if __name__ == "__main__":
    command(study)
