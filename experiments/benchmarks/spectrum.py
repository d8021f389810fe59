"""What do σ₂ and λ₂ cost beside the projection that they are taken of, and beside LAPACK?

One table a run, on the float32 matrices of the projection's hard grids. Errors are against NumPy in
float64.

    OPENBLAS_NUM_THREADS=1 python experiments/benchmarks/spectrum.py
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from problems import GRIDS, timed
from rich import box
from rich.console import Console
from rich.table import Table

from homojax import lambda2, sigma2, sinkhorn
from homojax.birkhoff import detail

SIZES = (16, 64, 256)  # n


def main(repeats: int = 5) -> None:
    """Args: repeats: of the timing."""
    table = Table(
        title="microseconds a matrix, vmapped, float32, ε 0.1–5", box=box.SIMPLE_HEAD, padding=0
    )
    for column in (
        "n",
        "projection",
        "σ₂",
        "worst\nerror",
        "SVD",
        "λ₂",
        "worst\nerror",
        "eigenvalues",
        "(σ₂ + λ₂) ÷\nprojection",
    ):
        table.add_column(column, justify="right")
    for n in SIZES:
        grid = GRIDS[f"hard-{n}"]
        batch = grid.batch
        project, _, matrices = timed(PROJECT, repeats, *grid.draw())
        norm_time, _, largest = timed(batched(sigma2), repeats, matrices)
        radius_time, _, modulus = timed(batched(lambda2), repeats, matrices)
        svd = timed(batched(singular_values), repeats, matrices).seconds
        eigenvalues = timed(batched(jnp.linalg.eigvals), repeats, matrices).seconds
        exact = np.asarray(jax.vmap(detail)(matrices), float)
        off_sigma2 = abs(largest - np.linalg.svd(exact, compute_uv=False)[:, 0]).max()
        off_lambda2 = abs(modulus - abs(np.linalg.eigvals(exact)).max(1)).max()
        times = (
            f"{seconds / batch * 1e6:.0f}"
            for seconds in (project, norm_time, svd, radius_time, eigenvalues)
        )
        project_us, sigma2_us, svd_us, lambda2_us, eigenvalues_us = times
        errors = f"{off_sigma2:.1e}", f"{off_lambda2:.1e}"
        ratio = f"{(norm_time + radius_time) / project:.2g}"
        table.add_row(
            str(n),
            project_us,
            sigma2_us,
            errors[0],
            svd_us,
            lambda2_us,
            errors[1],
            eigenvalues_us,
            ratio,
        )
    Console().print(table)


def singular_values(matrix: jax.Array) -> jax.Array:
    return jnp.linalg.svd(matrix, compute_uv=False)


def batched(function: Callable) -> Callable:
    return jax.jit(jax.vmap(function))


PROJECT = batched(lambda logits, epsilon: sinkhorn(logits, epsilon, tol=1e-5).matrix)

if __name__ == "__main__":
    tyro.cli(main)
