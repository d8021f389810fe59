"""Where a store may be: a path on this machine, or a URL."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from zarr.storage import FsspecStore

from homojax.lab.inputs import InputError

_MISTAKES = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
}


def place_of(store: Any) -> str | Path | None:
    """Return a store as a path, a URL or None.

    Raises:
        InputError: it is neither, or nothing here can read such a URL.

    >>> place_of("s3:/bucket/run.zarr")
    Traceback (most recent call last):
    homojax.lab.inputs.InputError: s3:/bucket/run.zarr looks like a URL: write s3://.
    """
    if store is None:
        return None
    if not isinstance(store, str | os.PathLike) or not isinstance(os.fspath(store), str):
        raise InputError(f"expected a path or a URL, got {store!r}.")
    name = os.fspath(store).removeprefix("file://")
    if is_url(name):
        return name
    if not name.strip() or "\0" in name:
        raise InputError(f"expected a path or a URL, got {store!r}.")
    scheme, colon, rest = name.partition(":")
    if colon and rest.startswith("/") and scheme in fsspec.available_protocols():
        raise InputError(f"{name} looks like a URL: write {scheme}://.")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise InputError(f"{name}: there is no user of that name.") from None


def path_of(store: Any) -> Path | None:
    """Return a store, or a folder, that must be on this machine's disk.

    Raises:
        InputError: it is no path.
    """
    place = place_of(store)
    if isinstance(place, str):
        raise InputError(f"{store} is a URL: only a sweep has its store elsewhere; give a path.")
    return place


def store_at(url: str) -> FsspecStore:
    """Return the store at a URL.

    Raises:
        InputError: there is no such protocol, a package for it is missing, or the URL is wrong.
    """
    try:
        return FsspecStore.from_url(url)
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"cannot use {url} as a store: {error}.") from error


@contextmanager
def making(place: Path) -> Iterator[None]:
    """Say in one sentence that there can be no ``place``; a full disk is no mistake in a name.

    Raises:
        InputError: its name is a mistake, or nobody may write there.
        OSError: what else goes wrong, such as that the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _MISTAKES:
            raise
        reason = error.strerror or error
        raise InputError(f"cannot make {place}: {reason}; choose another place.") from error


def is_there(place: Path) -> bool:
    """Return whether there is a file or a folder; of a name that is too long there is none."""
    return os.path.exists(place)  # noqa: PTH110


def is_url(path: str | Path) -> bool:
    """Return whether a store is elsewhere, such as s3://bucket/run.zarr."""
    return "://" in str(path)
