"""The probes as commands: what each runs, what a person sees of it, and the files it leaves."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

from homojax.lab import page
from homojax.lab.blocks import resume
from homojax.lab.cases import save_case
from homojax.lab.inputs import Output
from homojax.lab.page import Section
from homojax.lab.probe import plots
from homojax.lab.probe.calibrate import calibrate
from homojax.lab.probe.command import (
    CalibrateCommand,
    FrontierCommand,
    RefuteCommand,
    SensitivityCommand,
    TightenCommand,
)
from homojax.lab.probe.dataset_report import (
    describe_calibration,
    describe_frontier,
    describe_sensitivity,
)
from homojax.lab.probe.finding import Finding
from homojax.lab.probe.finding_report import describe_finding
from homojax.lab.probe.frontier import frontier
from homojax.lab.probe.search import probed_claim, refute, tighten
from homojax.lab.probe.sensitivity import scan_sensitivity
from homojax.lab.progress import progress_bar
from homojax.lab.runs import RunFolder, run_folder
from homojax.lab.sources import load_source

Result = Finding | xr.Dataset
HISTORY = "history.npz"  # of a finding


class Probe(NamedTuple):
    """A probe as a command."""

    command: type[Output]
    run: Callable[[Any], Callable[..., Result]]  # command -> what to call with ``progress``
    describe: Callable[[Any], Section]
    draw: Callable[[Any], Figure]
    title: str  # of its page
    caption: str  # of its figure


def _search(command: TightenCommand | RefuteCommand) -> Callable[..., Finding]:
    goal = "tighten" if isinstance(command, TightenCommand) else "refute"
    probed_claim(goal, command.claim)  # a mistake is told before a folder is made
    return partial(tighten if goal == "tighten" else refute, command.claim, command.config)


def _calibrate(command: CalibrateCommand) -> Callable[..., xr.Dataset]:
    load_source(command.config)  # a mistake is told before a folder is made
    return partial(calibrate, command.config)


PROBES = {
    "tighten": Probe(
        command=TightenCommand,
        run=_search,
        describe=describe_finding,
        draw=Finding.plot,
        title="Probe: tighten",
        caption="The best score of every start, step by step.",
    ),
    "refute": Probe(
        command=RefuteCommand,
        run=_search,
        describe=describe_finding,
        draw=Finding.plot,
        title="Probe: refute",
        caption="The best score of every start, step by step.",
    ),
    "frontier": Probe(
        command=FrontierCommand,
        run=lambda command: partial(frontier, command.config),
        describe=describe_frontier,
        draw=plots.frontier,
        title="The entropy–σ₂ frontier",
        caption="The largest and the smallest σ₂ found at each entropy deficit (law 2.3).",
    ),
    "calibrate": Probe(
        command=CalibrateCommand,
        run=_calibrate,
        describe=describe_calibration,
        draw=plots.calibration,
        title="Calibrated ε",
        caption="The share of detail kept along ε, of the first seed, and the ε that was found.",
    ),
    "sensitivity": Probe(
        command=SensitivityCommand,
        run=lambda command: partial(scan_sensitivity, command.config),
        describe=describe_sensitivity,
        draw=plots.sensitivity,
        title="Where gradients reach the logits",
        caption="‖∂σ₂/∂S‖ along ε; a dot is the ε that the case is used at (law 6.2).",
    ),
}


def run_command(command: Output, console: Console) -> bool:
    """Run a probe into its folder, and show it. Returns whether all is as the theory says."""
    import jax

    jax.config.update("jax_enable_x64", True)
    name, probe = next(item for item in PROBES.items() if type(command) is item[1].command)
    run = probe.run(command)
    folder = _folder(name, command)
    with progress_bar(console, name) as progress:
        result, files = _run_into(folder.part, name, command, partial(run, progress=progress))
    section = probe.describe(result)._replace(
        commands=[
            f"homojax verify --replay {shlex.quote(str(folder.name / file))}" for file in files
        ],
        pictures=page.draw_all([("figure.png", probe.caption, probe.draw, result)]),
    )
    written = page.write_page(folder.part, probe.title, [section])
    folder.finish(*written, *files, *([HISTORY] if files else []), f"{name}.zarr")
    page.show(section, console)
    page.show_place(folder.name, console)
    return section.as_expected


def headline(ds: xr.Dataset) -> str:
    """Say what a frontier, a calibration or a scan found, in a few sentences."""
    name = ds.attrs["verb"].removeprefix("probe ")
    return PROBES[name].describe(ds).text


def _folder(name: str, command: Any) -> RunFolder:
    claim = {"claim": command.claim} if hasattr(command, "claim") else {}
    config = {**command.config.as_dict(), "hash": command.config.digest}
    return run_folder(command, {"verb": f"probe {name}", **claim, **config})


def _run_into(
    folder: Path, name: str, command: Any, run: Callable[[], Result]
) -> tuple[Result, list[str]]:
    """Return the result, which is kept in the folder, and the files that can be replayed.

    A Dataset that is there already, of the same config, is read.
    """
    if isinstance(command, TightenCommand | RefuteCommand):
        finding = cast(Finding, run())
        return finding, _save_finding(finding, folder)
    store, digest = folder / f"{name}.zarr", command.config.digest
    return resume(store, digest, lambda _: cast(xr.Dataset, run())), []


def _save_finding(finding: Finding, folder: Path) -> list[str]:
    """Write the history and the cases; returns the files of the cases."""
    np.savez(folder / HISTORY, history=finding.history)
    cases = {"case.npz": finding.case, "reduced.npz": finding.reduced}
    kept = {file: case for file, case in cases.items() if case is not None}
    for file, case in kept.items():
        save_case(case, folder / file)
    return list(kept)
