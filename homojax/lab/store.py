"""A run's Dataset on disk, whole or not there, with all that is needed to run it again."""

from __future__ import annotations

import json
import os
import platform
import shlex
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from homojax.lab import accessor  # noqa: F401  (a Dataset of ours can draw itself)
from homojax.lab.inputs import Config, InputError
from homojax.lab.ownership import clear_left_overs
from homojax.lab.places import is_there, is_url, place_of, store_at
from homojax.registry import nearest

DONE = "done"  # the array of a store that is filled block by block: which chunks are whole
CODECS = (ZstdCodec(), Crc32cCodec())  # of what is on disk
IN_MEMORY = 10**9  # bytes of a Dataset up to which it is read at once


def versions() -> dict[str, str]:
    """Return the versions of what a result was made with.

    >>> versions()["homojax"]
    '0.1.0'
    """
    packages = ("homojax", "jax", "jaxlib", "numpy", "xarray", "zarr")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def provenance(verb: str, config: Config, *, dtype: str, title: str = "") -> dict[str, Any]:
    """Return the attrs of a verb's Dataset: all that is needed to run it again.

    Args:
        verb: the command, such as "sweep" or "probe refute hilbert".
        config: what was asked.
        dtype: the precision of what was computed.
        title: a name for tables and figures; default: the command.
    """
    import jax

    device = jax.devices()[0]
    return {
        "title": title or f"homojax {verb}",
        "verb": verb,
        "command": shlex.join(["homojax", *verb.split(), *config.flags]),
        "config": json.dumps(config.as_dict()),
        "config_hash": config.digest,
        "versions": json.dumps(versions()),
        "dtype": dtype,
        "device": f"{device.platform}: {device.device_kind}",
    }


def config_of(ds: xr.Dataset) -> dict[str, Any]:
    """Return the config that a Dataset was made with, as plain values."""
    return json.loads(ds.attrs["config"])


def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a zarr store that appears under ``path`` only once it is whole.

    Raises:
        OSError: it cannot be written; nothing is left under ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_left_overs(path)
    dataset = dataset.assign_attrs(written=" ".join(map(str, dataset.variables)))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.part-") as part:
        with consolidating():
            dataset.to_zarr(
                Path(part) / "store",
                mode="w",
                zarr_format=3,
                consolidated=True,
                write_empty_chunks=True,  # so that one that is not there was lost
                encoding={name: {"compressors": CODECS} for name in dataset.variables},
            )
        (Path(part) / "store").rename(path)


