"""What a person sees of a probe: sentences, tables, figures, and the folder of a command."""

import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from homojax.lab.cli import main
from homojax.lab.inputs import InputError
from homojax.lab.probe import report
from homojax.lab.probe.dataset_report import (
    describe_calibration,
    describe_frontier,
    describe_sensitivity,
)
from homojax.lab.probe.finding_report import describe_finding
from homojax.lab.probe.sensitivity import scan_sensitivity
from homojax.lab.runs import MANIFEST
from homojax.lab.store import read_dataset
from homojax.theory import CLAIMS

# ---------------------------------------------------------------- sentences and tables


def test_a_violation_is_told_with_both_sides_and_the_shortest_logits(broken_gain):
    section = describe_finding(broken_gain)
    assert "gain_retention (law 3.4) is VIOLATED at n = 2" in section.text
    assert "in 50 digits, too" in section.text and section.as_expected  # it is known to be false
    sides, logits = section.tables
    assert [row[-1] for row in sides.rows] == ["violated", "violated"]
    assert "fewest digits" in logits.caption and "alpha" in logits.caption
    assert len(logits.rows) == 2 * len(broken_gain.reduced.arrays["matrices"])
    assert section.about["claim"] == "gain_retention" and section.about["config"]["n"] == 2


def test_a_theorem_that_is_refuted_is_said_loudly_to_be_a_bug(broken_gain):
    claim = dataclasses.replace(broken_gain.claim, status="theorem")
    section = describe_finding(broken_gain._replace(claim=claim, exact=None, exact_verdict=None))
    assert "BUG OF OURS" in section.text and not section.as_expected
    assert "in float64 alone" in section.text and len(section.tables[0].rows) == 1
    claim = dataclasses.replace(broken_gain.claim, status="conjecture")
    assert "this case decides it" in describe_finding(broken_gain._replace(claim=claim)).text


def test_a_violation_that_many_digits_take_back_is_told_as_such(broken_gain):
    section = describe_finding(broken_gain._replace(exact_verdict="holds", reduced=None))
    assert "was not refuted" in section.text and "50 digits take it back: holds" in section.text
    assert "known to be false" in section.text and not section.as_expected


@pytest.mark.slow
def test_a_bound_that_was_tightened_is_told_as_a_share(tight_hilbert):
    section = describe_finding(tight_hilbert)
    assert "hilbert (law 2) at n = 3" in section.text and "of the bound" in section.text
    assert section.as_expected and section.tables[1].caption == "Logits; ε = 1"
    assert len(section.tables[1].rows) == 3


def test_a_matrix_above_the_frontier_would_be_reported(frontier_at_3):
    section = describe_frontier(frontier_at_3)
    assert "stands: at none of 4 deficits" in section.text and section.as_expected
    (table,) = section.tables
    assert len(table.rows) == 4 and table.rows[0][0] == "3"
    broken = frontier_at_3.copy(deep=True)
    broken["excess"][0, 1] = 1e-3
    section = describe_frontier(broken)
    assert "BROKEN: 1 of 4" in section.text and not section.as_expected


def test_answers_are_counted_and_the_first_are_listed(calibrated):
    section = describe_calibration(calibrated)
    assert "2 of 2 found an ε, 2 of them certified" in section.text
    (table,) = section.tables
    assert len(table.rows) == 2 and "all are in the data" not in table.caption
    missing = calibrated.isel(seed=[0] * 30).copy(deep=True)
    missing["status"][:] = 1
    missing["epsilon"][:] = float("nan")
    (table,) = describe_calibration(missing).tables
    assert len(table.rows) == 24 and "24 of 30" in table.caption
    answer = dict(zip(table.header, table.rows[0], strict=True))
    assert answer["ε"] == answer["shortfall"] == "–" and answer["certified"] == "no"
    assert answer["status"] == "unreachable"


def test_the_band_is_where_a_tenth_of_the_largest_gradient_is_left(curves):
    section = describe_sensitivity(curves)
    assert section.text == "Outside their trainable band: pair."
    (table,) = section.tables
    band = dict(zip(table.header, table.rows[0], strict=True))
    steepest = float(curves.gradient_norm.sel(case="pair").idxmax())
    assert float(band["band from"]) < steepest and band["to"] == "> 50"  # the grid's end
    assert table.rows[1][-1] == "σ₂ = 0"


# ---------------------------------------------------------------- figures


def test_datasets_draw_and_summarise_themselves(frontier_at_3, calibrated, curves):
    for ds in (frontier_at_3, calibrated, curves):
        (ax,) = ds.homojax.plot().axes
        assert ax.get_xlabel() and ax.get_ylabel()
        assert ds.homojax.summary() == report.headline(ds) != ""


