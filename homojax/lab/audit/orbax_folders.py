"""Checkpoints of orbax, as JAX's trainers write them: names from its metadata, arrays on demand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from homojax.lab.audit.safetensors_files import LONGEST_HEADER, parse_object
from homojax.lab.audit.tensors import LARGEST, Tensor, float_precision
from homojax.lab.inputs import InputError

_METADATA = "_METADATA"


def orbax_items(folder: Path) -> dict[str, Path]:
    """Return the trees of arrays of a checkpoint by their names; of several steps, the newest's.

    The name is empty where the folder itself is the tree. Empty where it is no checkpoint.
    """
    if (folder / _METADATA).is_file():
        return {"": folder}
    inner = [child for child in folder.iterdir() if child.is_dir()]
    trees = {child.name: child for child in inner if (child / _METADATA).is_file()}
    steps = {int(child.name): child for child in inner if child.name.isdecimal()}
    steps = {step: child for step, child in steps.items() if child.name not in trees}
    if not trees and steps:
        return orbax_items(steps[max(steps)])
    return {"" if len(trees) == 1 else name: tree for name, tree in trees.items()}


def read_orbax(folder: Path, item: str, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the wanted arrays of one tree of a checkpoint, keys joined by dots.

    Raises:
        InputError: it is damaged.
    """
    path = folder / _METADATA
    if path.stat().st_size > LONGEST_HEADER:
        raise InputError(f"{path} is too long to be a checkpoint's metadata.")
    metadata = parse_object(path.read_bytes(), path)
    rows = metadata.get("tree_metadata")
    try:
        assert isinstance(rows, dict)
        names = [".".join(str(key["key"]) for key in row["key_metadata"]) for row in rows.values()]
    except (AssertionError, KeyError, TypeError) as error:
        raise InputError(f"{path} lists no arrays: the checkpoint is damaged.") from error
    prefix = f"{item}." if item else ""
    opened = {name: _open(folder, metadata, name) for name in names if wanted(prefix + name)}
    return {
        prefix + name: _tensor(prefix + name, store, folder)
        for name, store in opened.items()
        if store is not None
    }


def _open(folder: Path, metadata: dict[str, Any], name: str) -> Any:
    """Return the array's store, of which nothing is read yet; None for what is no array."""
    import tensorstore

    place = str(folder.resolve())
    kvstore: dict[str, Any] = {"driver": "file", "path": f"{place}/{name}/"}
    if metadata.get("use_ocdbt", True):
        kvstore = {"driver": "ocdbt", "base": f"file://{place}/", "path": f"{name}/"}
    elif ".." in Path(name).parts or Path(name).is_absolute():
        raise InputError(f'{folder} names an array "{name[:80]}", outside of it: it is damaged.')
    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    try:
        return tensorstore.open({"driver": driver, "kvstore": kvstore}, read=True).result()
    except Exception as error:  # tensorstore raises anything on a damaged store
        if "NOT_FOUND" in str(error):  # a string, or an empty branch
            return None
        raise InputError(f'{folder} has "{name[:80]}" damaged: fetch it again.') from error


def _tensor(name: str, store: Any, folder: Path) -> Tensor:
    dtype, shape = str(store.dtype.numpy_dtype), tuple(store.shape)

    def load() -> np.ndarray:
        chunk = store.chunk_layout.read_chunk.shape or ()
        if math.prod(chunk) > LARGEST:
            raise InputError(f'{folder} has "{name[:80]}" in chunks of {list(chunk)}: too large.')
        return np.asarray(store.read().result())

    return Tensor(name, shape, float_precision(dtype), dtype, load, folder.name)
