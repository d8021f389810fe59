"""The frame of experiments: what was done stays, failures are counted, a folder is one study's."""

import io
import sys
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
from rich.console import Console

from homojax.lab.experiment import Bench, Study, command, run_experiment
from homojax.lab.inputs import InputError
from homojax.lab.page import Table


@pytest.fixture
def script(monkeypatch):
    """A function that makes the study of a script called nothing.py, from what it does."""
    module = types.ModuleType("nothing", "Nothing at all (law 0).\n\nIt is not much.")
    module.__file__ = "experiments/nothing.py"
    monkeypatch.setitem(sys.modules, "nothing", module)

    def make(act):
        def study(size, bench):
            act(size, bench)
            table = Table("all of it", ["n", "is"], [["0", "nothing"]])
            return Study(text="There is nothing.", tables=[table], figure=plt.figure())

        study.__module__ = "nothing"
        return study

    return make


def test_a_study_becomes_a_page_with_its_figure_and_says_how_the_theorems_fared(script, tmp_path):
    def act(size, bench):
        bench.measured(
            "one", "", lambda: {"failed": np.array([-1]), "theorems": np.array([6, 0, 2])}
        )

    said = io.StringIO()
    out = tmp_path / "out"
    section = run_experiment(script(act), "smoke", out, Console(file=said, width=100))
    assert section.text.startswith("There is nothing. Theorems violated on the trained matrices: 0")
    assert section.as_expected and "nothing" in said.getvalue()
    assert (out / "figure.png").read_bytes()[:4] == b"\x89PNG"
    page = (out / "report.html").read_text()
    assert "Nothing at all" in page and "data:image/png;base64" in page and "all of it" in page
    again = run_experiment(script(act), "smoke", out, Console(file=said))  # the folder is its own
    assert again.text == section.text


def test_what_was_measured_before_an_interruption_is_not_measured_again(tmp_path):
    bench, calls = Bench(tmp_path), []

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
    again = Bench(tmp_path).measured("ε = 5, α", "a", lambda: measure(0.7))
    assert calls == [0.5] and again.keys() == first.keys()
    assert all(np.array_equal(again[key], first[key]) for key in first)
    with pytest.raises(InputError, match="holds another measurement of ε = 5, α"):
        bench.measured("ε = 5, α", "b", lambda: measure(0.9))  # made in another way
    for kept in tmp_path.glob("*/*.npz"):
        kept.write_bytes(kept.read_bytes()[:-7])  # cut short: measured again, not trusted
    assert bench.measured("ε = 5, α", "a", lambda: measure(0.2))["off"] == np.float32(0.2)


def test_trainings_that_stopped_are_counted_by_name_and_theorems_over_all(tmp_path):
    bench = Bench(tmp_path)
    bench.measured("well", "", lambda: {"failed": np.array([-1, -1])})
    assert bench.summary() == "" and bench.theorems() == (0, 0, 0)
    bench.measured("ill", "", lambda: {"failed": np.array([[7, -1], [0, -1]])})
    assert "2 of 4 ill" in bench.summary() and "well" not in bench.summary()
    bench.judged = {"well": (6, 0, 2), "ill": (3, 1, 4)}
    assert "1 of 16 comparisons; 37.5% undecidable" in bench.summary()


def test_a_violated_theorem_is_not_as_expected(script, tmp_path):
    def act(size, bench):
        bench.judged["one"] = (6, 1, 2)

    assert not run_experiment(script(act), "smoke", tmp_path, Console(quiet=True)).as_expected


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "nothing: stopped. What was done is kept"),
        (OSError("no space left"), 1, "no space left"),
        (InputError("the folder holds another run."), 2, "nothing: the folder holds another run."),
    ],
)
def test_an_experiment_that_ends_early_says_so_in_one_sentence(
    script, capsys, tmp_path, error, code, text
):
    def stopped(size, bench):
        raise error

    with pytest.raises(SystemExit) as stop:
        command(script(stopped), ["--out", str(tmp_path)])
    err = capsys.readouterr().err
    assert stop.value.code == code and text in err and "Traceback" not in err


def test_an_experiment_says_what_it_is_and_knows_no_other_flag(script, capsys):
    study = script(lambda size, bench: None)
    for args, code, text in ((["--help"], 0, "It is not much."), (["--quik"], 2, "--quik")):
        with pytest.raises(SystemExit) as stop:
            command(study, args)
        said = capsys.readouterr()
        assert stop.value.code == code and text in said.out + said.err


def test_a_size_has_its_own_folder(script, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = []
    study = script(lambda size, bench: sizes.append(size))
    command(study, ["--quick"])
    command(study, [])
    assert sizes == ["quick", "full"] and (tmp_path / "runs/nothing-quick/report.html").exists()
    with pytest.raises(SystemExit) as stop:
        command(study, ["--quick", "--out", "runs/nothing"])
    assert stop.value.code == 2
    assert "size was full and is asked to be quick" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_left_alone(script, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(InputError, match=r"holds files and no run\.json"):
        run_experiment(script(lambda *_: None), "smoke", tmp_path, Console())
    assert (tmp_path / "report.html").read_text() == "mine"
