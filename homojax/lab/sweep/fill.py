"""Fill the store of a grid: blocks of cells, on all devices, written as they are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import xarray as xr

from homojax.lab.blocks import writing
from homojax.lab.devices import on_all_devices
from homojax.lab.grid_store import GridStore, opened
from homojax.lab.progress import Progress
from homojax.lab.sources import Source
from homojax.lab.store import read_dataset
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.dataset import layout, of_all_seeds
from homojax.lab.sweep.measure import measure_block
from homojax.lab.sweep.plan import Block, Lanes, blocks_of, chunks_of

Shard = tuple[int, int]  # (which, of how many)


def filled(
    config: Sweep,
    source: Source,
    store: str | Path | None,
    lanes: Lanes,
    progress: Progress,
    *,
    shard: Shard = (0, 1),
    compiled: set[int] | None = None,
    attrs: Mapping[str, str] = MappingProxyType({}),
) -> xr.Dataset:
    """Return the Dataset of a sweep over the grid of its config, or a shard's part of it.

    Args:
        config: a sweep that is settled; its ``refine`` is not read.
        source: its logits.
        store: where it is kept; None: in memory.
        lanes: for how many cells at once the programs of each n are compiled.
        progress: called with (cells done, cells in all, what is being done).
        shard: (i, k): every k-th block, from the i-th on.
        compiled: the n whose programs with these lanes have run before; those that run are added.
        attrs: what the Dataset says of itself otherwise than its config does.
    """
    which, count = shard
    asked = layout(config, source, chunks_of(config, source, lanes))
    grid = opened(store, asked._replace(attrs={**asked.attrs, **attrs}))
    if not grid.finished:
        with writing(store, f"-{which}-of-{count}" if count > 1 else ""):
            if grid.num_left:
                mine = blocks_of(config, source, grid.chunks, lanes)[which::count]
                measure = partial(measure_block, config, source)
                _measure(measure, grid, mine, progress, set() if compiled is None else compiled)
            if not grid.num_left:
                # Of shards that find the last block done, one alone; no other waits for itself.
                with writing(store, wait=True) if count > 1 else nullcontext():
                    if not grid.finished:
                        grid.finish(of_all_seeds(config, grid.read))
    return grid.dataset() if store is None else read_dataset(store)


def _measure(
    measure: Callable[[Block], dict[str, np.ndarray]],
    grid: GridStore,
    blocks: list[Block],
    progress: Progress,
    compiled: set[int],
) -> None:
    """Measure the blocks that are not done yet, and write them."""
    total = sum(len(block.cells) for block in blocks)
    ready = grid.are_done([block.region for block in blocks])
    left = [block for block, is_ready in zip(blocks, ready, strict=True) if not is_ready]
    done = total - sum(len(block.cells) for block in left)

    def say(next_block: Block) -> None:
        new = "" if next_block.n in compiled else ", compiling"
        progress(done, total, f"n = {next_block.n}{new}")
        compiled.add(next_block.n)

    if left:
        say(left[0])
    for following, (block, values) in enumerate(on_all_devices(measure, left), 1):
        grid.write(block.region, values)
        done += len(block.cells)
        if following < len(left):
            say(left[following])
    progress(total, total, "done")
