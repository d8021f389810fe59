"""A sweep that measures a part: the same values as the whole, by its own stages only."""

from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import pytest
import xarray as xr

import homojax as hj
from homojax.lab.cli import main
from homojax.lab.inputs import InputError
from homojax.lab.sweep import measure, report
from homojax.lab.sweep.config import FIGURES, GROUPS, Sweep, figures_of
from homojax.lab.sweep.dataset import VARIABLES
from homojax.lab.sweep.run import sweep
from homojax.numerics import rounding

# As in tests/lab/test_cli.py, to compile once for both.
TINY = {
    "epsilon": (0.5, 5.0),
    "depth": (1, 2),
    "n": 4,
    "seeds": 2,
    "samples": 8,
    "dtype": "float32",
}
FLAGS = Sweep(**TINY).flags
STAGES = {  # group -> the stages that it needs, beside _project and _measure_matrices
    "spectrum": {"_norms", "lambda2", "_measure_spectrum"},
    "bounds": {"_norms", "_measure_bounds"},
    "depth": {"_norms", "_exponent", "_measure_depth"},
    "layernorm": {"_measure_layernorm"},
    "residual": {"_norms", "_measure_residual"},
}
COLUMNS = {  # group -> columns of the summary
    "spectrum": {"σ₂", "holds", "undec.", "viol."},
    "bounds": {"holds", "undec.", "viol."},
    "depth": {"L bound", "L typical", "L measured", "holds", "undec.", "viol."},
    "layernorm": {"holds", "undec.", "viol."},
    "residual": {"holds", "undec.", "viol."},
}
CHOICES = [(group,) for group in GROUPS] + [("depth", "spectrum"), ("bounds", "layernorm")]


@pytest.fixture(scope="module")
def whole():
    return sweep(**TINY)


def rows_of(table):
    return {row[0] for row in table.rows}


def test_every_variable_has_a_group_that_may_be_asked_or_is_the_projections():
    assert {group for group, *_ in VARIABLES.values()} == {None, *GROUPS}
    assert set(FIGURES) == set(report.FIGURES) and set(FIGURES.values()) <= set(GROUPS)


@pytest.mark.parametrize("asked", CHOICES, ids="+".join)
def test_a_part_has_the_values_of_the_whole_and_runs_its_own_stages(asked, whole, monkeypatch):
    ran, program_of = set(), measure.program_of

    def noted(stage, *rest):
        ran.add(stage.__name__)
        return program_of(stage, *rest)

    monkeypatch.setattr(measure, "program_of", noted)
    part = sweep(**TINY, measure=asked)
    kept = [name for name, (group, *_) in VARIABLES.items() if group in (None, *asked)]
    # Programs of another size may round otherwise, on a CPU.
    off = rounding(4, jnp.float32)
    xr.testing.assert_allclose(part, whole[kept].assign_coords(part.coords), rtol=off, atol=off)
    assert ran == {"_project", "_measure_matrices"}.union(*(STAGES[group] for group in asked))


@pytest.mark.parametrize("asked", CHOICES, ids="+".join)
def test_tables_tell_of_what_was_measured(asked, whole):
    part = sweep(**TINY, measure=asked)
    summary, laws = report.describe(part).tables
    always = {"n", "ε", "ε/spread", "error"}
    assert set(summary.header) == always.union(*(COLUMNS[group] for group in asked))
    assert ("L: the depth" in summary.caption) == ("depth" in asked)
    assert summary.caption.startswith("The matrices") != bool({"depth", "spectrum"} & set(asked))
    # the rows of the whole
    whole_laws = report.describe(whole).tables[1]
    assert [row for row in whole_laws.rows if row[0] in rows_of(laws)] == laws.rows
    judged = {name.removeprefix("verdict_") for name in part if name.startswith("verdict_")}
    assert rows_of(laws) == judged | ({"layer norm"} if "layernorm" in asked else set())
    assert len(laws.rows) > 0
    # a count of comparisons is that of the tables
    text = part.homojax.summary()
    held = sum(int(row[2].replace(",", "")) for row in laws.rows if row[2] != "–")
    assert f" {held:,} comparisons hold" in text and "converged" in text


@pytest.mark.parametrize("group", GROUPS)
def test_figures_are_those_of_what_was_measured(group):
    part = sweep(**TINY, measure=(group,))
    kinds = part.homojax.kinds
    assert list(kinds) == [kind for kind, drawn in FIGURES.items() if drawn == group]
    assert all(part.homojax.plot(kind) for kind in kinds)
    plt.close("all")
    absent = next(kind for kind in FIGURES if kind not in kinds)
    said = f'did not measure what "{absent}" draws' if kinds else "there is no figure of what"
    with pytest.raises(InputError, match=said):
        part.homojax.plot(absent)
    with pytest.raises(InputError, match="there is no figure"):
        part.homojax.plot("phrase")


def test_figures_of_a_sweep_that_says_no_groups_are_all():
    assert figures_of({"n": [4]}) == list(FIGURES)


@pytest.mark.parametrize(
    ("asked", "figures", "column", "not_there"),
    [
        ("spectrum depth", {"gaussian-phase.png", "gaussian-entropy.png"}, "typical", "layer norm"),
        ("bounds", set(), "hilbert", "typical"),
    ],
)
def test_a_run_of_a_part_has_a_report(asked, figures, column, not_there, tmp_path, capsys):
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        main(["sweep", *FLAGS, "--measure", *asked.split(), "--out", str(out)])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert column in text and not_there not in text
    page = (out / "report.html").read_text()
    drawn = {path.name for path in Path(out, "figures").glob("*")}
    assert drawn == figures and page.count("<img") == len(figures)
    assert f"--measure {asked}" in page
    assert ("Data, figures and report are in" in text) == bool(figures)
    assert hj.open_run(out).homojax.summary() in page


def test_an_unknown_group_is_refused_in_one_sentence(capsys):
    with pytest.raises(SystemExit) as end:
        main(["sweep", *FLAGS, "--measure", "dept"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert 'a sweep measures no "dept": did you mean "depth"?' in error
