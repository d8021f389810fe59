"""Open a checkpoint of any kind: what its headers say, and nothing else yet."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from homojax.lab.audit.gguf_files import read_gguf
from homojax.lab.audit.numpy_files import read_npy, read_npz
from homojax.lab.audit.orbax_folders import orbax_items, read_orbax
from homojax.lab.audit.safetensors_files import read_safetensors
from homojax.lab.audit.snapshots import Snapshot, gguf_parts, read_shards
from homojax.lab.audit.tensors import Checkpoint, Tensor, float_precision
from homojax.lab.audit.torch_files import DEEPEST, read_torch
from homojax.lab.inputs import InputError
from homojax.lab.places import path_of

KINDS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    ".npy": read_npy,
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), read_torch),
}


def files_missing(place: Any) -> str | None:
    """Return a sentence where names such as model-00001-of-00002 say that files are missing.

    >>> files_missing("model.safetensors")
    """
    path = path_of(place)
    if path is None or (path.is_dir() and any(path.glob("*.index.json"))):
        return None  # what an index names has to be there
    files = path.glob("*") if path.is_dir() else [path]
    matches = (re.search(r"-(\d+)-of-(\d+)\.safetensors$", file.name) for file in files)
    parts = {int(m[1]): m for m in matches if m}
    if not parts or len(parts) >= int(next(iter(parts.values()))[2]):
        return None
    first = parts[min(parts)]
    return (
        f"{len(parts)} of the model's {int(first[2])} files were read, {first.string} first: the "
        "stack may be deeper. Name the folder with all of them."
    )


def open_checkpoint(place: Any, wanted: Callable[[str], bool] = lambda name: True) -> Checkpoint:
    """Return what the headers of a checkpoint say.

    Args:
        place: a .safetensors, .npz, .npy, .gguf, .pt, .pth, .bin or .ckpt file, the index of
            shards, a folder with any of them, or a checkpoint of orbax.
        wanted: whether a tensor matters, by its name; shards and stores without any stay closed.

    Raises:
        InputError: there is none, it is damaged, or it would lead out of its folder.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "logits.npy"
    >>> np.save(file, np.zeros((3, 4, 4)))
    >>> open_checkpoint(file).tensors["logits"].shape
    (3, 4, 4)
    """
    path = path_of(place)
    if path is None:
        raise InputError("name a checkpoint: a file, or a folder of a model.")
    try:
        if path.is_dir():
            return _folder(path, wanted)
        if not path.is_file():
            raise InputError(f"there is no file or folder {path}.")
        if path.name.endswith(".index.json"):
            return _sharded(Snapshot(path.parent), path, wanted)
        return _file(path)
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"cannot read {path}: {reason}.") from error


def is_path(place: Any) -> bool:
    """Return whether something is given by its place, and not as arrays."""
    return isinstance(place, str | os.PathLike)


def checkpoint_of(arrays: Any) -> Checkpoint:
    """Return arrays in memory as a checkpoint: dictionaries and lists in each other, or nnx state.

    Raises:
        InputError: there are no arrays in it.

    >>> checkpoint_of({"h": [{"mix": np.eye(2)}]}).tensors["h.0.mix"].shape
    (2, 2)
    """
    tensors: dict[str, Tensor] = {}
    for name, array in _arrays("", arrays, 0):
        dtype = str(array.dtype)
        tensors[name] = Tensor(
            name=name,
            shape=tuple(array.shape),
            precision=float_precision(dtype),
            dtype=dtype,
            load=partial(np.asarray, array),
            file="what was given",
        )
    if not tensors:
        raise InputError(
            f"{type(arrays).__name__} has no arrays: give a dict of arrays, or a path."
        )
    return Checkpoint("what was given", tensors, {})


def _arrays(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    value = value.get_value() if hasattr(value, "get_value") else value  # nnx's variables
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        yield name, value
    elif isinstance(value, Mapping | list | tuple) and depth < DEEPEST:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _arrays(f"{name}.{key}" if name else str(key), item, depth + 1)


def _file(path: Path) -> Checkpoint:
    if path.suffix == ".gguf":
        return _gguf(path)
    tensors = _tensors(path)
    beside = path.with_name("config.json")
    config = Snapshot(path.parent).config() if beside.is_file() else {}
    return Checkpoint(str(path), tensors, config)


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix not in KINDS:
        known = ", ".join((*KINDS, ".gguf"))
        raise InputError(f"{path} is no checkpoint of a kind known here: {known}, or a folder.")
    return KINDS[path.suffix](path)


def _gguf(path: Path) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for part in gguf_parts(path):
        found, metadata = read_gguf(part)
        _refuse_twice(tensors, found, part)
        tensors |= found
        config |= {key: value for key, value in metadata.items() if key not in config}
    return Checkpoint(str(path), tensors, config)


def _sharded(snapshot: Snapshot, index: Path, wanted: Callable[[str], bool]) -> Checkpoint:
    tensors, skipped = read_shards(snapshot, index, _tensors, wanted)
    return Checkpoint(str(index), tensors, snapshot.config(), tuple(skipped))


def _folder(folder: Path, wanted: Callable[[str], bool]) -> Checkpoint:
    """Return the model of a folder: by its index, or all files of the first kind that is there."""
    snapshot = Snapshot(folder)
    index = snapshot.index()
    if index is not None:
        return _sharded(snapshot, index, wanted)._replace(place=str(folder))
    tensors: dict[str, Tensor] = {}
    for suffix in (".safetensors", ".gguf", *(kind for kind in KINDS if kind != ".safetensors")):
        files = snapshot.files(suffix)
        if suffix == ".gguf" and files:
            return _gguf(files[0])
        for file in files:
            found = _tensors(file)
            _refuse_twice(tensors, found, file)
            tensors |= found
        if files:
            return Checkpoint(str(folder), tensors, snapshot.config())
    snapshot.refuse_links_out(folder)
    items = orbax_items(folder)
    if not items:
        raise InputError(f"{folder} has no checkpoint: no {', '.join(KINDS)}, .gguf, nor orbax's.")
    for item, tree in items.items():
        tensors |= read_orbax(tree, item, wanted)
    return Checkpoint(str(folder), tensors, snapshot.config())


def _refuse_twice(known: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    twice = next(iter(known.keys() & found.keys()), None)
    if twice is not None:
        raise InputError(
            f'{path} has "{twice[:80]}", as {known[twice].file} has: give the index of the model, '
            "or one of the files."
        )
