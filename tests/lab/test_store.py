"""A Dataset on disk is whole or not there, opens anywhere, and says how it was made."""

import json
import warnings

import numpy as np
import pytest
import xarray as xr

from homojax.lab import store
from homojax.lab.inputs import InputError
from homojax.lab.sources import LogitSource


def dataset(digest="abc"):
    return xr.Dataset({"x": ("i", np.arange(3.0))}, attrs={"config_hash": digest})


def test_a_damaged_store_is_told_in_one_sentence(tmp_path):
    path = tmp_path / "run.zarr"
    with pytest.raises(InputError, match="there is no run at"):
        store.read_dataset(path)
    store.write_dataset(dataset(), path)
    xr.testing.assert_identical(store.read_dataset(path), dataset())
    (path / "x" / "zarr.json").unlink()
    with pytest.raises(InputError, match="not a whole zarr store"):
        store.read_dataset(path)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("x/c/0", "run.zarr is damaged: x cannot be read"),
        ("i/c/0", "run.zarr is damaged: i cannot be read"),
        ("x/zarr.json", "run.zarr is damaged: the zarr.json of x cannot be read"),
        ("zarr.json", "run.zarr is not a whole zarr store: a zarr.json in it is missing"),
    ],
)
def test_what_is_damaged_is_named_with_a_way_on(file, told, tmp_path):
    store.write_dataset(dataset().assign_coords(i=[1, 2, 3]), tmp_path / "run.zarr")
    (tmp_path / "run.zarr" / file).write_bytes(b"{")
    with pytest.raises(InputError, match=rf"{told}.*add --overwrite to its command"):
        store.read_dataset(tmp_path / "run.zarr")
    with pytest.raises(InputError, match="is a file: a run is a folder"):
        store.read_dataset(tmp_path / "run.zarr" / file)


def test_variables_keep_the_order_of_the_run(tmp_path):
    names = ("z", "a", "m", "b")
    made = xr.Dataset({name: ("i", np.zeros(2)) for name in names}, {"y": 1.0, "i": [1, 2], "c": 2})
    store.write_dataset(made, tmp_path / "run.zarr")
    read = store.read_dataset(tmp_path / "run.zarr")
    assert tuple(read.data_vars) == names and list(read.coords) == list(made.coords)
    xr.testing.assert_identical(read, made)


def test_provenance_is_enough_to_run_it_again():
    config = LogitSource(n=(3,), seed=5)
    attrs = store.provenance("sweep", config, dtype="float32")
    assert LogitSource(**json.loads(attrs["config"])) == config
    assert attrs["config_hash"] == config.digest and attrs["dtype"] == "float32"
    assert set(json.loads(attrs["versions"])) >= {"homojax", "jax", "jaxlib", "python"}
    assert "cpu" in attrs["device"].lower() or attrs["device"]


def test_a_store_opens_by_xarray_alone_without_a_word_and_becomes_netcdf(tmp_path):
    made = dataset().assign_attrs(title="a run", flags=[0, 1])
    store.write_dataset(made, tmp_path / "run.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(tmp_path / "run.zarr").load()
    xr.testing.assert_equal(opened, made)
    opened.to_netcdf(tmp_path / "run.nc", engine="scipy")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "run.nc", engine="scipy"), made)


def test_what_a_killed_write_left_is_gone_after_the_next(tmp_path):
    (tmp_path / "run.zarr.part-x1y2z3a4" / "store").mkdir(parents=True)
    (tmp_path / "run.zarr.part-x1y2z3a4" / "store" / "zarr.json").touch()
    (tmp_path / "mine.part-1").mkdir()
    (tmp_path / "run.zarr.part-original").mkdir()
    (tmp_path / "run.zarr.part-original" / "thesis.tex").write_text("years of work")
    store.write_dataset(dataset(), tmp_path / "run.zarr")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"run.zarr", "mine.part-1", "run.zarr.part-original"}
    assert (tmp_path / "run.zarr.part-original" / "thesis.tex").exists()


def test_a_run_is_opened_by_its_folder_or_its_store_and_by_name_where_there_are_several(tmp_path):
    store.write_dataset(dataset("one"), tmp_path / "one.zarr")
    for path in (tmp_path, str(tmp_path), tmp_path / "one.zarr"):
        assert store.open_run(path).config_hash == "one"
    store.write_dataset(dataset("two"), tmp_path / "two.zarr")
    assert store.open_run(tmp_path, "two").config_hash == "two"
    with pytest.raises(InputError, match=r"\(one, two\): name one, as name=\"one\""):
        store.open_run(tmp_path)
    with pytest.raises(InputError, match='no Dataset "tow": did you mean "two"'):
        store.open_run(tmp_path, "tow")
    with pytest.raises(InputError, match='no Dataset "3": there are: one, two'):
        store.open_run(tmp_path, 3)
    with pytest.raises(InputError, match="there is no run at"):
        store.open_run(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no finished run"):
        store.open_run(tmp_path / "empty")
    (tmp_path / "empty" / "history.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds a finding: hj.lab.cases.load_case"):
        store.open_run(tmp_path / "empty")
