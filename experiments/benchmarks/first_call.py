"""What does the first call cost, compiling included? CPU seconds in a fresh process, and HLO lines.

One table and one JSON a run. Each measurement has a process of its own, without a compilation
cache, and with importing left out; CPU seconds are user and system time together, as cores may be
shared. With ``--rival`` the same is run in turn on another checkout of homojax, such as the parent
commit's, and the last column is the ratio to it.

    python experiments/benchmarks/first_call.py [--rival ../other-checkout]
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
FUNCTIONS = ("sinkhorn", "gradient", "calibrate_epsilon")
SIZES = (4, 16)

# Run by a process whose PYTHONPATH is the checkout: argv is the function and n.
PROGRAM = """
import json, resource, sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_enable_compilation_cache", False)
import homojax as hj

def squares(logits):
    return (hj.sinkhorn(logits, 0.1).matrix ** 2).sum()

function = {
    "sinkhorn": lambda s: hj.sinkhorn(s, 0.1),
    "gradient": lambda s: jax.grad(squares)(s),
    "calibrate_epsilon": lambda s: hj.calibrate_epsilon(s, 0.5),
}[sys.argv[1]]
hj.sinkhorn, hj.calibrate_epsilon  # imported before the clock starts
n = int(sys.argv[2])
logits = np.random.default_rng(n).normal(size=(n, n))
jax.block_until_ready(jnp.zeros(3) + 1)  # and so is the backend

def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

start = spent()
jax.block_until_ready(function(logits))
cpu = spent() - start
lines = len(jax.jit(function).lower(logits).as_text().splitlines())
print(json.dumps({"cpu_seconds": cpu, "hlo_lines": lines}))
"""


def main(
    out: Path = Path("runs/first_call.json"),
    repeats: int = 5,
    rival: Path | None = None,
    functions: tuple[str, ...] = FUNCTIONS,
    sizes: tuple[int, ...] = SIZES,
) -> None:
    """Args: out: the JSON; repeats: of each; rival: a checkout; functions, sizes: these alone."""
    rows = []
    for name in functions:
        for n in sizes:
            row = {"function": name, "n": n, **compare(name, n, repeats, rival)}
            rows.append(row)
            print(row, flush=True)
    report(rows, rival is not None)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"repeats": repeats, "rows": rows}, indent=1) + "\n")


def compare(name: str, n: int, repeats: int, rival: Path | None) -> dict[str, float]:
    """Medians over processes; those of the rival run between ours, so that load falls on both."""
    checkouts = {"": HERE} if rival is None else {"": HERE, "rival_": rival.resolve()}
    runs = {prefix: [] for prefix in checkouts}
    for _ in range(repeats):
        for prefix, checkout in checkouts.items():
            runs[prefix].append(measure(name, n, checkout))
    row = {
        prefix + key: float(np.median([run[key] for run in each]))
        for prefix, each in runs.items()
        for key in ("cpu_seconds", "hlo_lines")
    }
    if rival is not None:
        row["ratio"] = row["cpu_seconds"] / row["rival_cpu_seconds"]
    return row


def measure(name: str, n: int, checkout: Path) -> dict[str, float]:
    """CPU seconds and lines of StableHLO of one first call."""
    cache = {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"}
    environment = {key: value for key, value in os.environ.items() if key not in cache}
    environment |= {"PYTHONPATH": str(checkout), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, name, str(n)]
    done = subprocess.run(
        command, cwd=checkout, env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def report(rows: list[dict], rivalled: bool) -> None:
    title = "first call in a fresh process, float64, no cache: medians"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    columns = ["function", "n", "CPU s", "HLO lines"]
    for column in columns + (["rival's\nCPU s", "rival's\nHLO lines", "ratio"] if rivalled else []):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [row["function"], str(row["n"])]
        for prefix in ("", "rival_") if rivalled else ("",):
            cells += [f"{row[f'{prefix}cpu_seconds']:.2f}", f"{row[f'{prefix}hlo_lines']:.0f}"]
        table.add_row(*cells, *([f"{row['ratio']:.2f}"] if rivalled else []))
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