@contextmanager
def consolidating() -> Iterator[None]:
    """Silence the warning that not every library reads consolidated metadata: none is hindered."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        yield


def open_run(path: str | Path, name: str | None = None) -> xr.Dataset:
    """Return the Dataset of a run, as the verb returned it: in memory where it has at most 1 GB.

    Args:
        path: the folder of a run, or a zarr store; of a sweep also one that is half done.
        name: which Dataset, where the run has several, such as one for each sweep of a config.

    Returns:
        The Dataset. Of a sweep that is half done, what is not there yet is NaN, or −99 of a
        whole number, and the attribute ``unfinished`` says how much that is.

    Raises:
        InputError: there is no run, it is damaged, it has no Dataset, or it has several and none of
            this name.

    >>> import tempfile
    >>> from homojax.lab.sweep.run import sweep
    >>> folder = Path(tempfile.mkdtemp())
    >>> tiny = dict(epsilon=(1.0,), depth=(1, 2), n=4, seeds=1, samples=8, dtype="float32")
    >>> made = sweep(store=folder / "tiny.zarr", **tiny)
    >>> open_run(folder).equals(made)
    True
    """
    place = place_of(path)
    if not isinstance(place, Path):
        return read_dataset(str(path))
    path = place
    if not os.path.isdir(path) or (path / "zarr.json").exists():  # noqa: PTH112
        return read_dataset(path)
    stores = {store.stem: store for store in sorted(path.glob("*.zarr"))}
    if not stores:
        if (path / "history.npz").exists():
            raise InputError(f"{path} holds a finding: hj.lab.cases.load_case reads its case.npz.")
        runs = sorted(manifest.parent.name for manifest in path.glob("*/run.json"))
        below = f"; name one of those in it: {', '.join(runs)}" if runs else ""
        raise InputError(f"{path} holds no finished run{below}.")
    if name is None and len(stores) > 1:
        raise InputError(
            f"{path} holds several Datasets ({', '.join(stores)}): "
            f'name one, as name="{next(iter(stores))}".'
        )
    chosen = next(iter(stores)) if name is None else str(name)
    if chosen not in stores:
        raise InputError(f'{path} holds no Dataset "{name}": {nearest(chosen, stores)}')
    return read_dataset(stores[chosen])


def read_dataset(path: str | Path, *, in_memory: int = IN_MEMORY) -> xr.Dataset:
    """Return the Dataset of a zarr store, with no chunk of it lost or damaged.

    Args:
        path: a path or a URL.
        in_memory: bytes up to which it is read at once; a larger one stays on the disk.

    Raises:
        InputError: there is none, or it is damaged.
    """
    if not is_url(path) and not is_there(Path(path)):
        raise InputError(f"there is no run at {path}.")
    if not is_url(path) and Path(path).is_file():
        raise InputError(f"{path} is a file: a run is a folder, and so is a zarr store.")
    if not is_url(path):
        _require_metadata(Path(path))
    try:
        place = store_at(str(path)) if is_url(path) else LocalStore(path)
        group = zarr.open_group(place, mode="r", use_consolidated=False)
        require_whole(group, str(path))
        dataset = as_dataset(place, in_memory)
    except InputError:
        raise
    except Exception as error:  # on a damaged store zarr raises anything, zlib's errors too
        raise not_whole(path) from error
    dataset.attrs.pop("written", None)
    if DONE in group:
        dataset.attrs["unfinished"] = unfinished(group)
    return dataset


def _require_metadata(store: Path) -> None:
    """Raise InputError where a zarr.json is none: zarr leaves tasks behind that fail at exit."""
    for file in sorted(store.glob("*/zarr.json")):
        try:
            json.loads(file.read_bytes())
        except ValueError as error:
            raise _damaged(store, f"the zarr.json of {file.parent.name} cannot be read") from error


def not_whole(store: str | Path) -> InputError:
    """Return the error of a store that cannot be opened."""
    return InputError(
        f"{store} is not a whole zarr store: a zarr.json in it is missing or damaged. {_ANEW}"
    )


def _damaged(store: object, what: str) -> InputError:
    return InputError(f"{store} is damaged: {what}. {_ANEW}")


_ANEW = "To measure it anew, add --overwrite to its command; in Python remove it first."


def require_whole(group: zarr.Group, name: str) -> None:
    """Return nothing where a store has every variable, and every chunk that was written.

    Raises:
        InputError: something was lost; the sentence calls the store ``name``.
    """
    arrays = dict(group.arrays())
    lost = sorted(set(str(group.attrs.get("written", "")).split()) - set(arrays))
    if lost:
        raise InputError(f"{name} is not a whole zarr store: it lacks {', '.join(lost)}. {_ANEW}")
    marks = arrays.pop(DONE, None)
    divided = () if marks is None else tuple(marks.attrs["chunks"])  # type: ignore[arg-type]
    for variable, array in arrays.items():
        dims = array.metadata.dimension_names or ()  # type: ignore[union-attr]
        coordinate = tuple(dims) == (variable,)
        if marks is None or coordinate:
            wanted = array.nchunks
        else:  # those that are done; what only the end writes may have none yet
            wanted = marks.nchunks_initialized if set(divided) <= set(dims) else 0
        if array.nchunks_initialized < wanted:
            few = wanted - array.nchunks_initialized
            raise _damaged(name, f"{variable} lacks {few} of its blocks")
        if coordinate:
            try:
                array[...]
            except Exception as error:  # as below
                raise _damaged(name, f"{variable} cannot be read") from error


def unfinished(group: zarr.Group) -> str:
    """Return how much of a store that is being filled is there, in words."""
    marks = marks_of(group)
    return f"{marks.sum()} of {marks.size} blocks are there"


def marks_of(group: zarr.Group) -> np.ndarray:
    """Return which chunks of a store are done; one that is, of a store that is whole.

    Raises:
        InputError: the marks are damaged.
    """
    if DONE not in group:
        return np.ones(1, bool)
    try:
        return np.asarray(group[DONE]) == 1
    except Exception as error:  # a checksum, or no chunk
        raise _damaged(group.store, f"{DONE} cannot be read") from error


def as_dataset(place: Any, in_memory: int = IN_MEMORY) -> xr.Dataset:
    """Return what a zarr store holds: in memory, or on the disk where it is large.

    Raises:
        InputError: a variable is damaged.
    """
    dataset = xr.open_dataset(
        place, engine="zarr", consolidated=False, cache=False, drop_variables=[DONE]
    )
    dataset = _in_order(dataset)
    if dataset.nbytes > in_memory:
        return dataset
    for name, variable in dataset.variables.items():
        try:
            variable.load()
        except Exception as error:  # a checksum, or a chunk that is no chunk
            where = str(place).removeprefix("file://")
            raise _damaged(where, f"{name} cannot be read") from error
    return dataset


def _in_order(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with its variables in the order of the run: a disk has one of its own."""
    written = str(ds.attrs.get("written", "")).split()
    named = {name: ds.variables[name] for name in written if name in ds.variables}
    named |= {name: variable for name, variable in ds.variables.items() if name not in named}
    data = {name: variable for name, variable in named.items() if name in ds.data_vars}
    coords = {name: variable for name, variable in named.items() if name in ds.coords}
    return xr.Dataset(data, coords, ds.attrs)


def require_same(attrs: Any, asked: Any, name: str) -> None:
    """Return nothing where a store of such attrs holds what is asked.

    Raises:
        InputError: it holds something else; a file of the user's that has changed is named.
    """
    if attrs.get("config_hash") == asked["config_hash"]:
        return
    config = asked.get("config", "{}")
    path = json.loads(config).get("path")
    if path and attrs.get("config") == config:
        raise InputError(
            f"the file {path} has changed since the run in {name} began: choose another place, or "
            "put the file back."
        )
    raise InputError(
        f"{name} holds something else than what is asked; choose another place or remove it."
    )


def holds_nothing(path: Path) -> bool:
    """Return whether a store is one that is filled block by block, and has no block yet."""
    return (path / DONE / "zarr.json").exists() and not (path / DONE / "c").exists()


def is_of_a_run(path: Path) -> bool:
    """Return whether a folder is a store that homojax wrote."""
    try:
        return "config_hash" in json.loads((path / "zarr.json").read_text("utf-8"))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
