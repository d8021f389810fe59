"""Many trainings as one program against a loop over them: the same runs, the same steps, and the same losses checked.

    python experiments/benchmarks/training.py [--quick]

A table in the terminal and runs/training.json: seconds of 24 runs (8 seeds of each of 3 ε) one after the other, by a program
compiled for one run, over those of the program for all; medians of repeats, compile time apart.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from homojax import Architecture, Train, Training
from homojax.lab.report import print_table
from homojax.lab.train import trainer_of

RUNS = [(epsilon, seed) for epsilon in (0.1, 1.0, 5.0) for seed in range(8)]
CASES = {  # architecture, task
    "copying, tokens, 4 layers": (Architecture(depth=4), "copying"),
    "copying, tokens, 32 layers": (Architecture(depth=32), "copying"),
    "recall, attention, 4 layers": (Architecture(depth=4, over="attention", hidden=64), "recall"),
    "recall, streams, 4 layers": (Architecture(depth=4, over="streams", hidden=64), "recall"),
}


def measure(architecture: Architecture, task: str, batch: int, steps: int, repeats: int) -> dict[str, float]:
    """Seconds of all runs in a loop, and together; seconds to compile each; the largest difference of a loss."""
    of = trainer_of(Train(task=task, architecture=architecture, training=Training(steps=steps, batch=batch)), architecture.depth)
    keys = jnp.stack([jax.random.key(seed) for _, seed in RUNS])
    epsilon = jnp.asarray([epsilon for epsilon, _ in RUNS], jnp.float32)
    together = jax.jit(jax.vmap(of.begin))(keys, epsilon)
    apart = [jax.tree.map(lambda x, i=i: x[i], together) for i in range(len(RUNS))]
    began = time.perf_counter()
    one = jax.jit(lambda run: of.advance(run, steps)[1]).lower(apart[0]).compile()
    compiled_one = time.perf_counter()
    everything = jax.jit(jax.vmap(lambda run: of.advance(run, steps)[1])).lower(together).compile()
    compiled_all = time.perf_counter()

    def looped():
        return [jax.block_until_ready(one(run)) for run in apart]

    losses = np.stack(looped()), np.asarray(everything(together))
    off = float(abs(losses[0] - losses[1])[:, 0].max())  # of the first step: rounding makes later ones part
    seconds = {}
    for name, call in (("loop", looped), ("together", lambda: jax.block_until_ready(everything(together)))):
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        seconds[name] = float(np.median(times))
    return {**seconds, "compile_one": compiled_one - began, "compile_all": compiled_all - compiled_one, "off": off}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first case, fewer steps, one repeat")
    quick = parser.parse_args().quick
    rows, found = [], {}
    for name, (architecture, task) in list(CASES.items())[: 1 if quick else None]:
        for batch in (8, 32):
            row = measure(architecture, task, batch, steps=10 if quick else 40, repeats=1 if quick else 5)
            found[f"{name}, batch {batch}"] = row
            ratio = row["loop"] / row["together"]
            rows.append([name, str(batch), f"{ratio:.1f}", f"{row['compile_all'] / row['compile_one']:.1f}", f"{row['off']:.0e}"])
    header = ["networks", "batch", "loop / together", "compile, all / one", "off"]
    print_table(header, rows, [], f"{len(RUNS)} runs; off: largest difference of a loss of the first step", Console())
    out = Path("runs/training.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"device": str(jax.devices()[0]), "jax": jax.__version__, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
