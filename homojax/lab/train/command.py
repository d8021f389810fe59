"""What ``homojax train`` takes: a training, and where to write."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from homojax.lab.inputs import InputError, Output
from homojax.lab.train.config import Train
from homojax.networks.architecture import Architecture


@dataclasses.dataclass(frozen=True)
class TrainCommand(Output):
    """Train networks over a grid, side by side, and compare them with the laws.

    Writes zarr, checkpoints and report.html. To continue an interrupted training, give the same
    command again. Exits 1 if a number was not finite in a training, or if a theorem was violated on
    trained matrices.
    """

    place: ClassVar[Path] = Path("runs/train")

    config: Annotated[tyro.conf.OmitArgPrefixes[Train], tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Train
    )

    def __post_init__(self):
        if self.config.depths and self.config.architecture.depth != Architecture.depth:
            raise InputError("--depths has the layers of every network: leave --depth out.")
