"""The frame of ``experiments/``: a study in one of three sizes, with figure, tables and page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

from homojax.lab import page
from homojax.lab.blocks import Blocks
from homojax.lab.figure_style import STYLE
from homojax.lab.inputs import InputError
from homojax.lab.page import Section, Table
from homojax.lab.progress import Progress, progress_bar, silent
from homojax.lab.runs import own
from homojax.lab.store import versions
from homojax.lab.train.config import Train
from homojax.lab.train.report import theorem_sentence, theorems_judged
from homojax.lab.train.run import Trained, train, train_depth

Size = Literal["smoke", "quick", "full"]

Arrays = dict[str, np.ndarray]


class Study(NamedTuple):
    """What an experiment found. Fields are given by keyword."""

    text: str
    tables: list[Table]
    figure: Figure | None = None
    parts: Mapping[str, Study] = MappingProxyType({})  # by their headings: studies of their own


class Bench:
    """Where an experiment trains its networks. What is done stays in its folder, to go on from."""

    def __init__(self, folder: Path, progress: Progress = silent):
        self.folder = folder
        self.progress = progress
        self.failed: Arrays = {}  # label -> the step at which each run broke; −1: it did not
        self.judged: dict[str, tuple[int, int, int]] = {}  # label -> ``theorems_judged``

    def train(self, label: str, config: Train) -> xr.Dataset:
        """Return the Dataset of ``homojax train``."""

        def progress(done: int, total: int, doing: str) -> None:
            self.progress(done, total, f"{label}: {doing}")

        dataset = train(config, self.folder / label, progress=progress)
        self.failed[label] = dataset.failed_step.values
        if "holds" in dataset:
            self.judged[label] = theorems_judged(dataset)
        return dataset

    def networks(self, label: str, config: Train) -> Trained:
        """Return the trained networks themselves, of the architecture's depth."""
        self.train(label, config)
        return train_depth(config, config.architecture.depth, self.folder / label)

    def measured(self, label: str, about: str, measure: Callable[[], Arrays]) -> Arrays:
        """Return ``measure()``, or what an earlier run measured under that label.

        Args:
            label: of the measurement.
            about: how it is made, so that no other is taken for it.
            measure: gives ``failed`` of its runs, perhaps ``theorems`` (``theorems_of``), and more.

        Raises:
            InputError: the folder holds what was measured in another way.
        """
        block = Blocks(self.folder / "measured").get(
            label, lambda: {**measure(), "about": np.array(about)}
        )
        if str(block.pop("about")) != about:
            raise InputError(
                f"{self.folder} holds another measurement of {label}: choose another folder, or "
                "remove it."
            )
        self.failed[label] = block["failed"]
        if "theorems" in block:
            self.judged[label] = tuple(block["theorems"].tolist())
        return block

    def theorems(self) -> tuple[int, int, int]:
        """Return how many comparisons of theorems hold, are violated, are undecidable, in all."""
        return tuple(np.sum([(0, 0, 0), *self.judged.values()], axis=0).tolist())

    def summary(self) -> str:
        """Say how the theorems fared on what was trained, and which trainings were stopped."""
        sentences = [theorem_sentence(self.theorems())] if self.judged else []
        stopped = {label: int((steps >= 0).sum()) for label, steps in self.failed.items()}
        which = ", ".join(
            f"{count} of {self.failed[label].size} {label}"
            for label, count in stopped.items()
            if count
        )
        if which:
            sentences.append(f"Stopped at numbers that were not finite, and counted: {which}.")
        return " ".join(sentences)


def run_experiment(
    study: Callable[[Size, Bench], Study], size: Size, out: Path, console: Console
) -> Section:
    """Run a study; write ``figure.png`` and ``report.html`` into ``out``, beside its trainings.

    Raises:
        InputError: ``out`` holds another run.
        OSError: ``out`` cannot be written.
    """
    identity = {"experiment": _name(study), "size": size}
    own(out, identity)
    jax.config.update("jax_enable_x64", True)  # for the laws; networks are float32 all the same
    title = _document(study).splitlines()[0]
    with progress_bar(console, _name(study)) as progress, plt.rc_context(STYLE), plt.ioff():
        bench = Bench(out, progress)
        result = study(size, bench)
    section = _section("", title, result)._replace(
        text=" ".join(filter(None, (result.text, bench.summary()))),
        as_expected=bench.theorems()[1] == 0,
        about={**identity, "versions": versions()},
    )
    parts = [_section(heading, heading, part) for heading, part in result.parts.items()]
    page.write_page(out, title, [section, *parts])
    for one in (section, *parts):
        page.show(one, console)
    page.show_place(out, console)
    return section


def _section(heading: str, caption: str, study: Study) -> Section:
    """Return what a study found as a part of a page."""
    figure, name = study.figure, heading.partition(":")[0].lower() or "figure"
    return Section(
        heading=heading,
        text=study.text,
        pictures=[page.draw(f"{name}.png", caption, lambda: figure)] if figure is not None else [],
        tables=study.tables,
    )


def command(study: Callable[[Size, Bench], Study], args: Sequence[str] | None = None) -> None:
    """Run the command line of an experiment: ``--quick`` and ``--out``."""
    name = _name(study)
    parser = argparse.ArgumentParser(
        description=_document(study), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small size: minutes, not an hour")
    parser.add_argument(
        "--out", type=Path, help="folder to write (default: runs/<name>, or runs/<name>-quick)"
    )
    asked = parser.parse_args(args)
    size: Size = "quick" if asked.quick else "full"
    out = asked.out or Path("runs") / (f"{name}-quick" if asked.quick else name)
    kept = "What was done is kept; run it again to go on."
    plt.switch_backend("agg")
    try:
        run_experiment(study, size, out, Console())
    except InputError as error:
        parser.exit(2, f"{name}: {error}\n")
    except OSError as error:
        parser.exit(1, f"{name}: cannot read or write: {error}. {kept}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{name}: stopped. {kept}\n")


def _name(study: Callable) -> str:
    """Return the name of the script that a study is in."""
    return Path(sys.modules[study.__module__].__file__ or study.__module__).stem


def _document(study: Callable) -> str:
    """Return the docstring of the script that a study is in."""
    return sys.modules[study.__module__].__doc__ or study.__module__