def drawn_in(ax):
    """(curves, dots) of a panel."""
    lines = [line for line in ax.lines if len(line.get_xdata()) != 2]  # beside straight ones
    return [x for x in lines if x.get_marker() != "o"], [x for x in lines if x.get_marker() == "o"]


def test_an_answer_is_drawn_on_its_own_curve_or_without_one(calibrated):
    target = calibrated.attrs["target"]
    for seed, curves in ((0, 1), (1, 0)):
        figure = calibrated.isel(seed=[seed]).homojax.plot()
        found, (dot,) = drawn_in(figure.axes[0])
        assert len(found) == curves and dot.get_xydata()[0, 0] == calibrated.epsilon[0, seed, 0]
        assert figure.legends[0].get_title().get_text().startswith(f"seed {seed}")
    three = calibrated.isel(layer=[0] * 3, shown_layer=[0] * 3)
    numbers = {"layer": [1, 2, 3], "shown_layer": [1, 2, 3]}
    three = three.assign_coords(numbers)
    three["curve"] = three.curve * three.shown_layer
    (curve,), (dot,) = drawn_in(three.isel(layer=[2]).homojax.plot().axes[0])
    assert (curve.get_xydata()[:, 1] == 3 * calibrated.curve.values[0, 0]).all()
    assert dot.get_xydata()[0, 1] == pytest.approx(target) and target == 0.5
    plt.close("all")


def test_a_case_at_an_epsilon_that_was_not_scanned_has_no_dot_and_says_so(curves):
    for ds, expected in ((curves, 2), (curves.sel(epsilon=slice(0.08, 50)), 1)):
        ax = ds.homojax.plot().axes[0]
        dots = [x for x in drawn_in(ax)[1] if np.isfinite(x.get_ydata()).all()]
        assert len(dots) == expected
        names = [x.get_label() for x in ax.lines]
        assert ("pair (at ε = 0.05, not scanned)" in names) == (expected == 1)
    (table,) = describe_sensitivity(ds).tables
    assert dict(zip(table.header, table.rows[0], strict=True))["‖∂σ₂/∂S‖"] == "–"
    plt.close("all")


def test_words_of_a_scan_of_one_epsilon_stay_within_its_axes(curves):
    figure = curves.isel(epsilon=[0]).homojax.plot()
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert all(ax.bbox.x0 < text.get_window_extent().x0 for text in ax.texts)
    plt.close("all")


@pytest.mark.parametrize(
    ("cases", "told"),
    [
        ({}, "cases is empty: give at least one"),
        ([np.eye(2)], "cases must be a dict, not list: try cases="),
        ({"I": (np.eye(2), 1.0, 2.0)}, r'the case "I" is no \(logits, ε\): try'),
        ({"I": np.eye(2)}, r'the case "I" is no \(logits, ε\): try'),
        ({"I": (np.eye(2), "one")}, r'the case "I" is no \(logits, ε\): try'),
        ({"I": (np.ones((2, 3)), 1.0)}, r'the case "I" has logits \[2, 3\]: give \[n, n\]'),
        ({"I": (np.eye(2), 0.0)}, r'the case "I" has ε = 0\.0: it must be finite and greater'),
    ],
)
def test_what_is_no_case_of_a_scan_is_refused_in_one_sentence(cases, told):
    with pytest.raises(InputError, match=told):
        scan_sensitivity(epsilon=(0.1, 1.0), cases=cases)


def test_a_finding_is_one_line(broken_gain):
    line = repr(broken_gain)
    assert line.startswith("Finding: refute gain_retention (law 3.4): violated, violated in 50")
    assert len(line) < 150 and "\n" not in line
    assert "50 digits" not in repr(broken_gain._replace(exact=None, exact_verdict=None))


def test_a_finding_draws_its_history(broken_gain, tight_hilbert):
    for finding, word in ((broken_gain, "−"), (tight_hilbert, "/")):
        figure = finding.plot()
        (ax,) = figure.axes
        assert ax.get_xlabel() == "steps" and ax.get_ylabel() == f"lesser {word} greater side"
        assert finding.claim.name in figure.get_suptitle()
        low, high = ax.get_ylim()
        assert low < finding.score < high


# ---------------------------------------------------------------- commands


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capsys, *args):
    """(exit code, standard output, standard error) of a command."""
    with pytest.raises(SystemExit) as ended:
        main(list(args))
    return ended.value.code, *capsys.readouterr()


REFUTE = ["probe", "refute", "gain_retention", "--n", "2", "--starts", "26", "--steps", "20"]


