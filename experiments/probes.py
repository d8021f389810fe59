"""The figures of docs/probe.md: searches, calibrations, bounds brought to equality, the frontier.

python experiments/probes.py [--quick] prints tables and writes runs/probes.json, with the matrices
that were found.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from rich.console import Console

import homojax as hj
from homojax.lab.page import Table, print_table
from homojax.lab.probe.config import FrontierSearch

OUT = Path("runs/probes.json")
TARGETS = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1 - 1e-6)  # σ₂ to calibrate to
SLOPE = 0.07  # of σ₂ in ε, that a search is to reach
TIGHTENED = [  # claims and n; at n = 2 most bounds are attained by every matrix
    *(("hilbert", n) for n in (2, 3, 4, 8)),
    *(
        (name, n)
        for name in ("dobrushin", "doeblin", "frobenius_lower", "frobenius_upper")
        for n in (4, 8)
    ),
    ("turn", 3),
]


def refute_from_seeds(seeds: int, console: Console) -> dict[str, list[float]]:
    """Search law 1.4 (sigma2_slope) at n = 4 from several seeds; returns slopes and seconds."""
    slopes, seconds = [], []
    for seed in range(seeds):
        start = time.perf_counter()
        found = hj.refute("sigma2_slope", n=4, epsilon=1.0, bound=6.0, seed=seed)
        seconds.append(time.perf_counter() - start)
        slope = hj.sensitivity(found.case.arrays["logits"], 1.0).epsilon_slope
        slopes.append(float(slope) if found.refuted else float("nan"))
    reached = sum(slope >= SLOPE for slope in slopes)
    console.print(
        f"Law 1.4 at n = 4, ε = 1, |S| ≤ 6: dσ₂/dε ≥ {SLOPE} from {reached} of {seeds} seeds; "
        f"{min(slopes):.4f} to {max(slopes):.4f}."
    )
    console.print(
        f"The first search took {seconds[0]:.0f} s with compiling, the others "
        f"{np.median(seconds[1:]):.1f} s."
    )
    return {"slopes": slopes, "seconds": seconds}


def calibrate_all(sizes: tuple[tuple[int, int, int], ...]) -> Table:
    """Calibrate normal logits to ``TARGETS``, for each (n, lanes, most projections)."""
    header = ["n", "lanes", "found", "worst |σ₂ − target|"]
    header += [f"certified at {target:g}" for target in TARGETS]
    caption = "256 projections allowed, at n = 64 only 32"
    return Table(caption, header, [_calibrate_lanes(*size) for size in sizes])


def _calibrate_lanes(n: int, lanes: int, max_projections: int) -> list[str]:
    logits = np.random.default_rng(n).normal(size=(lanes, n, n))
    targets = np.resize(TARGETS, lanes)
    calibrate = partial(hj.calibrate_epsilon, max_projections=max_projections)
    found = jax.jit(jax.vmap(calibrate))(logits, targets)
    keep = jax.jit(jax.vmap(lambda s, epsilon: hj.sigma2(hj.sinkhorn(s, epsilon).matrix)))
    worst = abs(np.asarray(keep(logits, found.epsilon)) - targets).max()
    certified = np.asarray(found.certified)
    answered = (np.asarray(found.status) == 0).mean()
    shares = (f"{certified[targets == target].mean():.0%}" for target in TARGETS)
    return [str(n), str(lanes), f"{answered:.0%}", f"{worst:.1e}", *shares]


def tighten_all(largest: int) -> tuple[Table, dict[str, Any]]:
    """Tighten ``TIGHTENED`` up to this n; returns the table, and the matrices by claim and n."""
    rows, kept = [], {}
    for name, n in TIGHTENED:
        if n > largest:
            continue
        found = hj.tighten(name, n=n, bound=6.0 if name == "hilbert" else 20.0, layers=1)
        sides = [f"{found.lesser:.6f}", f"{found.greater:.6f}"]
        rows.append([name, str(n), f"{found.score:.7f}", *sides, f"{found.share:.0%}"])
        cell = {key: np.asarray(x).tolist() for key, x in found.case.arrays.items()}
        kept[f"{name}, n = {n}"] = {"score": found.score, "cell": cell}
    header = ["claim", "n", "lesser/greater", "lesser", "greater", "starts within 1e-3"]
    return Table("ε = 1, |S| ≤ 20 (hilbert: 6)", header, rows), kept


def search_frontiers(searches: list[FrontierSearch]) -> tuple[Table, list[dict[str, Any]]]:
    """Search the frontier (law 2.3); returns the table, and the excesses by search."""
    rows, kept = [], []
    names = ("n", "entropy_deficit", "excess", "excess_error", "share")
    for search in searches:
        ds = hj.frontier(search)
        store = OUT.with_name(f"frontier-{max(search.n)}.zarr")
        ds.to_zarr(store, mode="w", zarr_format=3, consolidated=False)
        kept.append({name: ds[name].values.tolist() for name in names})
        rows += [_frontier_row(ds.sel(n=n)) for n in ds.n.values]
    header = ["n", "deficits", "largest excess", "least", "its error", "fewest starts there"]
    return Table("largest σ₂ found − the isolated unit's", header, rows), kept


def _frontier_row(cells: xr.Dataset) -> list[str]:
    values = (cells.excess.max(), cells.excess.min(), cells.excess_error.max())
    excesses = (f"{float(x):+.1e}" for x in values)
    share = f"{float(cells.share.min()):.0%}"
    return [str(int(cells.n)), str(cells.sizes["deficit"]), *excesses, share]


def main() -> None:
    """Run all of it, and write runs/probes.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 seeds, n up to 4")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    console = Console()
    OUT.parent.mkdir(exist_ok=True)

    found = refute_from_seeds(3 if quick else 20, console)
    sizes = ((4, 40, 256),) if quick else ((4, 1000, 256), (16, 1000, 256), (64, 1000, 32))
    print_table(calibrate_all(sizes), console)
    table, tightened = tighten_all(4 if quick else 8)
    print_table(table, console)
    searches = [FrontierSearch(n=(3, 4) if quick else (3, 4, 8, 16), starts=16)]
    if not quick:
        searches.append(FrontierSearch(n=(32,), deficits=10, starts=6, steps=200))
    table, frontiers = search_frontiers(searches)
    print_table(table, console)
    OUT.write_text(json.dumps({**found, "tightened": tightened, "frontier": frontiers}))
    console.print(f"written to {OUT}")


if __name__ == "__main__":
    main()
