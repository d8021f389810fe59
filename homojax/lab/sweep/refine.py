"""Refine the ε of a sweep where something changes, round by round.

A round is a sweep of its own, over new ε only, in a store beside the run's: interrupts and damage
are met as in any sweep. When no interval is left that is too wide, the cells of all rounds are
copied into one store, which is that of a sweep over all these ε.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import xarray as xr

from homojax.lab.blocks import writing
from homojax.lab.grid_store import GridStore, Region, found, opened, remove
from homojax.lab.places import is_url
from homojax.lab.progress import Progress
from homojax.lab.sources import Source
from homojax.lab.store import provenance, read_dataset
from homojax.lab.sweep.boundaries import midpoints, readings
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.dataset import OF_ALL_SEEDS, layout, of_all_seeds
from homojax.lab.sweep.fill import filled
from homojax.lab.sweep.plan import blocks_of, chunks_of, lanes_of


def refined(
    config: Sweep, source: Source, store: str | Path | None, progress: Progress
) -> xr.Dataset:
    """Return the Dataset of a sweep whose ε are refined to its width ``refine``.

    Args:
        config: a sweep that is settled.
        source: its logits.
        store: where it is kept; None: in memory.
        progress: called with (cells done, cells in all, what is being done).
    """
    if store is None:
        return _joined(config, source, None, _rounds(config, source, None, progress)).dataset()
    if not _is_finished(store, config):
        with writing(store):
            if not _is_finished(store, config):  # by another process, meanwhile
                _joined(config, source, store, _rounds(config, source, store, progress))
    for number in itertools.count():
        if not remove(_store_of(store, number)):
            break
    return read_dataset(store)


def _is_finished(store: str | Path, config: Sweep) -> bool:
    grid = found(store, provenance("sweep", config, dtype=config.precision))
    return grid is not None and grid.finished


def _rounds(
    config: Sweep, source: Source, store: str | Path | None, progress: Progress
) -> list[xr.Dataset]:
    """Measure round after round; the first is the grid that was asked."""
    # Later rounds have fewer cells, and run the programs of the first.
    lanes, compiled = lanes_of(config, source), set()
    rounds, read, new = [], [], np.sort(config.epsilon)
    # Whoever looks at a round goes on with the whole.
    own = {"command": provenance("sweep", config, dtype=config.precision)["command"]}
    while len(new):
        number = len(rounds)
        before = sum(ds.sizes["n"] * ds.sizes["epsilon"] * ds.sizes["seed"] for ds in rounds)

        def tell(done: int, total: int, doing: str, number=number, before=before) -> None:
            progress(before + done, before + total, f"round {number + 1}: {doing}")

        part = dataclasses.replace(config, epsilon=tuple(new), refine=None)
        place = None if store is None else _store_of(store, number)
        ds = filled(part, source, place, lanes, tell, compiled=compiled, attrs=own)
        read.append(readings(ds))
        # What is on the disk stays there: many rounds can be more than memory holds.
        rounds.append(ds if place is None else read_dataset(place, in_memory=0))
        together = xr.concat(read, "epsilon", join="override").sortby("epsilon")
        new = midpoints(together, config.refine or 0.0)
    return rounds


def _joined(
    config: Sweep, source: Source, store: str | Path | None, rounds: list[xr.Dataset]
) -> GridStore:
    """Copy the cells of all rounds into one store, block by block, and finish it."""
    epsilon = np.sort(np.concatenate([ds.epsilon.values for ds in rounds]))
    whole = dataclasses.replace(config, epsilon=tuple(epsilon), refine=None)
    lanes = lanes_of(whole, source)
    asked = layout(whole, source, chunks_of(whole, source, lanes))
    own = provenance("sweep", config, dtype=config.precision, title=asked.attrs["title"])
    grid = opened(store, asked._replace(attrs={**asked.attrs, **own}))
    blocks = blocks_of(whole, source, grid.chunks, lanes) if grid.num_left else []
    regions = [block.region for block in blocks]
    for region, is_done in zip(regions, grid.are_done(regions), strict=True):
        if not is_done:
            grid.write(region, _cells(rounds, region, epsilon[region["epsilon"]]))
    grid.finish(of_all_seeds(whole, grid.read))
    return grid


def _cells(rounds: list[xr.Dataset], region: Region, epsilon: np.ndarray) -> dict[str, np.ndarray]:
    """Return the variables of a block, from the rounds that measured its ε."""
    parts = []
    for ds in rounds:
        chosen = np.flatnonzero(np.isin(ds.epsilon, epsilon))
        if len(chosen):
            ds = ds.drop_vars(OF_ALL_SEEDS, errors="ignore")
            parts.append(ds.isel(n=region["n"], epsilon=chosen, seed=region["seed"]))
    cells = xr.concat(parts, "epsilon", join="override").sel(epsilon=epsilon)
    return {str(name): variable.values for name, variable in cells.data_vars.items()}


def _store_of(store: str | Path, number: int) -> str | Path:
    """Return where a round is kept: beside the store, as NAME.round-1.zarr."""
    stem = str(store).removesuffix(".zarr")
    place = f"{stem}.round-{number + 1}.zarr"
    return place if is_url(store) else Path(place)
