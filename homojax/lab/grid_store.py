"""A Dataset that is filled block by block, on disk or in memory, by one process or by many.

The store exists from the beginning, with every value missing: NaN, or −99 for a whole number. A
block is written first and then marked as done, so a marked block is whole. Every chunk has a
checksum.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from fsspec.core import url_to_fs
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore, MemoryStore

from homojax.lab.inputs import InputError
from homojax.lab.interrupts import UNTOUCHED
from homojax.lab.ownership import clear_left_overs, remove_store
from homojax.lab.places import is_there, is_url, making, store_at
from homojax.lab.store import (
    CODECS,
    DONE,
    as_dataset,
    consolidating,
    marks_of,
    not_whole,
    require_same,
    require_whole,
    unfinished,
)

MISSING = -99  # of whole numbers: no count and no code of ours
Region = dict[str, slice]  # of the dimensions that blocks divide


class Variable(NamedTuple):
    """One variable of the Dataset."""

    dims: tuple[str, ...]
    dtype: np.dtype
    attrs: dict[str, Any]


class Layout(NamedTuple):
    """What the Dataset will be."""

    coords: dict[str, tuple[np.ndarray, dict[str, Any]]]  # dimension -> (its values, attrs)
    chunks: dict[str, int]  # of each dimension that blocks divide
    variables: dict[str, Variable]
    attrs: dict[str, Any]

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(values) for name, (values, _) in self.coords.items()}


class GridStore:
    """The Dataset of a run while it is made. Use ``opened``."""

    def __init__(self, group: zarr.Group):
        self.group = group
        # Of a finished store nothing is asked any more.
        self.chunks: dict[str, int] = (
            dict(self._array(DONE).attrs["chunks"]) if DONE in group else {}  # type: ignore
        )

    def _array(self, name: str) -> zarr.Array:
        array = self.group[name]
        assert isinstance(array, zarr.Array)
        # So that a chunk of NaN alone is written, too: one that is not there was lost.
        return array.with_config({"write_empty_chunks": True})

    def _flags(self, region: Region) -> tuple[slice, ...]:
        """Return where the marks of a region's chunks are."""
        spans = ((region[dim], size) for dim, size in self.chunks.items())
        return tuple(slice(s.start // size, -(-s.stop // size)) for s, size in spans)

    @property
    def finished(self) -> bool:
        """Whether ``finish`` came to its end."""
        whole = zarr.open_group(self.group.store, mode="r").metadata.consolidated_metadata
        return DONE not in self.group and whole is not None

    @property
    def num_left(self) -> int:
        """How many chunks are not done."""
        return int((~marks_of(self.group)).sum())

    def are_done(self, regions: Sequence[Region]) -> list[bool]:
        """Return of each region whether all of it was written."""
        done = marks_of(self.group)
        return [bool(done[self._flags(region)].all()) for region in regions]

    def write(self, region: Region, values: Mapping[str, np.ndarray]) -> None:
        """Write a block: whole chunks of every variable that it divides; then mark it.

        Raises:
            OSError: it cannot be written; the block is not marked.
        """
        with UNTOUCHED:  # or what is written would come back into a folder that a stop discards
            for name, value in values.items():
                array = self._array(name)
                divided = [dim for dim in array.metadata.dimension_names if dim in region]  # type: ignore
                array[tuple(region[dim] for dim in divided)] = value  # type: ignore[arg-type]
            self._make_durable(region, values)
            self._array(DONE)[self._flags(region)] = 1

    def _make_durable(self, region: Region, names: Mapping[str, Any]) -> None:
        """Wait until a block is on the disk, where there is one."""
        if not isinstance(self.group.store, LocalStore):
            return
        flags = self._flags(region)
        for name in names:
            array = self._array(name)
            rest = len(array.shape) - len(flags)
            for index in np.ndindex(*(flag.stop - flag.start for flag in flags)):
                at = tuple(f.start + i for f, i in zip(flags, index, strict=True)) + (0,) * rest
                key = array.metadata.encode_chunk_key(at)
                with (Path(self.group.store.root) / array.path / key).open("rb") as file:
                    os.fsync(file.fileno())

    def read(self, name: str) -> np.ndarray:
        """Return a whole variable."""
        return np.asarray(self._array(name)[...])

    def finish(self, whole: Mapping[str, np.ndarray]) -> None:
        """Write the variables that no block has, and close the store."""
        for name, value in whole.items():
            self._array(name)[...] = value
        self._forget_marks()
        with consolidating():
            zarr.consolidate_metadata(self.group.store)
        if isinstance(self.group.store, LocalStore):
            # Not before: who waits for a lock would take a new one, and finish the store, too.
            clear_left_overs(Path(self.group.store.root), locks=True)

    def _forget_marks(self) -> None:
        """Remove the marks, which are no data, and what killed processes were about to write."""
        if not isinstance(self.group.store, LocalStore):
            if DONE in self.group:
                del self.group[DONE]
        else:
            root = Path(self.group.store.root)
            if DONE in self.group:
                (root / DONE).rename(root.with_name(f"{root.name}.part-{DONE}"))  # all at once
            clear_left_overs(root)
        self.chunks = {}

    def dataset(self) -> xr.Dataset:
        """Return the Dataset; what is not done yet is missing in it."""
        dataset = as_dataset(self.group.store)
        del dataset.attrs["written"]
        if self.num_left:
            dataset.attrs["unfinished"] = unfinished(self.group)
        return dataset


def opened(store: str | Path | None, layout: Layout) -> GridStore:
    """Return the store of this layout: the one that is there, or a new one, all missing.

    Args:
        store: a path, or any URL that fsspec knows; None is a store in memory.
        layout: what it will be; ``attrs`` has the ``config_hash`` that tells one run from another.

    Raises:
        InputError: there is a store of something else, what is there is none, or it cannot be made.
        OSError: the disk is full.
    """
    if store is None:
        return GridStore(_created(MemoryStore(), layout, (Crc32cCodec(),)))
    grid = found(store, layout.attrs)
    if grid is None and is_url(store):
        # Whoever else makes it at the same time writes the same bytes.
        grid = GridStore(_created(store_at(str(store)), layout, CODECS))
    elif grid is None:
        path = Path(store)
        with making(path), UNTOUCHED:
            if not is_there(path):
                _make(path, layout)
        grid = found(store, layout.attrs)
    assert grid is not None
    return grid


def found(store: str | Path, attrs: Mapping[str, Any]) -> GridStore | None:
    """Return the store of the run that these attributes tell of, None where there is none yet.

    Raises:
        InputError: there is a store of something else, or what is there is none.
    """
    if not is_url(store) and not is_there(Path(store)):
        return None
    place = store_at(str(store)) if is_url(store) else LocalStore(Path(store))
    group = _found(place, str(store))
    if group is None:
        return None
    require_same(group.attrs, attrs, str(store))
    require_whole(group, str(store))  # now, and not when all is measured
    return GridStore(group)


def remove(store: str | Path) -> bool:
    """Remove a store; return whether there was one."""
    if not is_url(store):
        there = is_there(Path(store))
        remove_store(Path(store))
        return there
    files, path = url_to_fs(str(store))
    there = files.exists(path)
    if there:
        files.rm(path, recursive=True)
    return there


def _found(place: Any, name: str) -> zarr.Group | None:
    """Return the group that is there, or None."""
    try:
        group = zarr.open_group(place, mode="r+", use_consolidated=False)
    except FileNotFoundError:
        if isinstance(place, LocalStore):
            raise InputError(f"{name} is not a whole zarr store: choose another place.") from None
        return None
    except Exception as error:  # on a damaged store zarr raises anything
        raise not_whole(name) from error
    return group


def _make(path: Path, layout: Layout) -> None:
    """Make an empty store, which appears under its name at once, or find another one's there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{path.name}.part-"))
    try:
        _created(LocalStore(aside / "store"), layout, CODECS)
        try:
            (aside / "store").rename(path)
        except OSError:
            if not path.exists():  # not another one's
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _created(place: Any, layout: Layout, codecs: tuple[Any, ...]) -> zarr.Group:
    """Return a new group with every array of the layout, all missing."""
    written = " ".join({**layout.coords, **layout.variables})
    group = zarr.open_group(place, mode="a", attributes={**layout.attrs, "written": written})
    sizes = layout.sizes

    def make(name: str, dims: tuple[str, ...], dtype: Any, attrs: dict, chunks: tuple) -> None:
        whole = np.issubdtype(dtype, np.integer)
        group.create_array(
            name,
            shape=tuple(sizes[dim] for dim in dims),
            chunks=chunks,
            dtype=dtype,
            fill_value=MISSING if whole else np.nan,
            dimension_names=dims,
            attributes=attrs,
            compressors=codecs,
            overwrite=True,
        )

    for name, (values, attrs) in layout.coords.items():
        make(name, (name,), values.dtype, attrs, values.shape)
        group[name][...] = values  # type: ignore[index]
    for name, (dims, dtype, attrs) in layout.variables.items():
        make(name, dims, dtype, attrs, tuple(layout.chunks.get(d, sizes[d]) for d in dims))
    counts = {dim: -(-sizes[dim] // size) for dim, size in layout.chunks.items()}
    group.create_array(
        DONE,
        shape=tuple(counts.values()),
        chunks=(1,) * len(counts),
        dtype=np.int8,
        fill_value=0,
        dimension_names=[f"{dim}_chunk" for dim in counts],
        attributes={"chunks": layout.chunks, "long_name": "whether a block is whole"},
        compressors=codecs,
        overwrite=True,
    )
    return group
