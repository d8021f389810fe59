"""Traced programs, kept from one command to the next: tracing is most of a warm start."""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache, wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from jax import export

import homojax
from homojax.lab import compile_cache

MOST = 1000  # traces in a folder; the oldest go first


def traced_once(function: Callable, about: Hashable, **settings: Any) -> Callable:
    """Return ``jax.jit(function, **settings)`` that later processes need not trace again.

    A command keeps its trace in the folder of JAX's compiled programs, which holds the executable,
    too. It is found again as long as homojax's code, JAX and its configuration are the same.

    Args:
        function: of pytrees of arrays. It is code of homojax, and ``about`` tells the rest.
        about: what sets it apart from other functions, with a ``repr`` that is the same in every
            process.
        settings: of ``jax.jit``.

    >>> float(traced_once(lambda x: 2 * x, "twice")(1.5))
    3.0
    """
    programs: dict[Any, Callable] = {}

    @wraps(function)
    def run(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(jax.tree.map(jax.typeof, args))
        kind = (*((x.shape, str(x.dtype), x.weak_type) for x in leaves), str(tree))
        if kind not in programs:
            folder = _folder()
            kept = folder and _trace_of(function, repr((about, kind)), args, folder).call
            programs[kind] = jax.jit(kept or function, **settings)
        return programs[kind](*args)

    return run


def _trace_of(function: Callable, about: str, args: tuple, folder: Path) -> export.Exported:
    """Return the trace of a function, as it was kept, or made now and kept where that can be."""
    path = folder / f"{hashlib.sha256((_surroundings() + about).encode()).hexdigest()}.trace"
    try:
        written = zlib.decompress(path.read_bytes())
    except (OSError, zlib.error):  # none yet, or a damaged one
        written = bytes(export.export(jax.jit(function))(*args).serialize())
        _keep(path, zlib.compress(written))
    # The new one is read, too: what is written knows of no weak types.
    return export.deserialize(bytearray(written))


def _keep(path: Path, content: bytes) -> None:
    """Write a file where that can be: the folder may be full, or another user's."""
    part = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
        # with those that a process left half written
        files = sorted(path.parent.iterdir(), key=lambda one: one.stat().st_mtime)
        for old in files[:-MOST]:
            old.unlink(missing_ok=True)


def _folder() -> Path | None:
    """Return where traces are kept; None if JAX keeps no programs, or code may have changed."""
    if not compile_cache.commands_own:
        return None
    said = jax.config.values
    place = said["jax_compilation_cache_dir"]
    keeps = place and said["jax_enable_compilation_cache"] and "://" not in place
    return Path(place) / "traces" if keeps else None


def _surroundings() -> str:
    """Return all that a trace depends on beside the function: code, versions, configuration."""
    return repr(
        (
            *(_code(), sys.version, *map(version, ("jax", "jaxlib")), jax.default_backend()),
            sorted(jax.config.values.items()),
        )
    )


@cache
def _code() -> str:
    """Return a hash of homojax's code."""
    content = hashlib.sha256()
    for path in sorted(Path(homojax.__file__).parent.rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()
