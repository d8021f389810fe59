"""Calibration of whole sources, and sensitivities along ε: what the Dataset says is what NumPy finds, and mistakes are named."""

from pathlib import Path

import numpy as np
import pytest

import oracles
from homojax.calibration.search import CalibrationStatus
from homojax.lab.cli import main
from homojax.lab.inputs import InputError
from homojax.lab.probe import report as findings
from homojax.lab.probe.calibrate import Calibrate, calibrate, initialisations, sensitivity_over

TARGET = {"sigma2": 0.5, "n": (3,), "seeds": 2}


@pytest.fixture(scope="module")
def found():
    return calibrate(Calibrate(**TARGET))


def test_each_epsilon_meets_the_target_and_is_not_above_the_worst_case_rule(found):
    assert (
        found.epsilon.shape == (1, 2, 1)
        and (found.status == CalibrationStatus.FOUND).all()
        and found.certified.all()
    )
    for seed in range(2):
        logits = np.random.default_rng([0, 3, seed]).standard_normal((1, 3, 3))[0]
        epsilon = float(found.epsilon[0, seed, 0])
        assert oracles.sigma2(oracles.project(logits, epsilon)) == pytest.approx(0.5, abs=1e-10)
        ceiling = oracles.projective_diameter(logits) / (4 * np.arctanh(0.5))
        assert epsilon < float(found.ceiling[0, seed, 0]) == pytest.approx(ceiling, rel=1e-12)


def test_its_curve_goes_through_the_point_and_it_draws_itself(found):
    at = np.interp(float(found.epsilon[0, 0, 0]), found.grid_epsilon[0], found.curve[0, 0])
    assert at == pytest.approx(0.5, abs=5e-3)
    (ax,) = found.homojax.plot().axes
    assert ax.get_xlabel() == "entropy weight ε (logit units)"
    assert "2 of 2 found an ε, 2 of them certified" in findings.describe_calibration(found)[0]


@pytest.mark.slow
def test_a_schedule_gives_every_layer_its_share():
    ds = calibrate(Calibrate(retention=0.25, depth=2, schedule=True, n=(3,), seeds=1))
    np.testing.assert_allclose(ds.kept, 0.5, atol=1e-10)
    assert ds.sizes["layer"] == 2 and float(ds.epsilon[0, 0, 0]) != float(ds.epsilon[0, 0, 1])


def test_an_answer_that_is_not_there_is_told_with_the_reason(tmp_path):
    np.save(tmp_path / "flat.npy", np.array([[1.0, 2.0, 3.0]] * 3))  # column shifts
    ds = calibrate(Calibrate(sigma2=0.5, source="file", path=tmp_path / "flat.npy"))
    assert np.isnan(ds.epsilon).all() and (ds.status == CalibrationStatus.NO_DETAIL).all()
    text, ((_, (header, rows)),) = findings.describe_calibration(ds)
    assert "0 of 1 found an ε" in text and "σ₂ = 0 at every ε" in text
    assert rows[0][header.index("ε")] == "–" and rows[0][header.index("status")] == "no detail"
    ds.homojax.plot()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one target"),
        ({"sigma2": 0.5, "retention": 0.5}, "give one target"),
        ({"sigma2": 1.0}, "sigma2 = 1.0 is not possible"),
        ({"retention": 0.0, "depth": 2}, "retention = 0.0 is not possible"),
        ({"sigma2": 0.5, "depth": 3}, "are for a retention"),
        ({"retention": 0.5, "depth": 0}, "depth = 0 is not possible"),
        (
            {"retention": 0.5, "schedule": True, "kept": "composite"},
            "a schedule is made for the bound",
        ),
        ({"sigma2": 0.5, "source": "gausian"}, 'did you mean "gaussian"'),
        ({"sigma2": 0.5, "n": (1,)}, "at least 2"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Calibrate(**fields)


def test_the_command_writes_data_figure_and_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["probe", "calibrate", "--sigma2", "0.5", "--n", "3", "--seeds", "2", "--out", "found"])
    out = capsys.readouterr().out
    assert "2 of 2 found an ε" in out and "open found/report.html" in out
    assert {path.name for path in Path("found").iterdir()} == {
        "calibrate.zarr",
        "figure.png",
        "report.html",
        "run.json",
    }
    with pytest.raises(SystemExit) as ended:
        main(["probe", "calibrate", "--sigma2", "1.5"])
    assert ended.value.code == 2 and "sigma2 = 1.5 is not possible" in capsys.readouterr().err


# ---------------------------------------------------------------- sensitivity


@pytest.fixture(scope="module")
def curves():
    pair = np.array([[0.0, -8.0], [-8.0, 0.0]])
    return sensitivity_over(
        np.geomspace(0.05, 50, 13), {"pair": (pair, 0.05), "flat": (np.zeros((2, 2)), 1.0)}
    )


def test_of_a_pair_sensitivities_are_those_of_the_hyperbolic_tangent(curves):
    epsilon, pair = curves.epsilon.values, curves.sel(case="pair")
    np.testing.assert_allclose(
        pair.sigma2, np.tanh(8 / (2 * epsilon) * 1), rtol=1e-12
    )  # Δ/4ε with Δ = 16
    slope = -4 / epsilon**2 / np.cosh(4 / epsilon) ** 2
    np.testing.assert_allclose(pair.epsilon_slope, slope * 1, rtol=1e-9)
    np.testing.assert_allclose(
        pair.gradient_norm, 2 * (1 / (4 * epsilon)) / np.cosh(4 / epsilon) ** 2, rtol=1e-9
    )
    assert float(pair.gradient_norm[0]) < 1e-60  # not lost to rounding


def test_the_band_is_where_a_tenth_of_the_largest_gradient_is_left(curves):
    text, ((_, (header, rows)),) = findings.describe_sensitivity(curves)
    assert "Outside their trainable band: pair." in text
    low, high = (float(rows[0][header.index(name)]) for name in ("band from", "to"))
    assert (
        low
        < float(curves.epsilon[int(np.argmax(curves.sel(case="pair").gradient_norm.values))])
        < high
    )
    assert rows[1][-1] == "σ₂ = 0"
    assert len(curves.homojax.plot().axes) == 1


def test_public_initialisations_are_finite_square_logits():
    cases = initialisations()
    assert (
        any("tokenbender, −8" in name for name in cases)
        and sum("KromHC" in name for name in cases) == 4
    )
    assert all(
        s.shape[0] == s.shape[1] and np.isfinite(s).all() and epsilon > 0
        for s, epsilon in cases.values()
    )
