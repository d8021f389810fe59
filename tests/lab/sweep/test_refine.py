"""Refined ε: what changes is known to the width that was asked, by cells of a plain sweep."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from homojax.lab import grid_store
from homojax.lab.inputs import InputError
from homojax.lab.store import open_run
from homojax.lab.sweep import fill, report
from homojax.lab.sweep.boundaries import contours, even_size, midpoints, verdict_changes
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.run import sweep

SPREAD = 1.3  # the logits of the pair on the diagonal
SLOW = pytest.mark.slow
CELL_BY_CELL = 1e-3  # memory_mb
WIDTH = 0.9  # of the random logits


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A sweep of two units: σ₂ = tanh(SPREAD/2ε) in every layer."""
    path = tmp_path_factory.mktemp("pair") / "pair.npy"
    np.save(path, SPREAD * np.eye(2))
    fields = {"source": "file", "path": path, "depth": (1, 2, 4), "measure": ("depth",)}
    return Sweep(**fields, epsilon=(20.0, 0.05, 1.0), memory_mb=CELL_BY_CELL)


def truth_of(found):
    """The ε at which tanh(SPREAD/2ε)^depth is the share."""
    return SPREAD / (2 * np.arctanh(found.share ** (1 / found.depth)))


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*.*/**/*")
        if path.is_file()
    }


@pytest.mark.parametrize("width", [0.004, *(pytest.param(x, marks=SLOW) for x in (0.1, 1.0))])
def test_the_contour_of_a_closed_form_lies_within_the_width(pair, width):
    ds = sweep(dataclasses.replace(pair, refine=width))
    found = contours(ds)
    truth = truth_of(found)
    assert (found.crossings == 1).all() and found.width.max() <= width
    assert (found.lower < truth).all() and (truth <= found.upper).all()
    halvings = np.ceil(np.log2(np.log(20) / width))
    assert ds.sizes["epsilon"] <= 3 + found.lower.size * halvings
    assert (np.diff(ds.epsilon) > 0).all() and {20.0, 0.05, 1.0} < set(ds.epsilon.values)
    if width < 0.01:
        assert ds.sizes["epsilon"] < even_size(ds, width) / 15


def test_a_contour_outside_the_grid_is_said_to_be_there(pair):
    found = contours(sweep(dataclasses.replace(pair, epsilon=(0.4, 1.0), refine=0.5)))
    outside = found.where(found.crossings == 0, drop=True)
    assert outside.lower.size and np.isinf(found.width.where(found.crossings == 0)).any()
    truth = truth_of(found)
    assert (found.lower < truth).all() and (truth <= found.upper).all()
    assert float(found.upper.sel(share=0.9, depth=4).squeeze()) == 0.4
    assert np.isinf(found.upper.sel(share=0.1, depth=1).squeeze())


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (lambda ds: ds.isel(seed=0), r"no dimension seed any more: choose by lists"),
        (lambda ds: ds.mean("epsilon", keep_attrs=True), "no dimension epsilon any more"),
        (lambda ds: ds.isel(epsilon=[]), "left nothing of the dimension epsilon"),
        (lambda ds: ds[["sigma2"]], "no composite_sigma2: measure depth, and keep that variable"),
    ],
)
def test_contours_of_what_is_left_of_a_sweep_are_told_in_one_sentence(left, told, two_sizes):
    with pytest.raises(InputError, match=told):
        contours(left(two_sizes.ds))


def test_changes_of_what_is_left_of_a_sweep_are_told_in_one_sentence(two_sizes):
    for ds in (two_sizes.ds.isel(n=0), two_sizes.ds.isel(epsilon=[])):
        with pytest.raises(InputError, match=r"of the dimension epsilon|no dimension n any more"):
            list(verdict_changes(ds))


@given(
    thresholds=st.lists(st.floats(-2.9, 2.9), min_size=1, max_size=5),
    grid=st.lists(st.floats(-2.9, 2.9), min_size=0, max_size=4),
    width=st.floats(0.01, 2),
)
def test_halving_ends_with_each_change_between_near_neighbours(thresholds, grid, width):
    def read(x):
        code = (np.asarray(x)[:, None] > np.asarray(thresholds)).astype(np.int8)
        return xr.Dataset({"code": (("epsilon", "which"), code)}, {"epsilon": np.exp(x)})

    x = np.unique([-3.0, *grid, 3.0])
    first = len(x)
    while len(new := midpoints(read(x), width)):
        assert not np.isin(np.log(new), x).any()
        x = np.sort([*x, *np.log(new)])
    for threshold in thresholds:
        upper = np.searchsorted(x, threshold, "right")
        assert x[upper] - x[upper - 1] <= width * (1 + 1e-9)
    assert len(x) - first <= len(thresholds) * np.ceil(np.log2(6 / width))


@pytest.fixture(scope="module")
def refined(two_sizes):
    """All groups, cell by cell, in programs that are compiled already."""
    return sweep(dataclasses.replace(two_sizes.config, epsilon=(20.0, 0.02), refine=WIDTH))


def test_the_cells_are_to_the_last_bit_those_of_a_plain_sweep(two_sizes, refined):
    epsilon = tuple(refined.epsilon.values)
    plain = sweep(dataclasses.replace(two_sizes.config, epsilon=epsilon))
    assert len(epsilon) > 4
    xr.testing.assert_equal(refined, plain)
    assert all(refined[name].attrs == plain[name].attrs for name in refined.variables)


