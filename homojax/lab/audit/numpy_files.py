""".npy and .npz files: headers first, no pickles, and no more bytes than a header promises."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from homojax.lab.audit.tensors import Tensor, float_precision
from homojax.lab.inputs import InputError

_DAMAGE = (ValueError, OSError, EOFError)
_DAMAGED_ZIP = (*_DAMAGE, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def read_npy(path: Path) -> dict[str, Tensor]:
    """Return the one tensor of a .npy file, named as the file is.

    Raises:
        InputError: it is no such file, is shorter than its header says, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _header(file)
            offset = file.tell()
    except _DAMAGE as error:
        raise InputError(f"{path} is no .npy file, or is truncated: fetch it again.") from error
    if dtype.hasobject:
        raise InputError(
            f"{path} holds Python objects, which run code when read: save a plain array instead."
        )
    if math.prod(shape) * dtype.itemsize > path.stat().st_size - offset:
        raise InputError(f"{path} is shorter than its header says: fetch it again.")

    def load() -> np.ndarray:
        if math.prod(shape) == 0:
            return np.zeros(shape, dtype)
        flat = np.memmap(path, dtype, "r", offset, (math.prod(shape),))
        return flat.reshape(shape, order="F" if fortran else "C")

    return {path.stem: _tensor(path.stem, shape, dtype, load, path)}


def read_npz(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an .npz file; nothing but their headers is decompressed.

    Raises:
        InputError: the archive is damaged, or has a name twice.
    """
    tensors: dict[str, Tensor] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in tensors:
                    raise InputError(f'{path} has "{name[:80]}" twice: it is damaged.')
                if member.filename.endswith(".npy"):
                    tensors[name] = _member(archive, member, name, path)
    except _DAMAGED_ZIP as error:
        raise InputError(f"{path} is no .npz file, or is damaged: fetch it again.") from error
    return tensors


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: Path) -> Tensor:
    with archive.open(member) as file:
        shape, fortran, dtype = _header(file)
        offset = file.tell()
    size = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and member.file_size - offset != size:
        raise InputError(
            f'{path} has "{name[:80]}" of {member.file_size - offset} bytes, and its header says '
            f"{size}: it is damaged."
        )

    def load() -> np.ndarray:
        with zipfile.ZipFile(path) as again, again.open(member) as file:
            file.seek(offset)
            flat = np.frombuffer(file.read(size), dtype)
        return flat.reshape(shape, order="F" if fortran else "C")

    return _tensor(name, shape, dtype, load, path)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether columns come first, and type; NumPy evaluates literals only."""
    # Later versions of the format are for structures, and promise headers of up to 4 GB.
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not version 1.0 of the format")
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # Python's own parser and tokenizer raise anything on damage
        raise ValueError("no header") from error
    if any(size < 0 for size in shape):
        raise ValueError("a negative size")
    return shape, fortran, dtype


def _tensor(
    name: str, shape: tuple[int, ...], dtype: np.dtype, load: Callable, path: Path
) -> Tensor:
    plain = dtype.kind == "f" and dtype.itemsize <= 8
    return Tensor(
        name=name,
        shape=shape,
        precision=float_precision(f"float{8 * dtype.itemsize}") if plain else None,
        dtype="Python objects, which run code when read" if dtype.hasobject else str(dtype),
        load=load,
        file=path.name,
    )
