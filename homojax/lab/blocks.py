"""The parts of an unfinished run, and who writes a store."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import xarray as xr
from filelock import FileLock, Timeout

from homojax.lab.inputs import InputError
from homojax.lab.interrupts import UNTOUCHED
from homojax.lab.ownership import remove_empty
from homojax.lab.places import is_there, is_url, making, path_of
from homojax.lab.store import read_dataset, write_dataset


class Blocks:
    """The finished parts of an unfinished run; nothing is kept where ``folder`` is None."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.keys: set[str] = set()

    def get(self, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the block of this name: as it was kept, or made now and kept."""
        block = self.load(key)
        if block is None:
            block = make()
            self.save(key, block)
        return block

    def clear(self) -> None:
        """Remove every block that was loaded or saved."""
        if self.folder is not None:
            for key, kind in itertools.product(self.keys, ("npz", "part")):
                (self.folder / f"{key}.{kind}").unlink(missing_ok=True)
            remove_empty(self.folder)

    def load(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the block of this name; None if there is none, or only a damaged one."""
        if self.folder is None:
            return None
        self.keys.add(key)
        try:
            content = (self.folder / f"{key}.npz").read_bytes()
        except FileNotFoundError:
            return None
        digest, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() != digest:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    def save(self, key: str, block: dict[str, np.ndarray]) -> None:
        """Keep a block under this name."""
        if self.folder is None:
            return
        self.keys.add(key)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **block)
        part = self.folder / f"{key}.part"
        with UNTOUCHED:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())
            part.rename(self.folder / f"{key}.npz")


def resume(
    store: str | Path | None, digest: str, compute: Callable[[Blocks], xr.Dataset]
) -> xr.Dataset:
    """Return the Dataset that ``store`` holds, or compute it and keep it there.

    An interrupted computation leaves its blocks beside the store, and goes on from them.

    Args:
        store: path of a zarr store; None keeps nothing.
        digest: hash of what is asked.
        compute: makes the Dataset, through ``Blocks.get`` where a part takes long.

    Raises:
        InputError: the store holds something else than what is asked, or is damaged.
        OSError: the store cannot be written; blocks done so far are kept.
    """
    store = path_of(store)
    if store is None:
        return compute(Blocks(None))
    if is_there(store):
        dataset = read_dataset(store)
        if dataset.attrs.get("config_hash") != digest:
            raise InputError(
                f"{store} holds something else than what is asked; choose another place or "
                "remove it."
            )
        return dataset
    folder = store.with_name(f"{store.name}.blocks-{digest}")
    with making(store):  # before anything is computed
        folder.mkdir(parents=True, exist_ok=True)
    remove_empty(folder)
    blocks = Blocks(folder)
    dataset = compute(blocks)
    write_dataset(dataset, store)
    blocks.clear()
    return dataset


@contextmanager
def writing(store: str | Path | None, part: str = "", *, wait: bool = False) -> Iterator[None]:
    """Hold a store for this process, as long as this lasts.

    Args:
        store: a path; in memory, and at a URL, there is nothing to hold.
        part: what is held of it, where others may write other parts.
        wait: until another process that holds it is done.

    Raises:
        InputError: another process holds it, and this one does not wait.
    """
    if store is None or is_url(store):
        yield
        return
    store = Path(store)
    lock = FileLock(store.with_name(f"{store.name}.lock{part}"))
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        shard = f"shard {part.strip('-').replace('-', ' ')} of " if part else ""
        raise InputError(
            f"another process writes {shard}{store}: wait for it, or stop it."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # of a disk that turned read-only
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
