"""What a person sees of runs: a table of all, or what one has found so far."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from rich.console import Console

from homojax.lab import page
from homojax.lab.inputs import InputError, as_started
from homojax.lab.overview.command import RunsCommand
from homojax.lab.ownership import files_in
from homojax.lab.page import Table
from homojax.lab.runs import MANIFEST, identity_in
from homojax.lab.store import marks_of, not_whole, open_run


class Run(NamedTuple):
    """A folder that a verb wrote, or is writing."""

    folder: Path
    identity: dict[str, Any]

    @property
    def finished(self) -> bool:
        return "files" in self.identity

    @property
    def lost(self) -> list[str]:
        """What it wrote and is no more there: by store, or by file."""
        gone = [
            file for file in self.identity.get("files", []) if not (self.folder / file).exists()
        ]
        tops = dict.fromkeys(file.split("/")[0] for file in gone)
        return [top if not (self.folder / top).exists() else gone[0] for top in tops]

    @property
    def stores(self) -> list[Path]:
        return sorted(self.folder.glob("*.zarr"))

    @property
    def state(self) -> str:
        """How far it is, in words."""
        if self.finished:
            return f"finished, but {self.lost[0]} is gone" if self.lost else "finished"
        marks = [mark for store in self.stores for mark in _marks_in(store).flat]
        if marks and np.all(marks):
            return "measured, and its report is not written"
        return f"unfinished, {np.mean(marks):.0%} of its blocks" if marks else "unfinished"


def run_command(command: RunsCommand, console: Console) -> bool:
    """List the runs of a folder, or show one. Returns True."""
    folder = command.folder.expanduser()
    if command.what == "show":
        unfinished = folder.with_name(f"{folder.name}.part")
        folder = unfinished if unfinished.exists() and not folder.exists() else folder
        _show(Run(folder, identity_in(folder)), console)
        return True
    rows = [_row(manifest.parent) for manifest in sorted(folder.glob(f"*/{MANIFEST}"))]
    if not rows:
        raise InputError(f"there are no runs in {folder}: name the folder that they are in.")
    page.print_table(Table("", ["run", "verb", "state", "MB"], rows), console)
    return True


def _row(folder: Path) -> list[str]:
    """Return a line of the table; one run that is damaged hides no other."""
    try:
        run = Run(folder, identity_in(folder))
        return [str(folder), str(run.identity.get("verb", "–")), run.state, _size(run)]
    except InputError as error:
        return [
            str(folder),
            "–",
            "no homojax run" if "no homojax run" in str(error) else "damaged",
            "–",
        ]


def _marks_in(store: Path) -> np.ndarray:
    """Return which chunks of a store are done.

    Raises:
        InputError: it cannot be read.
    """
    try:
        group = zarr.open_group(store, mode="r", use_consolidated=False)
    except Exception as error:  # on a damaged store zarr raises anything
        raise not_whole(store) from error
    return marks_of(group)


def _size(run: Run) -> str:
    """Return how many MB it has now; others may write it meanwhile."""
    size = 0
    for file in files_in(run.folder):
        with suppress(FileNotFoundError):
            size += (run.folder / file).lstat().st_size
    return f"{size / 1e6:.1f}"


def _show(run: Run, console: Console) -> None:
    console.print(f"{run.folder}: {run.identity.get('verb')}, {run.state}", highlight=False)
    for store in run.stores:
        _show_dataset(open_run(store), console)
    if not run.finished:
        place = shlex.quote(str(run.folder).removesuffix(".part"))
        words = (
            f"Give its command again, with --out {place}, to go on. A run in shards goes on by the "
            "command of each shard, with its --shard."
        )
        console.print(f"\n{words}", highlight=False)
    elif (run.folder / "report.html").exists():
        page.show_place(run.folder, console)


def _show_dataset(ds: xr.Dataset, console: Console) -> None:
    command = as_started(ds.attrs["command"])
    console.print(f"\n{command}", style="dim", soft_wrap=True, markup=False, highlight=False)
    console.print(ds.homojax.summary(), markup=False, highlight=False)
