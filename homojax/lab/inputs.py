"""What a sweep is told: one frozen dataclass, from Python, flags or TOML, checked before anything runs."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np


class InputError(Exception):
    """A mistake of the user's, in one sentence that names the offending thing and what to try.

    Not a ValueError, so that the parser of the command line lets it through as it is.
    """


def parse_grid(words: Iterable[str | float]) -> tuple[float, ...]:
    """Numbers as they are, LOW:HIGH:COUNT as a geometric grid: ("0.1:10:3", 20) is (0.1, 1, 10, 20)."""
    values: list[float] = []
    for word in words:
        try:
            if isinstance(word, str) and ":" in word:
                low, high, count = word.split(":")
                if not (
                    0 < float(low) < math.inf
                    and 0 < float(high) < math.inf
                    and 0 < int(count) <= 10_000
                ):
                    raise ValueError
                values += [
                    float(f"{value:.6g}")
                    for value in np.geomspace(float(low), float(high), int(count))
                ]
            else:
                values.append(float(word))
        except (ValueError, OverflowError):
            raise InputError(
                f'"{word}" is neither a number nor a geometric grid LOW:HIGH:COUNT such as 0.05:20:12.'
            ) from None
    return tuple(values)


def require_precision(dtype: str) -> None:
    """Nothing, where JAX computes in this precision.

    Raises:
        InputError: it would fall back to float32.
    """
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise InputError(f'{dtype} needs jax.config.update("jax_enable_x64", True) first.')


def nearest(word: str, known: Iterable[str]) -> str:
    """' (did you mean "…"?)' where one of the known names is near, and the list of them otherwise."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else f"there are: {', '.join(known)}."


def typed(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the type that the dataclass declares, or an InputError."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise InputError(
                f"{where} must be one of {', '.join(typing.get_args(hint))}, not {value!r}."
            )
        return value
    if typing.get_origin(hint) is tuple:
        items = list(value) if isinstance(value, list | tuple) else [value]
        items = [item.item() if isinstance(item, np.generic) else item for item in items]
        if typing.get_args(hint)[0] is float:
            if any(
                isinstance(item, bool) or not isinstance(item, int | float | str) for item in items
            ):
                raise InputError(f"{where} must be numbers, not {value!r}.")
            return parse_grid(items)
        return tuple(typed(item, int, where) for item in items)
    accepted = {float: (int, float), Path: (str, Path)}.get(hint, (hint,))
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise InputError(f"{where} must be {hint.__name__}, not {value!r}.")
    try:
        return hint(value)
    except OverflowError:
        raise InputError(f"{where} is too large for a number.") from None
