"""The command line: ``homojax sweep``, ``verify``, ``probe`` and ``train``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import matplotlib
import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tyro.constructors import PrimitiveConstructorSpec

from homojax.lab.cases import load_case, save_case
from homojax.lab.inputs import InputError, nearest, parse_grid
from homojax.lab.probe import report as findings
from homojax.lab.probe.calibrate import Calibrate, calibrate, sensitivity_over
from homojax.lab.probe.frontier import FrontierSearch, frontier
from homojax.lab.probe.run import Search, refute, tighten
from homojax.lab.runs import RunFolder, write_dataset
from homojax.lab.sources import load_source
from homojax.lab.sweep import report
from homojax.lab.sweep.config import Sweep, load_sweeps
from homojax.lab.sweep.run import sweep as run_sweep
from homojax.lab.train.run import Train, train, trainer_of
from homojax.lab.verify import report as trial
from homojax.lab.verify.run import Verification, verify, worst_cases

VERBS = {
    "sweep": "map the trap: over entropy × depth × n × seeds × noise × residual weight",
    "verify": "test the theory: every claim on many matrices; holds, violated, or undecidable; how tight",
    "probe": "by gradient: the matrix that makes a bound tight, or breaks a claim; the ε that meets a target",
    "train": "check in networks: over ε × depth × α × noise × seeds, do trained Flax networks obey the laws",
}
PROBES = {
    "tighten": "CLAIM: the logits that bring a bound closest to equality",
    "refute": "CLAIM: hunt a violation; re-checked in 50 digits, reduced, saved",
    "frontier": "the largest and smallest σ₂ at each entropy deficit, against the isolated unit (2.3)",
    "calibrate": "the ε at which σ₂ or a stack's share of detail meets a target",
    "sensitivity": "‖∂σ₂/∂S‖ along ε, with public initialisations marked (6.2)",
}

GRID = PrimitiveConstructorSpec(
    nargs="*",
    metavar="NUM|LOW:HIGH:COUNT [...]",
    instance_from_str=lambda words: parse_grid(words),
    is_instance=lambda value: (
        isinstance(value, tuple) and all(isinstance(item, float) for item in value)
    ),
    str_from_instance=lambda values: [repr(value) for value in values],
)


@dataclasses.dataclass(frozen=True)
class SweepCommand:
    """Map the trap: every law's prediction beside its measurement. Writes zarr, figures and report.html."""

    sweep: tyro.conf.OmitArgPrefixes[Sweep]
    config: Path | None = None
    """A TOML file with a sweep, or several in [[sweep]] tables; flags given beside it win."""
    out: Path = Path("runs/sweep")
    """Folder to write; it must not exist."""
    overwrite: bool = False
    """Replace the run that is in that folder."""


@dataclasses.dataclass(frozen=True)
class VerifyCommand:
    """Test the theory: every claim on many matrices. Writes zarr, a report, and the worst case of every violation.

    Exits 0 if every theorem holds and every refuted claim was refuted again (with --mutants: if each was caught), else 1.
    """

    verification: tyro.conf.OmitArgPrefixes[Verification]
    replay: Path | None = None
    """Judge one saved case (.npz) again, in every precision, and do nothing else."""
    out: Path = Path("runs/verify")
    """Folder to write; it must not exist."""
    overwrite: bool = False
    """Replace the run that is in that folder."""


@dataclasses.dataclass(frozen=True)
class SearchCommand:
    """Probe a claim by gradient from many random starts. Writes the case with its replay, the history and report.html."""

    claim: tyro.conf.Positional[str]
    """Name (hilbert) or number in docs/claims.md (1.4)."""
    search: tyro.conf.OmitArgPrefixes[Search]
    out: Path = Path("runs/probe")
    """Folder to write; it must not exist."""
    overwrite: bool = False
    """Replace the run that is in that folder."""


@dataclasses.dataclass(frozen=True)
class FrontierCommand:
    """The largest and the smallest σ₂ at each entropy deficit (2.3). Writes zarr, a figure and report.html."""

    search: tyro.conf.OmitArgPrefixes[FrontierSearch]
    out: Path = Path("runs/frontier")
    """Folder to write; it must not exist."""
    overwrite: bool = False
    """Replace the run that is in that folder."""


@dataclasses.dataclass(frozen=True)
class CalibrateCommand:
    """The ε that meets a target, for every matrix or stack of a source. Writes zarr, a figure and report.html."""

    what: tyro.conf.OmitArgPrefixes[Calibrate]
    out: Path = Path("runs/calibrate")
    """Folder to write; it must not exist."""
    overwrite: bool = False
    """Replace the run that is in that folder."""


