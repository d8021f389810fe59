"""The frontier (law 2.3): every matrix has the deficit and σ₂ that are said, none lies above."""

import numpy as np
import pytest
from scipy.special import xlogy

import homojax as hj
import oracles
from homojax.lab.inputs import InputError
from homojax.lab.probe import frontier as module
from homojax.lab.probe.config import FrontierSearch
from homojax.lab.store import config_of


def test_random_starts_climb_to_the_isolated_unit_and_not_above_it(frontier_at_3):
    ds = frontier_at_3
    assert (abs(ds.excess) < 1e-4).all()
    assert (ds.excess <= ds.excess_error).all() and (ds.excess_error < 1e-6).all()
    for t, deficit in zip(ds.sigma2_largest[0].values, ds.entropy_deficit[0].values, strict=True):
        matrix = oracles.isolated(3, t)
        assert 3 * np.log(3) + xlogy(matrix, matrix).sum() == pytest.approx(deficit, rel=1e-4)


@pytest.mark.parametrize("side", ["largest", "smallest"])
def test_the_matrices_have_the_sigma2_and_the_deficit_that_are_said(frontier_at_3, side):
    for k in range(4):
        cell = frontier_at_3.isel(n=0, deficit=k)
        matrix = cell[side].values
        np.testing.assert_allclose([matrix.sum(0), matrix.sum(1)], 1, atol=1e-11)
        assert oracles.sigma2(matrix) == pytest.approx(float(cell[f"sigma2_{side}"]), abs=1e-12)
        deficit = 3 * np.log(3) + xlogy(matrix, matrix).sum()  # an entry may be 0
        assert deficit == pytest.approx(float(cell.entropy_deficit), abs=1e-8)


def test_the_smallest_is_below_the_largest_and_not_below_the_frobenius_bound(frontier_at_3):
    ds = frontier_at_3
    assert (ds.sigma2_smallest < ds.sigma2_largest).all()
    norms = ((ds.smallest[0].values - 1 / 3) ** 2).sum((1, 2))
    assert (ds.sigma2_smallest[0] >= np.sqrt(norms / 2) - 1e-12).all()
    assert float(ds.sigma2_smallest[0, 0]) < 0.7 * float(ds.sigma2_largest[0, 0])


def test_the_way_up_never_falls(frontier_at_3):
    steps = frontier_at_3.history_largest.diff("step")
    assert frontier_at_3.step.values.tolist() == [50, 100] and (steps >= -1e-6).all()


def test_every_variable_says_what_it_is_and_the_attrs_run_it_again(frontier_at_3):
    ds = frontier_at_3
    assert set(ds.data_vars) == set(module.VARIABLES)
    assert all({"units", "long_name"} <= set(values.attrs) for values in ds.data_vars.values())
    search = FrontierSearch(**config_of(ds))
    assert search == FrontierSearch(n=(3,), deficits=4, starts=6, steps=100)
    assert ds.attrs["config_hash"] == search.digest and ds.attrs["verb"] == "probe frontier"
    assert {"dtype", "device", "versions", "title"} <= set(ds.attrs)


def test_deficits_that_no_start_meets_are_nan(monkeypatch, frontier_at_3):
    """With the shapes and steps of the fixture, so that it compiles nothing."""
    monkeypatch.setattr(module, "MISSED_DEFICIT", -1.0)
    ds = hj.frontier(n=3, deficits=4, starts=6, steps=100)
    assert ds.excess.isnull().all() and ds.share.isnull().all()
    assert ds.sigma2_largest.isnull().all() and ds.largest.isnull().all()
    assert "no start met the deficit" in ds.homojax.summary()
    assert "stands" not in ds.homojax.summary()
    assert len(ds.homojax.plot().axes) == 1


def test_progress_counts_to_its_end(frontier_run):
    done, total, doing = zip(*frontier_run[1], strict=True)
    assert done == (0, 1, 2, 3, 4) and set(total) == {4}
    assert doing[0] == "largest σ₂, n = 3" and doing[2] == "smallest σ₂, n = 3"


@pytest.mark.parametrize("field", [{"n": ()}, {"n": (1,)}, {"deficits": 0}, {"starts": 0}])
def test_a_search_that_cannot_be_is_refused(field):
    with pytest.raises(InputError, match=next(iter(field))):
        hj.frontier(**field)
