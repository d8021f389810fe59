"""Which files homojax wrote: of all others it removes none.

A finished run lists its files. In an unfinished one, and beside a store, they go by their form.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

_NODE = r"(zarr|c(/\d+)*)\.[0-9a-f]+\.partial|zarr\.json|c(/\d+)*"  # of an array or a group
_STORE = rf"([^/]+/)?({_NODE})"
_ANY = r"[^/]+\.zarr"  # the name of a run's store
_CHECKPOINT = r"checkpoints/depth-\d+/.+"


@cache
def _passing(name: str) -> re.Pattern[str]:
    """Return the form of what is beside a store only while processes write it."""
    aside = rf"part-([a-z0-9_]{{8}}/store/({_STORE})|done/({_NODE}))"
    return re.compile(rf"{name}\.(lock(-\d+-of-\d+)?|{aside})")


@cache
def _kept(name: str) -> re.Pattern[str]:
    """Return the form of what an unfinished run keeps, its store called ``name``."""
    return re.compile(rf"{name}/({_STORE})|{name}\.blocks-[0-9a-f]{{16}}/[^/]+|{_CHECKPOINT}")


def files_in(folder: Path) -> set[str]:
    """Return all files and links in a folder and the folders in it, by their path from there.

    What another process removes meanwhile is left out.
    """
    found = set()
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        found |= {Path(place, name).relative_to(folder).as_posix() for name in (*files, *links)}
    return found


def is_passing(file: str) -> bool:
    """Return whether a path in a run's folder is of what passes, such as a lock.

    >>> is_passing("verify.zarr.lock"), is_passing("verify.zarr.lock-notes.txt")
    (True, False)
    """
    return bool(_passing(_ANY).fullmatch(file))


def is_written(file: str) -> bool:
    """Return whether a path in the folder of an unfinished run has the form of what a run writes.

    >>> is_written("verify.zarr/holds/c/0/0"), is_written("verify.zarr/notes.txt")
    (True, False)
    """
    return is_passing(file) or bool(_kept(_ANY).fullmatch(file))


def clear_left_overs(store: Path, *, locks: bool = False) -> None:
    """Remove what killed processes were about to write in and beside a store, and nothing else.

    Args:
        store: its path.
        locks: whether no other process is at work, and locks may go, too.
    """
    form = _passing(re.escape(store.name))
    for left in store.parent.glob("*"):
        if left.name.startswith(f"{store.name}.part-"):
            for file in files_in(left):
                if form.fullmatch(f"{left.name}/{file}"):
                    (left / file).unlink(missing_ok=True)
            remove_empty(left)
        elif locks and form.fullmatch(left.name):
            left.unlink(missing_ok=True)
    for file in files_in(store):
        if file.endswith(".partial") and re.fullmatch(_STORE, file):
            (store / file).unlink(missing_ok=True)


def remove_store(store: Path) -> None:
    """Remove what a run wrote in a store; the folder stays if it holds anything else."""
    for file in files_in(store):
        if re.fullmatch(_STORE, file):
            (store / file).unlink(missing_ok=True)
    remove_empty(store)


def remove_empty(folder: Path) -> None:
    """Remove the folders in a folder that hold nothing, and itself if it then holds nothing."""
    for place, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # it holds something, or another process was quicker
            Path(place).rmdir()
