"""From words to a config: typed fields, declared ranges, grids, and one sentence for a mistake.

A config is a frozen dataclass. Each field declares its type and its range, and ``Config`` checks
both, so that the command line, TOML and Python are told the same. Nothing here imports jax.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shlex
import shutil
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from homojax.registry import nearest


class InputError(Exception):
    """A mistake of the user's, in one sentence that names the offending thing and what to try.

    It is not a ValueError, so that the parser of the command line lets it through as it is.
    """


# ---------------------------------------------------------------- ranges of fields


class Range(typing.NamedTuple):
    """What the values of a field may be: a predicate, and the same in words."""

    allows: Callable[[Any], bool]
    text: str
    may_be_empty: bool = False  # of a tuple


def at_least(least: float, unit: str = "") -> Range:
    """Return the range of numbers from ``least`` on, called ``least unit`` in words.

    >>> at_least(1, "layer").text
    'at least 1 layer'
    """
    return Range(lambda x: x >= least, f"at least {least} {unit}".rstrip())


POSITIVE = Range(lambda x: 0 < x < math.inf, "finite and greater than 0")
NOT_NEGATIVE = Range(lambda x: 0 <= x < math.inf, "a finite number, not negative")
FRACTION = Range(lambda x: 0 < x < 1, "strictly between 0 and 1")
SHARE = Range(lambda x: 0 <= x <= 1, "between 0 and 1")
SEED = Range(lambda x: 0 <= x < 2**32, "between 0 and 2³² − 1")
SEEDS = Range(lambda x: 1 <= x <= 10**6, "at least 1 and at most a million")
UNITS = at_least(2, "(one unit has no detail to mix)")


# ---------------------------------------------------------------- configs


@dataclasses.dataclass(frozen=True)
class Config:
    """The base of every config: checks each field against its type and its ``Range``."""

    cosmetic: ClassVar[tuple[str, ...]] = ()  # fields that change no result

    def __post_init__(self):
        for name, hint in field_hints(type(self)).items():
            value = typed(getattr(self, name), hint, name)
            object.__setattr__(self, name, value)
            _check_range(name, value, hint)
        self.check()

    def check(self) -> None:
        """Raise InputError where fields do not fit each other. A config overrides it."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, enough to build the same config again."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    @property
    def flags(self) -> list[str]:
        """The words that ask the command line for this config: what differs from its defaults."""
        return list(_flags(self))

    @property
    def digest(self) -> str:
        """A hash of everything that changes a result: the fields, and the version of homojax."""
        fields = {key: x for key, x in self.as_dict().items() if key not in self.cosmetic}
        content = json.dumps({**fields, "homojax": version("homojax")}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def _flags(config: Any) -> Iterator[str]:
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), field.name.replace("_", "-")
        make: Any = field.default_factory
        if value == (field.default if make is dataclasses.MISSING else make()):
            continue
        if dataclasses.is_dataclass(value):
            yield from _flags(value)
        elif isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield from (f"--{flag}", *(_words(value) if isinstance(value, tuple) else [str(value)]))


def _words(values: tuple) -> list[str]:
    """Return the words for several values: a geometric grid as it may be asked."""
    if len(values) > 2 and all(isinstance(value, float) for value in values):
        grid = f"{values[0]:.6g}:{values[-1]:.6g}:{len(values)}"
        with suppress(InputError):  # no grid at all
            if parse_grid([grid]) == values:
                return [grid]
    return [str(value) for value in values]


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a command writes."""

    place: ClassVar[Path]  # the folder where none is named

    out: Path | None = None
    """Folder to write, which must not exist; default: in runs/, by the verb, with a number from the
    second on."""
    overwrite: bool = False
    """Replace the run that is in that folder."""


C = TypeVar("C", bound=Config)


def as_config(kind: type[C], config: C | None, fields: dict[str, Any]) -> C:
    """Return ``config``, or the config of this kind with these fields.

    Raises:
        InputError: both are given, a field is unknown, or a value is refused.

    >>> from homojax.lab.sweep.config import Sweep
    >>> as_config(Sweep, None, {"n": 8}).n
    (8,)
    """
    if config is None:
        for name in fields:
            if name not in field_hints(kind):
                raise InputError(f'there is no option "{name}": {nearest(name, field_hints(kind))}')
        return kind(**fields)
    if not isinstance(config, kind):
        raise InputError(f"{config!r} is not a {kind.__name__}: name the fields, such as n=8.")
    if fields:
        raise InputError(f"give a {kind.__name__} or its fields ({', '.join(fields)}), not both.")
    return config


@cache
def field_hints(kind: type) -> dict[str, Any]:
    """Return the types that a config declares for its fields, with their ranges."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _check_range(name: str, value: Any, hint: Any) -> None:
    """Raise InputError where a value, or one of a tuple's, is outside the field's range."""
    ranges = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Range)]
    if value is None:
        return
    if isinstance(value, tuple):
        if not value and not any(each.may_be_empty for each in ranges):
            raise InputError(f"{name} is an empty grid: give at least one value.")
        if len(set(value)) < len(value):
            raise InputError(f"{name} has a value twice: {', '.join(map(str, value))}.")
    for each in ranges:
        for item in value if isinstance(value, tuple) else (value,):
            if not each.allows(item):
                raise InputError(f"{name} = {item} is not possible: it must be {each.text}.")


