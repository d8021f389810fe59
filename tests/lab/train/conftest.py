"""One small training, by the command, that the tests of this folder read."""

import io
from pathlib import Path
from typing import NamedTuple

import pytest
import xarray as xr
from rich.console import Console

from homojax.lab.cli import main
from homojax.lab.store import read_dataset
from homojax.lab.train.command import TrainCommand
from homojax.lab.train.config import Train
from homojax.lab.train.report import run_command
from homojax.lab.train.run import Trained, train_depth
from homojax.lab.train.stacks import Stacks, stacks_of
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training


class Kept(NamedTuple):
    """A finished training."""

    config: Train
    folder: Path
    ds: xr.Dataset
    trained: Trained
    stacks: Stacks  # of the trained networks
    as_expected: bool
    said: str


@pytest.fixture(scope="session")
def small():
    """Eight networks of two linear layers, n = 8, half of them with noise.

    A product of 2 × 2 matrices is the doubly stochastic one that compiles soonest.
    """
    return Train(
        architecture=Architecture("kronecker", depth=2, width=64, norm="none"),
        training=Training(steps=40, batch=8, learning_rate=0.01, warmup=5),
        epsilon=(0.1, 5.0),
        alpha=(0.2,),
        noise=(0.0, 1.0),
        seeds=2,
    )


@pytest.fixture(scope="session")
def kept(small, tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("trained") / "run", io.StringIO()
    as_expected = run_command(TrainCommand(out=folder, config=small), Console(file=said, width=100))
    trained = train_depth(small, 2, folder)
    return Kept(
        config=small,
        folder=folder,
        ds=read_dataset(folder / "train.zarr"),
        trained=trained,
        stacks=stacks_of(trained.trainer, trained.end),
        as_expected=as_expected,
        said=said.getvalue(),
    )


@pytest.fixture
def said(capsys):
    """(exit code, standard output, standard error) of a command."""

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            main(list(args))
        return stop.value.code, *capsys.readouterr()

    return run
