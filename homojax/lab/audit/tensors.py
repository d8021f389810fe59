"""A tensor as a file has it: known by its header, read when asked for, widened exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from homojax.lab.inputs import InputError

LARGEST = 2**26  # entries of a mixing tensor; the largest known has 0.7 million
BLOCK = 2**22  # entries widened at a time


class Precision(NamedTuple):
    """How a stored number stands for the number that was rounded to it.

    It is within ``unit`` times the largest magnitude among ``block`` neighbours, which for floating
    point is the number itself (block 1).
    """

    dtype: str
    unit: float
    block: int = 1


class Tensor(NamedTuple):
    """One tensor of a checkpoint, not yet read."""

    name: str  # as in the file
    shape: tuple[int, ...]
    precision: Precision | None  # None: no real numbers, or of a type unknown here
    dtype: str  # as the file calls it
    load: Callable[[], np.ndarray]  # the stored numbers, or a memory map of them
    file: str = ""

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)


class Skipped(NamedTuple):
    """A tensor that looks like mixing and is not in the result, and why."""

    name: str
    reason: str


class Checkpoint(NamedTuple):
    """What the headers of a checkpoint say."""

    place: str
    tensors: dict[str, Tensor]
    config: dict[str, Any]  # config.json, or the metadata of a GGUF file
    skipped: tuple[Skipped, ...] = ()  # tensors that the checkpoint's own index leaves out


# ---------------------------------------------------------------- precision

FLOATS: dict[str, np.dtype] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
}


def float_precision(dtype: str) -> Precision | None:
    """Return the precision of a floating-point type by its NumPy name; None for other types.

    >>> float_precision("bfloat16")
    Precision(dtype='bfloat16', unit=0.00390625, block=1)
    """
    if dtype not in FLOATS:
        return None
    return Precision(dtype, float(ml_dtypes.finfo(FLOATS[dtype]).eps) / 2)


# ---------------------------------------------------------------- reading


def read(tensor: Tensor) -> np.ndarray:
    """Return the numbers of a tensor in float64, which holds all types of ``FLOATS`` exactly.

    Raises:
        InputError: the tensor is too large to be mixing, damaged, or has a number that is none.
    """
    wide = read_any(tensor)
    _refuse_unless_finite(tensor, wide)
    return wide


def read_any(tensor: Tensor) -> np.ndarray:
    """Return the numbers of a tensor as ``read`` does, those that are not finite, too."""
    return np.asarray(_stored(tensor), np.float64)


def read_rows(tensor: Tensor, rows: slice, *, turned: bool) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield some columns at a time of some rows of a matrix, in float64, and which columns.

    Args:
        tensor: a matrix.
        rows: the ones to read; nothing else of a memory map is read.
        turned: whether the file has the transpose of what is meant.
    """
    stored = _stored(tensor).T if turned else _stored(tensor)
    step = max(1, BLOCK // max(1, stored.shape[0]))
    for start in range(0, stored.shape[1], step):
        columns = slice(start, start + step)
        wide = np.asarray(stored[rows, columns], np.float64)
        _refuse_unless_finite(tensor, wide)
        yield columns, wide


def part_of(tensor: Tensor, axis: int, index: int) -> Tensor:
    """Return one layer of a tensor in which layers are stacked along an axis."""
    shape = tensor.shape[:axis] + tensor.shape[axis + 1 :]
    return tensor._replace(shape=shape, load=lambda: np.take(_stored(tensor), index, axis))


def _stored(tensor: Tensor) -> np.ndarray:
    if tensor.precision is None:
        raise InputError(
            f"{tensor.name} holds {tensor.dtype}: mixing tensors hold floating-point numbers."
        )
    if tensor.size > LARGEST:
        raise InputError(
            f"{tensor.name} has shape {list(tensor.shape)}, {tensor.size:.1e} numbers: no mixing "
            f"tensor has more than {LARGEST:.1e}."
        )
    try:
        stored = tensor.load()
    except InputError:
        raise
    except Exception as error:  # the libraries of formats raise anything on a damaged file
        raise InputError(
            f"{tensor.file} has {tensor.name} damaged ({type(error).__name__}): fetch it again."
        ) from error
    if stored.shape != tensor.shape:
        raise InputError(
            f"{tensor.name} has shape {list(stored.shape)}, and its header says "
            f"{list(tensor.shape)}: the file is damaged."
        )
    return stored


def _refuse_unless_finite(tensor: Tensor, wide: np.ndarray) -> None:
    wrong = ~np.isfinite(wide)
    if wrong.any():
        index = [int(i) for i in np.argwhere(wrong)[0]]
        raise InputError(
            f"{tensor.name} is {wide[tuple(index)]} at {index}: a training that diverged leaves "
            "such numbers; take an earlier checkpoint."
        )
