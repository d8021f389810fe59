"""Run a sweep: blocks of cells, on all devices, written as they are done."""

from __future__ import annotations

import operator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from homojax.lab.devices import on_all_devices
from homojax.lab.grid_store import GridStore, opened
from homojax.lab.inputs import InputError, as_config, require_precision
from homojax.lab.progress import Progress, silent
from homojax.lab.runs import writing
from homojax.lab.sources import Source, load_source
from homojax.lab.store import read_dataset
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.dataset import layout, of_all_seeds
from homojax.lab.sweep.measure import measure_block
from homojax.lab.sweep.plan import Block, blocks_of, chunks_of

Shard = tuple[int, int]  # (which, of how many)


def sweep(
    config: Sweep | None = None,
    store: str | Path | None = None,
    *,
    shard: Shard | None = None,
    progress: Progress = silent,
    **fields: Any,
) -> xr.Dataset:
    """Map the trap: measure every law's prediction beside what it predicts, over a grid.

    Args:
        config: what to run; or give its fields as keywords, such as ``epsilon=(0.1, 1), n=8``.
        store: a path for a zarr store, or a URL that fsspec knows, such as s3://bucket/a.zarr; one
            that holds this very sweep is read and returned, and an interrupted sweep goes on.
        shard: (i, k): measure every k-th block alone, from the i-th on, counted from 0; others
            measure the rest into the same store. Default: all, or this process's part of a
            ``jax.distributed`` run.
        progress: called with (cells done, cells in all, what is being done).
        fields: fields of ``Sweep``.

    Returns:
        A Dataset of dimensions n, epsilon, seed, and layer, depth, snr, alpha where a quantity
        varies with them, with ``units`` and ``long_name`` on every variable. Its attrs have all
        that is needed to run it again. It stays on the disk where it has more than 1 GB. Results do
        not depend on how many devices or processes made them; on how cells are blocked only by
        rounding.

    Raises:
        InputError: the source, the store or the shard is not usable as asked, another process
            writes the store, or float64 is asked with JAX's x64 switched off.
        OSError: the store cannot be written; blocks done so far are kept in it.

    >>> tiny = dict(epsilon=(1.0,), depth=(1, 2), n=4, seeds=1, samples=8, dtype="float32")
    >>> dict(sweep(**tiny).sigma2.sizes)
    {'n': 1, 'epsilon': 1, 'seed': 1, 'layer': 2}
    """
    config = as_config(Sweep, config, fields)
    require_precision(config.precision)
    source = load_source(config)
    config = config.settled(source.layers)
    which, count = _checked(shard)
    grid = opened(store, layout(config, source, chunks_of(config, source)))
    if not grid.finished:
        with writing(store, f"-{which}-of-{count}" if count > 1 else ""):
            if grid.num_left:
                mine = blocks_of(config, source, grid.chunks)[which::count]
                _measure(config, source, grid, mine, progress)
            if not grid.num_left:
                grid.finish(of_all_seeds(config, grid.read))
    return grid.dataset() if store is None else read_dataset(store)


def _measure(
    config: Sweep, source: Source, grid: GridStore, blocks: list[Block], progress: Progress
) -> None:
    """Measure the blocks that are not done yet, and write them."""
    total = sum(len(block.cells) for block in blocks)
    ready = grid.are_done([block.region for block in blocks])
    left = [block for block, is_ready in zip(blocks, ready, strict=True) if not is_ready]
    done = total - sum(len(block.cells) for block in left)
    seen: set[int] = set()

    def say(next_block: Block) -> None:
        new = "" if next_block.n in seen else ", compiling"
        progress(done, total, f"n = {next_block.n}{new}")
        seen.add(next_block.n)

    if left:
        say(left[0])
    measured = on_all_devices(partial(measure_block, config, source), left)
    for following, (block, values) in enumerate(measured, 1):
        grid.write(block.region, values)
        done += len(block.cells)
        if following < len(left):
            say(left[following])
    progress(total, total, "done")


def _checked(shard: Shard | None) -> Shard:
    """Return a shard that there is; by default this process's."""
    if shard is None:
        return jax.process_index(), jax.process_count()
    try:
        which, count = map(operator.index, shard)
    except (TypeError, ValueError):
        raise InputError(f"shard must be two whole numbers (i, k), got {shard!r}.") from None
    if not 0 <= which < count:
        raise InputError(f"there is no shard {which} of {count}: they are 0 to {count - 1}.")
    return which, count
