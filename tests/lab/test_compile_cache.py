"""Compiled programs are kept where users' caches are, and nowhere where that cannot be."""

import os
import subprocess
import sys

import pytest

from homojax.lab.compile_cache import keep_programs

FLAGS = "--epsilon 1 --depth 1 --n 2 --seeds 1 --samples 2 --dtype float32"
FOLDER = "JAX_COMPILATION_CACHE_DIR"
OURS = (FOLDER, "JAX_COMPILATION_CACHE_MAX_SIZE", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")

PATTERNS = ("*.trace", "jit_call-*-cache")

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of a user's caches, with nothing said of JAX's."""
    for name in OURS:
        monkeypatch.setenv(name, "")  # or one that is not there would not be taken away again
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@linux
def test_programs_go_to_the_users_caches_up_to_a_size(cache):
    keep_programs()
    assert os.environ[FOLDER] == str(cache / "homojax" / "programs")
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) == 2**30


@pytest.mark.parametrize("own", ["", "mine"])
def test_what_the_user_says_of_it_is_left_as_it_is(cache, monkeypatch, own):
    monkeypatch.setenv(FOLDER, own)
    keep_programs()
    assert os.environ[FOLDER] == own and not cache.exists()


@linux
def test_where_nothing_can_be_kept_nothing_is_said_of_it(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    keep_programs()
    assert FOLDER not in os.environ


@linux
@pytest.mark.slow
def test_a_second_command_compiles_nothing_that_took_long(cache, tmp_path):
    def kept():
        """What is kept of the stages, each a call of a trace, after one more command."""
        command = [sys.executable, "-m", "homojax", "sweep", *FLAGS.split()]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return {pattern: {path.name for path in cache.rglob(pattern)} for pattern in PATTERNS}

    first = kept()
    assert len(first["*.trace"]) == 11 and len(first["jit_call-*-cache"]) > 5
    assert kept() == first
