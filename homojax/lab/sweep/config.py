"""What a sweep is told: one frozen dataclass, from Python, flags or TOML, checked before anything runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
import typing
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from homojax.lab.inputs import InputError, nearest, typed


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A map of the trap over entropy × depth × size × seeds × noise × residual weight.

    A cell is a stack of layers at one n, ε and seed. ``seeds`` and ``n`` left at None take what the source has, or 8 seeds
    at n = 4 and 16 from the random sources.
    """

    source: str = "gaussian"
    """Where the logits come from: gaussian, digits, trained-mhc or file."""
    name: str | None = None
    """What to call it in the store, tables and figures; default: the source's name."""
    path: Path | None = None
    """For source file: a .npy, .npz or .safetensors array [..., n, n]; the last leading axis is the layer, others are seeds."""
    array: str | None = None
    """Which array of an .npz or .safetensors file to take, where it holds several."""
    orientation: Literal["outputs-first", "inputs-first"] = "outputs-first"
    """For source file: whether the first matrix axis is the output (y = M x) or the input (y = x M) of the mixing."""
    epsilon: tuple[float, ...] = tuple(float(f"{e:.4g}") for e in np.geomspace(0.05, 20, 12))
    """Entropy weights, > 0, in the logits' units. LOW:HIGH:COUNT is a geometric grid."""
    depth: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Numbers of layers. A source with fewer layers is repeated in order."""
    n: tuple[int, ...] | None = None
    """Numbers of mixed units (tokens or streams), at least 2."""
    seeds: int | None = None
    """Independent stacks per n."""
    snr: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
    """Input signal-to-noise ratios ‖x‖²/(dν²) of a random detail direction x, before the first layer mixes it."""
    alpha: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    """Residual weights in [0, 1] of (1 − α)I + αM."""
    retention: float = 0.1
    """Share of detail, in (0, 1), at which the three effective depths are read."""
    samples: int = 256
    """Monte Carlo draws per layer-norm point."""
    iterations: int | None = None
    """Run the projection truncated at this many alternations, as models do; default: to convergence."""
    last: Literal["rows", "columns"] = "columns"
    """Side normalised last when truncated."""
    tol: float | None = None
    """Largest row or column error called converged; default: from dtype and n."""
    max_steps: int = 1000
    """Most solver steps per projection."""
    dtype: Literal["float32", "float64"] = "float64"
    """Precision of everything computed."""
    seed: int = 0
    """Of all randomness."""
    memory_mb: float = 512.0
    """About how much memory a block of cells may take."""

    def __post_init__(self):
        for name, hint in _hints().items():
            object.__setattr__(self, name, typed(getattr(self, name), hint, name))
        problem = _first_problem(self)
        if problem:
            raise InputError(problem)

    @property
    def label(self) -> str:
        return self.name or self.source

    def as_dict(self) -> dict[str, Any]:
        """Plain values, enough to build the same Sweep again."""
        fields = dataclasses.asdict(self)
        return {
            key: str(value) if isinstance(value, Path) else value for key, value in fields.items()
        }

    @property
    def digest(self) -> str:
        """Hash of everything that changes a result, the user's file included."""
        fields = {
            key: value for key, value in self.as_dict().items() if key not in ("name", "memory_mb")
        }
        fields["homojax"] = version("homojax")  # another version may measure otherwise
        content = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
        if self.path is not None:
            try:
                content.update(self.path.read_bytes())
            except OSError as error:
                raise InputError(f"cannot read {self.path}: {error.strerror or error}.") from error
        return content.hexdigest()[:16]


def load_sweeps(path: Path) -> list[Sweep]:
    """The sweeps of a TOML file: its top-level keys are one, or the common part of its ``[[sweep]]`` tables.

    Raises:
        InputError: unreadable, no TOML, or a key or value that no sweep has, with the nearest name that one has.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    tables = table.pop("sweep", [{}])
    if not (
        isinstance(tables, list) and tables and all(isinstance(entry, dict) for entry in tables)
    ):
        raise InputError(f"{path}: write each sweep as a [[sweep]] table.")
    sweeps = [_from_table({**table, **entry}, path) for entry in tables]
    labels = [sweep.label for sweep in sweeps]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(
                f'{path}: two sweeps are called "{label}"; give each its own name = "...".'
            )
    return sweeps


def _from_table(table: dict[str, Any], path: Path) -> Sweep:
    hints = _hints()
    names = list(hints)
    values = {}
    for key, value in table.items():
        if key not in names:
            raise InputError(f'{path}: no sweep has the key "{key}"; {nearest(key, names)}')
        values[key] = typed(value, hints[key], f"{path}: {key}")
    if values.get("path") is not None:
        values["path"] = path.parent / values["path"]  # relative to the config that names it
    return Sweep(**values)


@cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(Sweep)


def _first_problem(s: Sweep) -> str | None:
    def bad(values, allowed):
        return next((value for value in values if not allowed(value)), None)

    grids = {"epsilon": s.epsilon, "depth": s.depth, "n": s.n, "snr": s.snr, "alpha": s.alpha}
    for name, values in grids.items():
        if values is None:
            continue
        if len(values) == 0:
            return f"{name} is an empty grid: give at least one value."
        if len(set(values)) < len(values):
            return f"{name} has a value twice: {', '.join(map(str, values))}."
    checks = (
        ("epsilon", s.epsilon, lambda v: math.isfinite(v) and v > 0, "finite and greater than 0"),
        ("depth", s.depth, lambda v: v >= 1, "at least 1 layer"),
        ("n", s.n or (), lambda v: v >= 2, "at least 2: one unit has no detail to mix"),
        ("snr", s.snr, lambda v: math.isfinite(v) and v > 0, "finite and greater than 0"),
        ("alpha", s.alpha, lambda v: 0 <= v <= 1, "between 0 and 1"),
        ("retention", (s.retention,), lambda v: 0 < v < 1, "strictly between 0 and 1"),
        ("seeds", () if s.seeds is None else (s.seeds,), lambda v: v >= 1, "at least 1"),
        ("samples", (s.samples,), lambda v: v >= 2, "at least 2"),
        (
            "iterations",
            () if s.iterations is None else (s.iterations,),
            lambda v: v >= 1,
            "at least 1",
        ),
        ("tol", () if s.tol is None else (s.tol,), lambda v: 0 < v < 1, "strictly between 0 and 1"),
        ("max_steps", (s.max_steps,), lambda v: v >= 1, "at least 1"),
        (
            "memory_mb",
            (s.memory_mb,),
            lambda v: math.isfinite(v) and v > 0,
            "finite and greater than 0",
        ),
        ("seed", (s.seed,), lambda v: 0 <= v < 2**32, "between 0 and 2³² − 1"),
    )
    for name, values, allowed, rule in checks:
        value = bad(values, allowed)
        if value is not None:
            return f"{name} = {value} is not possible: it must be {rule}."
    if s.source == "file" and s.path is None:
        return "source file needs a path to a .npy, .npz or .safetensors file."
    if s.source != "file" and s.path is not None:
        return f'path is read only by source "file", and the source is "{s.source}".'
    if s.name is not None and (
        not s.name or not all(c.isalnum() or c in "-_. " for c in s.name) or s.name.startswith(".")
    ):
        return (
            f'name = "{s.name}" cannot name a file: use letters, digits, spaces, "-", "_" and ".".'
        )
    return None
