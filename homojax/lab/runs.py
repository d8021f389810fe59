"""A run on disk, once for every verb: its folder, and its unfinished blocks.

A folder belongs to one run. It is filled under another name, can be taken up again after an
interrupt, and appears under its own name only once it is whole.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from filelock import FileLock, Timeout

from homojax.lab.inputs import InputError, Output
from homojax.lab.interrupts import UNTOUCHED
from homojax.lab.store import holds_nothing, is_url, read_dataset, write_dataset

# ---------------------------------------------------------------- unfinished blocks


class Blocks:
    """The finished parts of an unfinished run; nothing is kept where ``folder`` is None."""

    def __init__(self, folder: Path | None):
        self.folder = folder

    def get(self, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the block of this name: as it was kept, or made now and kept."""
        block = self.load(key)
        if block is None:
            block = make()
            self.save(key, block)
        return block

    def clear(self) -> None:
        """Remove every block."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def load(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the block of this name; None if there is none, or only a damaged one."""
        if self.folder is None:
            return None
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
        self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **block)
        part = self.folder / f"{key}.part"
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
    if store is None:
        return compute(Blocks(None))
    store = Path(store)
    if store.exists():
        dataset = read_dataset(store)
        if dataset.attrs.get("config_hash") != digest:
            raise InputError(
                f"{store} holds something else than what is asked; choose another place or "
                "remove it."
            )
        return dataset
    blocks = Blocks(store.with_name(f"{store.name}.blocks-{digest}"))
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
        raise InputError(
            f"another process writes {store}{part.replace('-', ' ')}: wait for it, or stop it."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # of a disk that turned read-only
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


# ---------------------------------------------------------------- folders

MANIFEST = "run.json"  # in every folder: what the run is, and at its end the files that it wrote


def own(folder: Path, identity: dict[str, Any]) -> None:
    """Make ``folder`` the place of this run, or take it up where it is that already.

    Args:
        folder: made where it does not exist.
        identity: what the run is, as values that JSON has; the version of homojax is added.

    Raises:
        InputError: the folder holds another run (the differences are named), or other files.
    """
    manifest = folder / MANIFEST
    if not folder.is_dir() or not any(path.name != MANIFEST for path in folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        # Whole at once, for whoever else looks.
        part = folder.with_name(f"{folder.name}-{MANIFEST}-{os.getpid()}")
        part.write_text(json.dumps(_asked(identity), indent=1) + "\n", "utf-8")
        part.replace(manifest)
        return
    if not manifest.exists():
        raise InputError(
            f"{folder} holds files and no {MANIFEST} to say of what: choose another folder, or "
            "remove it."
        )
    changes = _changes(folder, identity)
    if changes:
        raise InputError(
            f"{folder} holds another run: {'; '.join(changes)}. Ask for the same, choose another "
            "folder, or remove this one."
        )


def _asked(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the identity as JSON gives it back, with the version of homojax."""
    return json.loads(json.dumps({**identity, "homojax": version("homojax")}, default=str))


def _changes(folder: Path, identity: dict[str, Any]) -> list[str]:
    """Return the differences between the run in ``folder`` and the one that is asked."""
    try:
        before = _flat(json.loads((folder / MANIFEST).read_text("utf-8")))
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{folder / MANIFEST} is damaged: remove {folder} to start anew."
        ) from error
    before.pop("files", None)
    after = _flat(_asked(identity))
    return [
        f"{key} was {before.get(key)} and is asked to be {after.get(key)}"
        for key in after | before
        if before.get(key) != after.get(key)
    ]


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    """Return the values of nested dicts, by their innermost names."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


def run_folder(command: Output, identity: dict[str, Any], *, shared: bool = False) -> RunFolder:
    """Return the folder that a command names; or the next free one of its verb, by number.

    Where one of the verb's folders holds this very run, interrupted, that is taken up.

    Args:
        command: with the folder, or none.
        identity: what the run is.
        shared: whether other processes fill the folder, too.

    Raises:
        InputError: as of ``RunFolder``.
    """
    if command.out is not None or command.overwrite:
        out = command.out or command.place
        return RunFolder(out, identity, overwrite=command.overwrite, shared=shared)
    numbered = (command.place.with_name(f"{command.place.name}-{k}") for k in itertools.count(2))
    for out in itertools.chain([command.place], numbered):
        part = _part_of(out)
        if _is_empty(out) and (_is_empty(part) or _holds(part, identity)):
            return RunFolder(out, identity)
    raise AssertionError  # there is always another number


def _part_of(out: Path) -> Path:
    """Return the folder that a run is in until it is whole."""
    return out.with_name(f"{out.name}.part")


def _holds(part: Path, identity: dict[str, Any]) -> bool:
    """Return whether a folder is this very run, interrupted."""
    try:
        return (part / MANIFEST).exists() and not _changes(part, identity)
    except InputError:  # damaged
        return False


class RunFolder:
    """The folder of a run: filled as ``part`` beside ``out``, and given its name by ``finish``."""

    def __init__(
        self, out: Path, identity: dict[str, Any], *, overwrite: bool = False, shared: bool = False
    ):
        """Make the folder, or take up an interrupted run of the same identity.

        One that is ``shared`` with other processes stays where this one is stopped.

        Raises:
            InputError: ``out`` exists and may not be replaced, or cannot be made; or an interrupted
                run of another identity is in its way.
        """
        out = out.expanduser()
        if out.is_symlink():
            raise InputError(f"{out} is a symbolic link: name the folder itself.")
        self.name = out  # as it is told
        self.out = out.resolve()
        if not _is_empty(self.out):
            if not _is_a_run(self.out):
                holds = "holds what" if self.out.is_dir() else "is a file that"
                raise InputError(f"{out} {holds} homojax did not write: choose another --out.")
            if not overwrite:
                raise InputError(
                    f"{out} exists already: choose another --out, or add --overwrite to replace it."
                )
        self.part = _part_of(self.out)
        self._made = [path for path in self.out.parents if not path.exists()]
        try:
            if overwrite and (self.part / MANIFEST).exists() and _changes(self.part, identity):
                shutil.rmtree(self.part)  # an interrupted run of something else
            own(self.part, identity)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"cannot make the folder {out}: {reason}.") from error
        if not shared:
            _unfinished.append(self)

    def discard_if_empty(self) -> bool:
        """Remove the folder if nothing was kept in it; return whether it is gone."""
        with suppress(OSError):  # of a disk that turned read-only
            return self._discard_if_empty()
        return False

    def _discard_if_empty(self) -> bool:
        if _kept_in(self.part):
            return False
        aside = self.part.with_name(f"{self.part.name}-{os.getpid()}")
        self.part.rename(aside)  # so that nothing comes into it meanwhile
        if _kept_in(aside):
            aside.rename(self.part)
            return False
        shutil.rmtree(aside)
        for folder in self._made:
            if not any(folder.iterdir()):
                folder.rmdir()
        return True

    def finish(self) -> None:
        """List the files in the manifest, and replace an older run only now."""
        manifest = self.part / MANIFEST
        files = sorted(_files_in(self.part) - {MANIFEST})
        identity = json.loads(manifest.read_text("utf-8"))
        manifest.write_text(json.dumps({**identity, "files": files}, indent=1) + "\n", "utf-8")
        with (
            UNTOUCHED,
            tempfile.TemporaryDirectory(dir=self.out.parent, prefix=f"{self.out.name}.old-") as old,
        ):
            if self.out.exists():
                self.out.rename(Path(old) / "run")
            self.part.rename(self.out)
        if self in _unfinished:
            _unfinished.remove(self)


_unfinished: list[RunFolder] = []  # of this process


def holds_finished(out: Path, identity: dict[str, Any]) -> bool:
    """Return whether a folder is this very run, finished."""
    return _is_a_run(out) and not _changes(out, identity)


def discard_empty() -> bool:
    """Remove the folders of unfinished runs that kept nothing; return whether one kept something.

    A run that is stopped, or that fails, leaves nothing to tidy up.
    """
    gone = [folder.discard_if_empty() for folder in _unfinished if folder.part.exists()]
    _unfinished.clear()
    return not all(gone)


def _is_empty(folder: Path) -> bool:
    """Return whether there is nothing of this name, or an empty folder."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _files_in(folder: Path) -> set[str]:
    """Return all files in a folder and the folders in it, by their path from there."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _kept_in(folder: Path) -> bool:
    """Return whether an unfinished run has anything that would have to be made again."""
    unfilled = [store.name for store in folder.glob("*.zarr") if holds_nothing(store)]
    files = _files_in(folder) - {MANIFEST}
    idle = (".zarr.lock", ".zarr.part-")
    tops = {file.split("/")[0] for file in files}
    return any(top not in unfilled and not any(word in top for word in idle) for top in tops)


def _is_a_run(folder: Path) -> bool:
    """Return whether everything in ``folder`` is what a finished run says it wrote."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        return "homojax" in manifest and _files_in(folder) <= {MANIFEST, *manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
