"""What does the first call cost, compiling included? CPU seconds in a fresh process, and HLO lines.

One table and one JSON a run. Each measurement has a process of its own, without a compilation
cache, and with importing left out; CPU seconds are user and system time together, as cores may be
shared. OTT-JAX's projection, to the same tolerance, runs in turn. With ``--rival`` so does another
checkout of homojax, such as the parent commit's, and the last column is the ratio to it.

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
OF_OTT = ("sinkhorn", "gradient")
SIZES = (4, 16)

# Run by a process whose PYTHONPATH is the checkout: argv is the function and n.
PROGRAM = """
import json, resource, sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_enable_compilation_cache", False)
import homojax as hj
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn

n = int(sys.argv[2])
tol = hj.numerics.marginal_tolerance(n, jax.numpy.float64)

@jax.jit
def by_ott(logits):
    costs = geometry.Geometry(cost_matrix=-logits, epsilon=0.1)
    solver = ott_sinkhorn.Sinkhorn(threshold=tol / 4, max_iterations=20_000)
    return n * solver(linear_problem.LinearProblem(costs)).matrix

def squares(logits):
    return (hj.sinkhorn(logits, 0.1).matrix ** 2).sum()

function = {
    "sinkhorn": lambda s: hj.sinkhorn(s, 0.1),
    "gradient": lambda s: jax.grad(squares)(s),
    "calibrate_epsilon": lambda s: hj.calibrate_epsilon(s, 0.5),
    "ott sinkhorn": by_ott,
    "ott gradient": lambda s: jax.grad(lambda x: (by_ott(x) ** 2).sum())(s),
}[sys.argv[1]]
hj.sinkhorn, hj.calibrate_epsilon  # imported before the clock starts
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
    asked = {"": (name, HERE)}
    if name in OF_OTT:
        asked["ott_"] = (f"ott {name}", HERE)
    if rival is not None:
        asked["rival_"] = (name, rival.resolve())
    runs = {prefix: [] for prefix in asked}
    for _ in range(repeats):
        for prefix, (function, checkout) in asked.items():
            runs[prefix].append(measure(function, n, checkout))
    row = {
        prefix + key: float(np.median([run[key] for run in each]))
        for prefix, each in runs.items()
        for key in ("cpu_seconds", "hlo_lines")
    }
    if name in OF_OTT:
        row["ott_ratio"] = row["cpu_seconds"] / row["ott_cpu_seconds"]
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
    columns = ["function", "n", "CPU s", "HLO lines", "OTT-JAX's\nCPU s", "ratio"]
    for column in columns + (["rival's\nCPU s", "rival's\nHLO lines", "ratio"] if rivalled else []):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [row["function"], str(row["n"])]
        for prefix in ("", "rival_") if rivalled else ("",):
            cells += [f"{row[f'{prefix}cpu_seconds']:.2f}", f"{row[f'{prefix}hlo_lines']:.0f}"]
            if not prefix:
                has = row["function"] in OF_OTT
                cells += [
                    f"{row[key]:.2f}" if has else "" for key in ("ott_cpu_seconds", "ott_ratio")
                ]
        table.add_row(*cells, *([f"{row['ratio']:.2f}"] if rivalled else []))
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
