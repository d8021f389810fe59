"""The options of a command: which there are, and one sentence for a word that none of them takes.

The parser would say it in a frame of several lines, and of a number not what is wrong with it.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from homojax.lab.inputs import InputError, as_started, field_hints, parse_grid
from homojax.registry import nearest

(_POSITIONAL,) = tyro.conf.Positional[str].__metadata__  # type: ignore


def require_words(kind: type, prog: str, args: Sequence[str]) -> None:
    """Return nothing where every option of a command line exists, and every word has a place.

    Args:
        kind: the dataclass of the command.
        prog: what the usage calls the program.
        args: the words.

    Raises:
        InputError: an option does not exist, has no value, or one of another type; or there are
            more or fewer other words than the command takes.
    """
    if {"-h", "--help"} & set(args):
        return
    hints, loose = _hints_of(kind), list(itertools.takewhile(lambda word: word[:2] != "--", args))
    flags = {name for name, hint in hints.items() if _plain(hint) is bool}
    for option, values in _given(args):
        name = option[2:].replace("-", "_")
        if name.removeprefix("no_") in flags:
            loose += values
            continue
        if name not in hints:
            known = ["--" + known.replace("_", "-") for known in hints]
            raise InputError(f'there is no option "{option}": {nearest(option, known)}')
        if not values:
            raise InputError(f"{option} has no value: give at least one, or leave it out.")
        loose += _require_fit(option, _plain(hints[name]), values)
    _require_places(kind, prog, loose)


def in_options(kind: type, text: str) -> str:
    """Return a sentence about fields of a command as one about its options.

    A file of several runs has the names of the fields: a sentence that names one stays.

    >>> from homojax.lab.sweep.command import SweepCommand
    >>> in_options(SweepCommand, "memory_mb = 0 is not possible: it must be positive.")
    '--memory-mb 0 is not possible: it must be positive.'
    >>> in_options(SweepCommand, "there is no file max_steps/a.npy.")
    'there is no file max_steps/a.npy.'
    """
    if ".toml" in text:
        return text
    for name in sorted(_hints_of(kind)):
        option = f"--{name.replace('_', '-')}"
        text = re.sub(rf"(^|try ){name} = ", rf"\1{option} ", text)
        text = re.sub(rf"^{name} (?=is|must|has)", f"{option} ", text)
        if "_" in name:
            text = re.sub(rf"(?<![\w/-]){name}(?![\w/-]|\.\w)", option, text)  # in no path
    return text


def _given(args: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each option with the words that follow it."""
    for place, word in enumerate(args):
        option, equals, value = word.partition("=")
        if option.startswith("--") and option != "--":
            following = itertools.takewhile(lambda word: word[:2] != "--", args[place + 1 :])
            yield option, [*([value] if equals else []), *following]


def _hints_of(kind: type) -> dict[str, Any]:
    """Return the types of a command's options by the names of their fields, its configs' too."""
    hints: dict[str, Any] = {}
    for name, hint in field_hints(kind).items():
        if dataclasses.is_dataclass(_plain(hint)):
            hints |= _hints_of(_plain(hint))
        elif _POSITIONAL not in getattr(hint, "__metadata__", ()):
            hints[name] = hint
    return hints


def _plain(hint: Any) -> Any:
    """Return a type without what annotates it."""
    return _plain(typing.get_args(hint)[0]) if hasattr(hint, "__metadata__") else hint


def _require_fit(option: str, hint: Any, values: Sequence[str]) -> list[str]:
    """Return the words that an option leaves over.

    Raises:
        InputError: one that it takes is no value of this type.
    """
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
        if values[0] == "None":
            return list(values[1:])
    is_tuple = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if is_tuple else hint
    taken = values if is_tuple else values[:1]
    for word in taken:
        try:
            if kind is float and is_tuple:
                parse_grid([word])
            elif kind in (int, float):
                kind(word)
            elif kind is Path and not word.strip():
                raise InputError("is empty: name a path, or leave the option out.")
            elif typing.get_origin(kind) is Literal and word not in typing.get_args(kind):
                choices = ", ".join(typing.get_args(kind))
                raise InputError(f'must be one of {choices}, not "{word}".')
        except ValueError:
            what = "whole number" if kind is int else "number"
            raise InputError(f'{option} "{word}" is not a {what}.') from None
        except InputError as error:
            raise InputError(f"{option} {error}") from None
    return list(values[len(taken) :])


def _require_places(kind: type, prog: str, words: Sequence[str]) -> None:
    """Raise InputError where words that belong to no option are too many, too few, or unknown."""
    left = list(words)
    for field in dataclasses.fields(kind):
        hint = field_hints(kind)[field.name]
        if _POSITIONAL not in getattr(hint, "__metadata__", ()):
            continue
        if typing.get_origin(_plain(hint)) is tuple:
            return
        if not left and field.default is dataclasses.MISSING:
            raise InputError(f"name a {field.name}: {as_started(prog)} {field.name.upper()}")
        choices = typing.get_args(_plain(hint))
        if left and choices and left[0] not in choices:
            raise InputError(f'there is no "{left[0]}": {nearest(left[0], choices)}')
        left = left[1:]
    if left:
        raise InputError(f'"{left[0]}" belongs to no option: leave it out, or name its option.')
