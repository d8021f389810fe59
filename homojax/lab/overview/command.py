"""What ``homojax runs`` takes: a folder of runs, or one run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import tyro


@dataclasses.dataclass(frozen=True)
class RunsCommand:
    """List the runs in a folder, with how far each is; or show one: what it found so far."""

    what: tyro.conf.Positional[Literal["list", "show"]] = "list"
    """list the runs of a folder, or show one."""
    folder: tyro.conf.Positional[Path] = Path("runs")
    """The folder of runs; to show, a run."""
