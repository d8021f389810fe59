"""What a sweep is told: one frozen dataclass, from Python, flags or TOML."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from homojax.lab.inputs import FRACTION, POSITIVE, SHARE, InputError, at_least, field_hints, typed
from homojax.lab.sources import LogitSource
from homojax.registry import nearest

DEEPEST = 64  # layers of a random source, where no depth is given
OF_THE_COMMAND = ("config", "distributed", "out", "overwrite", "shard")  # keys of no sweep
GROUPS = ("spectrum", "bounds", "depth", "layernorm", "residual")  # what a sweep may measure
FIGURES = {  # figure -> the group that it draws; the first is the main one
    "phase": "depth",
    "survival": "depth",
    "entropy": "spectrum",
    "layernorm": "layernorm",
    "residual": "residual",
}
NO_SHARDS = (
    "refine chooses ε by all that was measured before, in one process: leave out --shard "
    "or --refine."
)
_EPSILONS = tuple(float(f"{e:.4g}") for e in np.geomspace(0.05, 20, 12))


@dataclasses.dataclass(frozen=True)
class Sweep(LogitSource):
    """A map of the trap over entropy × depth × size × seeds × noise × residual weight.

    A cell is a stack of layers at one n, ε and seed. ``seeds``, ``n`` and ``depth`` that are not
    given take what the source has, or 8 seeds at n = 4 and 16 from the random sources.
    """

    cosmetic = ("name", "memory_mb")

    name: str | None = None
    """What to call it in the store, tables and figures; default: the source's name."""
    epsilon: Annotated[tuple[float, ...], POSITIVE] = _EPSILONS
    """Entropy weights, in the logits' units. LOW:HIGH:COUNT is a geometric grid."""
    refine: Annotated[float | None, POSITIVE, at_least(1e-6)] = None
    """Add ε until every interval in which something changes is at most this wide in ln ε.

    0.01 is 1 % of ε. What changes: whether 0.9, 0.5, 0.1 or the retention is left of the detail, or
    the worst verdict on a law."""
    depth: Annotated[tuple[int, ...], at_least(1, "layer")._replace(may_be_empty=True)] = ()
    """Numbers of layers; default: 1, 2, 4, … up to all layers of the source, or to 64 random ones.

    Where more are asked than the source has, its layers are repeated in order."""
    snr: Annotated[tuple[float, ...], POSITIVE] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
    """Input signal-to-noise ratios ‖x‖²/(dν²) of a random detail direction x, before layer 1."""
    alpha: Annotated[tuple[float, ...], SHARE] = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    """Residual weights in [0, 1] of (1 − α)I + αM."""
    measure: tuple[str, ...] = GROUPS
    """Groups of variables to measure, of spectrum, bounds, depth, layernorm and residual.

    The rest is neither computed nor stored; the projections and their entropies always are."""
    retention: Annotated[float, FRACTION] = 0.1
    """Share of detail, in (0, 1), at which the three effective depths are read."""
    samples: Annotated[int, at_least(2)] = 256
    """Monte Carlo draws for each layer-norm point; a cell has the same noise at every SNR."""
    iterations: Annotated[int | None, at_least(1)] = None
    """Truncate the projection at this many alternations, as models do; default: converge."""
    last: Literal["rows", "columns"] = "columns"
    """The side that a truncated projection normalises last, and exactly."""
    tol: Annotated[float | None, FRACTION] = None
    """Largest |row or column sum − 1| of a converged projection; default: by dtype and n."""
    max_steps: Annotated[int, at_least(1)] = 1_000
    """Most solver steps of a converged projection."""
    dtype: Literal["float32", "float64"] | None = None
    """Precision of everything computed; default: float64 on CPUs, float32 on GPUs and TPUs."""
    memory_mb: Annotated[float, POSITIVE] = 512.0
    """About how much memory a block of cells may take."""

    def check(self) -> None:
        super().check()
        for group in self.measure:
            if group not in GROUPS:
                raise InputError(f'a sweep measures no "{group}": {nearest(group, GROUPS)}')
        # in one order, so that the order asked is no other sweep
        measure = tuple(group for group in GROUPS if group in self.measure)
        object.__setattr__(self, "measure", measure)
        if self.refine is not None:
            self._require_what_refine_follows()
        name = self.name
        if name is None:
            return
        legal = all(letter.isalnum() or letter in "-_. " for letter in name)
        if not name or not legal or name.startswith("."):
            raise InputError(
                f'name = "{name}" cannot name a file: use letters, digits, spaces, "-", "_" '
                'and ".".'
            )

    def _require_what_refine_follows(self) -> None:
        if len(self.epsilon) < 2:
            raise InputError("refine halves the intervals between two ε: give two or more.")
        if not set(self.measure) - {"layernorm"}:
            raise InputError(
                "refine follows detail and verdicts: measure spectrum, bounds, depth or residual."
            )

    def settled(self, layers: int | None) -> Sweep:
        """Return the sweep as it runs here, of a source with so many layers (None: any number)."""
        deepest = layers or DEEPEST
        powers = (2**k for k in range(deepest.bit_length()))
        depths = self.depth or (*(depth for depth in powers if depth < deepest), deepest)
        return dataclasses.replace(self, depth=depths, dtype=self.precision)

    @property
    def precision(self) -> str:
        """The precision that it runs in on this machine."""
        import jax

        return self.dtype or ("float64" if jax.default_backend() == "cpu" else "float32")

    @property
    def label(self) -> str:
        """What it is called: its name, or its source's."""
        return self.name or self.source


def load_sweeps(path: Path) -> list[Sweep]:
    """Return the sweeps of a TOML file.

    Its top-level keys are one sweep, or the common part of its ``[[sweep]]`` tables.

    Raises:
        InputError: the file is unreadable, is no TOML, or has a key or value that no sweep has.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    tables = table.pop("sweep", [{}])
    if not (isinstance(tables, list) and tables and all(isinstance(one, dict) for one in tables)):
        raise InputError(f"{path}: write each sweep as a [[sweep]] table.")
    sweeps = [_from_table({**table, **one}, path) for one in tables]
    require_distinct_labels(sweeps, f"{path}: ")
    return sweeps


def require_distinct_labels(sweeps: Sequence[Sweep], where: str = "") -> None:
    """Raise InputError where two sweeps have one name."""
    labels = [sweep.label for sweep in sweeps]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(
                f'{where}two sweeps are called "{label}"; give each its own name = "...".'
            )


def _from_table(table: dict[str, Any], path: Path) -> Sweep:
    hints = field_hints(Sweep)
    values = {}
    for key, value in table.items():
        if key not in hints:
            where = "; it is an option of the command" if key in OF_THE_COMMAND else ""
            hint = (
                f"give --{key} in the terminal."
                if where
                else nearest(key, ["sweep", *hints, *OF_THE_COMMAND])
            )
            raise InputError(f'{path}: no sweep has the key "{key}"{where}; {hint}')
        values[key] = typed(value, hints[key], f"{path}: {key}")
    if values.get("path") is not None:
        values["path"] = path.parent / values["path"]  # relative to the config that names it
    return Sweep(**values)


def figures_of(config: Mapping[str, Any]) -> list[str]:
    """Return the figures that a sweep of this config, as plain values, can draw."""
    measured = config.get("measure", GROUPS)
    return [figure for figure, group in FIGURES.items() if group in measured]
