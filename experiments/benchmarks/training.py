"""Many trainings as one program against loops over them: same runs, same steps, losses compared.

The script prints a table and writes runs/training.json. It gives the time of 24 runs (8 seeds of
each of 3 ε) one after the other, over that of the program that trains all of them. The runs go one
after the other by a program that is compiled once for one run, or by a jitted step that Python
calls. From the first and the times to compile follows, for 1,000 steps, a program compiled anew for
each run. Times are medians of repeats.

    python experiments/benchmarks/training.py [--quick]
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

from homojax.lab.page import Table, print_table
from homojax.lab.train.config import Train
from homojax.lab.train.run import trainer_of
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training

RUNS = [(epsilon, seed) for epsilon in (0.1, 1.0, 5.0) for seed in range(8)]
CASES = {  # task, architecture, batch
    "copying, tokens, 4 layers, batch 8": ("copying", Architecture(depth=4), 8),
    "copying, tokens, 4 layers, batch 32": ("copying", Architecture(depth=4), 32),
    "copying, tokens, 32 layers, batch 32": ("copying", Architecture(depth=32), 32),
    "recall, attention, 4 layers, batch 32": (
        "recall",
        Architecture(depth=4, over="attention", hidden=64),
        32,
    ),
    "recall, streams, 4 layers, batch 32": (
        "recall",
        Architecture(depth=4, over="streams", hidden=64),
        32,
    ),
}
TRAINING = 1000  # steps of a training, for what compiling weighs in it


def measure(
    task: str, architecture: Architecture, batch: int, steps: int, repeats: int
) -> dict[str, float]:
    """Return seconds of a step in each way, seconds to compile, and how losses differ."""
    training = Training(steps=steps, batch=batch, warmup=0)
    of = trainer_of(
        Train(task=task, architecture=architecture, training=training), architecture.depth
    )
    keys = jnp.stack([jax.random.key(seed) for _, seed in RUNS])
    epsilon = jnp.asarray([epsilon for epsilon, _ in RUNS], jnp.float32)
    together = jax.jit(jax.vmap(of.begin))(keys, epsilon)
    apart = [jax.tree.map(lambda x, i=i: x[i], together) for i in range(len(RUNS))]
    began = time.perf_counter()
    one = jax.jit(lambda run: of.advance(run, steps)).lower(apart[0]).compile()
    compiled_one = time.perf_counter()
    everything = jax.jit(jax.vmap(lambda run: of.advance(run, steps))).lower(together).compile()
    compiled_all = time.perf_counter()
    step = jax.jit(lambda run: of.advance(run, 1)).lower(apart[0]).compile()

    def called(run):
        losses = []
        for _ in range(steps):
            run, loss = step(run)
            losses.append(loss)
        return run, jnp.concatenate(losses)

    ways = {
        "loop": lambda: [jax.block_until_ready(one(run)) for run in apart],
        "calls": lambda: [jax.block_until_ready(called(run)) for run in apart],
        "together": lambda: jax.block_until_ready(everything(together)),
    }
    losses = [
        np.asarray(ways["together"]()[1]),
        *(np.stack([loss for _, loss in ways[name]()]) for name in ("loop", "calls")),
    ]
    off = float(
        max(abs(losses[0] - loss)[:, :4].max() for loss in losses[1:])
    )  # rounding makes later ones part
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - start) / steps)
    seconds = {name: float(np.median(values)) for name, values in times.items()}
    return {
        **seconds,
        "compile_one": compiled_one - began,
        "compile_all": compiled_all - compiled_one,
        "off": off,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="the first case, fewer steps, one repeat"
    )
    quick = parser.parse_args().quick
    rows, found = [], {}
    for name, case in list(CASES.items())[: 1 if quick else None]:
        row = found[name] = measure(*case, steps=5 if quick else 20, repeats=1 if quick else 3)
        anew = len(RUNS) * row["compile_one"] + TRAINING * row["loop"]
        ratios = row["loop"] / row["together"], row["calls"] / row["together"]
        ratios += (anew / (row["compile_all"] + TRAINING * row["together"]),)
        rows.append([name, *(f"{ratio:.1f}" for ratio in ratios), f"{row['off']:.0e}"])
    header = ["networks", "one program", "calls", "compiled anew", "off"]
    caption = (
        f"{len(RUNS)} runs one after the other, over all together; off: largest difference of a "
        "loss in four steps"
    )
    print_table(Table(caption, header, rows), Console())
    out = Path("runs/training-quick.json" if quick else "runs/training.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(
        json.dumps(
            {"device": str(jax.devices()[0]), "jax": jax.__version__, "rows": found}, indent=1
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
