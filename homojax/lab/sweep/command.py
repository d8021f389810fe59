"""What ``homojax sweep`` takes: a sweep, or the sweeps of a TOML file, and where to write."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from homojax.lab.inputs import Output
from homojax.lab.sweep.config import Sweep, load_sweeps, require_distinct_labels


@dataclasses.dataclass(frozen=True)
class SweepCommand(Output):
    """Map the trap: every law's prediction beside its measurement.

    Writes zarr, figures and report.html.
    """

    place: ClassVar[Path] = Path("runs/sweep")

    sweep: Annotated[Sweep, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Sweep)
    config: Path | None = None
    """A TOML file with a sweep, or several in [[sweep]] tables; flags given beside it win."""
    sweeps: tyro.conf.Suppress[tuple[Sweep, ...]] = ()

    @classmethod
    def from_args(cls, args: Sequence[str], parse: Callable[..., SweepCommand]) -> SweepCommand:
        """Return the command: the sweeps of the config, or one, with the flags laid over each."""
        config = _value_of("--config", args)
        defaults = [Sweep()] if config is None else load_sweeps(Path(config).expanduser())
        commands = [parse(args, cls(sweep=default)) for default in defaults]
        sweeps = tuple(command.sweep for command in commands)
        require_distinct_labels(sweeps)
        return dataclasses.replace(commands[0], sweeps=sweeps)


def _value_of(flag: str, args: Sequence[str]) -> str | None:
    for position, arg in enumerate(args):
        if arg == flag and position + 1 < len(args):
            return args[position + 1]
        if arg.startswith(flag + "="):
            return arg.removeprefix(flag + "=")
    return None
