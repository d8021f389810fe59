"""Headers of .safetensors files: what they promise is checked before anything is read."""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from homojax.lab.audit.tensors import FLOATS, Tensor, float_precision
from homojax.lab.inputs import InputError

LONGEST_HEADER = 2**25  # bytes; a header has about 150 a tensor

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file by its header.

    Raises:
        InputError: the header is none, or promises what the file has not.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 2 <= size <= min(LONGEST_HEADER, length - 8):
            raise InputError(f"{path} is no .safetensors file, or is truncated: fetch it again.")
        header = parse_object(file.read(size), path)
    header.pop("__metadata__", None)
    tensors = {name: _tensor(name, row, path, 8 + size, length) for name, row in header.items()}
    _refuse_overlaps(header, path)
    return tensors


def parse_object(content: bytes, path: Path) -> dict[str, Any]:
    """Return a JSON object of a file.

    Raises:
        InputError: it is none, or has a name twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for name, value in pairs:
            if name in names:
                raise InputError(f'{path} has "{name[:80]}" twice: it is damaged.')
            names[name] = value
        return names

    try:
        value = json.loads(content, object_pairs_hook=once)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object: it is damaged.")
    return value


def _tensor(name: str, row: Any, path: Path, start: int, length: int) -> Tensor:
    row = row if isinstance(row, dict) else {}
    dtype, shape, offsets = (row.get(key) for key in ("dtype", "shape", "data_offsets"))
    fits = isinstance(dtype, str) and _are_counts(shape) and _are_counts(offsets)
    if not (fits and len(offsets) == 2 and offsets[0] <= offsets[1] <= length - start):
        raise InputError(
            f'{path} is truncated or damaged: its tensor "{name[:80]}" cannot be where it says.'
        )
    known = _NAMES.get(dtype, "")
    precision = float_precision(known)
    if precision is not None:
        promised = math.prod(shape) * FLOATS[known].itemsize
        if promised != offsets[1] - offsets[0]:
            raise InputError(
                f'{path} has "{name[:80]}" of shape {_short(shape)} and type {dtype} in '
                f"{offsets[1] - offsets[0]} bytes, not {promised}: it is damaged."
            )
    load = _mapped(path, known, start + offsets[0], tuple(shape))
    return Tensor(name, tuple(shape), precision, known or dtype, load, path.name)


def _mapped(path: Path, dtype: str, offset: int, shape: tuple[int, ...]) -> Callable:
    def load() -> np.ndarray:
        if math.prod(shape) == 0:
            return np.zeros(shape, FLOATS[dtype])
        if not shape:
            return np.memmap(path, FLOATS[dtype], "r", offset, (1,)).reshape(())
        return np.memmap(path, FLOATS[dtype], "r", offset, shape)

    return load


def _are_counts(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= 32
        and all(type(x) is int and 0 <= x < 2**63 for x in values)
    )


def _short(shape: list[int]) -> str:
    return str(shape) if len(shape) <= 8 else f"[{shape[0]}, … {len(shape)} axes]"


def _refuse_overlaps(header: dict[str, Any], path: Path) -> None:
    rows = sorted((row["data_offsets"], name) for name, row in header.items())
    for (before, first), (after, second) in itertools.pairwise(rows):
        if after[0] < before[1]:
            raise InputError(
                f'{path} has "{first[:80]}" and "{second[:80]}" in the same bytes: it is damaged.'
            )
