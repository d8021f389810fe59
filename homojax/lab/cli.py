"""The command line: ``homojax sweep``, ``verify``, ``probe``, ``train``, ``audit``, ``runs``.

Nothing heavy is imported before a verb runs: help answers at once.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import itertools
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from homojax.lab import interrupts
from homojax.lab.compile_cache import keep_programs
from homojax.lab.inputs import InputError, as_started, nearest, parse_grid


class Verb(NamedTuple):
    """A command of the command line."""

    text: str  # what it answers, in a line
    room: str  # the package that has it: its command.py parses, its report.py runs
    command: str  # the dataclass of its options, in command.py


VERBS = {
    "sweep": Verb(
        "map the trap: over entropy × depth × n × seeds × noise × residual weight",
        "sweep",
        "SweepCommand",
    ),
    "verify": Verb(
        "test the theory: every claim on many matrices; holds, violated, or undecidable; how tight",
        "verify",
        "VerifyCommand",
    ),
    "probe": Verb(
        "by gradient: the matrix that makes a bound tight, or breaks a claim; the ε for a target",
        "probe",
        "",
    ),
    "train": Verb(
        "check in networks: over ε × depth × α × noise × seeds, do trained networks obey the laws",
        "train",
        "TrainCommand",
    ),
    "audit": Verb(
        "ask a checkpoint: is this model in the trap? Each layer as run and converged",
        "audit",
        "AuditCommand",
    ),
    "runs": Verb(
        "list the runs in a folder, with how far each is; or show what one has found",
        "overview",
        "RunsCommand",
    ),
}
PROBES = {
    "tighten": Verb(
        "CLAIM: the logits that bring a bound closest to equality", "probe", "TightenCommand"
    ),
    "refute": Verb(
        "CLAIM: hunt a violation; re-checked in 50 digits, reduced, saved", "probe", "RefuteCommand"
    ),
    "frontier": Verb(
        "the largest and smallest σ₂ at each entropy deficit, against the isolated unit (law 2.3)",
        "probe",
        "FrontierCommand",
    ),
    "calibrate": Verb(
        "the ε at which σ₂ or a stack's share of detail meets a target", "probe", "CalibrateCommand"
    ),
    "sensitivity": Verb(
        "‖∂σ₂/∂S‖ along ε, with public initialisations marked (law 6.2, gradient trap)",
        "probe",
        "SensitivityCommand",
    ),
}


def program() -> None:
    """Be ``main``, and end at once on Ctrl-C (130) or TERM (143)."""
    interrupts.stop_at_once(_say_stopped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without σ gets a ?
    # Of a damaged store one sentence is enough: zarr drops its other reads, and asyncio lists them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    main()


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    The exit code is 0 where all is as the theory says and 1 where it is not or the run failed. It
    is 2 for a mistake in what was asked, with one sentence on standard error, and 130 for Ctrl-C.
    """
    args = list(sys.argv[1:] if args is None else args)
    try:
        sys.exit(_unless_stopped(args))
    except InputError as error:
        _discard_empty_folders()
        _complain(str(error))
        sys.exit(2)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        _complain(f"cannot write: {error.strerror or error}{place}.{_kept()}")
        sys.exit(1)
    except KeyboardInterrupt:
        _say_stopped()
        sys.exit(130)


def _unless_stopped(args: list[str]) -> int:
    try:
        return _run(args)
    finally:
        interrupts.give_way()


def _run(args: list[str]) -> int:
    if args[:1] == ["--version"]:
        print(f"homojax {version('homojax')}")
        return 0
    name, verb, rest = _choose(args, VERBS, "verb", "homojax")
    if name == "probe":
        name, verb, rest = _choose(rest, PROBES, "probe", "homojax probe")
        name = name and f"probe {name}"
    if verb is None:
        return 0
    os.environ.setdefault("MPLBACKEND", "agg")  # figures are files here, on machines with no screen
    keep_programs()
    command = _parse(verb, f"homojax {name}", rest)
    from rich.console import Console

    report = importlib.import_module(f"homojax.lab.{verb.room}.report")
    return 0 if report.run_command(command, Console()) else 1


