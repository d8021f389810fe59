"""The frontier of 2.3: what is found is a matrix of that deficit, on the conjectured curve, and nothing lies above it."""

import numpy as np
import pytest
from scipy.special import xlogy

import homojax as hj
import oracles
from homojax.lab.inputs import InputError
from homojax.lab.probe import frontier as lab
from homojax.lab.probe import report as findings
from homojax.lab.probe.frontier import FrontierSearch, frontier


@pytest.fixture(scope="module")
def found():
    return frontier(FrontierSearch(n=(3,), deficits=4, starts=6, steps=150))


def test_random_starts_climb_to_the_isolated_unit_and_not_above_it(found):
    assert (abs(found.excess) < 1e-4).all()
    assert (found.excess <= found.excess_error).all() and (found.excess_error < 1e-6).all()
    for n in found.n.values:
        t = found.sigma2_largest.sel(n=n).values
        deficits = [float(hj.entropy_deficit(hj.birkhoff.isolated_unit(n, x))) for x in t]
        np.testing.assert_allclose(deficits, found.entropy_deficit.sel(n=n), rtol=1e-4)


@pytest.mark.parametrize("kind", ["largest", "smallest"])
def test_the_matrices_are_doubly_stochastic_with_the_sigma2_and_the_deficit_that_are_said(
    found, kind
):
    for n in found.n.values:
        for k in range(4):
            matrix = found[kind].sel(n=n).isel(deficit=k).values[:n, :n]
            np.testing.assert_allclose([matrix.sum(0), matrix.sum(1)], 1, atol=1e-11)
            assert oracles.sigma2(matrix) == pytest.approx(
                float(found[f"sigma2_{kind}"].sel(n=n)[k]), abs=1e-12
            )
            deficit = n * np.log(n) + xlogy(matrix, matrix).sum()  # an entry may be 0
            assert deficit == pytest.approx(float(found.entropy_deficit.sel(n=n)[k]), abs=1e-8)


def test_the_smallest_is_below_the_largest_and_not_below_the_frobenius_bound(found):
    assert (found.sigma2_smallest < found.sigma2_largest).all()
    for n in found.n.values:
        norms = np.nansum((found.smallest.sel(n=n).values[:, :n, :n] - 1 / n) ** 2, axis=(1, 2))
        assert (found.sigma2_smallest.sel(n=n) >= np.sqrt(norms / (n - 1)) - 1e-12).all()
    assert float(found.sigma2_smallest.sel(n=3)[0]) < 0.7 * float(found.sigma2_largest.sel(n=3)[0])


def test_a_matrix_above_the_curve_would_be_reported(found):
    broken = found.copy(deep=True)
    broken["excess"][0, 1] = 1e-3
    assert "2.3 is BROKEN: 1 of 4" in findings.describe_frontier(broken)[0]
    assert "2.3 stands" in findings.describe_frontier(found)[0]
    assert len(found.homojax.plot().axes) == 1


@pytest.mark.parametrize("field", [{"n": ()}, {"n": (1,)}, {"deficits": 0}, {"starts": 0}])
def test_a_search_that_cannot_be_is_refused(field):
    with pytest.raises(InputError):
        FrontierSearch(**field)


def test_the_way_up_never_falls(found):
    steps = found.history_largest.diff("chunk")
    assert found.sizes["chunk"] == 3 and (steps >= -1e-6).all()


@pytest.mark.slow
def test_deficits_that_no_start_meets_are_nan_and_are_told(monkeypatch):
    monkeypatch.setattr(lab, "MISSED_DEFICIT", -1.0)
    short = frontier(FrontierSearch(n=(3,), deficits=2, starts=2, steps=1))
    assert (
        short.excess.isnull().all()
        and short.sigma2_largest.isnull().all()
        and short.largest.isnull().all()
    )
    text = findings.describe_frontier(short)[0]
    assert "stands" not in text and "At 2 deficits no start met the deficit" in text
    short.homojax.plot()