@dataclasses.dataclass(frozen=True)
class SensitivityCommand:
    """Where a gradient reaches the logits: ‖∂σ₂/∂S‖ along ε (6.2). Writes zarr, a figure and report.html."""

    out: Path = Path("runs/sensitivity")
    """Folder to write; it must not exist."""
    overwrite: bool = False
    """Replace the run that is in that folder."""


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train networks over a grid, side by side, and hold them against the laws. Writes zarr, checkpoints and report.html.

    Interrupted, it goes on when the same command is given again. Exits 1 if a training ran into numbers that are not finite,
    or if a theorem was violated on what came out.
    """

    what: tyro.conf.OmitArgPrefixes[Train]
    out: Path = Path("runs/train")
    """Folder to write; it must not exist."""
    overwrite: bool = False
    """Replace the run that is in that folder."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: exits 0, or with one sentence on standard error and 2 for a mistake in what was asked, 1 for a failure."""
    args = list(sys.argv[1:] if args is None else args)
    console, errors = Console(), Console(stderr=True)
    try:
        if not args or args[0] in ("-h", "--help"):
            console.print("usage: homojax VERB [options]\n", markup=False)
            for verb, text in VERBS.items():
                console.print(f"  {verb:8}{text}", highlight=False)
            console.print("\nhomojax VERB --help lists the options.")
        elif args[0] not in VERBS:
            raise InputError(f'there is no verb "{args[0]}": {nearest(args[0], VERBS)}')
        elif args[0] == "sweep":
            _sweep(args[1:], console)
        elif not {"verify": _verify, "probe": _probe, "train": _train}[args[0]](args[1:], console):
            sys.exit(1)
    except InputError as error:
        errors.print(f"homojax: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        text = f"homojax: cannot write: {what}.{_kept(args)}"
        errors.print(text, markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print(f"homojax: stopped.{_kept(args)}", soft_wrap=True)
        sys.exit(130)


def _kept(args: list[str]) -> str:
    """What is left of a verb that did not come to its end."""
    return (
        ""
        if args[:1] == ["probe"]
        else " What was done is kept; run the same command again to go on."
    )


def _sweep(args: list[str], console: Console) -> None:
    commands = _parse_sweeps(args)
    out, overwrite = commands[0].out, commands[0].overwrite
    sweeps = [command.sweep for command in commands]
    for sweep in (
        sweeps
    ):  # a mistake in the last one is told before the first one runs, or leaves anything behind
        load_source(sweep)
    labels = [sweep.label for sweep in sweeps]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InputError(
            f'two sweeps are called "{twice}" with these flags; give each its own name in the config.'
        )
    folder = RunFolder(
        out, [f"{sweep.label} {sweep.digest}" for sweep in sweeps], overwrite=overwrite
    )
    matplotlib.use("agg")
    jax.config.update("jax_enable_x64", any(sweep.dtype == "float64" for sweep in sweeps))
    datasets = {}
    with _progress(console) as progress:
        for sweep in sweeps:
            task = progress.add_task(sweep.label, total=None, doing="")
            datasets[sweep.label] = run_sweep(
                sweep,
                folder.part / f"{sweep.label}.zarr",
                progress=lambda done, total, doing, task=task: progress.update(
                    task, completed=done, total=total, doing=doing
                ),
            )
            size = datasets[sweep.label].sizes
            cells = size["n"] * size["epsilon"] * size["seed"]
            progress.update(task, completed=cells, total=cells, doing="done")
        task = progress.add_task("figures", total=None, doing="")
        figures = report.write_figures(datasets, folder.part / "figures")
        report.write_report(datasets, figures, folder.part / "report.html")
        progress.update(task, completed=len(figures), total=len(figures), doing="done")
    folder.finish()
    for dataset in datasets.values():
        report.print_tables(dataset, console)
    text = f"\nData, figures and report are in {out}/; open {out / 'report.html'} in a browser."
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _verify(args: list[str], console: Console) -> bool:
    """Whether all is as theory.md says."""
    command = tyro.cli(
        VerifyCommand, prog="homojax verify", args=args, default=VerifyCommand(Verification())
    )
    jax.config.update("jax_enable_x64", True)
    if command.replay is not None:
        trial.print_replay(load_case(command.replay), console)
        return True
    verification, out = command.verification, command.out
    folder = RunFolder(out, [f"verify {verification.digest}"], overwrite=command.overwrite)
    matplotlib.use("agg")
    with _progress(console) as progress:
        task = progress.add_task("verify", total=None, doing="")
        dataset = verify(
            verification,
            folder.part / "verify.zarr",
            progress=lambda done, total, doing: progress.update(
                task, completed=done, total=total, doing=doing
            ),
        )
        cases = {}
        if not verification.mutants:
            for claim, n, case in worst_cases(verification, dataset):
                cases[claim, n] = f"violations/{claim}-{n}.npz"
                save_case(case, folder.part / cases[claim, n])
        trial.write_verification(dataset, cases, folder.part)
    folder.finish()
    as_expected = trial.print_verification(
        dataset, {key: out / path for key, path in cases.items()}, console
    )
    text = f"\nData, cases and report are in {out}/; open {out / 'report.html'} in a browser."
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return as_expected


def _probe(args: list[str], console: Console) -> bool:
    """Whether all is as theory.md says."""
    if not args or args[0] in ("-h", "--help"):
        console.print("usage: homojax probe WHAT [options]\n", markup=False)
        for name, text in PROBES.items():
            console.print(f"  {name:13}{text}", highlight=False, markup=False)
        console.print("\nhomojax probe WHAT --help lists the options.")
        return True
    if args[0] not in PROBES:
        raise InputError(f'there is no probe "{args[0]}": {nearest(args[0], PROBES)}')
    what, prog, rest = args[0], f"homojax probe {args[0]}", args[1:]
    matplotlib.use("agg")
    jax.config.update("jax_enable_x64", True)
    if what in ("tighten", "refute"):
        command = tyro.cli(SearchCommand, prog=prog, args=rest)
    elif what == "frontier":
        command = tyro.cli(
            FrontierCommand, prog=prog, args=rest, default=FrontierCommand(FrontierSearch())
        )
    else:
        command = tyro.cli(
            CalibrateCommand if what == "calibrate" else SensitivityCommand, prog=prog, args=rest
        )
    folder = RunFolder(command.out, [f"probe {what} {command}"], overwrite=command.overwrite)
    as_expected, cases = True, []
    with _progress(console) as bar:
        task = bar.add_task(what, total=None, doing="")

        def progress(done: int, total: int, doing: str) -> None:
            bar.update(task, completed=done, total=total, doing=doing)

        if isinstance(command, SearchCommand):
            finding = (tighten if what == "tighten" else refute)(
                command.claim, command.search, progress=progress
            )
            text, tables = findings.describe(finding)
            cases = findings.write_finding(finding, folder.part)
            as_expected = what == "tighten" or finding.refuted == (
                finding.claim.status == "refuted"
            )
        else:
            if isinstance(command, FrontierCommand):
                dataset = frontier(command.search, progress=progress)
                as_expected = not (dataset.excess > dataset.excess_error).any()
            elif isinstance(command, CalibrateCommand):
                dataset = calibrate(command.what, progress=progress)
            else:
                dataset = sensitivity_over()
                progress(1, 1, "done")
            text, tables = findings.DESCRIPTIONS[what][0](dataset)
            findings.write_page(what, dataset, folder.part)
            write_dataset(dataset, folder.part / f"{what}.zarr")
    folder.finish()
    findings.show(text, tables, not as_expected, console)
    for name in cases:
        console.print(
            f"homojax verify --replay {command.out / name}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    text = f"\nAll of it is in {command.out}/; open {command.out / 'report.html'} in a browser."
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return as_expected


def _train(args: list[str], console: Console) -> bool:
    """Whether every network was trained to the end, and no theorem violated."""
    try:
        command = tyro.cli(
            TrainCommand,
            prog="homojax train",
            args=args,
            default=TrainCommand(Train()),
            registry=_grids(),
        )
    except ValueError as error:  # of an architecture or a training that there cannot be
        raise InputError(f"{error}.") from error
    jax.config.update("jax_enable_x64", True)  # for the laws: networks are float32 all the same
    trainer_of(
        command.what, min(command.what.layers)
    )  # a mistake is told before anything is left behind
    folder = RunFolder(
        command.out, ["train"], overwrite=command.overwrite
    )  # one name: another training is told the difference
    matplotlib.use("agg")
    with _progress(console) as bar:
        task = bar.add_task("train", total=None, doing="")
        dataset = train(
            command.what,
            folder.part,
            progress=lambda done, total, doing: bar.update(
                task, completed=done, total=total, doing=doing
            ),
        )
        findings.write_page("train", dataset, folder.part)
    folder.finish()
    as_expected = findings.training_as_expected(dataset)
    findings.show(*findings.describe_training(dataset), not as_expected, console)
    text = f"\nAll of it is in {command.out}/; open {command.out / 'report.html'} in a browser."
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return as_expected


def _grids() -> tyro.constructors.ConstructorRegistry:
    """Lists of numbers may be given as LOW:HIGH:COUNT."""
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(lambda info: GRID if info.type == tuple[float, ...] else None)
    return registry


def _parse_sweeps(args: list[str]) -> list[SweepCommand]:
    """The sweeps asked for: those of the config, or the default one, each with the flags laid over it."""
    config = _value_of("--config", args)
    sweeps = [Sweep()] if config is None else load_sweeps(Path(config))
    return [
        tyro.cli(
            SweepCommand,
            prog="homojax sweep",
            args=args,
            default=SweepCommand(sweep),
            registry=_grids(),
        )
        for sweep in sweeps
    ]


def _value_of(flag: str, args: list[str]) -> str | None:
    for position, arg in enumerate(args):
        if arg == flag and position + 1 < len(args):
            return args[position + 1]
        if arg.startswith(flag + "="):
            return arg.removeprefix(flag + "=")
    return None


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[doing]}"),
        console=console,
    )
