"""Does the projection converge where it matters, and in how many steps?

Gaussian and heavy-tailed logits down to tiny ε. The script prints a table and writes
convergence.json beside it, or where --out says. It counts steps and errors, not seconds: they are
the same on any machine.

    python experiments/benchmarks/convergence.py
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from homojax import sinkhorn
from homojax.numerics import marginal_tolerance

BATCH = 128  # matrices a row, one for each ε of a geometric grid


def main(
    out: Path = Path("runs/convergence.json"), least_epsilon: tuple[float, ...] = (0.005, 0.0005)
) -> None:
    """Count, print the table, and write the JSON.

    Args:
        out: the JSON to write.
        least_epsilon: lower ends of the grids of ε, whose upper end is 5.
    """
    jax.config.update("jax_enable_x64", True)
    rows = []
    for dtype in ("float64", "float32"):
        for n in (4, 16, 64):
            for family, draw in (
                ("gaussian", jax.random.normal),
                ("student-t(3)", lambda key, shape: jax.random.t(key, 3, shape)),
            ):
                logits = draw(jax.random.key(n), (BATCH, n, n)).astype(dtype)
                for least in least_epsilon:
                    rows.append(
                        {
                            "dtype": dtype,
                            "n": n,
                            "logits": family,
                            "least_epsilon": least,
                            **measure(logits, least),
                        }
                    )
    table = Table(
        title=f"{BATCH} matrices a row, ε geometric up to 5, default tolerance",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    for column in (
        "dtype",
        "n",
        "logits",
        "ε from",
        "tol",
        "not\nconv.",
        "worst\nerror",
        "most\nsteps",
        "mean\nsteps",
        "not conv.,\nplain",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            *(f"{value:.2g}" if isinstance(value, float) else str(value) for value in row.values())
        )
    Console().print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps(
            {"jax": jax.__version__, "device": str(jax.devices()[0]), "rows": rows}, indent=1
        )
        + "\n"
    )


def measure(logits: jax.Array, least: float) -> dict[str, float | int]:
    """Return, over a grid of ε, unconverged matrices, worst error and steps.

    Beside them stands how many 1000 plain alternations leave unconverged.
    """
    epsilon = jnp.geomspace(least, 5, len(logits), dtype=logits.dtype)
    result = jax.jit(jax.vmap(sinkhorn))(logits, epsilon)
    plain = jax.jit(jax.vmap(lambda s, e: sinkhorn(s, e, method="alternating")))(logits, epsilon)
    return {
        "tol": marginal_tolerance(logits.shape[-1], logits.dtype),
        "unconverged": int((~result.converged).sum()),
        "worst_error": float(jnp.maximum(result.row_error, result.col_error).max()),
        "most_steps": int(result.num_steps.max()),
        "mean_steps": float(result.num_steps.mean()),
        "unconverged_plain": int((~plain.converged).sum()),
    }


if __name__ == "__main__":
    tyro.cli(main)