def _choose(
    args: list[str], verbs: dict[str, Verb], kind: str, prog: str
) -> tuple[str, Verb | None, list[str]]:
    """Return the verb that is named, and its arguments; no verb where help was asked and given."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(f"usage: {prog} {kind.upper()} [options]\n")
        for name, verb in verbs.items():
            print(f"  {name:13}{verb.text}")
        print(f"\n{as_started(prog)} {kind.upper()} --help lists the options.")
        return "", None, []
    if args[0] not in verbs:
        raise InputError(f'there is no {kind} "{args[0]}": {nearest(args[0], verbs)}')
    return args[0], verbs[args[0]], args[1:]


def _parse(verb: Verb, prog: str, args: list[str]) -> Any:
    """Return the command of these arguments."""
    import tyro

    kind = getattr(importlib.import_module(f"homojax.lab.{verb.room}.command"), verb.command)
    registry = _rules()

    def parse(args: list[str], default: Any = None) -> Any:
        given = {} if default is None else {"default": default}
        return tyro.cli(kind, prog=prog, args=args, registry=registry, **given)

    command = kind.from_args(args, parse) if hasattr(kind, "from_args") else parse(args)
    _require_values(command, args)
    return command


def _require_values(command: Any, args: list[str]) -> None:
    """Raise InputError for an option of several values that has none."""
    for flag, following in itertools.pairwise([*args, "--"]):
        alone = flag.startswith("--") and following.startswith("--")
        if alone and _values_of(command, flag[2:].replace("-", "_")) == ():
            raise InputError(f"{flag} has no value: give at least one, or leave it out.")


def _values_of(fields: Any, name: str) -> Any:
    """Return the value of a field of a dataclass, or of one in it; None where there is none."""
    values = [getattr(fields, field.name) for field in dataclasses.fields(fields)]
    found = [_values_of(value, name) for value in values if dataclasses.is_dataclass(value)]
    return getattr(fields, name, next((value for value in found if value is not None), None))


def _rules() -> Any:
    """Return tyro's registry, with a rule for grids and one for what refuses by a ValueError."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()
    grid = tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="NUM|LOW:HIGH:COUNT [...]",
        instance_from_str=lambda words: parse_grid(words),
        is_instance=lambda value: (
            isinstance(value, tuple) and all(isinstance(item, float) for item in value)
        ),
        str_from_instance=lambda values: [repr(value) for value in values],
    )
    registry.primitive_rule(lambda info: grid if info.type == tuple[float, ...] else None)

    asked = set()

    def in_one_sentence(info: Any) -> Any:
        """Let the parser, which would frame a ValueError in a box of its own, see none."""
        ours = getattr(info.type, "__module__", "").startswith("homojax.networks")
        if not ours or info.type in asked:
            return None
        asked.add(info.type)  # what other rules say of it
        spec: Any = registry.get_struct_spec(info)
        asked.remove(info.type)

        def instantiate(**fields: Any) -> Any:
            try:
                return spec.instantiate(**fields)
            except ValueError as error:
                raise InputError(f"{error}.") from error

        return dataclasses.replace(spec, instantiate=instantiate)

    registry.struct_rule(in_one_sentence)
    return registry


def _complain(text: str) -> None:
    print(f"homojax: {text}", file=sys.stderr)


def _say_stopped() -> None:
    _complain(f"stopped.{_kept()}")


def _kept() -> str:
    """Return what to say of a run that did not come to its end."""
    if _discard_empty_folders():
        return " What was done is kept; run the same command again to go on."
    finished = getattr(sys.modules.get("homojax.lab.runs"), "finished", [])
    return f" The run in {finished[-1]} is whole." if finished else ""


def _discard_empty_folders() -> bool:
    """Remove the folders of a run that kept nothing; return whether it kept something."""
    # Not loaded, or not to its end: there is no run.
    discard_empty = getattr(sys.modules.get("homojax.lab.runs"), "discard_empty", None)
    return bool(discard_empty and discard_empty())
