"""What does a gradient through the projection cost?

Implicit against unrolled, and against OTT-JAX's implicit derivative. The script prints one table
and writes one JSON. The gradient is that of Σ W∘M with respect to the logits, W random, over a
batch. Its error is measured against this library's own gradient in float64 at a tolerance of 1e-13,
which the tests hold against mpmath. Memory is what the compiled program needs beside its arguments,
in numbers for each matrix entry: it shows whether steps are kept.

    python experiments/benchmarks/derivative.py [--quick]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import implicit_differentiation
from ott.solvers.linear import sinkhorn as ott_sinkhorn
from problems import SLOPES, timed
from rich import box
from rich.console import Console
from rich.table import Table

from homojax import sinkhorn, truncated_sinkhorn

TOL = 1e-5
EPSILONS = [SLOPES[16].least, SLOPES[16].most]  # from, to
UNROLLED = (20, 200)  # alternations
Solver = Callable[[jax.Array, jax.Array], Any]  # logits [n, n], ε -> matrix


def main(out: Path = Path("runs/derivative.json"), repeats: int = 7, quick: bool = False) -> None:
    """Args: out: the JSON to write; repeats: of the timing; quick: a quarter of each batch."""
    jax.config.update("jax_enable_x64", True)
    rows = []
    for n, grid in SLOPES.items():
        batch = grid.batch // 4 if quick else grid.batch
        logits, epsilon = grid.draw(batch)
        weights = jax.random.normal(jax.random.key(n + 1), (batch, n, n), jnp.float32)
        exact = gradient_of(partial(sinkhorn_matrix, tol=1e-13))(
            *(x.astype("float64") for x in (logits, epsilon, weights))
        )
        for name, solve in SOLVERS.items():
            forward = jax.jit(jax.vmap(solve)).lower(logits, epsilon).compile()
            gradient = gradient_of(solve).lower(logits, epsilon, weights).compile()
            try:
                found = np.asarray(gradient(logits, epsilon, weights), float)
            except jax.errors.JaxRuntimeError:
                print(f"n = {n}: {name} raised an error, and gave no gradient.")
                continue
            error = np.linalg.norm(found - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
            row = {
                "n": n,
                "batch": batch,
                "solver": name,
                "worst_error": float(error.max()),
                "median_error": float(np.median(error)),
                "forward_seconds": timed(forward, repeats, logits, epsilon).seconds,
                "gradient_seconds": timed(gradient, repeats, logits, epsilon, weights).seconds,
                "numbers_per_entry": gradient.memory_analysis().temp_size_in_bytes / logits.nbytes,
            }
            row["reverse_per_forward"] = row["gradient_seconds"] / row["forward_seconds"] - 1
            rows.append(row)
    report(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "jax": jax.__version__,
        "ott": version("ott-jax"),
        "device": str(jax.devices()[0]),
        "tol": TOL,
        "epsilon": EPSILONS,
    }
    out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


def gradient_of(solve: Solver) -> Any:
    return jax.jit(
        jax.vmap(
            jax.grad(lambda logits, epsilon, weights: (weights * solve(logits, epsilon)).sum())
        )
    )


def report(rows: list[dict]) -> None:
    title = f"gradient of Σ W∘M in the logits, float32, vmapped, ε {EPSILONS[0]:g}–{EPSILONS[1]:g}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    columns = (
        "n",
        "solver",
        "worst\nerror",
        "median\nerror",
        "forward",
        "with\ngradient",
        "reverse ÷\nforward",
        "numbers\n/ entry",
    )
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        errors = (f"{row[f'{which}_error']:.1e}" for which in ("worst", "median"))
        times = (f"{row[f'{which}_seconds'] * 1e3:.3g} ms" for which in ("forward", "gradient"))
        ratios = f"{row['reverse_per_forward']:.2g}", f"{row['numbers_per_entry']:.3g}"
        table.add_row(str(row["n"]), row["solver"], *errors, *times, *ratios)
    Console().print(table)


def sinkhorn_matrix(logits: jax.Array, epsilon: jax.Array, tol: float) -> Any:
    return sinkhorn(logits, epsilon, tol=tol).matrix


def unrolled_matrix(logits: jax.Array, epsilon: jax.Array, num_iters: int) -> Any:
    return truncated_sinkhorn(logits, epsilon, num_iters).matrix


def ott_matrix(logits: jax.Array, epsilon: jax.Array, **solver_kwargs: float) -> jax.Array:
    """To the error that the projection's benchmark asks of it, with its implicit derivative."""
    implicit = implicit_differentiation.ImplicitDiff(solver_kwargs=solver_kwargs)
    solver = ott_sinkhorn.Sinkhorn(threshold=TOL / 4, max_iterations=20_000, implicit_diff=implicit)
    costs = geometry.Geometry(cost_matrix=-logits, epsilon=epsilon)  # pyright: ignore
    problem = linear_problem.LinearProblem(costs)
    return solver(problem).matrix * logits.shape[0]


SOLVERS: dict[str, Solver] = {
    "homojax": partial(sinkhorn_matrix, tol=TOL),
    **{f"unrolled, {k} steps": partial(unrolled_matrix, num_iters=k) for k in UNROLLED},
    "OTT implicit": ott_matrix,
    "OTT implicit, ridges": partial(ott_matrix, ridge_kernel=1e-2, ridge_identity=1e-5),
}

if __name__ == "__main__":
    tyro.cli(main)