def test_a_search_saves_what_it_found_and_says_how_to_replay_it(capsys):
    code, out, _ = said(capsys, *REFUTE, "--polish", "0", "--out", "found")
    assert code == 0 and "VIOLATED" in out
    assert "homojax verify --replay found/reduced.npz" in out
    files = {"case.npz", "reduced.npz", "figure.png", "report.html", "history.npz", MANIFEST}
    assert {path.name for path in Path("found").iterdir()} == files
    page = Path("found/report.html").read_text("utf-8")
    assert page.count("<img") == 1 and "homojax verify --replay found/case.npz" in page
    code, out, _ = said(capsys, "verify", "--replay", "found/reduced.npz")
    assert code == 0 and "violated" in out


@pytest.mark.parametrize("verb", ["frontier", "calibrate", "sensitivity"])
def test_a_dataset_is_written_with_its_figure_and_page(
    capsys, monkeypatch, verb, frontier_at_3, calibrated, curves
):
    results = {
        "frontier": ("frontier", frontier_at_3),
        "calibrate": ("calibrate", calibrated),
        "sensitivity": ("scan_sensitivity", curves),
    }
    function, ds = results[verb]
    monkeypatch.setattr(report, function, lambda config, progress: ds)
    target = ["--sigma2", "0.5"] if verb == "calibrate" else []
    code, out, _ = said(capsys, "probe", verb, *target, "--out", "found")
    assert code == 0 and "open found/report.html" in out
    text = " ".join(out.split())
    assert report.headline(ds) in text
    files = {f"{verb}.zarr", "figure.png", "report.html", MANIFEST}
    assert {path.name for path in Path("found").iterdir()} == files
    assert read_dataset(f"found/{verb}.zarr").attrs["verb"] == f"probe {verb}"


def test_the_command_runs_what_the_function_runs(capsys, calibrated):
    args = ["probe", "calibrate", "--sigma2", "0.5", "--n", "3", "--seeds", "2", "--out", "found"]
    assert said(capsys, *args)[0] == 0
    assert read_dataset("found/calibrate.zarr").identical(calibrated)


def test_what_the_theory_does_not_say_ends_with_1(capsys, monkeypatch, broken_gain):
    claim = dataclasses.replace(CLAIMS["gain_retention"], status="theorem")
    monkeypatch.setattr(report, "refute", lambda *_, **__: broken_gain._replace(claim=claim))
    code, out, _ = said(capsys, "probe", "refute", "gain_retention")
    assert code == 1 and "BUG OF OURS" in out and Path("runs/refute/case.npz").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["frontir"], 'did you mean "frontier"?'),
        (["tighten", "hilbrt"], 'did you mean "hilbert"?'),
        (["tighten", "hilbert", "--n", "1"], "--n 1 is not possible"),
        (["calibrate"], "give one target"),
        (["calibrate", "--sigma2", "1.5"], "--sigma2 1.5 is not possible"),
        (["calibrate", "--sigma2", "0.5", "--source", "file", "--path", "x.npy"], "no file x.npy"),
        (["sensitivity", "--epsilon", "0"], "--epsilon 0.0 is not possible"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_and_leaves_nothing(capsys, args, message):
    code, _, err = said(capsys, "probe", *args)
    assert code == 2 and message in err and err.startswith("homojax: ")
    assert list(Path().iterdir()) == []


def test_probe_lists_what_it_can(capsys):
    code, out, _ = said(capsys, "probe")
    assert code == 0 and all(f"  {name} " in out for name in report.PROBES)


def test_a_probe_that_is_stopped_leaves_no_folder(capsys, monkeypatch):
    def stopped(config, progress):
        progress(0, 8, "largest σ₂, n = 3")
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "frontier", stopped)
    code, _, err = said(capsys, "probe", "frontier", "--out", "found")
    assert code == 130 and err.strip().endswith("homojax: stopped.")
    assert list(Path().iterdir()) == []


def test_a_result_whose_page_could_not_be_written_is_not_computed_again(
    capsys, monkeypatch, frontier_at_3
):
    args = ["probe", "frontier", "--n", "3", "--deficits", "4", "--starts", "6", "--steps", "100"]

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(report, "frontier", lambda config, progress: frontier_at_3)
        patch.setattr(report.page, "write_page", full)
        code, _, err = said(capsys, *args, "--out", "found")
    assert code == 1 and "No space left" in err
    assert Path("found.part/frontier.zarr").exists() and not Path("found").exists()
    monkeypatch.setattr(report, "frontier", lambda *_, **__: pytest.fail("it was computed again"))
    assert said(capsys, *args, "--out", "found")[0] == 0
    assert [path.name for path in Path().iterdir()] == ["found"]
