"""Float64 for every test, hypothesis examples that never change, and a compilation cache."""

import builtins
import os
import tempfile
from pathlib import Path

# Before OpenBLAS is loaded: its threads wait for each other where cores are busy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Compiling is most of what these tests do: neither a second run nor a process that a test starts
# need do it again. Programs are optimised as they are for users.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
        Path(tempfile.gettempdir()) / f"homojax-test-cache-{os.getuid()}"
    )
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import hypothesis
import jax
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)


hypothesis.settings.register_profile(
    "homojax", deadline=None, derandomize=True, database=None, max_examples=40
)
hypothesis.settings.load_profile("homojax")


# Files that go to one worker, because they share what is compiled or what a fixture has made.
TOGETHER = {
    "tests/lab/train": "train",
    "tests/lab/probe": "probe",
    "tests/lab/verify": "verify",
    "tests/lab/sweep": "sweep",
    "tests/lab/test_accessor.py": "sweep",
    "tests/lab/test_cli.py": "sweep",
}


def pytest_collection_modifyitems(items):
    for item in items:
        file = item.nodeid.split("::")[0]
        names = [name for path, name in TOGETHER.items() if file.startswith(path)]
        item.add_marker(pytest.mark.xdist_group([*names, file][0]))


@pytest.fixture(params=["float64", "float32"], scope="session")
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(20260102)


@pytest.fixture(autouse=True)
def float64_is_there_again():
    """A command that sweeps in float32 switches it off, as in a process of its own."""
    yield
    jax.config.update("jax_enable_x64", True)


MOST_PROGRAMS = 1_000
programs = []


@jax.monitoring.register_event_duration_secs_listener
def _note_program(event, duration, **_):
    if "backend_compile" in event:
        programs.append(event)


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_let_go():
    """A process that has compiled some thousand of them can crash in the compiler."""
    yield
    if len(programs) > MOST_PROGRAMS:
        jax.clear_caches()
        programs.clear()


@pytest.fixture(autouse=True, scope="module")
def last_shown_value_is_let_go():
    """A docstring's example leaves one in ``builtins``; tyro hashes all that it finds there."""
    yield
    vars(builtins).pop("_", None)
