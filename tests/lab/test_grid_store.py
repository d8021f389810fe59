"""A store that is filled block by block: what is not there is missing, and nothing damaged is read
as data.
"""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from zarr.storage import _local

from homojax.lab.blocks import writing
from homojax.lab.grid_store import Layout, Variable, opened
from homojax.lab.inputs import InputError
from homojax.lab.store import holds_nothing, open_run, read_dataset

REGIONS = [{"a": slice(i, i + 2), "b": slice(j, min(j + 3, 4))} for i in (0, 2) for j in (0, 3)]
VALUES = {
    "x": np.arange(4 * 4 * 2, dtype=np.float32).reshape(4, 4, 2),
    "code": np.arange(16, dtype=np.int8).reshape(4, 4),
}
TOTAL = np.arange(4.0)
VALUES["x"][:2, :3] = np.nan  # a chunk like one that is missing
VALUES["code"][2:, 3:] = -99


def layout(digest="one"):
    def variable(dims, dtype):
        return Variable(tuple(dims), np.dtype(dtype), {"units": "1"})

    return Layout(
        coords={
            "a": (np.arange(4.0), {"long_name": "one side"}),
            "b": (np.arange(4), {}),
            "w": (np.array([1, 5]), {}),
        },
        chunks={"a": 2, "b": 3},
        variables={
            "x": variable("abw", "float32"),
            "code": variable("ab", "int8"),
            "total": variable("a", "float64"),
        },
        attrs={"config_hash": digest, "title": "a test"},
    )


def fill(grid, regions=REGIONS):
    """Write what is not done of some blocks; finish the store where all is."""
    ready = grid.are_done(regions) if grid.num_left else [True] * len(regions)
    for region, is_ready in zip(regions, ready, strict=True):
        if not is_ready:
            at = tuple(region.values())
            grid.write(region, {name: values[at] for name, values in VALUES.items()})
    if not grid.num_left and not grid.finished:
        grid.finish({"total": TOTAL})
    return grid.dataset()


@pytest.fixture
def whole():
    return fill(opened(None, layout()))


def test_a_store_in_memory_becomes_what_was_written(whole):
    for name, values in {**VALUES, "total": TOTAL}.items():
        assert whole[name].dtype == values.dtype
        np.testing.assert_array_equal(whole[name], values)
    assert whole.x.dims == ("a", "b", "w") and whole.x.attrs == {"units": "1"}
    assert whole.w.values.tolist() == [1, 5] and whole.a.attrs["long_name"] == "one side"
    assert list(whole.variables) == ["x", "code", "total", "a", "b", "w"]
    assert whole.attrs == {"config_hash": "one", "title": "a test"}


@pytest.mark.parametrize("place", ["path", "memory://a/{}.zarr"])
def test_a_store_is_taken_up_where_it_was_left(place, tmp_path, whole):
    store = tmp_path / "run.zarr" if place == "path" else place.format(tmp_path.name)
    assert opened(store, layout()).num_left == 4
    fill(opened(store, layout()), REGIONS[:1])
    fill(opened(store, layout()), REGIONS[2:3])
    grid = opened(store, layout())
    assert grid.are_done(REGIONS) == [True, False, True, False]
    half = read_dataset(store)
    assert half.unfinished == "2 of 4 blocks are there"
    assert np.isnan(half.x[:, 3:]).all() and (half.code[:, 3:] == -99).all()
    np.testing.assert_array_equal(half.x[:, :3], VALUES["x"][:, :3])
    fill(grid)
    assert read_dataset(store).identical(whole) and open_run(store).identical(whole)


def test_an_unfilled_store_is_nothing_that_was_kept(tmp_path):
    store = tmp_path / "run.zarr"
    grid = opened(store, layout())
    assert holds_nothing(store)
    fill(grid, REGIONS[:1])
    assert not holds_nothing(store) and not holds_nothing(tmp_path)


def test_others_open_a_finished_store_without_a_warning(tmp_path, whole, recwarn):
    fill(opened(tmp_path / "run.zarr", layout()))
    theirs = xr.open_zarr(tmp_path / "run.zarr", chunks=None)
    assert theirs.x.equals(whole.x) and not recwarn.list
    assert open_run(tmp_path).identical(whole)


def test_a_file_that_has_changed_is_named(tmp_path):
    def asked(digest):
        one = layout(digest)
        return one._replace(attrs={**one.attrs, "config": '{"path": "mine.npy"}'})

    opened(tmp_path / "run.zarr", asked("one"))
    with pytest.raises(InputError, match=r"the file mine\.npy has changed since the run"):
        opened(tmp_path / "run.zarr", asked("two"))


