"""Every experiment about networks runs, in its smallest size, and leaves a table, a figure and a
page.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from homojax.lab.experiment import Bench, command, run_experiment
from homojax.lab.inputs import InputError

FOLDER = Path(__file__).parent.parent / "experiments"
NAMES = (
    "depth",
    "escape",
    "noise",
    "stagnation",
    "decay",
    "gradient_trap",
    "as_run",
    "ways_out",
    "precision",
)


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_leaves_a_table_a_figure_and_a_page(name, tmp_path, monkeypatch):
    module = loaded(name)
    monkeypatch.setitem(sys.modules, name, module)
    console = Console(file=(tmp_path / "said.txt").open("w"), width=200)
    found = run_experiment(module.study, "smoke", tmp_path / "out", console)
    assert found.text and all(
        len(row) == len(header) for _, (header, rows) in found.tables for row in rows
    )
    assert all(rows for _, (_, rows) in found.tables) and "nan" not in str(found.tables)
    assert (tmp_path / "out" / "figure.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "out" / "report.html").read_text()
    assert module.__doc__.splitlines()[0].split(" (")[0] in page and "data:image/png;base64" in page


@pytest.mark.parametrize(
    ("left", "depth"),
    [
        ([1, 0.9, 0.8, 0.7], np.inf),  # never below
        ([0.4, 0.3, 0.2, 0.1], 0),  # always
        ([1, 0.8, 0.4, 0.2], 2 * 2**0.5),  # half-way from 2 layers to 4, in their logarithms
        ([0.5, 1, 0.2, 0.9], 2 * 2**0.5),  # past the best, and for the first time
    ],
)
def test_a_depth_fails_past_the_best_one_where_half_is_lost(left, depth):
    values = xr.DataArray(left, {"depth": [1, 2, 4, 8]})
    assert loaded("depth").failing_depth(values, 0.6) == pytest.approx(depth)


def test_what_was_measured_before_an_interruption_is_not_measured_again(tmp_path):
    bench, calls = Bench(tmp_path, lambda *_: None), []

    def measure(value):
        if value is None:
            raise KeyboardInterrupt
        calls.append(value)
        return {
            "σ₂": np.full((2, 3), value),
            "off": np.float32(value),
            "failed": np.array([-1, -1]),
        }

    first = bench.measured("ε = 5, α", "a", lambda: measure(0.5))
    with pytest.raises(KeyboardInterrupt):
        bench.measured("next", "a", lambda: measure(None))
    again = Bench(tmp_path, lambda *_: None).measured("ε = 5, α", "a", lambda: measure(0.7))
    assert calls == [0.5] and again.keys() == first.keys()
    assert all(np.array_equal(again[key], first[key]) for key in first)
    with pytest.raises(
        InputError, match="holds another measurement of ε = 5, α"
    ):  # made in another way
        bench.measured("ε = 5, α", "b", lambda: measure(0.9))
    for kept in tmp_path.glob("*/*.npz"):
        kept.write_bytes(kept.read_bytes()[:-7])  # cut short: measured again, not trusted
    assert bench.measured("ε = 5, α", "a", lambda: measure(0.2))["off"] == np.float32(0.2)


def test_trainings_that_stopped_are_counted_by_name(tmp_path):
    bench = Bench(tmp_path, lambda *_: None)
    bench.measured("well", "", lambda: {"failed": np.array([-1, -1])})
    assert bench.summary() == ""
    bench.measured("ill", "", lambda: {"failed": np.array([[7, -1], [0, -1]])})
    assert "2 of 4 ill" in bench.summary() and "well" not in bench.summary()
    bench.judged = {"well": (6, 0, 2), "ill": (3, 1, 4)}
    assert "1 of 16 comparisons; 37.5% undecidable" in bench.summary()


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "as_run: stopped. What was done is kept"),
        (OSError("no space left"), 1, "no space left"),
        (
            InputError("the folder holds another training."),
            2,
            "as_run: the folder holds another training.",
        ),
    ],
)
def test_an_experiment_that_ends_early_says_so_in_one_sentence(
    capsys, tmp_path, monkeypatch, error, code, text
):
    monkeypatch.setitem(sys.modules, "as_run", loaded("as_run"))

    def stopped(size, bench):
        raise error

    stopped.__module__ = "as_run"
    with pytest.raises(SystemExit) as stop:
        command(stopped, ["--out", str(tmp_path)])
    err = capsys.readouterr().err
    assert stop.value.code == code and text in err and "Traceback" not in err


def test_an_experiment_says_what_it_is_and_knows_no_other_flag(capsys, monkeypatch):
    module = loaded("stagnation")
    monkeypatch.setitem(sys.modules, "stagnation", module)
    for args, code, text in ((["--help"], 0, "Identity stagnation"), (["--quik"], 2, "--quik")):
        with pytest.raises(SystemExit) as stop:
            command(module.study, args)
        out = capsys.readouterr()
        assert stop.value.code == code and text in out.out + out.err


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, monkeypatch):
    module = loaded("as_run")
    monkeypatch.setitem(sys.modules, "as_run", module)
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(InputError, match="holds something else than as_run smoke"):
        run_experiment(module.study, "smoke", tmp_path, Console())
    assert (tmp_path / "report.html").read_text() == "mine"
