"""The parts of a run are kept, whole, until the run is."""

import numpy as np
import pytest
import xarray as xr

from homojax.lab.blocks import Blocks, resume
from homojax.lab.inputs import InputError


def block(value):
    return {"x": np.full(3, value)}


def dataset(digest="abc"):
    return xr.Dataset({"x": ("i", np.arange(3.0))}, attrs={"config_hash": digest})


def test_a_block_is_made_once_and_a_damaged_one_again(tmp_path):
    blocks = Blocks(tmp_path / "blocks")
    assert blocks.get("a", lambda: block(1))["x"].tolist() == [1, 1, 1]
    assert blocks.get("a", lambda: block(2))["x"].tolist() == [1, 1, 1]
    file = next((tmp_path / "blocks").glob("*.npz"))
    file.write_bytes(file.read_bytes()[:-1])
    assert blocks.get("a", lambda: block(3))["x"].tolist() == [3, 3, 3]
    blocks.clear()
    assert not (tmp_path / "blocks").exists()


def test_without_a_folder_nothing_is_kept():
    blocks = Blocks(None)
    assert [blocks.get("a", lambda k=k: block(k))["x"][0] for k in (1, 2)] == [1, 2]


def test_an_interrupted_computation_goes_on_from_its_blocks(tmp_path):
    store, made = tmp_path / "run.zarr", []

    def compute(blocks, stop):
        for key in "abc":
            if key == stop:
                raise KeyboardInterrupt
            blocks.get(key, lambda key=key: made.append(key) or block(0))
        return dataset()

    with pytest.raises(KeyboardInterrupt):
        resume(store, "abc", lambda blocks: compute(blocks, "c"))
    assert not store.exists()
    xr.testing.assert_identical(
        resume(store, "abc", lambda blocks: compute(blocks, None)), dataset()
    )
    assert made == ["a", "b", "c"] and [path.name for path in tmp_path.iterdir()] == ["run.zarr"]
    found = resume(store, "abc", lambda blocks: pytest.fail("it is there already"))
    xr.testing.assert_identical(found, dataset())
    with pytest.raises(InputError, match="holds something else"):
        resume(store, "other", lambda blocks: dataset("other"))
