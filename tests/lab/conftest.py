"""Small Datasets of sweeps and probes, computed once for all tests that read them."""

from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr

import homojax as hj
from homojax.lab.probe.config import FrontierSearch
from homojax.lab.probe.sensitivity import scan_sensitivity
from homojax.lab.sweep import measure
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.run import sweep


class Map(NamedTuple):
    """A sweep cell by cell, and the n of every tracing of one of its stages."""

    config: Sweep
    ds: xr.Dataset
    traced: list[int]


@pytest.fixture(scope="session")
def two_sizes():
    config = Sweep(
        epsilon=(0.2, 1.0, 5.0),
        depth=(1, 2, 4, 5),
        n=(2, 4),
        seeds=4,
        snr=(0.1, 10.0),
        alpha=(0.0, 0.25, 1.0),
        samples=200,
        retention=0.3,
        memory_mb=1e-3,  # too little for two cells at once
    )
    traced, entropy = [], measure.entropy  # of the stage that has it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "entropy", lambda m: traced.append(m.shape[-1]) or entropy(m))
        return Map(config, sweep(config), traced)


@pytest.fixture(scope="session")
def frontier_run():
    """A frontier at n = 3, and the progress that it told."""
    told = []
    search = FrontierSearch(n=(3,), deficits=4, starts=6, steps=100)
    return hj.frontier(search, progress=lambda *args: told.append(args)), told


@pytest.fixture(scope="session")
def frontier_at_3(frontier_run):
    return frontier_run[0]


@pytest.fixture(scope="session")
def calibrated():
    return hj.calibrate(sigma2=0.5, n=3, seeds=2)


@pytest.fixture(scope="session")
def curves():
    """A pair of units whose logits differ by 16 on and off the diagonal, and logits that are 0."""
    pair = np.array([[0.0, -8.0], [-8.0, 0.0]])
    cases = {"pair": (pair, 0.05), "flat": (np.zeros((2, 2)), 1.0)}
    return scan_sensitivity(epsilon=np.geomspace(0.05, 50, 13), cases=cases)
