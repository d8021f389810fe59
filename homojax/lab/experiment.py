"""The frame of ``experiments/``: a study in one of three sizes, shown as it goes, with a figure, a table and a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from homojax.lab import plots
from homojax.lab.inputs import InputError
from homojax.lab.probe import report as findings
from homojax.lab.runs import BlockStore, versions
from homojax.lab.train.run import Train, Trained, train, train_depth

Size = Literal["smoke", "quick", "full"]


class Study(NamedTuple):
    """What an experiment found."""

    text: str
    tables: list[tuple[str, findings.Table]]  # (caption, (header, rows))
    figure: Figure


class Bench:
    """Where an experiment's networks are trained. What is done stays in its folder: a run taken up again goes on after it."""

    def __init__(self, folder: Path, progress: Callable[[int, int, str], None]):
        self.folder = folder
        self.tell = progress  # (done, total, doing)
        self.failed: dict[
            str, np.ndarray
        ] = {}  # label -> of every run, the step at which a number was not finite; −1: none
        self.judged: dict[
            str, tuple[int, int, int]
        ] = {}  # label -> theorems that hold, are violated, are undecidable

    def train(self, label: str, what: Train) -> xr.Dataset:
        """The Dataset of ``homojax train``."""
        found = train(what, self.folder / label, progress=self._named(label))
        self.failed[label] = found.failed_step.values
        if "holds" in found:
            self.judged[label] = findings.theorems_judged(found)
        return found

    def networks(self, label: str, what: Train) -> Trained:
        """The trained networks themselves, of the architecture's depth."""
        self.train(label, what)
        return train_depth(what, what.architecture.depth, self.folder / label)

    def measured(
        self, label: str, about: str, measure: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """``measure()``, or what an earlier run found under that label; ``about`` says how.

        It holds ``failed`` of its runs, and perhaps ``theorems`` (``theorems_of``).

        Raises:
            InputError: the folder holds what was measured otherwise.
        """
        store = BlockStore(self.folder / "measured", version("homojax"))
        found = store.load(label)
        if found is None:
            found = measure()
            store.save(label, {**found, "about": np.array(about)})
        elif found.pop("about") != about:
            raise InputError(
                f"{self.folder} holds another measurement of {label}: choose another folder, or remove it."
            )
        self.failed[label] = found["failed"]
        if "theorems" in found:
            self.judged[label] = tuple(found["theorems"].tolist())
        return found

    def summary(self) -> str:
        """How the laws fared on all that was trained, where they were asked, and which trainings did not come to their end."""
        text = (
            " " + findings.judged(np.sum([*self.judged.values()], 0).tolist())
            if self.judged
            else ""
        )
        counts = {label: int((steps >= 0).sum()) for label, steps in self.failed.items()}
        which = ", ".join(
            f"{count} of {self.failed[label].size} {label}"
            for label, count in counts.items()
            if count
        )
        return text + (
            f" Stopped at numbers that were not finite, and counted as they stood: {which}."
            if which
            else ""
        )

    def _named(self, label: str) -> Callable[[int, int, str], None]:
        return lambda done, total, doing: self.tell(done, total, f"{label}: {doing}")


def run_experiment(
    study: Callable[[Size, Bench], Study], size: Size, out: Path, console: Console
) -> Study:
    """The study in that size, with ``figure.png`` and ``report.html`` in ``out``, beside its trainings."""
    matplotlib.use("agg")
    jax.config.update("jax_enable_x64", True)  # for the laws: networks are float32 all the same
    title = _document(study).splitlines()[0]
    _own(out, f"{_name(study)} {size}")
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.description}"),
    )
    with Progress(*columns, console=console) as bar, plt.rc_context(plots.STYLE), plt.ioff():
        task = bar.add_task("", total=None)
        bench = Bench(
            out,
            lambda done, total, doing: bar.update(
                task, completed=done, total=total, description=doing
            ),
        )
        found = study(size, bench)
        found = found._replace(text=found.text + bench.summary())
        findings.write(
            out,
            title,
            found.text,
            found.tables,
            found.figure,
            {"size": size, "versions": versions()},
        )
    findings.show(found.text, found.tables, False, console)
    console.print(
        f"\nAll of it is in {out}/; open {out / 'report.html'} in a browser.",
        highlight=False,
        soft_wrap=True,
    )
    return found


def command(study: Callable[[Size, Bench], Study], args: Sequence[str] | None = None) -> None:
    """The command line of an experiment: ``--quick`` and ``--out``."""
    name = _name(study)
    parser = argparse.ArgumentParser(
        description=_document(study), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer and shorter trainings: minutes, not the better part of an hour",
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write (default: runs/<name>, or runs/<name>-quick)"
    )
    asked = parser.parse_args(args)
    size: Size = "quick" if asked.quick else "full"
    try:
        run_experiment(
            study,
            size,
            asked.out or Path("runs") / (f"{name}-quick" if asked.quick else name),
            Console(),
        )
    except InputError as error:
        parser.exit(2, f"{name}: {error}\n")
    except OSError as error:
        parser.exit(
            1,
            f"{name}: cannot read or write: {error}. What was done is kept; run it again to go on.\n",
        )
    except KeyboardInterrupt:
        parser.exit(130, f"{name}: stopped. What was done is kept; run it again to go on.\n")


def _own(out: Path, which: str) -> None:
    """Makes the folder, or takes up the one that holds this experiment; InputError: it holds something else."""
    mark = out / "experiment.txt"
    if (
        out.is_dir()
        and any(out.iterdir())
        and (not mark.exists() or mark.read_text("utf-8") != which)
    ):
        raise InputError(
            f"{out} holds something else than {which}: choose another folder, or remove it."
        )
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(which, "utf-8")


def _name(study: Callable) -> str:
    return Path(sys.modules[study.__module__].__file__ or study.__module__).stem


def _document(study: Callable) -> str:
    """Of the script that the study is in."""
    return sys.modules[study.__module__].__doc__ or study.__module__
