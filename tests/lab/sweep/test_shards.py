"""A sweep by many processes and devices is the sweep of one: the same bytes, whoever is killed."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from homojax.lab.grid_store import GridStore
from homojax.lab.inputs import InputError
from homojax.lab.sweep.run import sweep

GRID = {"epsilon": (0.5, 5.0), "depth": (1, 2), "n": 4, "seeds": 2, "samples": 8}
GRID["dtype"] = "float32"
PROGRAM = f"""
import sys, jax
from homojax.lab import compile_cache
from homojax.lab.sweep.run import sweep
compile_cache.commands_own = True
jax.config.update("jax_enable_x64", True)  # as here
store, address, k, i = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if address != "none":
    jax.distributed.initialize(address, k, i)
    assert jax.device_count() == 2 * jax.local_device_count()
sweep(store=store, shard=None if address != "none" else (i, k), **{GRID})
"""


def contents(store):
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in Path(store).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The files of a sweep in one go."""
    store = tmp_path_factory.mktemp("whole") / "run.zarr"
    sweep(store=store, **GRID)
    return contents(store)


def start(store, *, address="none", shards=1, which=0, devices=1):
    """A process that sweeps its part."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-c", PROGRAM, str(store), address, str(shards), str(which)]
    return subprocess.Popen(command, env={**os.environ, "XLA_FLAGS": flags})


def test_shards_one_after_the_other_fill_one_store(tmp_path, expected):
    store = tmp_path / "run.zarr"
    parts = [sweep(store=store, shard=(i, 3), **GRID) for i in (2, 0, 0, 1)]
    assert [part.attrs.get("unfinished") for part in parts] == [
        "1 of 4 blocks are there",
        "3 of 4 blocks are there",
        "3 of 4 blocks are there",
        None,
    ]
    assert contents(store) == expected
    assert sweep(store=store, shard=(1, 3), **GRID).identical(parts[-1])


def test_of_shards_that_find_all_blocks_done_one_alone_finishes(tmp_path, expected, monkeypatch):
    store, finish, finished = tmp_path / "run.zarr", GridStore.finish, []

    def fail(grid, whole):
        raise OSError

    monkeypatch.setattr(GridStore, "finish", fail)
    with pytest.raises(OSError):
        sweep(store=store, **GRID)  # all is measured

    def slowly(grid, whole):
        finished.append(1)
        time.sleep(0.5)
        finish(grid, whole)

    monkeypatch.setattr(GridStore, "finish", slowly)
    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(lambda i: sweep(store=store, shard=(i, 3), **GRID), range(3)))
    assert len(finished) == 1 and contents(store) == expected
    assert all(part.identical(parts[0]) for part in parts)


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_there_is_not_is_refused(shard):
    with pytest.raises(InputError, match=rf"there is no shard {shard[0]} of {shard[1]}"):
        sweep(shard=shard, **GRID)


@pytest.mark.parametrize("shard", ["0/2", 1, (0.5, 2)])
def test_a_shard_is_two_whole_numbers(shard):
    with pytest.raises(InputError, match=r"shard must be two whole numbers \(i, k\)"):
        sweep(shard=shard, **GRID)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_all_devices_of_a_process_give_the_bytes_of_one(devices, tmp_path, expected):
    assert start(tmp_path / "run.zarr", devices=devices).wait() == 0
    assert contents(tmp_path / "run.zarr") == expected


@pytest.mark.slow
def test_four_shards_at_once_one_of_them_killed_and_started_again(tmp_path, expected):
    store = tmp_path / "run.zarr"
    running = [start(store, shards=4, which=i) for i in range(4)]
    time.sleep(8)
    running[2].kill()
    running[2].wait()
    running[2] = start(store, shards=4, which=2)
    assert [process.wait() for process in running] == [0] * 4
    assert contents(store) == expected


@pytest.mark.slow
def test_two_processes_of_two_devices_that_jax_counts(tmp_path, expected):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [
        start(tmp_path / "run.zarr", address=address, shards=2, which=i, devices=2)
        for i in range(2)
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert contents(tmp_path / "run.zarr") == expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills_lose_nothing_that_was_done(tmp_path, expected):
    for name in ("first", "second"):  # which finds the first one's programs
        began = time.monotonic()
        assert start(tmp_path / name).wait() == 0
    usual = time.monotonic() - began
    chance, kills, stores = random.Random(0), 0, 0
    while kills < 100:
        store, stores = tmp_path / f"run-{stores}.zarr", stores + 1
        while True:
            process = start(store)
            try:
                process.wait(chance.uniform(0.2, 1.2) * usual)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        assert process.returncode == 0 and contents(store) == expected
    whole = {f"run-{i}.zarr" for i in range(stores)}
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second", *whole}
