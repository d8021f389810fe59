"""Ctrl-C and TERM stop every verb at once, whatever it is at, and lose nothing that was done."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from homojax.lab.runs import MANIFEST

COMMANDS = {
    "sweep": ["sweep", "--n", "4", "16", "--seeds", "2"],
    "verify": ["verify", "--n", "3", "4", "--cells", "4000", "--stacks", "400"],
    "probe": ["probe", "refute", "sigma2_falls", "--starts", "64"],
    "train": ["train", "--depth", "2", "--steps", "400", "--seeds", "2"],
}
PATIENCE = 3.0  # seconds from the signal to the end


@pytest.fixture(autouse=True)
def interrupts_are_heard():
    """A shell's background jobs ignore Ctrl-C, and so would their children."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


def interrupted(command, folder, delay, number):
    """(seconds from the signal to the end, exit code, what was said) of a run that is stopped."""
    process = subprocess.Popen(
        [sys.executable, "-m", "homojax", *command, "--out", str(folder / "run")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    time.sleep(delay)
    start = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return time.monotonic() - start, process.returncode, said


def nothing_is_lost_or_left(folder):
    """Either nothing is there, or a run that is whole, or one that can be gone on with."""
    left = {path.name for path in folder.iterdir()}
    assert left <= {"run", "run.part"}
    if "run.part" in left:
        files = [path for path in (folder / "run.part").rglob("*") if path.is_file()]
        assert len(files) > 1 and folder / "run.part" / MANIFEST in files
    if "run" in left:
        assert (folder / "run" / "report.html").exists()


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_stop_while_jax_loads_or_compiles_ends_the_program_and_leaves_no_folder(verb, tmp_path):
    seconds, code, said = interrupted(COMMANDS[verb], tmp_path, 3.0, signal.SIGINT)
    assert seconds < PATIENCE and code == 130 and "homojax: stopped." in said
    nothing_is_lost_or_left(tmp_path)


LOADING = """
import os, runpy, sys
class StopAt:
    def find_spec(self, name, *_):
        if name == "{module}":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, StopAt())
sys.argv = ["homojax", "--version"]
runpy.run_module("homojax", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", ["homojax.lab.cli", "numpy"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_the_command_loads_is_told_as_any_other(number, module):
    code = LOADING.format(module=module, number=int(number))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 128 + number and not done.stdout
    assert done.stderr == "homojax: stopped.\n"


FAILING = """
import os, signal, threading, time
from homojax.lab import cli
def tidy():
    if threading.current_thread() is not threading.main_thread():
        time.sleep(0.5)
def fail(args):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    raise OSError(2, "gone, for the stop has tidied it up")
cli._run, cli._discard_empty_folders = fail, tidy
cli.program()
"""


def test_what_fails_while_a_stop_tidies_up_is_not_told():
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "homojax: stopped.\n")


@pytest.mark.slow
@pytest.mark.parametrize("verb", COMMANDS)
def test_fifty_stops_at_random_moments_end_within_three_seconds(verb, tmp_path):
    """13 of each verb, one after another into the same folder: each goes on where the last was."""
    rng = np.random.default_rng(len(verb))
    for k in range(13):
        number = signal.SIGINT if k % 2 else signal.SIGTERM
        seconds, code, said = interrupted(COMMANDS[verb], tmp_path, rng.uniform(0.5, 12), number)
        if (tmp_path / "run").exists():  # it was faster
            break
        assert seconds < PATIENCE and code == 128 + number, said
        assert "Traceback" not in said and "homojax: stopped." in said, said
        nothing_is_lost_or_left(tmp_path)
