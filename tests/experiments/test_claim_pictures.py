"""Pictures of claims have every claim, with the verdicts of ``homojax verify``."""

import io

import numpy as np
import pytest
from rich.console import Console

import homojax as hj
from homojax.lab.experiment import Bench, run_experiment
from homojax.lab.verify.config import Verification
from homojax.theory import CLAIMS


@pytest.mark.slow
def test_every_claim_has_a_panel_with_the_verdicts_of_verify(load, tmp_path):
    script = load("claim_pictures")
    points = script.points_of(Verification(**script.SIZES["smoke"]), Bench(tmp_path))
    assert set(points) == set(CLAIMS)
    labels = [verdict.label for verdict in script.LOOK]
    ds = hj.verify(**script.SIZES["smoke"])[labels].sum(["family", "n"])
    for name, found in points.items():
        counts = {verdict.label: found.count(verdict) for verdict in script.LOOK}
        assert counts == {label: int(ds[label].sel(claim=name)) for label in counts}, name
    section = run_experiment(script.study, "smoke", tmp_path / "run", Console(file=io.StringIO()))
    assert section.as_expected
    pictures = {path.name for path in (tmp_path / "run").glob("*.png")}
    assert pictures == {f"section-{k}.png" for k in (1, 2, 3, 4, 5, 6, 8)}


def test_a_point_of_a_picture_is_measured_over_predicted(load):
    """Of a bound from below the lesser side is what was predicted."""
    script = load("claim_pictures")
    config = Verification(claims=("frobenius_lower", "frobenius_upper"), n=(3,), cells=58, stacks=0)
    points = script.points_of(config, Bench(None))
    lower, upper = points["frobenius_lower"], points["frobenius_upper"]
    np.testing.assert_array_equal(lower.measured, upper.measured)  # σ₂
    rounding = 1e-12
    assert (lower.predicted <= lower.measured + rounding).all()
    assert (upper.measured <= upper.predicted + rounding).all()
    # PMP has two singular values
    assert (upper.predicted <= 2**0.5 * lower.predicted + rounding).all()
    assert (upper.predicted > lower.predicted).any()
