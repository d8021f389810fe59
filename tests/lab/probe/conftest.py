"""Small results of every probe, computed once for all tests of the room."""

import numpy as np
import pytest

import homojax as hj
from homojax.lab.probe.config import FrontierSearch, Search
from homojax.lab.probe.sensitivity import scan_sensitivity


@pytest.fixture(scope="session")
def short():
    """26 starts, as many as a reduction has candidates: one program judges both."""
    return Search(n=3, starts=26, steps=60, polish=0)


@pytest.fixture(scope="session")
def broken_gain():
    """Law 3.4 (gain_retention) is known to be false: a stack that keeps no detail has gain 1."""
    return hj.refute("gain_retention", n=2, layers=2, starts=26, steps=20, polish=0)


@pytest.fixture(scope="session")
def tight_hilbert(short):
    """Law 2 (hilbert), which symmetric pairs attain."""
    return hj.tighten("hilbert", short)


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
