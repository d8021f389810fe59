"""How near to the machine's roofs does homojax run on one accelerator, and is it right there?

It runs the tests that are marked ``accelerator``, and tables of projections, derivatives, spectra,
projections without a matrix, and sweeps, in float32. The roofs are measured on the spot: the
bandwidth by a copy, the arithmetic by a product of matrices in full float32. Beside every time
stands the share of the binding roof, and the count behind it (``counting.py``): flops, bytes and
turns of loops, counted on a CPU for some of the batch. They are what each matrix needs alone. What
a lane of a batch waits for others is not in it, so waiting lowers the share. A share above 1 says
that the data stayed in a cache.

Every table has a process of its own, which is ended when its time is over. The script says what it
did not measure. It has been run on CPUs only.

    python experiments/benchmarks/accelerator.py [--sizes small] [--budget 450]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from counting import Count, counted
from problems import CLOUDS, GRIDS, SLOPES, largest_errors, timed
from rich.console import Console
from roofs import Row, describe, judge, measured_roofs, report

from homojax import lambda2, point_cloud_logits, sigma2, sinkhorn
from homojax.birkhoff import detail

ROOT = Path(__file__).resolve().parents[2]
TOL = 1e-5
SAMPLE = 32  # lanes of a batch that are counted, and whose spectra NumPy finds, too


class Sizes(NamedTuple):
    """How large the problems are."""

    copied: int  # numbers
    product: int  # n of the matrices that are multiplied
    entries: int  # of all matrices of a batch
    squares: tuple[int, ...]  # n of projections
    slopes: tuple[int, ...]  # n of derivatives
    spectra: tuple[int, ...]  # n
    points: tuple[int, ...]  # n without a matrix
    stacks: tuple[tuple[int, int], ...]  # n and layers of sweeps
    seeds: int  # of a sweep
    repeats: int = 5


SIZES = {
    "full": Sizes(
        copied=2**28,
        product=8192,
        entries=2**26,
        squares=(4, 16, 64, 256),
        slopes=(16, 64),
        spectra=(16, 64),
        points=(4096, 16384, 131072),
        stacks=((4, 32), (16, 64)),
        seeds=64,
    ),
    "small": Sizes(
        copied=2**20,
        product=256,
        entries=2**10,
        squares=(4,),
        slopes=(16,),
        spectra=(4,),
        points=(256,),
        stacks=((4, 2),),
        seeds=2,
        repeats=1,
    ),
}


def main(
    out: Path = Path("runs/accelerator.json"),
    sizes: Literal["full", "small"] = "full",
    budget: float = 450,
    parts: tuple[str, ...] = ("tests", "projection", "derivative", "spectrum", "points", "sweep"),
) -> None:
    """Measure, print the tables, and write the JSON.

    Args:
        out: the JSON to write.
        sizes: small is for a try on a CPU.
        budget: seconds, after which the script ends.
        parts: these alone.
    """
    start, console = time.monotonic(), Console(width=110)
    todo = ["roofs", *parts]
    found: dict[str, Any] = {"sizes": sizes, "roofs": {}, "tests": None, "tables": {}}
    missing = []
    for k, part in enumerate(todo):
        # What one part leaves is for the later ones, and the last may take all.
        left = budget - (time.monotonic() - start)
        until = time.monotonic() + left * 2 / (len(todo) - k + 1)
        if part == "tests":
            found["tests"] = tested(until)
            console.print(f"tests: {found['tests']}")
            continue
        rows = rows_of(part, sizes, until)
        if part == "roofs":
            found["roofs"] = rows.get("roofs", {})
            console.print(describe(found["roofs"]))
        else:
            found["tables"][part] = judged = [judge(row, found["roofs"]) for row in rows.values()]
            report(console, part, judged)
        missing += [name for name in NAMES[part](SIZES[sizes]) if "flops" not in rows.get(name, {})]
    found |= {"not_measured": missing, "seconds": time.monotonic() - start}
    if missing:
        console.print(f"Not measured, or not to the end: {'; '.join(missing)}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")


def tested(until: float) -> str:
    """Run the tests that are marked ``accelerator``, and return how they ended."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "accelerator", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, "tests/test_accelerator.py"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=max(0, until - time.monotonic()),
        )
    except subprocess.TimeoutExpired:
        return "not finished in time"
    return (done.stdout + done.stderr).strip().splitlines()[-1].strip("= ")


# ---------------------------------------------------------------- one process a table


def rows_of(part: str, sizes: str, until: float) -> dict[str, Row]:
    """Return what a process of its own measures, by name, until its time is over."""
    rows: dict[str, Row] = {}
    here, there = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(target=_measure, args=(part, sizes, there))
    process.start()
    there.close()
    try:
        while here.poll(max(0, until - time.monotonic())):
            row = here.recv()
            rows[row["name"]] = rows.get(row["name"], {}) | row
    except EOFError:  # it has ended
        pass
    finally:
        process.kill()
        process.join()
    return rows


