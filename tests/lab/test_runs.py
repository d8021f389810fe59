"""A run's folder belongs to one run, appears whole, and loses nothing to an interrupt."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from homojax.lab import blocks, runs
from homojax.lab.inputs import InputError, Output

DIGEST = "0123456789abcdef"
ONE = {"verb": "sweep", "config": {"n": [4], "path": Path("a.npy")}}


def block(value):
    return {"x": np.full(3, value)}


def dataset(digest="abc"):
    return xr.Dataset({"x": ("i", np.arange(3.0))}, attrs={"config_hash": digest})


# ---------------------------------------------------------------- ownership


def test_a_folder_is_taken_up_by_the_run_that_made_it_and_tells_another_the_difference(tmp_path):
    folder = tmp_path / "deep" / "run"
    runs.own(folder, ONE)
    (folder / "data.bin").write_bytes(b"1")
    runs.own(folder, ONE)
    with pytest.raises(InputError, match=r"n was \[4\] and is asked to be \[8\]"):
        runs.own(folder, {**ONE, "config": {"n": [8], "path": "a.npy"}})
    with pytest.raises(InputError, match="seed was None and is asked to be 3"):
        runs.own(folder, {**ONE, "seed": 3})


def test_a_file_that_has_changed_is_named_and_one_of_several_parts_too(tmp_path):
    parts = {name: {"n": [4], "path": f"{name}.npy", "hash": name} for name in "ab"}
    runs.own(tmp_path, {"verb": "sweep", "sweeps": parts})
    (tmp_path / "data.bin").write_bytes(b"1")
    changed = {**parts, "a": {**parts["a"], "hash": "c"}}
    with pytest.raises(InputError, match=r"run: the file a\.npy has changed since the run began\."):
        runs.own(tmp_path, {"verb": "sweep", "sweeps": changed})
    other = {**parts, "a": {**parts["a"], "n": [8], "hash": "c"}}
    with pytest.raises(InputError, match=r"run: a n was \[4\] and is asked to be \[8\]\. Ask"):
        runs.own(tmp_path, {"verb": "sweep", "sweeps": other})


def test_a_folder_with_nothing_but_a_name_is_free(tmp_path):
    runs.own(tmp_path, ONE)
    runs.own(tmp_path, {"verb": "train"})
    assert json.loads((tmp_path / runs.MANIFEST).read_text())["verb"] == "train"


def test_files_of_others_and_a_damaged_manifest_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds files and no run\.json"):
        runs.own(tmp_path, ONE)
    (tmp_path / runs.MANIFEST).write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        runs.own(tmp_path, ONE)
    (tmp_path / runs.MANIFEST).write_text("[]")
    with pytest.raises(InputError, match="is of no homojax run"):
        runs.own(tmp_path, ONE)


def test_an_older_version_does_not_go_on_with_the_work_of_another(tmp_path, monkeypatch):
    runs.own(tmp_path, ONE)
    (tmp_path / "data.bin").write_bytes(b"1")
    monkeypatch.setattr(runs, "version", lambda name: "9.9")
    with pytest.raises(InputError, match=r"homojax was .* and is asked to be 9\.9"):
        runs.own(tmp_path, ONE)


def test_a_run_gets_its_name_only_when_it_is_whole_and_replaces_an_older_one_only_then(tmp_path):
    out = tmp_path / "run"
    for content in ("old", "new"):
        folder = runs.RunFolder(out, {"verb": "sweep", "seed": content}, overwrite=True)
        (folder.part / "data.txt").write_text(content)
        assert content == "old" or (out / "data.txt").read_text() == "old"
        folder.finish("data.txt")
    assert (out / "data.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_overwrite_starts_anew_where_an_interrupted_run_was_another(tmp_path):
    unfinished = runs.RunFolder(tmp_path / "run", ONE)
    block = Path("train.zarr.blocks-0123456789abcdef") / "depth-2.npz"
    (unfinished.part / block).parent.mkdir()
    (unfinished.part / block).write_text("1")
    other = {**ONE, "seed": 1}
    with pytest.raises(InputError, match="holds another run"):
        runs.RunFolder(tmp_path / "run", other)
    same = runs.RunFolder(tmp_path / "run", ONE, overwrite=True)
    assert (same.part / block).exists()
    anew = runs.RunFolder(tmp_path / "run", other, overwrite=True)
    assert not (anew.part / block).exists()


# ---------------------------------------------------------------- where no folder is named


@dataclasses.dataclass(frozen=True)
class Command(Output):
    place = Path("runs/verb")


def finished(command, identity=ONE):
    folder = runs.run_folder(command, identity)
    (folder.part / "data").touch()
    folder.finish("data")
    return folder.name.as_posix()


def test_the_same_command_again_writes_beside_the_first_by_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [finished(Command()) for _ in range(3)] == ["runs/verb", "runs/verb-2", "runs/verb-3"]
    assert finished(Command(overwrite=True)) == "runs/verb"
    with pytest.raises(InputError, match="exists already"):
        finished(Command(out=Path("runs/verb-2")))


def test_an_interrupted_run_is_taken_up_under_its_number_and_another_passes_it(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    finished(Command())
    unfinished = runs.run_folder(Command(), ONE)
    (unfinished.part / "block").touch()
    other = {**ONE, "seed": 1}
    assert runs.run_folder(Command(), ONE).name == unfinished.name == Path("runs/verb-2")
    assert runs.run_folder(Command(), other).name == Path("runs/verb-3")
    runs.discard_empty()


def test_a_run_that_kept_nothing_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.run_folder(Command(), ONE)
    assert not runs.discard_empty() and not list(tmp_path.iterdir())
    kept = runs.run_folder(Command(), ONE)
    (kept.part / "block").touch()
    assert runs.discard_empty() and (kept.part / "block").exists()


def test_a_users_files_are_never_overwritten_however_deep_and_an_empty_folder_is_free(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    folder = runs.RunFolder(out, ONE)
    (folder.part / "figures").mkdir()
    (folder.part / "figures" / "a.png").touch()
    folder.finish("figures/a.png")
    (out / "figures" / "mine.svg").write_text("hours of work")
    for overwrite in (True, False):  # and no advice that would not help
        with pytest.raises(InputError, match="holds what homojax did not write: choose another"):
            runs.RunFolder(out, ONE, overwrite=overwrite)
    with pytest.raises(InputError, match="is a file that homojax did not write"):
        runs.RunFolder(out / "figures" / "mine.svg", ONE)
    (out / "figures" / "mine.svg").unlink()
    runs.RunFolder(out, ONE, overwrite=True)
    runs.discard_empty()


@pytest.mark.parametrize(
    "mine",
    [
        *("notes.txt", "figures/mine.png", "a.zarr/notes.txt", "a.zarr/x/c/mine.txt"),
        *("a.zarr.lock-notes.txt", "a.zarr.part-original/thesis.tex", "b.zarr/zarr.json"),
        f"a.zarr.blocks-{DIGEST}/mine.npz",
    ],
)
def test_a_users_file_in_the_folder_of_an_unfinished_run_is_never_removed(mine, tmp_path):
    out = tmp_path / "run"
    folder = runs.RunFolder(out, ONE)

    def put():
        (folder.part / mine).parent.mkdir(parents=True, exist_ok=True)
        (folder.part / mine).write_text("hours of work")

    def compute(parts):
        parts.get("a", lambda: block(1))
        if not mine.startswith("a.zarr/"):  # a store appears whole
            put()
        return dataset(DIGEST)

    blocks.resume(folder.part / "a.zarr", DIGEST, compute)
    put()
    if "blocks" in mine:
        assert not (folder.part / mine).with_name("a.npz").exists()
    else:
        with pytest.raises(InputError, match=f"interrupted run, and holds {mine}, which homojax"):
            runs.RunFolder(out, {**ONE, "seed": 1}, overwrite=True)
    folder.finish("a.zarr")
    assert (out / mine).read_text() == "hours of work"
    assert mine not in json.loads((out / runs.MANIFEST).read_text())["files"]
    with pytest.raises(InputError, match="holds what homojax did not write"):
        runs.RunFolder(out, ONE, overwrite=True)
    (out / mine).unlink()
    runs.RunFolder(out, ONE, overwrite=True).discard_if_empty()


def test_what_a_user_puts_into_a_run_while_it_is_replaced_stays(tmp_path):
    out = tmp_path / "run"
    runs.RunFolder(out, ONE).finish()
    again = runs.RunFolder(out, ONE, overwrite=True)
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds what homojax did not write"):
        again.finish()
    assert (out / "thesis.tex").exists() and again.part.exists()


def test_the_run_json_of_another_program_is_refused(tmp_path):
    (tmp_path / runs.MANIFEST).write_text('{"lap": 3}')
    with pytest.raises(InputError, match="is of no homojax run"):
        runs.own(tmp_path, ONE)
    assert (tmp_path / runs.MANIFEST).read_text() == '{"lap": 3}'


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = runs.RunFolder(Path("~/run"), ONE)
    assert folder.out == (tmp_path / "run").resolve()
    runs.discard_empty()
