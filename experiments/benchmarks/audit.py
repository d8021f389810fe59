"""How near do certificates come to what a token attains, and how long does an audit take?

The first table draws layers whose logits move with the token by at most ``reach``. It compares
−log of the certified gap 1 − σ₂ with that of the smallest gap that a gradient search finds. The
second line is the time of ``hj.mixing_metrics`` on 48 matrices of 4 streams, inside ``jit``. The
third is that of an audit, by the command line: of a checkpoint with the shapes of
DeepSeek-V4-Flash, in a process of its own, without a cache of compiled programs.

    python experiments/benchmarks/audit.py [--layers 100] [--no-checkpoint]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

import homojax as hj
from homojax.lab.audit.certificates import certify
from homojax.lab.audit.layers import Layer
from homojax.lab.audit.tensors import Precision
from homojax.lab.audit.worst import smallest_gaps
from homojax.presets import PRESETS

REACHES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
EXACT = Precision("float64", 0.0)
N = 4
MODELS = {"Flash": (43, 4096, 46), "Pro": (61, 7168, 64)}  # layers, features, shards


def main(layers: int = 100, checkpoint: bool = True, seed: int = 0) -> None:
    """Args: layers: drawn for each reach; checkpoint: whether to audit one; seed: of the draws."""
    jax.config.update("jax_enable_x64", True)
    rng, table = np.random.default_rng(seed), Table(title=f"{layers} layers each, n = {N}")
    for column in (
        "reach",
        "median −log gap attained",
        "median ratio",
        "within a fifth",
        "crossed",
    ):
        table.add_column(column, justify="right")
    for reach in REACHES:
        own = [draw(rng, reach) for _ in range(layers)]
        proved = np.array([-np.log(certify(layer).gap) for layer in own])
        attained = np.array([-np.log(worst.value) for worst in smallest_gaps(own)])
        ratio = proved / attained
        table.add_row(
            f"{reach:g}",
            f"{np.median(attained):.2f}",
            f"{np.median(ratio):.2f}",
            f"{(ratio <= 1.2).mean():.0%}",
            str((ratio < 1 - 1e-9).sum()),
        )
    Console().print(table)
    time_metrics(rng)
    if checkpoint:
        for model in MODELS:
            audit_a_checkpoint(rng, model)


def draw(rng: np.random.Generator, reach: float) -> Layer:
    """Return a layer in which no single logit moves by more than ``reach``."""
    features = int(rng.integers(2, 9))
    phi = rng.normal(size=(N * N, N * features)) * rng.choice([1.0, 0.2], (N * N, 1))
    radius = (N * features) ** 0.5
    base = rng.uniform(0, 3) * rng.normal(size=(N, N))
    return Layer(
        name="h.0.attn",
        number=0,
        site="attention",
        layout="by hand",
        preset=PRESETS["mhc-paper"],
        base=base + rng.uniform(0, 6) * np.eye(N)[rng.permutation(N)],
        base_precision=EXACT,
        scale=reach / radius / np.sqrt((phi**2).sum(1)).max(),
        gram=phi @ phi.T,
        fn_precision=EXACT,
        n=N,
        features=features,
    )


def time_metrics(rng: np.random.Generator, calls: int = 200) -> None:
    logits = jax.numpy.asarray(rng.normal(size=(48, N, N)), "float32")
    matrices = jax.vmap(lambda x: hj.sinkhorn(x, 1.0).matrix)(logits)
    metrics = jax.jit(hj.mixing_metrics)
    jax.block_until_ready(metrics(matrices))
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(metrics(matrices))
        seconds.append(time.perf_counter() - start)
    print(f"hj.mixing_metrics of 48 layers, n = {N}, float32: {np.median(seconds) * 1e3:.2f} ms")


def audit_a_checkpoint(rng: np.random.Generator, model: str) -> None:
    layers, features, shards = MODELS[model]
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), rng, layers, features, shards)
        command = [sys.executable, "-c", CHILD, "audit", folder, "--out", f"{folder}/run"]
        start = time.perf_counter()
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": ""}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    used = int(done.stderr.split("VmHWM:")[1].split()[0]) / 2**20
    print(
        f"{layers} layers of DeepSeek-V4-{model}'s shapes in {shards} shards: {seconds:.1f} s, "
        f"{used:.2f} GiB"
    )


# The command, which says at its end how much memory it held: of a child, the system's own figure
# begins with what its parent held. Linux has the file.
CHILD = """
import atexit, pathlib, sys
from homojax.lab.cli import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(status.read_text(), file=sys.stderr))
main(sys.argv[1:])
"""


def write_checkpoint(
    folder: Path, rng: np.random.Generator, layers: int, features: int, shards: int
) -> None:
    """Write the mixing tensors of a model, and beside them weights that are never read."""
    tensors: dict[str, np.ndarray] = {}
    rows = N * N + 2 * N
    for layer in range(layers):
        for site in ("attn", "ffn"):
            at = f"layers.{layer}.hc_{site}_"
            base = rng.normal(size=rows)
            base[2 * N :] = (0.3 * rng.normal(size=(N, N)) + 4 * np.eye(N)).reshape(-1)
            tensors[f"{at}fn"] = rng.normal(size=(rows, N * features)) / (N * features) ** 0.5
            tensors[f"{at}base"], tensors[f"{at}scale"] = base, np.array([0.05, 0.05, 0.01])
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        own = {
            name: x.astype(np.float32)
            for index, (name, x) in enumerate(tensors.items())
            if index % shards == shard
        }
        own[f"layers.{shard}.ffn.weight"] = np.zeros((1024, 4096), np.float32)
        save_file(own, folder / file)
        weight_map |= dict.fromkeys(own, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"hc_mult": N, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6}
    (folder / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    tyro.cli(main)