def _measure(part: str, sizes: str, to: Connection) -> None:
    try:
        for row in TABLES[part](SIZES[sizes]):
            to.send(row)
    except Exception as error:  # the other tables are still worth their time
        print(f"{part}: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)


def roofs(size: Sizes) -> Iterator[Row]:
    yield {"name": "roofs", **measured_roofs(size.copied, size.product, 3 * size.repeats)}


def projection(size: Sizes) -> Iterator[Row]:
    for n in size.squares:
        args = GRIDS[f"hard-{n}"].draw(size.entries // n**2)
        found = batch(f"projection, n = {n}", _project, size, *args)
        row, result = next(found)
        yield row | {"worst_error": float(largest_errors(result).max())}
        yield from found


def derivative(size: Sizes) -> Iterator[Row]:
    slope = jax.grad(lambda logits, epsilon: (_project(logits, epsilon) ** 2).sum())
    for n in size.slopes:
        found = batch(f"gradient, n = {n}", slope, size, *SLOPES[n].draw(size.entries // n**2))
        yield next(found)[0]
        yield from found


def spectrum(size: Sizes) -> Iterator[Row]:
    for n in size.spectra:
        draws = GRIDS[f"hard-{n}"].draw(size.entries // n**2)
        matrices = jax.jit(jax.vmap(_project))(*draws)
        some = _some(matrices)
        exact = np.asarray(jax.vmap(detail)(matrices[some]), float)
        truths = np.linalg.norm(exact, 2, (1, 2)), abs(np.linalg.eigvals(exact)).max(1)
        for name, function, truth in zip(("σ₂", "λ₂"), (sigma2, lambda2), truths, strict=True):
            found = batch(f"{name}, n = {n}", function, size, matrices)
            row, result = next(found)
            yield row | {"worst_error": float(abs(np.asarray(result[some]) - truth).max())}
            yield from found


def points(size: Sizes) -> Iterator[Row]:
    """Projections of two clouds. Flops and bytes are those a pass has at n = 256, times passes."""

    def solve(x, y):
        logits = point_cloud_logits(x, y)
        return sinkhorn(logits, 8.0, tol=CLOUDS.tol, max_steps=CLOUDS.max_steps)

    few = CLOUDS.draw(256)
    passes = int(jax.jit(solve)(*few).num_steps) + 1  # one more to measure the errors
    count = _on_cpu(counted(lambda x, y: solve(x, y).col_potential), *few)
    for n in size.points:
        done = timed(jax.jit(solve), min(2, size.repeats), *map(jnp.asarray, CLOUDS.draw(n)))
        times = (int(done.result.num_steps) + 1) / passes * (n / 256) ** 2
        yield {
            "name": f"points, n = {n}",
            "batch": 1,
            "seconds": done.seconds,
            "compile_seconds": done.compile_seconds,
            "flops": float(count.flops) * times,
            "bytes": float(count.bytes) * times,
            "turns": int(done.result.num_steps),
            "worst_error": float(max(done.result.row_error, done.result.col_error)),
        }


def sweep(size: Sizes) -> Iterator[Row]:
    import sweep as cells  # turns the compilation cache off

    for n, layers in size.stacks:
        name, case = f"sweep, n = {n}, {layers} layers", cells.Case(n, layers, "float32")
        # an accelerator knows no effort
        row = cells.measure(case, 3, size.seeds, 0, clock=time.perf_counter, few=False)
        yield {
            "name": name,
            "batch": row["cells"],
            "seconds": row["cell"] * row["cells"],
            "compile_seconds": row["first"] - row["cell"] * row["cells"],
            "cells_per_second": 1 / row["cell"],
        }
        count = cells.count(case)
        yield {"name": name} | {k: v * row["cells"] for k, v in count._asdict().items()}


# ---------------------------------------------------------------- batches


def _project(logits: jax.Array, epsilon: jax.Array) -> Any:
    return sinkhorn(logits, epsilon, tol=TOL).matrix


def batch(name: str, function: Callable, size: Sizes, *args: jax.Array) -> Iterator[Any]:
    """Yield the row of a batch and its result, and then the row of its count."""
    seconds, compile_seconds, result = timed(jax.jit(jax.vmap(function)), size.repeats, *args)
    row = {"name": name, "batch": len(args[0]), "seconds": seconds}
    yield row | {"compile_seconds": compile_seconds}, result
    few = [np.asarray(a[_some(a)]) for a in args]
    lanes = _on_cpu(jax.vmap(counted(function)), *few)
    flops, traffic, turns = (float(np.mean(np.asarray(x, float))) for x in lanes)
    total = len(args[0])
    yield {"name": name, "flops": flops * total, "bytes": traffic * total, "turns": turns}


def _some(batched: jax.Array) -> np.ndarray:
    """Return the places of some lanes, evenly over all."""
    return np.linspace(0, len(batched) - 1, min(len(batched), SAMPLE)).astype(int)


def _on_cpu(count: Callable[..., Count], *args: np.ndarray) -> Count:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return jax.jit(count)(*args)


TABLES = {
    "roofs": roofs,
    "projection": projection,
    "derivative": derivative,
    "spectrum": spectrum,
    "points": points,
    "sweep": sweep,
}
NAMES = {
    "roofs": lambda size: ["roofs"],
    "projection": lambda size: [f"projection, n = {n}" for n in size.squares],
    "derivative": lambda size: [f"gradient, n = {n}" for n in size.slopes],
    "spectrum": lambda size: [f"{s}, n = {n}" for n in size.spectra for s in ("σ₂", "λ₂")],
    "points": lambda size: [f"points, n = {n}" for n in size.points],
    "sweep": lambda size: [f"sweep, n = {n}, {layers} layers" for n, layers in size.stacks],
}


if __name__ == "__main__":
    tyro.cli(main)
