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
    # A process that a test starts may read an entry while another worker writes it: it compiles.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:Error reading persistent")

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
    "tests/lab/verify": "verify",
    "tests/lab/probe": "lab",
    "tests/lab/sweep": "lab",
    "tests/lab/test_accessor.py": "lab",
    "tests/lab/test_cli.py": "lab",
}


def group_of(test):
    """What a test shares a worker with, by its id: the files of TOGETHER, or its own file."""
    file = test.split("::")[0]
    return next((name for path, name in TOGETHER.items() if file.startswith(path)), file)


@pytest.hookimpl(optionalhook=True)  # without xdist there is no such hook
def pytest_xdist_make_scheduler(config, log):
    """xdist's own ``loadgroup`` writes the groups into names that pytest 9.2 no longer reads.

    It then spreads single tests, and every worker makes every fixture.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return Groups(config, log) if config.getvalue("dist") == "loadgroup" else None


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


def note_program(event, duration, **_):
    if "backend_compile" in event:
        programs.append(event)


jax.monitoring.register_event_duration_secs_listener(note_program)


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