# ---------------------------------------------------------------- words and values


def as_started(command: str) -> str:
    """Return a command of ours so that it can be pasted: by the program that runs now.

    >>> as_started("homojax runs list").endswith("homojax runs list")
    True
    """
    program, started = "homojax", Path(sys.argv[0])
    if started.name == "__main__.py" and started.parent.name == "homojax":
        program = f"{shlex.quote(sys.executable)} -m homojax"
    elif started.name == "homojax" and shutil.which("homojax") != sys.argv[0]:
        program = shlex.quote(sys.argv[0])
    return command.replace("homojax", program, 1)


def parse_grid(words: Iterable[str | float]) -> tuple[float, ...]:
    """Return numbers as they are, and LOW:HIGH:COUNT as a geometric grid.

    Raises:
        InputError: a word is neither.

    >>> parse_grid(("0.1:10:3", 20))
    (0.1, 1.0, 10.0, 20.0)
    """
    values: list[float] = []
    for word in words:
        try:
            if isinstance(word, str) and ":" in word:
                low, high, count = word.split(":")
                ends_fit = 0 < float(low) < float(high) < math.inf
                if not (ends_fit and 2 <= int(count) <= 10_000):
                    raise ValueError
                grid = np.geomspace(float(low), float(high), int(count))
                values += [float(f"{value:.6g}") for value in grid]
            else:
                values.append(float(word))
        except (ValueError, OverflowError):
            raise InputError(
                f'"{word}" is neither a number nor a geometric grid LOW:HIGH:COUNT such as '
                "0.05:20:12, with 0 < LOW < HIGH and a COUNT from 2 to 10,000."
            ) from None
    return tuple(values)


def require_precision(dtype: str) -> None:
    """Return nothing where JAX computes in this precision.

    Raises:
        InputError: it would fall back to float32.
    """
    import jax

    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise InputError(f'{dtype} needs jax.config.update("jax_enable_x64", True) first.')


def typed(value: Any, hint: Any, name: str) -> Any:
    """Return ``value`` as the type that a field declares.

    Raises:
        InputError: it is of another type; the sentence calls it ``name``.
    """
    hint = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            options = ", ".join(typing.get_args(hint))
            raise InputError(f"{name} must be one of {options}, not {value!r}.")
        return value
    if typing.get_origin(hint) is tuple:
        return _typed_tuple(value, typing.get_args(hint)[0], name)
    return _typed_one(value, hint, name)


def _typed_tuple(value: Any, kind: type, name: str) -> tuple:
    items = list(value) if isinstance(value, list | tuple) else [value]
    items = [item.item() if isinstance(item, np.generic) else item for item in items]
    if kind is not float:
        return tuple(_typed_one(item, kind, name) for item in items)
    if any(isinstance(item, bool) or not isinstance(item, int | float | str) for item in items):
        raise InputError(f"{name} must be numbers, not {value!r}.")
    return parse_grid(items)


def _typed_one(value: Any, kind: Any, name: str) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, kind):
            raise InputError(f"{name} must be a {kind.__name__}, not {value!r}.")
        return value
    accepted = {float: (int, float), Path: (str, Path)}.get(kind, (kind,))
    is_flag = isinstance(value, bool)
    if is_flag != (kind is bool) or not isinstance(value, accepted):
        raise InputError(f"{name} must be {kind.__name__}, not {value!r}.")
    try:
        return kind(value).expanduser() if kind is Path else kind(value)
    except OverflowError:
        raise InputError(f"{name} is too large for a number.") from None
