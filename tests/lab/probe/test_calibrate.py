"""Calibration of whole sources, and sensitivities along ε: NumPy finds what the Dataset says."""

import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.calibration import CalibrationStatus
from homojax.lab.inputs import InputError
from homojax.lab.probe.calibrate import VARIABLES
from homojax.lab.probe.config import Calibrate, SensitivityScan
from homojax.lab.probe.sensitivity import initialisations, scan_sensitivity
from homojax.lab.store import config_of


def test_each_epsilon_meets_the_target_and_is_not_above_the_worst_case_rule(calibrated):
    assert calibrated.epsilon.shape == (1, 2, 1)
    assert (calibrated.status == CalibrationStatus.FOUND).all() and calibrated.certified.all()
    for seed in range(2):
        logits = np.random.default_rng([0, 3, seed]).standard_normal((1, 3, 3))[0]
        answer = calibrated.isel(n=0, seed=seed, layer=0)
        epsilon = float(answer.epsilon)
        assert oracles.sigma2(oracles.project(logits, epsilon)) == pytest.approx(0.5, abs=1e-10)
        ceiling = oracles.projective_diameter(logits) / (4 * np.arctanh(0.5))
        assert epsilon < float(answer.ceiling) == pytest.approx(ceiling, rel=1e-12)


def test_its_curve_goes_through_the_point(calibrated):
    first = calibrated.isel(n=0, seed=0, layer=0, shown_layer=0)
    assert np.interp(first.epsilon, first.grid_epsilon, first.curve) == pytest.approx(0.5, abs=5e-3)
    logits = np.random.default_rng([0, 3, 0]).standard_normal((1, 3, 3))[0]
    for k in (0, 48, 96):
        matrix = oracles.project(logits, float(first.grid_epsilon[k]))
        assert oracles.sigma2(matrix) == pytest.approx(float(first.curve[k]), abs=1e-9)


def test_the_attrs_run_it_again(calibrated):
    assert set(calibrated.data_vars) == set(VARIABLES)
    assert all("long_name" in values.attrs for values in calibrated.data_vars.values())
    config = Calibrate(**config_of(calibrated))
    assert config == Calibrate(sigma2=0.5, n=(3,), seeds=2)
    assert calibrated.attrs["config_hash"] == config.digest
    assert {"dtype", "device", "versions", "source"} <= set(calibrated.attrs)


@pytest.mark.slow
def test_a_schedule_gives_every_layer_its_share():
    ds = hj.calibrate(retention=0.25, depth=2, schedule=True, n=3, seeds=1)
    np.testing.assert_allclose(ds.kept, 0.5, atol=1e-10)
    assert ds.sizes["layer"] == 2 and float(ds.epsilon[0, 0, 0]) != float(ds.epsilon[0, 0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["bound", "composite", "lyapunov"])
def test_a_stack_with_one_epsilon_keeps_what_its_curve_says(kept):
    ds = hj.calibrate(retention=0.25, depth=2, kept=kept, n=3, seeds=1)
    assert ds.sizes["layer"] == 1 and float(ds.kept[0, 0, 0]) == pytest.approx(0.25, abs=1e-8)
    at = np.interp(float(ds.epsilon[0, 0, 0]), ds.grid_epsilon[0], ds.curve[0, 0])
    assert at == pytest.approx(0.25, abs=5e-3)


def test_logits_without_detail_have_no_answer_and_the_reason_is_told(tmp_path):
    """Column shifts; with the shapes of the fixture, so that it compiles nothing."""
    np.save(tmp_path / "flat.npy", np.array([[[[1.0, 2.0, 3.0]] * 3]] * 2))
    ds = hj.calibrate(sigma2=0.5, source="file", path=tmp_path / "flat.npy")
    assert np.isnan(ds.epsilon).all() and (ds.status == CalibrationStatus.NO_DETAIL).all()
    assert "0 of 2 found an ε" in ds.homojax.summary()
    assert "σ₂ = 0 at every ε" in ds.homojax.summary()
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
        ({"retention": 0.5, "schedule": True, "kept": "composite"}, "is made for the bound"),
        ({"sigma2": 0.5, "source": "gausian"}, 'did you mean "gaussian"'),
        ({"sigma2": 0.5, "n": (1,)}, "at least 2"),
        ({"sigma": 0.5}, 'no option "sigma": did you mean "sigma2"'),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        hj.calibrate(**fields)


# ---------------------------------------------------------------- sensitivity


def test_of_a_pair_sensitivities_are_those_of_the_hyperbolic_tangent(curves):
    epsilon, pair = curves.epsilon.values, curves.sel(case="pair")
    fall = 1 / np.cosh(4 / epsilon) ** 2  # σ₂ = tanh(Δ/4ε) with Δ = 16
    np.testing.assert_allclose(pair.sigma2, np.tanh(4 / epsilon), rtol=1e-12)
    np.testing.assert_allclose(pair.epsilon_slope, -4 / epsilon**2 * fall, rtol=1e-9)
    np.testing.assert_allclose(pair.gradient_norm, fall / (2 * epsilon), rtol=1e-9)
    assert float(pair.gradient_norm[0]) < 1e-60  # not lost to rounding


def test_a_scan_has_all_that_runs_it_again(curves):
    np.testing.assert_array_equal(curves.logits.sel(case="pair"), [[0, -8], [-8, 0]])
    assert curves.started.values.tolist() == [0.05, 1.0]
    config = SensitivityScan(**config_of(curves))
    np.testing.assert_array_equal(config.epsilon, curves.epsilon)
    assert curves.attrs["config_hash"] == config.digest
    assert {"dtype", "device", "versions"} <= set(curves.attrs)
    assert all({"units", "long_name"} <= set(x.attrs) for x in curves.data_vars.values())


def test_a_scan_that_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"epsilon = 0.0 is not possible"):
        scan_sensitivity(epsilon=(0.0, 1.0))
    with pytest.raises(InputError, match='no option "epsilons": did you mean "epsilon"'):
        scan_sensitivity(epsilons=(1.0,))


def test_public_initialisations_are_finite_square_logits():
    cases = initialisations()
    assert any("tokenbender, −8" in name for name in cases)
    assert sum("KromHC" in name for name in cases) == 4
    for logits, epsilon in cases.values():
        assert logits.shape[0] == logits.shape[1] and np.isfinite(logits).all() and epsilon > 0


@pytest.mark.filterwarnings("error")
def test_a_mask_that_needs_no_epsilon_still_has_its_curve(tmp_path):
    """Two groups that do not mix: σ₂ = 1 at every ε. The shapes are those of the fixture."""
    groups = [[0, -np.inf, -np.inf], [-np.inf, 1, 0], [-np.inf, 0, 1]]
    np.save(tmp_path / "groups.npy", np.array([[groups]] * 2))
    file = {"source": "file", "path": tmp_path / "groups.npy", "orientation": "outputs-first"}
    ds = hj.calibrate(sigma2=0.5, **file)
    assert (ds.status == CalibrationStatus.ALWAYS_MET).all() and np.isnan(ds.epsilon).all()
    np.testing.assert_allclose(ds.curve, 1)
