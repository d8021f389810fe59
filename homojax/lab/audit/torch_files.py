"""PyTorch's .pt and .pth files: weights only, without torch, and no code of the file is run.

Such a file is a ZIP archive, uncompressed: a pickle that says which tensor is where, and one member
a storage. The pickle may ask for a dozen names; here they all stand for functions of this file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from homojax.lab.audit.tensors import FLOATS, Tensor, float_precision
from homojax.lab.inputs import InputError

LONGEST_PICKLE = 2**25  # bytes; about 200 a tensor
MOST_STEPS = 2**22  # of the unpickler, which can make 100 bytes each; about 30 a tensor
DEEPEST = 16  # dictionaries in dictionaries

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    **{f"{kind}Storage": kind.lower() for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")},
}
_DTYPES = {*FLOATS, "int64", "int32", "int16", "int8", "uint8", "bool"}


class _Storage(NamedTuple):
    dtype: str
    key: str


class _View(NamedTuple):
    """A tensor as the pickle has it: counts of entries in a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Names(dict):
    """A state_dict, which is an OrderedDict that carries versions of modules along."""

    def __init__(self):  # of a copy of something large, a small pickle could ask for many
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Forget the versions."""


def read_torch(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file that ``torch.save`` wrote, dictionaries joined by dots.

    Raises:
        InputError: it is damaged, of before PyTorch 1.6, or asks for more than weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            pickles = [name for name in members if name.endswith("/data.pkl")]
            if len(pickles) != 1 or len(members) < len(archive.infolist()):
                raise zipfile.BadZipFile("no single pickle, or a name twice")
            content = _stored_bytes(path, members[pickles[0]], LONGEST_PICKLE)
            root = pickles[0].removesuffix("data.pkl")
            if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
                raise InputError(f"{path} is of a big-endian machine: save it as safetensors.")
        views = dict(_flat("", _unpickled(content, path), set(), 0))
        tensors = {name: _tensor(name, view, path, root, members) for name, view in views.items()}
    except (zipfile.BadZipFile, OSError, NotImplementedError, struct.error) as error:
        raise InputError(
            f"{path} is damaged, or of before PyTorch 1.6: save it again by torch.save, or as "
            "safetensors."
        ) from error
    return tensors


# ---------------------------------------------------------------- the pickle


class _WeightsOnly(pickle.Unpickler):
    def __init__(self, content: bytes, path: Path):
        super().__init__(io.BytesIO(content))
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("collections", "OrderedDict"): _Names,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            ("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed,
            ("torch._utils", "_rebuild_parameter"): lambda view, *_: view,
            ("torch", "Size"): _shape,
            ("torch.storage", "UntypedStorage"): "",
        }
        if (module, name) in allowed:
            return allowed[module, name]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return name
        raise InputError(
            f"{self.path} asks for {module[:60]}.{name[:60]}, which could run code: save the "
            "weights alone, by torch.save(model.state_dict(), …) or as safetensors."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, str) or not isinstance(key, str):
            raise pickle.UnpicklingError("no storage")
        return _Storage(dtype, key)


def _shape(counts: Any) -> tuple[int, ...]:
    if not isinstance(counts, tuple | list) or len(counts) > 32:
        raise pickle.UnpicklingError("no shape")
    if any(type(x) is not int or not 0 <= x < 2**63 for x in counts):
        raise pickle.UnpicklingError("no shape")
    return tuple(counts)


def _rebuild(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _View:
    view = _View(storage, _shape([offset])[0], _shape(shape), _shape(strides))
    if not isinstance(storage, _Storage) or len(view.shape) != len(view.strides):
        raise pickle.UnpicklingError("no tensor")
    return view


def _rebuild_typed(
    storage: _Storage, offset: int, shape: tuple, strides: tuple, grad: Any, hooks: Any, dtype: str
) -> _View:
    return _rebuild(_Storage(dtype, storage.key), offset, shape, strides)


def _unpickled(content: bytes, path: Path) -> Any:
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            # The unpickler makes a table as long as the largest index that is put into it.
            index = argument if opcode.name.endswith("PUT") and isinstance(argument, int) else 0
            if max(step, index) > MOST_STEPS:
                raise ValueError("more than the tensors of a model need")
        return _WeightsOnly(content, path).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(
            f"{path} has a pickle that is damaged, or no list of weights: save the weights again, "
            "as safetensors if that is possible."
        ) from error


def _flat(prefix: str, value: Any, seen: set[int], depth: int) -> Iterator[tuple[str, _View]]:
    """Yield all tensors by name. A dictionary that is met again is not entered again."""
    if isinstance(value, _View):
        yield prefix or "tensor", value
    elif isinstance(value, dict | list | tuple) and id(value) not in seen and depth < DEEPEST:
        seen.add(id(value))
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), item, seen, depth + 1)


# ---------------------------------------------------------------- the storages


def _tensor(name: str, view: _View, path: Path, root: str, members: dict) -> Tensor:
    dtype = view.storage.dtype
    precision = float_precision(dtype)

    def load() -> np.ndarray:
        member = members.get(f"{root}data/{view.storage.key}")
        last = view.offset + sum((size - 1) * step for size, step in _axes(view))
        itemsize = FLOATS[dtype].itemsize
        if math.prod(view.shape) == 0:
            return np.zeros(view.shape, FLOATS[dtype])
        if member is None or (last + 1) * itemsize > member.file_size:
            raise InputError(f'{path} has less than all of "{name[:80]}": fetch it again.')
        start = _offset_of(path, member)
        flat = np.memmap(path, FLOATS[dtype], "r", start, (member.file_size // itemsize,))
        strides = tuple(itemsize * step for step in view.strides)
        return np.lib.stride_tricks.as_strided(
            flat[view.offset :], view.shape, strides, writeable=False
        )

    return Tensor(name, view.shape, precision, dtype, load, path.name)


def _axes(view: _View) -> Iterator[tuple[int, int]]:
    return zip(view.shape, view.strides, strict=True)


def _stored_bytes(path: Path, member: zipfile.ZipInfo, most: int) -> bytes:
    if member.file_size > most:
        raise zipfile.BadZipFile("a pickle of that length lists no weights")
    start = _offset_of(path, member)
    with path.open("rb") as file:
        file.seek(start)
        return file.read(member.file_size)


def _offset_of(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where a member's bytes start; PyTorch stores them as they are."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise zipfile.BadZipFile("PyTorch compresses nothing")
    with path.open("rb") as file:
        file.seek(member.header_offset)
        local = struct.unpack("<4s22xHH", file.read(30))
    start = member.header_offset + 30 + local[1] + local[2]
    if local[0] != b"PK\x03\x04" or start + member.file_size > path.stat().st_size:
        raise zipfile.BadZipFile("a member beyond the end")
    return start
