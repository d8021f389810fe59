"""GGUF files, which llama.cpp reads. The header is read here, as the file may be anybody's.

The gguf package believes the counts of a header, and loops as often as they say. It widens the
block types that are not widened here.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from homojax.lab.audit.tensors import FLOATS, Precision, Tensor, float_precision
from homojax.lab.inputs import InputError

MOST_TENSORS, MOST_ENTRIES = 2**20, 2**14  # of a model's header

_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?"}
_SCALARS |= {10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


class _Blocks(NamedTuple):
    """A quantised type: how many numbers are stored together, in how many bytes, how finely.

    ``unit`` is the largest error over the largest number of a block, without the rounding of the
    step itself to float16: half a step, or a whole one where the last step is missing on one side.
    Where the steps are quantised too (names with K or I), it is an estimate.
    """

    name: str
    entries: int
    size: int
    unit: float


_FLOATS = {0: "float32", 1: "float16", 28: "float64", 30: "bfloat16"}
_BLOCKS = {
    2: _Blocks("Q4_0", 32, 18, 1 / 8),
    3: _Blocks("Q4_1", 32, 20, 1 / 15),
    6: _Blocks("Q5_0", 32, 22, 1 / 16),
    7: _Blocks("Q5_1", 32, 24, 1 / 31),
    8: _Blocks("Q8_0", 32, 34, 1 / 254),
    10: _Blocks("Q2_K", 256, 84, 0.4),
    11: _Blocks("Q3_K", 256, 110, 1 / 6),
    12: _Blocks("Q4_K", 256, 144, 1 / 11),
    13: _Blocks("Q5_K", 256, 176, 1 / 20),
    14: _Blocks("Q6_K", 256, 210, 1 / 40),
    20: _Blocks("IQ4_NL", 32, 18, 1 / 8),
    23: _Blocks("IQ4_XS", 256, 136, 1 / 8),
    39: _Blocks("MXFP4", 32, 17, 1 / 4),
}


def read_gguf(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a GGUF file, row-major as in PyTorch, and its metadata but for lists.

    Raises:
        InputError: it is damaged, or of a version unknown here.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(_Cursor(data), path)
    except (ValueError, struct.error, OSError, RecursionError) as error:
        raise InputError(f"{path} is no GGUF file, or is damaged: fetch it again.") from error


class _Cursor:
    """A place in the file. What would lie beyond its end raises ValueError, and ends every loop."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 0

    def skip(self, count: int) -> int:
        """Return the place, and go on by so many bytes."""
        if count > len(self.data) - self.at:
            raise ValueError("beyond the end")
        before, self.at = self.at, self.at + count
        return before

    def number(self, code: str) -> Any:
        return struct.unpack_from(code, self.data, self.skip(struct.calcsize(code)))[0]

    def text(self) -> str:
        length = self.number("<Q")
        start = self.skip(length)
        return self.data[start : start + min(length, 2**16)].decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        """Return a value of the metadata; None for a list, which is passed over."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or depth > 4:
            raise ValueError("a type unknown")
        inner = self.number("<I")
        if inner in _SCALARS:
            self.skip(self.number("<Q") * struct.calcsize(_SCALARS[inner]))
        else:
            for _ in range(self.number("<Q")):
                if inner == _STRING:
                    self.skip(self.number("<Q"))
                else:
                    self.value(inner, depth + 1)
        return None


def _parse(cursor: _Cursor, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if cursor.data[cursor.skip(4) : 4] != b"GGUF":
        raise ValueError("another format")
    version = cursor.number("<I")
    if version not in (2, 3):
        raise InputError(f"{path} is GGUF of version {version}: 2 and 3 are known, convert it.")
    tensors, entries = cursor.number("<Q"), cursor.number("<Q")
    if tensors > MOST_TENSORS or entries > MOST_ENTRIES:
        raise ValueError("more than a model has")
    metadata = {cursor.text(): cursor.value(cursor.number("<I")) for _ in range(entries)}
    rows = [_row(cursor) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 2**20:
        raise ValueError("no alignment")
    start = -(-cursor.at // alignment) * alignment
    found = {row[0]: _tensor(row, path, start, len(cursor.data)) for row in rows}
    if len(found) < len(rows):
        raise InputError(f"{path} has a tensor's name twice: it is damaged or was tampered with.")
    return found, metadata


def _row(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, axes = cursor.text(), cursor.number("<I")
    if axes > 8:
        raise ValueError("too many axes")
    shape = tuple(cursor.number("<Q") for _ in range(axes))[::-1]
    return name, shape, cursor.number("<I"), cursor.number("<Q")


def _tensor(row: tuple, path: Path, start: int, length: int) -> Tensor:
    name, shape, kind, offset = row
    size, rows = math.prod(shape), _BLOCKS.get(kind)
    if kind in _FLOATS:
        size *= FLOATS[_FLOATS[kind]].itemsize
    elif rows is not None:
        if not shape or shape[-1] % rows.entries:
            raise ValueError("rows of broken blocks")
        size = size // rows.entries * rows.size
    if (kind in _FLOATS or rows) and start + offset + size > length:
        raise InputError(f'{path} has less than all of "{name[:80]}": fetch it again.')
    if kind in _FLOATS:
        precision, load = float_precision(_FLOATS[kind]), _plain(path, kind, start + offset, shape)
    elif rows:
        precision = Precision(rows.name, rows.unit + 2.0**-11, rows.entries)
        load = _quantised(path, rows, kind, start + offset, shape)
    else:
        precision, load = None, lambda: np.zeros(0)
    return Tensor(name, shape, precision, f"GGUF type {kind}", load, path.name)


def _plain(path: Path, kind: int, offset: int, shape: tuple[int, ...]) -> Callable:
    dtype = FLOATS[_FLOATS[kind]]

    def load() -> np.ndarray:
        if math.prod(shape) == 0:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", offset, (math.prod(shape),)).reshape(shape)

    return load


def _quantised(path: Path, rows: _Blocks, kind: int, offset: int, shape: tuple) -> Callable:
    def load() -> np.ndarray:
        count = math.prod(shape) // rows.entries
        blocks = np.memmap(path, np.uint8, "r", offset, (count, rows.size)) if count else None
        if blocks is None:
            return np.zeros(shape, np.float32)
        if rows.name == "Q8_0":
            steps = blocks[:, :2].copy().view(np.float16).astype(np.float32)
            return (steps * blocks[:, 2:].view(np.int8)).reshape(shape)
        try:
            from gguf import GGMLQuantizationType  # pyright: ignore[reportMissingImports]
            from gguf.quants import dequantize  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError(
                f"{path} has mixing tensors in {rows.name}, which the gguf package widens: "
                'install it, by pip install "homojax[audit]".'
            ) from None
        bytes_of_rows = np.asarray(blocks).reshape(*shape[:-1], -1)
        return dequantize(bytes_of_rows, GGMLQuantizationType(kind)).reshape(shape)

    return load
