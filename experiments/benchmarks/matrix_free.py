"""How long does a large projection of two point clouds take, and in how much memory?

homojax against OTT-JAX, with no matrix formed. The script prints one table and writes one JSON.
Both get the same float32 points with 64 features. A run has a process of its own, whose peak memory
is read when the solver is done; importing both libraries is in it. Errors are measured here, in
float64, from the potentials that came back, on the scale where rows and columns sum to 1. A pass is
one sweep over all n² logits; OTT-JAX takes two an iteration.

    python experiments/benchmarks/matrix_free.py [--sizes 1024 4096]
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.interpreters import batching
from ott.geometry import pointcloud
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn
from problems import CLOUDS
from rich import box
from rich.console import Console
from rich.table import Table

from homojax import point_cloud_logits, sinkhorn

TOL, MAX_STEPS = CLOUDS.tol, CLOUDS.max_steps
SIZES = (1024, 4096, 16384)
EPSILONS = {"easy": 8.0, "hard": 4.0}


class Solution(NamedTuple):
    row_potential: jax.Array
    col_potential: jax.Array
    passes: jax.Array


def main(out: Path = Path("runs/matrix_free.json"), sizes: tuple[int, ...] = SIZES) -> None:
    """Args: out: the JSON to write; sizes: every n."""
    rows = []
    for n in sizes:
        for name, epsilon in EPSILONS.items():
            own = None
            for solver in SOLVERS:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    row = process.submit(measure, solver, n, epsilon).result()
                own = own or row["seconds"]
                rows.append(
                    {
                        "problem": name,
                        "n": n,
                        "epsilon": epsilon,
                        "solver": solver,
                        **row,
                        "ratio": row["seconds"] / own,
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
        "features": CLOUDS.features,
    }
    out.write_text(json.dumps({**versions, "rows": rows}, indent=1) + "\n")


def measure(solver: str, n: int, epsilon: float) -> dict[str, float]:
    x, y = CLOUDS.draw(n)
    start = time.perf_counter()
    solve = jax.jit(SOLVERS[solver]).lower(x, y, np.float32(epsilon)).compile()
    compiled = time.perf_counter()
    solution = jax.block_until_ready(solve(x, y, np.float32(epsilon)))
    seconds, peak = (
        time.perf_counter() - compiled,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )
    return {
        "seconds": seconds,
        "compile_seconds": compiled - start,
        "passes": int(solution.passes),
        "worst_error": worst_error(x, y, epsilon, solution),
        "peak_gib": peak,
    }


def worst_error(x: np.ndarray, y: np.ndarray, epsilon: float, solution: Solution) -> float:
    x, y, f, g = (
        np.asarray(a, np.float64) for a in (x, y, solution.row_potential, solution.col_potential)
    )
    row_sums, col_sums = np.zeros(len(x)), np.zeros(len(x))
    for rows in np.array_split(np.arange(len(x)), -(-(len(x) ** 2) // 2**22)):
        distances = (x[rows] ** 2).sum(1)[:, None] + (y**2).sum(1) - 2 * x[rows] @ y.T
        block = np.exp(-distances / epsilon + f[rows, None] + g)
        row_sums[rows] = block.sum(1)
        col_sums += block.sum(0)
    return float(max(abs(row_sums - 1).max(), abs(col_sums - 1).max()))


def report(rows: list[dict]) -> None:
    table = Table(
        title=f"float32, {CLOUDS.features} features, errors ≤ {TOL:g} asked for",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    for column in (
        "n",
        "ε",
        "solver",
        "passes",
        "worst\nerror",
        "time",
        "per\npass",
        "compile",
        "peak\nmemory",
        "×\nhomojax",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["n"]),
            f"{row['epsilon']:g}",
            row["solver"],
            str(row["passes"]),
            f"{row['worst_error']:.1e}",
            f"{row['seconds']:.3g} s",
            f"{row['seconds'] / row['passes']:.2g} s",
            f"{row['compile_seconds']:.2g} s",
            f"{row['peak_gib']:.2f} GiB",
            f"{row['ratio']:.3g}",
        )
    Console().print(table)


def _homojax(x: jax.Array, y: jax.Array, epsilon: jax.Array) -> Solution:
    result = sinkhorn(point_cloud_logits(x, y), epsilon, tol=TOL, max_steps=MAX_STEPS)
    return Solution(
        result.row_potential, result.col_potential, result.num_steps + 1
    )  # one more to measure the errors


def _ott(x: jax.Array, y: jax.Array, epsilon: jax.Array) -> Solution:
    """Return OTT-JAX's potentials and iterations.

    Its threshold is on a norm of row sum/n − 1/n. The 4-norm is no less than the largest entry, and
    little more.
    """
    # OTT-JAX 0.6 asks for a name that JAX 0.10 no longer shows; its answer for arrays
    batching.is_vmappable = lambda leaf: isinstance(leaf, jax.Array)  # pyright: ignore
    n = len(x)
    geometry = pointcloud.PointCloud(x, y, epsilon=epsilon, batch_size=max(64, 2**22 // n))
    solver = ott_sinkhorn.Sinkhorn(threshold=TOL / n, norm_error=4, max_iterations=MAX_STEPS)
    result = solver(linear_problem.LinearProblem(geometry))
    return Solution(
        result.f / epsilon + np.log(n), result.g / epsilon, jnp.asarray(2 * result.n_iters)
    )


SOLVERS = {"homojax": _homojax, "OTT online": _ott}

if __name__ == "__main__":
    tyro.cli(main)
