"""The figures of the probes: 1.4 refuted, calibration, bounds brought to equality, the frontier.

The script prints tables and writes runs/probes.json, with the matrices that are worth keeping.

    python experiments/probes.py [--quick]
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

TIGHTENED = [
    *(("hilbert", n) for n in (2, 3, 4, 8)),
    *(("dobrushin", n) for n in (4, 8)),
    *(("doeblin", n) for n in (4, 8)),
    *(("frobenius_lower", n) for n in (4, 8)),
    *(("frobenius_upper", n) for n in (4, 8)),
    ("turn", 3),
]
TARGETS = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1 - 1e-6)
FRONTIER = ("n", "entropy_deficit", "excess", "excess_error", "share")


def slopes(seeds: int) -> tuple[list[float], list[float]]:
    """Return dσ₂/dε of the best violation of law 1.4 from each seed, and the seconds it took.

    At n = 4, ε = 1 and |S| ≤ 6; NaN where none was found.
    """
    slopes, seconds = [], []
    for seed in range(seeds):
        start = time.perf_counter()
        finding = hj.refute("sigma2_slope", n=4, epsilon=1.0, bound=6.0, seed=seed)
        seconds.append(time.perf_counter() - start)
        slope = hj.sensitivity(finding.case.arrays["logits"], 1.0).epsilon_slope
        slopes.append(float(slope) if finding.refuted else float("nan"))
    return slopes, seconds


def calibrations(n: int, lanes: int, max_projections: int) -> list[str]:
    """Return the row of normal logits calibrated to ``TARGETS`` in one vmapped call.

    It says how many found an ε, the worst |σ₂ − target|, and the share certified at each target.
    """
    logits = np.random.default_rng(n).normal(size=(lanes, n, n))
    targets = np.resize(TARGETS, lanes)
    calibrate = partial(hj.calibrate_epsilon, max_projections=max_projections)
    calibrated = jax.jit(jax.vmap(calibrate))(logits, targets)
    keep = jax.jit(jax.vmap(lambda s, e: hj.sigma2(hj.sinkhorn(s, e).matrix)))
    worst = abs(np.asarray(keep(logits, calibrated.epsilon)) - targets).max()
    sure = np.asarray(calibrated.certified)
    shares = (f"{sure[targets == target].mean():.0%}" for target in TARGETS)
    share = (np.asarray(calibrated.status) == 0).mean()
    return [str(n), str(lanes), f"{share:.0%}", f"{worst:.1e}", *shares]


def tightened(quick: bool) -> tuple[list[list[str]], dict[str, Any]]:
    """Return a row for each bound brought to equality, and the best cells."""
    rows, cells = [], {}
    for name, n in TIGHTENED:
        if quick and n > 4:
            continue
        bound = 6.0 if name == "hilbert" else 20.0
        best = hj.tighten(name, n=n, bound=bound, layers=1)
        sides = f"{best.score:.7f}", f"{best.lesser:.6f}", f"{best.greater:.6f}"
        rows.append([name, str(n), *sides, f"{best.share:.0%}"])
        arrays = {key: np.asarray(values).tolist() for key, values in best.case.arrays.items()}
        cells[f"{name}, n = {n}"] = {"score": best.score, "cell": arrays}
    return rows, cells


def frontiers(quick: bool, out: Path) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Return a row for each n of the frontier (law 2.3), and the numbers; keep them as zarr."""
    runs = [hj.frontier(n=(3, 4) if quick else (3, 4, 8, 16), starts=16)]
    if not quick:
        runs.append(hj.frontier(n=(32,), deficits=10, starts=6, steps=200))
    rows = []
    for ds in runs:
        path = out.with_name(f"frontier-{int(ds.n.max())}.zarr")
        ds.to_zarr(path, mode="w", zarr_format=3, consolidated=False)
        rows += [_frontier_row(ds.sel(n=n)) for n in ds.n.values]
    return rows, [{name: ds[name].values.tolist() for name in FRONTIER} for ds in runs]


def _frontier_row(cells: xr.Dataset) -> list[str]:
    values = cells.excess.max(), cells.excess.min(), cells.excess_error.max()
    numbers = (f"{float(x):+.1e}" for x in values)
    share = f"{float(cells.share.min()):.0%}"
    return [str(int(cells.n)), str(cells.sizes["deficit"]), *numbers, share]


def main() -> None:
    """Measure all of it, print it, and write runs/probes.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 seeds, n up to 4")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    console, out = Console(), Path("runs/probes.json")
    out.parent.mkdir(exist_ok=True)

    found, seconds = slopes(3 if quick else 20)
    success = sum(slope >= 0.07 for slope in found)
    console.print(
        f"1.4 at n = 4, ε = 1, |S| ≤ 6: dσ₂/dε ≥ 0.07 from {success} of {len(found)} seeds; "
        f"{min(found):.4f} to {max(found):.4f}"
    )
    console.print(
        f"the first search took {seconds[0]:.0f} s with compiling, the others "
        f"{np.median(seconds[1:]):.1f} s"
    )

    sizes = ((4, 40, 256),) if quick else ((4, 1000, 256), (16, 1000, 256), (64, 1000, 32))
    header = ["n", "lanes", "found", "worst |σ₂ − target|"]
    header += [f"certified at {target:g}" for target in TARGETS]
    caption = "256 projections allowed, at n = 64 only 32"
    print_table(Table(caption, header, [calibrations(*size) for size in sizes]), console)

    rows, cells = tightened(quick)
    header = ["claim", "n", "lesser/greater", "lesser", "greater", "starts within 1e-3"]
    print_table(Table("ε = 1, |S| ≤ 20 (hilbert: 6)", header, rows), console)

    rows, numbers = frontiers(quick, out)
    header = ["n", "deficits", "largest excess", "least", "its error", "fewest starts there"]
    print_table(Table("largest σ₂ found − the isolated unit's", header, rows), console)

    kept = {"slopes": found, "seconds": seconds, "tightened": cells, "frontier": numbers}
    out.write_text(json.dumps(kept))
    console.print(f"written to {out}")


if __name__ == "__main__":
    main()
