"""The form of a row in the table of layouts, and what its functions ask of shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from homojax.lab.audit.layers import Projection
from homojax.lab.audit.settings import Settings
from homojax.lab.audit.tensors import Tensor, part_of
from homojax.lab.audit.tensors import read as read_tensor

Tensors = dict[str, Tensor]
MOST_LAYERS = 10_000  # stacked in one tensor


class MisfitError(Exception):
    """Why tensors that are named like mixing are not taken for it."""


class Logits(NamedTuple):
    """What the tensors of one sublayer come to."""

    preset: str  # a key of PRESETS
    base: np.ndarray  # as the preset takes its parameters
    n: int
    features: int | None
    scale: float = 0.0
    projection: Projection | None = None
    read: np.ndarray | None = None  # weights [n] of the streams that the sublayer is given
    write: np.ndarray | None = None  # weights [n] of what it returns, added to each stream


class Layout(NamedTuple):
    """A row of the table.

    ``names`` match a whole name. Their groups are what stands before the sublayer (``before``), the
    sublayer (``site``, absent where a tensor serves all of them), and the tensor's ``role``.
    """

    code: str
    statement: str  # shapes and arithmetic, in one line
    names: tuple[re.Pattern[str], ...]
    needs: tuple[str, ...]  # roles; the first one tells that there is mixing at all
    make: Callable[[Tensors, Settings], Logits]


LAYOUTS: dict[str, Layout] = {}
BEFORE = r"(?P<before>(?:.*\.)?)"


def layout(code: str, *, statement: str, names: tuple[str, ...], needs: tuple[str, ...]):
    """Return a decorator that declares a code's layout above the function that reads it."""

    def declare(make: Callable[[Tensors, Settings], Logits]):
        patterns = tuple(re.compile(BEFORE + name) for name in names)
        LAYOUTS[code] = Layout(code, statement, patterns, needs, make)
        return make

    return declare


# ---------------------------------------------------------------- shapes


def refuse_unless(fits: bool, reason: str) -> None:
    """Raise MisfitError with this reason unless something fits."""
    if not fits:
        raise MisfitError(reason)


def plane(tensor: Tensor) -> tuple[int, int]:
    """Return the shape of a matrix."""
    refuse_unless(len(tensor.shape) == 2, f"it has shape {list(tensor.shape)}, not two axes")
    return tensor.shape[0], tensor.shape[1]


def number(tensor: Tensor, of: int = 1, index: int = 0) -> float:
    """Return one of the ``of`` numbers of a tensor."""
    refuse_unless(
        tensor.size == of, f"{tensor.name} has shape {list(tensor.shape)}, not {of} numbers"
    )
    return float(read_tensor(tensor).reshape(-1)[index])


def vector(tensor: Tensor, size: int) -> np.ndarray:
    """Return the numbers of a tensor, of which there are ``size``."""
    refuse_unless(
        tensor.size == size, f"{tensor.name} has shape {list(tensor.shape)}, not {size} numbers"
    )
    return read_tensor(tensor).reshape(-1)


def streams(rows: int, settings: Settings) -> int:
    """Return the n of n² + 2n rows."""
    n = math.isqrt(rows + 1) - 1
    refuse_unless(n >= 2 and n * n + 2 * n == rows, f"{rows} rows are n² + 2n for no n")
    refuse_unless(
        settings.n in (None, n), f"{rows} rows are n = {n}, and the configuration says {settings.n}"
    )
    return n


def features(width: int, n: int) -> int:
    """Return the C of n·C columns."""
    refuse_unless(width > 0 and width % n == 0, f"{width} columns are not {n} streams of equal C")
    return width // n


def gates(pre: np.ndarray | None, post: np.ndarray | None) -> dict[str, Any]:
    """Return read and write weights at the static part: the fields of ``Logits``, σ and 2σ.

    >>> gates(np.zeros(2), None)
    {'read': array([0.5, 0.5]), 'write': None}
    """
    sigmoids = [None if x is None else (1 + np.tanh(x.reshape(-1) / 2)) / 2 for x in (pre, post)]
    return {"read": sigmoids[0], "write": None if sigmoids[1] is None else 2 * sigmoids[1]}


def given(tensors: Tensors, role: str, size: int) -> np.ndarray | None:
    """Return the ``size`` numbers of a tensor that a layout may lack."""
    return vector(tensors[role], size) if role in tensors else None


def unstacked(tensors: Tensors) -> list[Tensors]:
    """Return the tensors of each layer, where MaxText's scan has stacked layers along an axis."""
    fn, scale = tensors.get("res_alpha"), tensors.get("res_alpha_scale")
    if fn is None or scale is None or len(fn.shape) != 3:
        return [tensors]
    axis = 1 if len(scale.shape) == 2 and scale.shape[1] == fn.shape[1] else 0
    count = fn.shape[axis]
    uneven = any(len(x.shape) <= axis or x.shape[axis] != count for x in tensors.values())
    if uneven or count > MOST_LAYERS:
        return [tensors]
    once = {role: x._replace(load=cache(x.load)) for role, x in tensors.items()}
    return [{role: part_of(x, axis, i) for role, x in once.items()} for i in range(count)]
