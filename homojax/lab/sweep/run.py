"""Run a sweep: cells in blocks, kept as they are done, joined to one Dataset."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from homojax.lab.inputs import InputError, as_config, require_precision
from homojax.lab.progress import Progress, silent
from homojax.lab.runs import Blocks, resume
from homojax.lab.sources import Source, load_source
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.dataset import assemble
from homojax.lab.sweep.measure import FEW, measure_block

Cell = tuple[int, int]  # (index of ε, seed)


def sweep(
    config: Sweep | None = None,
    store: str | Path | None = None,
    *,
    progress: Progress = silent,
    **fields: Any,
) -> xr.Dataset:
    """Map the trap: measure every law's prediction beside what it predicts, over a grid.

    Args:
        config: what to run; or give its fields as keywords, such as ``epsilon=(0.1, 1), n=8``.
        store: a path for a zarr store; one that holds this very sweep is read and returned, and an
            interrupted sweep goes on.
        progress: called with (cells done, cells in all, what is being done).
        fields: fields of ``Sweep``.

    Returns:
        A Dataset of dimensions n, epsilon, seed, and layer, depth, snr, alpha where a quantity
        varies with them, with ``units`` and ``long_name`` on every variable. Its attrs have all
        that is needed to run it again. Results do not depend on how cells are blocked, but for
        rounding.

    Raises:
        InputError: the source or the store is not usable as asked, or float64 is asked with JAX's
            x64 switched off.
        OSError: the store cannot be written; blocks done so far are kept beside it.

    >>> tiny = dict(epsilon=(1.0,), depth=(1, 2), n=4, seeds=1, samples=8, dtype="float32")
    >>> dict(sweep(**tiny).sigma2.sizes)
    {'n': 1, 'epsilon': 1, 'seed': 1, 'layer': 2}
    """
    config = as_config(Sweep, config, fields)
    require_precision(config.dtype)
    source = load_source(config)
    config = config.settled(source.layers)
    for n in source.sizes:
        block_size(config, n)  # says what cannot fit before anything runs
    return resume(store, config.digest, partial(_measure, config, source, progress))


def _measure(config: Sweep, source: Source, progress: Progress, blocks: Blocks) -> xr.Dataset:
    total = len(source.sizes) * len(config.epsilon) * source.seeds
    done, results = 0, []
    for n in source.sizes:
        # Lanes alike in ε lie together. Four blocks at least, so that an interrupt loses a quarter.
        # Their sizes are powers of two, so that most sweeps run programs of few sizes.
        cells = [(e, s) for e in range(len(config.epsilon)) for s in range(source.seeds)]
        size = min(block_size(config, n), max(1, -(-len(cells) // 4)))
        size = 2 ** (size.bit_length() - 1)
        parts = []
        for start in range(0, len(cells), size):
            progress(done, total, f"n = {n}" + ("" if parts else ", compiling"))
            chosen = cells[start : start + size]
            make = partial(measure_block, config, source, n, chosen, size)
            parts.append(blocks.get(f"{n}-{start}-{size}", make))
            done += len(chosen)
        results.append(_joined(parts, (len(config.epsilon), source.seeds)))
    progress(total, total, "done")
    return assemble(config, source, results)


def _joined(parts: list[dict[str, np.ndarray]], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the blocks' variables as arrays [epsilon, seed, …]."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: values.reshape(*shape, *values.shape[1:]) for name, values in joined.items()}


def block_size(config: Sweep, n: int) -> int:
    """Return how many cells fit in the memory allowed, by a count of the largest arrays.

    Raises:
        InputError: not even one cell fits in this machine.
    """
    layers = max(config.depth)
    stack = layers * n * n * (24 + 3 * len(config.alpha))
    noise = config.samples * (4 * n + 100) + 20_000  # of a few cells only, however many there are
    itemsize = np.dtype(config.dtype).itemsize
    cell = itemsize * (stack + noise)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if cell > machine:
        raise InputError(
            f"one cell at n = {n}, depth {layers} and {config.samples} samples needs about "
            f"{cell / 1e9:.3g} GB, and this machine has {machine / 1e9:.3g}: ask for less."
        )
    most = config.memory_mb * 1e6 / itemsize
    side_by_side = most / (stack + noise)
    return max(1, int(side_by_side if side_by_side < FEW else (most - FEW * noise) / stack))
