"""Small findings, computed once for all tests of the room; Datasets are in the folder above."""

import pytest

import homojax as hj
from homojax.lab.probe.config import Search


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
