"""Traces are kept: a later process runs the same program without tracing it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from homojax.lab import compile_cache, traces
from homojax.lab.traces import traced_once

X = np.arange(3.0, dtype=np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where traces go in a command's own process, with this folder of programs."""
    monkeypatch.setattr(compile_cache, "commands_own", True)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path / "traces"
    jax.config.update("jax_compilation_cache_dir", before)


def tracing(about="twice", x=X, factor=2):
    """How often a process with nothing in memory traces, and what it computes."""
    seen = []

    def function(x):
        seen.append(1)
        return {"image": factor * x}

    run = traced_once(function, about)
    values = [np.asarray(run(x)["image"]) for _ in range(2)]
    assert (values[0] == values[1]).all()
    return len(seen), values[0]


def test_the_second_process_traces_nothing(folder):
    assert tracing()[0] == 1
    count, values = tracing(factor=0)  # whose code is not looked at
    assert count == 0 and (values == 2 * X).all()


@pytest.mark.parametrize(
    "other",
    [{"about": "thrice"}, {"x": X[:2]}, {"x": X.astype(np.int32)}],
    ids=["about", "shape", "dtype"],
)
def test_what_differs_is_traced(folder, other):
    tracing()
    assert tracing(**other, factor=3)[0] == 1
    assert len(list(folder.iterdir())) == 2


def test_a_number_of_python_is_no_array(folder):
    """Its dtype is weak: beside an array it takes the array's."""
    assert tracing(x=jnp.float32(2))[0] == 1
    assert tracing(x=2.0)[0] == 1


def test_other_code_and_other_configurations_have_traces_of_their_own(folder, monkeypatch):
    tracing()
    with jax.default_matmul_precision("highest"):
        assert tracing()[0] == 1
    jax.config.update("jax_enable_x64", not jax.config.jax_enable_x64)
    try:
        assert tracing()[0] == 1
    finally:
        jax.config.update("jax_enable_x64", not jax.config.jax_enable_x64)
    assert tracing()[0] == 0
    monkeypatch.setattr(traces, "_code", lambda: "another version")
    assert tracing()[0] == 1


@pytest.mark.parametrize("content", [b"", b"no trace", None], ids=["empty", "other", "cut"])
def test_a_damaged_trace_is_made_again(folder, content):
    tracing()
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    count, values = tracing()
    assert count == 1 and (values == 2 * X).all()
    assert tracing()[0] == 0


def test_a_process_of_the_users_own_whose_code_may_have_changed_keeps_none(folder, monkeypatch):
    monkeypatch.setattr(compile_cache, "commands_own", False)
    assert [tracing()[0], tracing()[0]] == [1, 1] and not folder.exists()


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(traces, "_folder", lambda: tmp_path / "file" / "traces")
    assert [tracing()[0], tracing()[0]] == [1, 1]


def test_the_oldest_go_where_there_are_many(folder, monkeypatch):
    monkeypatch.setattr(traces, "MOST", 2)
    for number in range(4):
        tracing(about=number)
    assert len(list(folder.iterdir())) == 2 and tracing(about=3)[0] == 0