def test_what_is_something_else_is_refused(tmp_path):
    opened(tmp_path / "run.zarr", layout())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match=r"run\.zarr holds something else than what is asked"):
        opened(tmp_path / "run.zarr", layout("two"))
    with pytest.raises(InputError, match="mine is not a whole zarr store"):
        opened(tmp_path / "mine", layout())
    xr.Dataset({"x": ("i", [1.0])}).to_zarr(
        tmp_path / "other.zarr", zarr_format=3, consolidated=False
    )
    with pytest.raises(InputError, match=r"other\.zarr holds something else"):
        opened(tmp_path / "other.zarr", layout())


def test_a_store_that_another_writes_is_named(tmp_path):
    store = tmp_path / "run.zarr"
    with writing(store):
        with pytest.raises(InputError, match=r"another process writes .*run\.zarr: wait"):
            writing(store).__enter__()
        with writing(store, "-1-of-2"), writing(tmp_path / "else.zarr"):
            pass
    with writing(store):
        pass
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- damage


def chunks_of(store):
    return sorted(path for path in store.rglob("*") if "/c/" in path.as_posix() and path.is_file())


def test_a_lost_chunk_is_named_whichever_it_is(tmp_path, whole):
    store = tmp_path / "run.zarr"
    fill(opened(store, layout()))
    for chunk in chunks_of(store):
        kept = chunk.read_bytes()
        chunk.unlink()
        name = chunk.relative_to(store).parts[0]
        with pytest.raises(InputError, match=f"{name} (lacks 1 of its blocks|cannot be read)"):
            read_dataset(store)
        chunk.write_bytes(kept)
    assert read_dataset(store).identical(whole)


def test_a_flipped_bit_or_a_cut_chunk_is_never_data(tmp_path, whole, rng):
    store = tmp_path / "run.zarr"
    fill(opened(store, layout()))
    for chunk in chunks_of(store):
        kept = chunk.read_bytes()
        for place in (*rng.choice(len(kept), 4, replace=False), None):
            damaged = bytearray(kept)
            if place is None:
                del damaged[-1]
            else:
                damaged[place] ^= 1 << rng.integers(8)
            chunk.write_bytes(damaged)
            with pytest.raises(InputError, match=r"damaged|not a whole zarr store"):
                read_dataset(store)
        chunk.write_bytes(kept)
    assert read_dataset(store).identical(whole)


@pytest.mark.parametrize("lost", ["x/c/0/0/0", "code/c/0/0", "x", "a", "b/c/0"])
def test_what_a_half_done_store_has_lost_is_named_before_anything_is_measured(lost, tmp_path):
    store = tmp_path / "run.zarr"
    fill(opened(store, layout()), REGIONS[:1])
    place = store / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    name = lost.split("/")[0]
    for look in (lambda: opened(store, layout()), lambda: read_dataset(store)):
        with pytest.raises(InputError, match=rf"run\.zarr.*{name}.*(missing|remove it)"):
            look()


def test_a_store_in_memory_says_that_it_is_half_done():
    assert fill(opened(None, layout()), REGIONS[:1]).unfinished == "1 of 4 blocks are there"


def test_a_damaged_mark_is_told(tmp_path):
    fill(opened(tmp_path / "run.zarr", layout()), REGIONS[:1])
    mark = tmp_path / "run.zarr" / "done" / "c" / "0" / "0"
    mark.write_bytes(b"\0" * 8)
    with pytest.raises(InputError, match=r"run\.zarr is damaged: done cannot be read"):
        fill(opened(tmp_path / "run.zarr", layout()))


def contents(store):
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in Path(store).rglob("*")
        if path.is_file()
    }


class Stopped(BaseException):
    """The end of a process, which cleans up nothing."""


def test_a_run_that_is_stopped_at_any_write_becomes_the_same_bytes(tmp_path, monkeypatch):
    """Killed, or on a full disk, in turn."""
    fill(opened(tmp_path / "calm.zarr", layout()))
    expected, put = contents(tmp_path / "calm.zarr"), _local._put
    for last in itertools.count():
        store = tmp_path / f"run-{last}.zarr"
        writes = itertools.count()

        def stop(path, value, *args, **kwargs):
            if next(writes) == last:  # noqa: B023
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_suffix(".0.partial").write_bytes(b"half")
                raise Stopped if last % 2 else OSError("No space left on device")  # noqa: B023
            return put(path, value, *args, **kwargs)

        monkeypatch.setattr(_local, "_put", stop)
        try:
            fill(opened(store, layout()))
            stopped = False
        except (Stopped, OSError):
            stopped = True
        monkeypatch.setattr(_local, "_put", put)
        fill(opened(store, layout()))
        assert contents(store) == expected
        if not stopped:
            break
    assert last > 20
