"""How long does a grid of projections take?

homojax against plain alternation, OTT-JAX and POT, to the same error. The script prints one table
and writes one JSON. Every solver gets the same float32 logits and grid of ε, as one batch. Every
error is measured here, in float64, on the matrices that came back, on the scale where rows and
columns sum to 1. A rival that has not reached the tolerance when its steps run out is shown with
the error that it reached and the time that it took.

    python experiments/benchmarks/projection.py [--quick]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ot.batch
import tyro
from jax.nn import logsumexp
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import acceleration
from ott.solvers.linear import sinkhorn as ott_sinkhorn
from problems import GRIDS, largest_errors, timed
from rich import box
from rich.console import Console
from rich.table import Table

from homojax import sinkhorn

TOL = 1e-5
MAX_STEPS = 20_000  # for the rivals
Solver = Callable[[jax.Array, jax.Array], Any]  # logits [B, n, n], ε [B] -> matrices [B, n, n]


def main(
    out: Path = Path("runs/projection.json"),
    repeats: int = 5,
    quick: bool = False,
    grids: tuple[str, ...] = tuple(GRIDS),
) -> None:
    """Measure, print the table, and write the JSON.

    Args:
        out: the JSON to write.
        repeats: of the timing.
        quick: an eighth of each batch.
        grids: these alone, like hard-64.
    """
    rows = []
    for grid in (GRIDS[name] for name in grids):
        batch = grid.batch // 8 if quick else grid.batch
        logits, epsilon = grid.draw(batch)
        own = None
        for name, solve in SOLVERS.items():
            seconds, compile_seconds, matrices = timed(solve, repeats, logits, epsilon)
            own = own or seconds
            row = {**grid._asdict(), "batch": batch, "solver": name, **errors(matrices)}
            rows.append(
                {
                    **row,
                    "seconds": seconds,
                    "compile_seconds": compile_seconds,
                    "ratio": seconds / own,
                }
            )
            print(rows[-1], flush=True)
    report(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    versions = {
        "jax": jax.__version__,
        "ott": version("ott-jax"),
        "device": str(jax.devices()[0]),
        "tol": TOL,
    }
    out.write_text(json.dumps({**versions, "rows": rows}, indent=1) + "\n")


def errors(matrices: Any) -> dict[str, float | int]:
    missed = largest_errors(matrices)
    return {
        "worst_error": float(missed.max()),
        "missed": int((~(missed <= TOL)).sum()),
        "nan": int(np.isnan(missed).sum()),
    }


def report(rows: list[dict]) -> None:
    table = Table(
        title=f"float32, errors ≤ {TOL:g}, missed by so many; median time, ratio to homojax's",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    for column in ("n × batch", "ε", "solver", "missed", "error", "time", "compile", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['n']} × {row['batch']}",
            f"{row['least']:g}–{row['most']:g}",
            row["solver"],
            str(row["missed"]),
            f"{row['worst_error']:.1e}",
            f"{row['seconds']:.3g} s",
            f"{row['compile_seconds']:.2g} s",
            f"{row['ratio']:,.1f}",
        )
    Console().print(table)


@jax.jit
def _homojax(logits: jax.Array, epsilon: jax.Array) -> Any:
    return jax.vmap(lambda s, e: sinkhorn(s, e, tol=TOL).matrix)(logits, epsilon)


@jax.jit
@jax.vmap
def _plain(logits: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Return the matrix by plain alternation in logarithms, as it is commonly written."""

    def unfinished(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, error, steps = state
        return (error > TOL) & (steps < MAX_STEPS)

    def alternate(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        scaled, _, steps = state
        scaled = scaled - logsumexp(scaled, axis=1, keepdims=True)
        scaled = scaled - logsumexp(scaled, axis=0, keepdims=True)
        return scaled, abs(jnp.exp(scaled).sum(1) - 1).max(), steps + 1

    start = logits / epsilon, jnp.full((), jnp.inf, logits.dtype), jnp.asarray(0)
    return jnp.exp(jax.lax.while_loop(unfinished, alternate, start)[0])


@jax.jit
def _alternating(logits: jax.Array, epsilon: jax.Array) -> Any:
    return jax.vmap(
        lambda s, e: sinkhorn(s, e, tol=TOL, max_steps=MAX_STEPS, method="alternating").matrix
    )(logits, epsilon)


def _ott(momentum: bool) -> Solver:
    """Return OTT-JAX's matrix.

    Its threshold is on Σ |row sum/n − 1/n|, the mean error on our scale: a quarter of the largest
    that is allowed.
    """
    accelerated = {"momentum": acceleration.Momentum(start=100)} if momentum else {}
    solver = ott_sinkhorn.Sinkhorn(threshold=TOL / 4, max_iterations=MAX_STEPS, **accelerated)

    def solve_one(logits: jax.Array, epsilon: jax.Array) -> jax.Array:
        costs = geometry.Geometry(cost_matrix=-logits, epsilon=epsilon)  # pyright: ignore
        return solver(linear_problem.LinearProblem(costs)).matrix * logits.shape[0]

    return jax.jit(jax.vmap(solve_one))


def _pot(in_logs: bool) -> Solver:
    """Stops on the largest 2-norm of the row sums' errors on the scale 1/n; NumPy, as it comes."""

    def solve(logits: jax.Array, epsilon: jax.Array) -> np.ndarray:
        n = logits.shape[-1]
        scaled = np.asarray(logits / epsilon[:, None, None])
        kernel = scaled if in_logs else np.exp(scaled - scaled.max((1, 2), keepdims=True))
        project = (
            ot.batch.bregman_log_projection_batch if in_logs else ot.batch.bregman_projection_batch
        )
        marginal = np.full(scaled.shape[:2], 1 / n, scaled.dtype)
        return project(kernel, marginal, marginal, max_iter=MAX_STEPS, tol=TOL / n)["T"] * n

    return solve


SOLVERS: dict[str, Solver] = {
    "homojax": _homojax,
    "homojax, alternating": _alternating,
    "plain alternation": _plain,
    "OTT lse": _ott(momentum=False),
    "OTT lse, momentum": _ott(momentum=True),
    "POT batch": _pot(in_logs=False),
    "POT batch, log": _pot(in_logs=True),
}

if __name__ == "__main__":
    tyro.cli(main)
