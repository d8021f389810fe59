"""The figures of the probes: 1.4 refuted from 20 seeds, calibration, bounds brought to equality, and the frontier of 2.3.

python experiments/probes.py [--quick]: tables in the terminal; runs/probes.json; with matrices found worth keeping.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from homojax.lab.probe.run import Search
from rich.console import Console

from homojax import calibrate_epsilon, frontier, refute, sensitivity, sigma2, sinkhorn, tighten
from homojax.lab.probe.frontier import FrontierSearch
from homojax.lab.sweep.report import print_table

TIGHTENED = [
    *(("hilbert", n) for n in (2, 3, 4, 8)),
    *(
        (name, n)
        for name in ("dobrushin", "doeblin", "frobenius_lower", "frobenius_upper")
        for n in (4, 8)
    ),
    ("turn", 3),
]


def slopes(seeds: int) -> tuple[list[float], list[float]]:
    """dσ₂/dε at ε = 1 of the best violation of 1.4 at n = 4, |S| ≤ 6, and the seconds each search took, by seed."""
    found, seconds = [], []
    for seed in range(seeds):
        start = time.perf_counter()
        finding = refute("sigma2_slope", Search(n=4, epsilon=1.0, bound=6.0, seed=seed))
        seconds.append(time.perf_counter() - start)
        found.append(
            float(sensitivity(finding.case.arrays["logits"], 1.0).epsilon_slope)
            if finding.refuted
            else float("nan")
        )
    return found, seconds


TARGETS = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1 - 1e-6)


def calibrations(n: int, lanes: int, max_projections: int) -> list[str]:
    """Normal logits calibrated to ``TARGETS`` in one vmapped call: found, worst |σ₂ − target|, certified at each target."""
    logits, targets = np.random.default_rng(n).normal(size=(lanes, n, n)), np.resize(TARGETS, lanes)
    found = jax.jit(jax.vmap(partial(calibrate_epsilon, max_projections=max_projections)))(
        logits, targets
    )
    kept = jax.jit(jax.vmap(lambda s, e: sigma2(sinkhorn(s, e).matrix)))(logits, found.epsilon)
    worst, sure = abs(np.asarray(kept) - targets).max(), np.asarray(found.certified)
    shares = (f"{sure[targets == target].mean():.0%}" for target in TARGETS)
    return [
        str(n),
        str(lanes),
        f"{(np.asarray(found.status) == 0).mean():.0%}",
        f"{worst:.1e}",
        *shares,
    ]


def main() -> None:
    """Runs all three and writes runs/probes.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 seeds, n up to 4")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    console = Console()

    found, seconds = slopes(3 if quick else 20)
    success = sum(slope >= 0.07 for slope in found)
    console.print(
        f"1.4 at n = 4, ε = 1, |S| ≤ 6: dσ₂/dε ≥ 0.07 from {success} of {len(found)} seeds; {min(found):.4f} to {max(found):.4f}"
    )
    console.print(
        f"the first search took {seconds[0]:.0f} s with compiling, the others {np.median(seconds[1:]):.1f} s"
    )

    sizes = ((4, 40, 256),) if quick else ((4, 1000, 256), (16, 1000, 256), (64, 1000, 32))
    header = [
        "n",
        "lanes",
        "found",
        "worst |σ₂ − target|",
        *(f"certified at {target:g}" for target in TARGETS),
    ]
    print_table(
        header,
        [calibrations(*size) for size in sizes],
        [],
        "256 projections allowed, at n = 64 only 32",
        console,
    )

    rows, kept = [], {}
    for name, n in TIGHTENED:
        if quick and n > 4:
            continue
        best = tighten(name, Search(n=n, bound=20.0 if name != "hilbert" else 6.0, layers=1))
        rows.append(
            [
                name,
                str(n),
                f"{best.score:.7f}",
                f"{best.lesser:.6f}",
                f"{best.greater:.6f}",
                f"{best.share:.0%}",
            ]
        )
        kept[f"{name}, n = {n}"] = {
            "score": best.score,
            "cell": {k: np.asarray(v).tolist() for k, v in best.case.arrays.items()},
        }
    header = ["claim", "n", "lesser/greater", "lesser", "greater", "starts within 1e-3"]
    print_table(header, rows, [], "ε = 1, |S| ≤ 20 (hilbert: 6)", console)

    out = Path("runs/probes.json")
    out.parent.mkdir(exist_ok=True)
    rows, frontiers = [], []
    searches = [FrontierSearch(n=(3, 4) if quick else (3, 4, 8, 16), starts=16)]
    if not quick:
        searches.append(FrontierSearch(n=(32,), deficits=10, starts=6, steps=200))
    for search in searches:
        ds = frontier(search)
        ds.to_zarr(
            out.with_name(f"frontier-{max(search.n)}.zarr"),
            mode="w",
            zarr_format=3,
            consolidated=False,
        )
        frontiers.append(
            {
                name: ds[name].values.tolist()
                for name in ("n", "entropy_deficit", "excess", "excess_error", "share")
            }
        )
        for n in ds.n.values:
            cells = ds.sel(n=n)
            values = (cells.excess.max(), cells.excess.min(), cells.excess_error.max())
            rows.append(
                [
                    str(n),
                    str(search.deficits),
                    *(f"{float(x):+.1e}" for x in values),
                    f"{float(cells.share.min()):.0%}",
                ]
            )
    header = ["n", "deficits", "largest excess", "least", "its error", "fewest starts there"]
    print_table(header, rows, [], "largest σ₂ found − the isolated unit's", console)
    out.write_text(
        json.dumps({"slopes": found, "seconds": seconds, "tightened": kept, "frontier": frontiers})
    )
    console.print(f"written to {out}")


if __name__ == "__main__":
    main()
