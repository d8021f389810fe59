"""From the words of a command line to a command, by tyro and a few rules of our own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from homojax.lab.inputs import InputError, parse_grid
from homojax.lab.options import require_words
from homojax.registry import nearest

C = TypeVar("C")
Grid = tuple[float, ...]
SHELLS = ("bash", "zsh")


def parse(kind: type[C], prog: str, args: Sequence[str]) -> C:
    """Return the command of these words.

    Args:
        kind: the dataclass of its options.
        prog: what the usage calls the program.
        args: the words.

    Raises:
        InputError: a word is not understood, or a value is refused.
        SystemExit: help was asked and given.
    """
    require_words(kind, prog, args)
    registry = _registry()

    def parse_over(args: Sequence[str], default: C | None = None) -> C:
        given: Any = {} if default is None else {"default": default}
        return tyro.cli(kind, prog=prog, args=args, registry=registry, **given)

    from_args: Any = getattr(kind, "from_args", None)
    return from_args(args, parse_over) if from_args else parse_over(args)


def completion(kinds: Any, shell: str) -> str:
    """Return the script by which a shell completes commands.

    Args:
        kinds: the union of the dataclasses of all commands.
        shell: one of ``SHELLS``.

    Raises:
        InputError: there is no script for that shell.
    """
    if shell not in SHELLS:
        raise InputError(f'there is no completion for "{shell}": {nearest(shell, SHELLS)}')
    words, script = ["--tyro-print-completion", shell], io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.cli(kinds, prog="homojax", args=words, registry=_registry())
    # The shell would take each line of a help text for a word of its own.
    return re.sub(
        r"^COMPLETION_SPEC = .*$",
        lambda spec: spec[0].replace(r"\n", " "),
        script.getvalue(),
        flags=re.MULTILINE,
    )


def _registry() -> ConstructorRegistry:
    """Return the rules by which words become values."""
    registry = ConstructorRegistry()
    for rule in (_grid, _path, _optional):
        registry.primitive_rule(rule)
    registry.struct_rule(_OneSentence())
    return registry


def _grid(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Take numbers, and LOW:HIGH:COUNT for many."""
    if info.type != Grid:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NUM|LOW:HIGH:COUNT [...]",
        instance_from_str=parse_grid,
        is_instance=lambda value: (
            isinstance(value, tuple) and all(isinstance(item, float) for item in value)
        ),
        str_from_instance=lambda values: [repr(value) for value in values],
    )


def _path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Take a path, which "" is none: to Python it is the folder that one is in."""
    if info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=_named,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def _named(words: Sequence[str]) -> Path:
    if not words[0].strip():
        raise InputError("a path is empty: name one, or leave the option out.")
    return Path(words[0])


def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Take "None" where a value may be None, and let help be silent on that."""
    kinds = typing.get_args(info.type)
    union = info.type_origin in (types.UnionType, typing.Union)
    if not (union and len(kinds) == 2 and kinds[1] is type(None)):
        return None
    inner = PrimitiveTypeInfo.make(kinds[0], info.markers)
    spec = ConstructorRegistry.get_primitive_spec(inner)
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec,
        instance_from_str=lambda words: (
            None if words == ["None"] else spec.instance_from_str(words)
        ),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: (
            ["None"] if value is None else spec.str_from_instance(value)
        ),
        choices=spec.choices and (*spec.choices, "None"),
    )


class _OneSentence:
    """Make a network's settings, and let the parser see no ValueError: it would frame it."""

    def __init__(self):
        self.asked: set[Any] = set()

    def __call__(self, info: StructTypeInfo) -> StructConstructorSpec | None:
        ours = getattr(info.type, "__module__", "").startswith("homojax.networks")
        if not ours or info.type in self.asked:
            return None
        self.asked.add(info.type)  # what other rules say of it
        spec: Any = ConstructorRegistry.get_struct_spec(info)
        self.asked.remove(info.type)

        def instantiate(**fields: Any) -> Any:
            try:
                return spec.instantiate(**fields)
            except ValueError as error:
                raise InputError(f"{error}.") from error

        return dataclasses.replace(spec, instantiate=instantiate)
