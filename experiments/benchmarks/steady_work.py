"""How long does a compiled program run, beside another checkout of homojax?

Projections, their gradients, σ₂ and λ₂ of batches, in float32. Each checkout is measured in
processes of its own, in turn, so that load falls on both. One table and one JSON a run; the last
column is the ratio. Without ``--rival`` there is none.

    python experiments/benchmarks/steady_work.py [--rival ../other-checkout]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parents[2]

# Run by a process whose PYTHONPATH is the checkout. σ₂ and λ₂ had longer names before the rebuild.
PROGRAM = """
import json, time
import jax, jax.numpy as jnp, numpy as np
import homojax as hj

sigma2 = getattr(hj, "sigma2", None) or hj.subdominant_singular_value
lambda2 = getattr(hj, "lambda2", None) or hj.subdominant_eigenvalue_modulus

def project(logits, epsilon):
    return hj.sinkhorn(logits, epsilon).matrix

def squares(logits, epsilon):
    return (project(logits, epsilon) ** 2).sum()

def spent(function, *args):
    program, seconds = jax.jit(jax.vmap(function)), []
    result = jax.block_until_ready(program(*args))
    for _ in range(15):
        start = time.perf_counter()
        jax.block_until_ready(program(*args))
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))

found = {}
for n, batch in ((4, 4096), (16, 1024), (64, 256), (256, 32)):
    logits = jax.random.normal(jax.random.key(n), (batch, n, n), jnp.float32)
    epsilon = jnp.geomspace(0.05 if n == 4 else 0.1, 5, batch, dtype=jnp.float32)
    matrices, found[f"projection {n}"] = spent(project, logits, epsilon)
    gradient = jax.value_and_grad(squares)
    _, found[f"its gradient {n}"] = spent(gradient, logits, jnp.maximum(epsilon, 0.2))
    _, found[f"σ₂ {n}"] = spent(sigma2, matrices)
    if n < 256:
        _, found[f"λ₂ {n}"] = spent(lambda2, matrices)
print(json.dumps(found))
"""


def main(
    out: Path = Path("runs/steady_work.json"), repeats: int = 3, rival: Path | None = None
) -> None:
    """Args: out: the JSON; repeats: processes of each checkout; rival: another checkout."""
    checkouts = {"": HERE} if rival is None else {"": HERE, "rival": rival.resolve()}
    runs: dict[str, list[dict[str, float]]] = {who: [] for who in checkouts}
    for _ in range(repeats):
        for who, checkout in checkouts.items():
            runs[who].append(measure(checkout))
    names = list(runs[""][0])
    rows = [
        {"name": name, **{who: float(np.median([run[name] for run in runs[who]])) for who in runs}}
        for name in names
    ]
    report(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"repeats": repeats, "rows": rows}, indent=1) + "\n")


def measure(checkout: Path) -> dict[str, float]:
    """Return the median seconds of every program, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=checkout,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def report(rows: list[dict]) -> None:
    table = Table(title="compiled programs, float32: medians, ms", box=box.SIMPLE_HEAD)
    rivalled = "rival" in rows[0]
    for column in ("what, n", "ms", *(("rival's", "ratio") if rivalled else ())):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [row["name"], f"{1e3 * row['']:.1f}"]
        if rivalled:
            cells += [f"{1e3 * row['rival']:.1f}", f"{row[''] / row['rival']:.2f}"]
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
