"""The command line: ``homojax sweep``, ``verify``, ``probe``, ``train``, ``audit``, ``runs``.

Nothing heavy is imported before a verb runs: help answers at once.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple, Union

from homojax.lab import interrupts
from homojax.lab.compile_cache import keep_programs
from homojax.lab.inputs import InputError, as_started
from homojax.registry import nearest


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
    is 2 for a mistake in what was asked, with one sentence on standard error, 130 for Ctrl-C, and
    141 where nobody reads on.
    """
    args = list(sys.argv[1:] if args is None else args)
    try:
        sys.exit(_unless_stopped(args))
    except InputError as error:
        _discard_empty_folders()
        _complain(str(error))
        sys.exit(2)
    except BrokenPipeError:  # whoever reads has enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to flush
        sys.exit(141)
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
        sys.stdout.flush()  # where a reader who has gone can still be caught
        interrupts.give_way()


def _run(args: list[str]) -> int:
    if args[:1] == ["--version"]:
        print(f"homojax {version('homojax')}")
        return 0
    if args[:1] == ["--print-completion"]:
        from homojax.lab.parsing import completion

        print(completion(_all_commands(VERBS), " ".join(args[1:])))
        return 0
    name, verb, rest = _choose(args, VERBS, "verb", "homojax")
    if name == "probe":
        name, verb, rest = _choose(rest, PROBES, "probe", "homojax probe")
        name = name and f"probe {name}"
    if verb is None:
        return 0
    os.environ.setdefault("MPLBACKEND", "agg")  # figures are files here, on machines with no screen
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA tells of slow compiling, as of errors
    keep_programs()
    from homojax.lab.options import in_options
    from homojax.lab.parsing import parse

    room = f"homojax.lab.{verb.room}"
    kind = _kind(verb)
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    try:
        command = parse(kind, f"homojax {name}", rest)
        report = importlib.import_module(f"{room}.report")
        return 0 if report.run_command(command, Terminal()) else 1
    except InputError as error:
        raise InputError(in_options(kind, str(error))) from error


def _kind(verb: Verb) -> Any:
    return getattr(importlib.import_module(f"homojax.lab.{verb.room}.command"), verb.command)


def _all_commands(verbs: dict[str, Verb]) -> Any:
    """Return the union of the dataclasses of all commands, each under its name."""
    from tyro.conf import subcommand

    kinds = (
        Annotated[_kind(verb) if verb.command else _all_commands(PROBES), subcommand(name)]
        for name, verb in verbs.items()
    )
    return Union[tuple(kinds)]  # noqa: UP007  their number is not known here


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
