"""Experiments are scripts, not modules of a package: they are loaded from their files."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def load(monkeypatch):
    """The module of an experiment, by its name."""
    monkeypatch.syspath_prepend(FOLDER)  # some read from others

    def load(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
