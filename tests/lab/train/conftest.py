"""One small training that the tests of this folder read, and the command."""

from pathlib import Path
from typing import NamedTuple

import pytest
import xarray as xr

from homojax.lab.cli import main
from homojax.lab.train.config import Train
from homojax.lab.train.run import Trained, train, train_depth
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training


class Kept(NamedTuple):
    """A finished training."""

    config: Train
    folder: Path
    ds: xr.Dataset
    trained: Trained


@pytest.fixture(scope="session")
def small():
    """Four networks of two layers; n = 8."""
    return Train(
        architecture=Architecture(depth=2, width=8),
        training=Training(steps=40, batch=8, warmup=5),
        epsilon=(0.1, 5.0),
        seeds=2,
    )


@pytest.fixture(scope="session")
def kept(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    ds = train(small, folder)
    return Kept(small, folder, ds, train_depth(small, 2, folder))


@pytest.fixture
def said(capsys):
    """(exit code, standard output, standard error) of a command."""

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            main(list(args))
        return stop.value.code, *capsys.readouterr()

    return run