def test_random_logits_have_the_contours_and_verdicts_of_an_even_grid(two_sizes, refined):
    grid = tuple(np.geomspace(0.02, 20, even_size(refined, WIDTH)))
    even = sweep(dataclasses.replace(two_sizes.config, epsilon=grid))
    dense, found = contours(even), contours(refined)
    np.testing.assert_array_equal(dense.crossings, found.crossings)
    assert (np.maximum(dense.lower, found.lower) < np.minimum(dense.upper, found.upper)).all()
    assert 0.3 in found.share and found.width.where(found.crossings > 0).max() <= WIDTH
    changes = [list(verdict_changes(ds)) for ds in (even, refined)]
    assert [(one.law, one.n, one.before, one.after) for one in changes[0]] == [
        (one.law, one.n, one.before, one.after) for one in changes[1]
    ]
    assert changes[1]
    assert all(np.log(one.upper / one.lower) <= WIDTH for one in changes[1])


@pytest.fixture(scope="module")
def whole(pair, tmp_path_factory):
    """The store of a refinement in one go."""
    store = tmp_path_factory.mktemp("whole") / "run.zarr"
    assert sweep(dataclasses.replace(pair, refine=2.0), store).sizes["epsilon"] == 5
    return store


@pytest.mark.parametrize("when", ["first round", "later round", "copy"])
def test_an_interrupted_refinement_goes_on_to_the_same_bytes(
    when, pair, whole, tmp_path, monkeypatch
):
    config, total = dataclasses.replace(pair, refine=2.0), open_run(whole).sizes["epsilon"]
    measured, measure = [], fill.measure_block
    monkeypatch.setattr(fill, "measure_block", lambda *args: measured.append(1) or measure(*args))
    store, write = tmp_path / "stopped" / "run.zarr", grid_store.GridStore.write
    most = {"first round": 1, "later round": 4, "copy": total + 2}[when]
    writes = []

    def stop(grid, *args):
        if len(writes) == most:
            raise KeyboardInterrupt
        writes.append(1)
        write(grid, *args)

    with monkeypatch.context() as patch:
        patch.setattr(grid_store.GridStore, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep(config, store)
    before = len(measured)
    done = sweep(config, store)
    assert len(measured) == total + (when != "copy")  # the block that was not written, again
    assert before >= min(most, total)
    assert files_of(tmp_path / "stopped") == files_of(whole.parent)
    assert [path.name for path in store.parent.iterdir()] == ["run.zarr"]
    assert sweep(config, store).identical(done) and len(measured) == total + (when != "copy")
    with pytest.raises(InputError, match="holds something else"):
        sweep(dataclasses.replace(config, refine=1.9), store)


def test_rounds_that_a_killed_process_left_beside_a_finished_store_are_removed(pair, whole):
    for number in (1, 2):
        (whole.parent / f"run.round-{number}.zarr").mkdir()
    assert sweep(dataclasses.replace(pair, refine=2.0), whole).identical(open_run(whole))
    assert [path.name for path in whole.parent.iterdir()] == ["run.zarr"]


def test_a_round_that_was_damaged_is_named(pair, tmp_path, monkeypatch):
    config, store = dataclasses.replace(pair, refine=0.5), tmp_path / "run.zarr"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("homojax.lab.sweep.refine.midpoints", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep(config, store)
    (tmp_path / "run.round-1.zarr" / "row_error" / "c" / "0" / "0" / "0" / "0").unlink()
    with pytest.raises(InputError, match=r"run\.round-1\.zarr is damaged: row_error lacks 1"):
        sweep(config, store)


def test_a_store_at_a_url_keeps_no_rounds(pair):
    import fsspec

    config = dataclasses.replace(pair, refine=2.0)
    ds = sweep(config, "memory://refined/a.zarr")
    assert ds.identical(sweep(config))
    names = fsspec.filesystem("memory").ls("/refined", detail=False)
    assert [name.rsplit("/", 1)[-1] for name in names] == ["a.zarr"]


def test_the_report_says_how_narrow_the_contours_are(refined, two_sizes):
    section = report.describe(refined)
    assert "refined from 2 to" in section.text and "0.9 in ln ε" in section.text
    table = next(table for table in section.tables if table.header[:2] == ["n", "depth"])
    assert table.header[2:] == ["0.9", "0.5", "0.3", "0.1", "width"]
    assert len(table.rows) == 2 * 4 and any("–" in row[3] for row in table.rows)
    changes = next(table for table in section.tables if table.header[-1] == "verdict")
    assert all("→" in row[-1] for row in changes.rows)
    plain = report.describe(two_sizes.ds)
    assert "refined" not in plain.text and len(plain.tables) == len(section.tables) - 2


@pytest.mark.parametrize(
    ("fields", "shard", "message"),
    [
        ({"refine": 0.1}, (0, 2), "leave out --shard or --refine"),
        ({"refine": 0.1, "epsilon": 1.0}, None, "between two ε: give two or more"),
        ({"refine": 0.1, "measure": "layernorm"}, None, "refine follows detail and verdicts"),
        ({"refine": 0.0}, None, "refine = 0.0 is not possible"),
        ({"refine": 1e-9}, None, "refine = 1e-09 is not possible: it must be at least 1e-06"),
        ({"refine": "fine"}, None, "refine must be float"),
    ],
)
def test_what_cannot_be_refined_is_refused_in_one_sentence(fields, shard, message):
    with pytest.raises(InputError, match=message):
        sweep(shard=shard, **fields)
