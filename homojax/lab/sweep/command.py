"""What ``homojax sweep`` takes: a sweep, or the sweeps of a TOML file, and where to write."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from homojax.lab.inputs import InputError, Output
from homojax.lab.sweep.config import NO_SHARDS, Sweep, load_sweeps, require_distinct_labels


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
    shard: str | None = None
    """I/K: measure every K-th block alone, from the I-th on, counted from 0, into the folder that
    all shards share, on one machine or many. The shard that ends last writes the report."""
    distributed: bool = False
    """Take I/K from the cluster that this process was started by, as JAX finds it: Slurm,
    Kubernetes, a TPU slice, Open MPI."""

    def __post_init__(self):
        if self.shard is not None:
            parse_shard(self.shard)
        if self.shard and self.distributed:
            raise InputError("--distributed finds the shard by itself: leave --shard out.")
        if self.is_shared and self.sweep.refine is not None:
            raise InputError(NO_SHARDS)
        if self.is_shared and self.out is None:
            raise InputError("name the folder that all shards share: add --out.")

    @property
    def is_shared(self) -> bool:
        """Whether other processes measure a part of this run."""
        return self.distributed or self.shard is not None

    @classmethod
    def from_args(cls, args: Sequence[str], parse: Callable[..., SweepCommand]) -> SweepCommand:
        """Return the command: the sweeps of the config, or one, with the flags laid over each."""
        config = _value_of("--config", args)
        defaults = [Sweep()] if config is None else load_sweeps(Path(config).expanduser())
        commands = [parse(args, cls(sweep=default)) for default in defaults]
        sweeps = tuple(command.sweep for command in commands)
        require_distinct_labels(sweeps)
        return dataclasses.replace(commands[0], sweeps=sweeps)


def parse_shard(text: str) -> tuple[int, int]:
    """Return (I, K) of "I/K".

    Raises:
        InputError: it is something else, or there is no such shard.

    >>> parse_shard("3/8")
    (3, 8)
    """
    which, _, count = text.partition("/")
    if not (which.isdecimal() and count.isdecimal() and int(which) < int(count)):
        raise InputError(f'--shard "{text}" is none: give I/K with I from 0 to K - 1, such as 0/8.')
    return int(which), int(count)


def shard_of(command: SweepCommand) -> tuple[int, int] | None:
    """Return (I, K) of a command, None where it is the whole.

    Processes of a cluster are counted and leave each other then: one that dies stops no other.
    """
    if command.shard is not None:
        return parse_shard(command.shard)
    if not command.distributed:
        return None
    import jax

    try:
        jax.distributed.initialize()
        shard = jax.process_index(), jax.process_count()
        jax.distributed.shutdown()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"JAX finds no cluster here ({error}): give each process its --shard I/K."
        ) from error
    return shard


def _value_of(flag: str, args: Sequence[str]) -> str | None:
    for position, arg in enumerate(args):
        if arg == flag and position + 1 < len(args):
            return args[position + 1]
        if arg.startswith(flag + "="):
            return arg.removeprefix(flag + "=")
    return None
