"""What does a cell of a sweep cost, and how long is the wait for the first one?

A cell is a stack of L layers at one n, ε and seed, with all that ``homojax sweep`` measures of it.
The rival is the loop that a researcher writes in NumPy and SciPy: the same projections to the same
tolerance, the same measurements, one cell after another. It runs on a few cells, spread evenly over
ε. Grids of few cells are compiled with less effort than those of many, so both are timed. Seconds
are CPU seconds, of all threads, as cores may be shared. The script prints one table and writes one
JSON; it fails where the two disagree on σ₂ of the composite.

    python experiments/benchmarks/sweep.py [--quick]

Where JAX_COMPILATION_CACHE_DIR names a folder, programs are kept there as a command keeps them. The
second run then shows what a later command waits for.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # the first block compiles

import jax
import numpy as np
import tyro
from counting import Count, counted
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import logsumexp
from scipy.stats import nct

from homojax.lab import compile_cache
from homojax.lab.sources import Source, load_source
from homojax.lab.sweep import measure as stages
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.plan import blocks_of, chunks_of, lanes_of
from homojax.numerics import marginal_tolerance

EPSILONS = {"default": "0.05:20:12", "0.05 to 0.5": "0.05:0.5:12"}
MANY = 10**6  # cells of a large grid
RIVALS_STEPS = 20_000  # most alternations of a projection


class Case(NamedTuple):
    n: int
    layers: int
    dtype: str
    grid: str = "default"


CASES = (
    *(
        Case(n, layers, dtype)
        for n, layers in ((4, 32), (16, 64))
        for dtype in ("float32", "float64")
    ),
    Case(4, 32, "float64", "0.05 to 0.5"),
)


def main(
    out: Path = Path("runs/sweep.json"),
    blocks: int = 5,
    seeds: int = 64,
    rival_cells: int = 6,
    quick: bool = False,
) -> None:
    """Measure, print the table, and write the JSON.

    Args:
        out: the JSON to write.
        blocks: how many are timed after the first.
        seeds: stacks at each ε.
        rival_cells: cells of the rival; 0 leaves it out.
        quick: few cells, and none of the rival's at n = 16.
    """
    jax.config.update("jax_enable_x64", True)
    compile_cache.commands_own = True
    rows = []
    for case in CASES:
        slow = quick and case.n > 4
        row = measure(case, blocks, 8 if quick else seeds, 0 if slow else rival_cells)
        rows.append({**case._asdict(), **row})
        print(rows[-1], flush=True)
    report(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"device": str(jax.devices()[0]), "rows": rows}, indent=1) + "\n")


def measure(
    case: Case,
    num_blocks: int,
    seeds: int,
    rival_cells: int,
    clock: Callable[[], float] = time.process_time,
    few: bool = True,
) -> dict[str, Any]:
    """Return seconds of the first block, of a later cell, and of a cell of the rival.

    They are CPU seconds, but for another ``clock``. Of a grid of one block the first cell matters,
    and it is compiled with less effort than that of a grid of ``MANY``. ``few`` times both.
    """
    config, source = posed(case, seeds)
    lanes = lanes_of(config, source)
    every = blocks_of(config, source, chunks_of(config, source, lanes), lanes)
    row, found = {"cells": len(every[0].cells)}, {}
    grids = {"few_": len(every[0].cells)} if few else {}
    for prefix, in_all in {**grids, "": MANY}.items():
        stages.program_of.cache_clear()
        jax.clear_caches()
        blocks = [block._replace(in_all=in_all) for block in every]
        chosen = [blocks[k] for k in np.linspace(0, len(blocks) - 1, num_blocks).astype(int)]
        first, found = timed(lambda b=blocks[0]: stages.measure_block(config, source, b), clock)
        later = [
            timed(lambda b=b: stages.measure_block(config, source, b), clock)[0] / len(b.cells)
            for b in chosen
        ]
        row |= {f"{prefix}first": first, f"{prefix}cell": float(np.mean(later))}
    if not rival_cells:
        return row
    spent = []
    for e in np.linspace(0, len(config.epsilon) - 1, rival_cells).astype(int):
        logits = source.draw(case.n, 0, case.layers)
        seconds, rival = timed(
            lambda e=e, s=logits: by_hand(config, s, config.epsilon[e], e), clock
        )
        spent.append(seconds)
        if e == 0:
            ours = found["composite_sigma2"][0, 0, 0]
            np.testing.assert_allclose(ours, rival["composite_sigma2"], rtol=1e-2, atol=1e-6)
    return row | {"rival": float(np.mean(spent)), "ratio": float(np.mean(spent)) / row["cell"]}


def posed(case: Case, seeds: int) -> tuple[Sweep, Source]:
    """Return the sweep that a case is, and its logits."""
    depth = tuple(2**k for k in range(case.layers.bit_length()))
    fields: dict[str, Any] = {"epsilon": EPSILONS[case.grid], "n": case.n, "dtype": case.dtype}
    config = Sweep(depth=depth, seeds=seeds, **fields)
    return config, load_source(config)


def timed(call: Any, clock: Callable[[], float]) -> tuple[float, Any]:
    """Return the seconds and the result of a call."""
    start = clock()
    result = jax.block_until_ready(call())
    return clock() - start, result


def count(case: Case) -> Count:
    """Return what a cell asks for, by the programs of all cells of one seed, run on a CPU.

    What a cell waits for the others of its block is in it.
    """
    config, source = posed(case, 1)
    lanes = lanes_of(config, source)
    every = blocks_of(config, source, chunks_of(config, source, lanes), lanes)
    spent, counters = [], {}
    compiled = stages.program_of

    def noted(*stage: Any, **settings: Any) -> Callable:
        program: Any = compiled(*stage, **settings)
        plain = program.__wrapped__  # which can be a part of another program
        counter = counters.setdefault(program, jax.jit(counted(plain)))

        def call(*args: Any) -> Any:
            spent.append(counter(*args))
            return program(*args)

        return call

    stages.program_of = noted
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            for block in every:
                stages.measure_block(config, source, block)
    finally:
        stages.program_of = compiled
    cells = sum(len(block.cells) for block in every)
    return Count(*(float(np.sum(x)) / cells for x in zip(*spent, strict=True)))


# ---------------------------------------------------------------- the rival


def by_hand(config: Sweep, logits: np.ndarray, epsilon: float, seed: int) -> dict[str, Any]:
    """Return what a sweep measures of one cell, as NumPy and SciPy find it."""
    layers, n, _ = logits.shape
    rng, tol = np.random.default_rng(seed), marginal_tolerance(n, config.precision)
    matrices = [project(s / epsilon, tol) for s in logits]
    mean = np.full((n, n), 1 / n)
    found: dict[str, Any] = {
        "sigma2": [np.linalg.norm(m - mean, 2) for m in matrices],
        "lambda2": [np.sort(abs(np.linalg.eigvals(m)))[-2] for m in matrices],
        "entropy": [-(m * np.log(np.maximum(m, 1e-300))).sum() for m in matrices],
        "bounds": [bounds(m, s / epsilon) for m, s in zip(matrices, logits, strict=True)],
    }
    products = list(running_products(matrices))
    found["composite_sigma2"] = [np.linalg.norm(products[d - 1] - mean, 2) for d in config.depth]
    found["distance"] = [np.linalg.norm(products[d - 1] - mean) for d in config.depth]
    found["amax"] = [abs(products[d - 1]).sum(axis).max() for d in config.depth for axis in (0, 1)]
    found["exponent"] = np.log(max(np.linalg.norm(products[-1] - mean, 2), 1e-300)) / layers
    probes = rng.normal(size=(8, n))
    for alpha in config.alpha:
        residual = [(1 - alpha) * np.eye(n) + alpha * m for m in matrices]
        chain = list(running_products(residual))
        found[f"kept {alpha}"] = [np.linalg.norm(chain[d - 1] - mean, 2) for d in config.depth]
        found[f"turn {alpha}"] = [turns(chain[d - 1], probes).max() for d in config.depth]
    found["cosines"] = [cosines(matrices[0], rng, snr, config.samples) for snr in config.snr]
    return found


def project(scaled: np.ndarray, tol: float) -> np.ndarray:
    """Return the projection by alternation in the log domain."""
    g, matrix = np.zeros(len(scaled)), np.exp(scaled)
    for _ in range(RIVALS_STEPS):
        f = -logsumexp(scaled + g[None, :], axis=1)
        g = -logsumexp(scaled + f[:, None], axis=0)
        matrix = np.exp(scaled + f[:, None] + g[None, :])
        if abs(matrix.sum(1) - 1).max() <= tol:
            break
    return matrix


def running_products(matrices: list[np.ndarray]):
    product = np.eye(len(matrices[0]))
    for matrix in matrices:
        product = matrix @ product
        yield product


def bounds(matrix: np.ndarray, scaled: np.ndarray) -> tuple[Any, ...]:
    """Return the Hilbert, Dobrushin, Doeblin, Pinsker, Frobenius and Schatten bounds."""
    n = len(matrix)
    differences = scaled[:, None, :] - scaled[None, :, :]
    diameter = (differences.max(2) - differences.min(2)).max()
    rows = abs(matrix[:, None, :] - matrix[None, :, :]).sum(2).max() / 2
    columns = abs(matrix.T[:, None, :] - matrix.T[None, :, :]).sum(2).max() / 2
    deficit = n * np.log(n) + (matrix * np.log(np.maximum(matrix, 1e-300))).sum()
    detail = matrix - 1 / n
    fourth = np.linalg.norm(detail.T @ detail)
    pinsker, frobenius = np.sqrt(2 * max(deficit, 0)), np.linalg.norm(detail)
    return (
        *(np.tanh(diameter / 4), np.sqrt(rows * columns), 1 - n * matrix.min()),
        *(pinsker, frobenius, frobenius / np.sqrt(n - 1)),
        *(np.sqrt(fourth), np.sqrt(fourth) / (n - 1) ** 0.25),
    )


def turns(chain: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """Return the angles between the details of probes and of their images."""
    before = probes - probes.mean(1, keepdims=True)
    after = before @ chain.T
    cosine = (before * after).sum(1) / np.linalg.norm(before, axis=1)
    return np.arccos(np.clip(cosine / np.maximum(np.linalg.norm(after, axis=1), 1e-300), -1, 1))


def cosines(matrix: np.ndarray, rng: Any, snr: float, samples: int) -> tuple[float, ...]:
    """Return mean and error of layer norm's cosines, and their distance to the exact law."""
    n = len(matrix)
    x = rng.normal(size=n)
    x = (x - x.mean()) / np.linalg.norm(x - x.mean())
    signal = matrix @ x
    signal = signal - signal.mean()
    std = 1 / np.sqrt((n - 1) * snr)
    output = signal + std * rng.normal(size=(samples, n))
    output = output - output.mean(1, keepdims=True)
    cosine = output @ signal / np.linalg.norm(output, axis=1) / np.linalg.norm(signal)
    d, draws = n - 1, np.sort(cosine)
    ratio = np.sqrt(d - 1) * draws / np.sqrt(np.maximum(1 - draws**2, 1e-300))
    exact = nct.cdf(ratio, d - 1, np.linalg.norm(signal) / std)
    ranks = np.arange(samples)
    distance = max((exact - ranks / samples).max(), ((ranks + 1) / samples - exact).max())
    return draws.mean(), draws.std(ddof=1) / np.sqrt(samples), distance


def report(rows: list[dict]) -> None:
    table = Table(title="a sweep, all that it measures: CPU seconds", box=box.SIMPLE_HEAD)
    columns = ["n", "layers", "dtype", "ε", "cells"]
    columns += [
        "one block:\nfirst, s",
        "later\ncell, ms",
        "many: first\nblock, s",
        "later\ncell, ms",
    ]
    for column in (*columns, "NumPy's\ncell, ms", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        plain = [str(row[key]) for key in ("n", "layers", "dtype", "grid", "cells")]
        cells = plain
        for grid in ("few_", ""):
            cells += [f"{row[f'{grid}first']:.1f}", f"{1e3 * row[f'{grid}cell']:.2f}"]
        if "rival" in row:
            cells += [f"{1e3 * row['rival']:.0f}", f"{row['ratio']:.0f}"]
        table.add_row(*cells)
    Console(width=130).print(table)


if __name__ == "__main__":
    tyro.cli(main)
