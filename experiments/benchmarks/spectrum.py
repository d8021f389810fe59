"""What do σ₂ and λ₂ cost beside the projection that they are taken of, and beside LAPACK?

One table a run, on the float32 matrices of the projection's hard grids. Errors are against NumPy in
float64.

    OPENBLAS_NUM_THREADS=1 python experiments/benchmarks/spectrum.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from homojax import lambda2, sigma2, sinkhorn
from homojax.birkhoff import detail

SIZES = [(16, 1024), (64, 256), (256, 32)]  # n, batch


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
    for n, batch in SIZES:
        logits = jax.random.normal(jax.random.key(n), (batch, n, n), jnp.float32)
        epsilon = jnp.geomspace(0.1, 5, batch, dtype=jnp.float32)
        project, matrices = timed(
            lambda s, e: sinkhorn(s, e, tol=1e-5).matrix, repeats, logits, epsilon
        )
        norm_time, largest = timed(sigma2, repeats, matrices)
        radius_time, modulus = timed(lambda2, repeats, matrices)
        svd, _ = timed(lambda m: jnp.linalg.svd(m, compute_uv=False), repeats, matrices)
        eigenvalues, _ = timed(jnp.linalg.eigvals, repeats, matrices)
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


def timed(function: Callable, repeats: int, *args: jax.Array) -> tuple[float, jax.Array]:
    compiled, spent = jax.jit(jax.vmap(function)), []
    out = jax.block_until_ready(compiled(*args))
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        spent.append(time.perf_counter() - start)
    return float(np.median(spent)), out


if __name__ == "__main__":
    tyro.cli(main)
