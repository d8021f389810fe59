"""The script for an accelerator, on a CPU: it counts rightly, and ends in time."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    from counting import counted

    return counted


def run(out, *flags):
    command = [sys.executable, FOLDER / "accelerator.py", "--sizes", "small", "--out", out, *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


def test_every_lane_has_the_flops_the_bytes_and_the_turns_that_its_data_ask_for(counted):
    def powers(x, most):
        square = lambda state: (state[0] + 1, state[1] @ state[1])  # noqa: E731
        return jax.lax.while_loop(lambda state: state[0] < most, square, (0 * most, x))[1]

    x, most = jnp.ones((3, 8, 8), jnp.float32), np.array([0, 2, 5])
    count = jax.jit(jax.vmap(counted(powers)))(x, most)
    np.testing.assert_array_equal(count.turns, most)
    np.testing.assert_array_equal(count.flops, most * 2 * 8**3)
    ends = 2 * 4 * 8 * 8 + most.dtype.itemsize
    np.testing.assert_array_equal(count.bytes, most * 3 * 4 * 8 * 8 + ends)


def test_branches_scans_and_inner_programs_are_counted_where_they_are_run(counted):
    @jax.jit
    def step(total, row):
        return total + row @ row, row

    def f(x, wanted):
        total, _ = jax.lax.scan(step, jnp.zeros((), x.dtype), x)
        return jax.lax.cond(wanted, lambda t: jnp.exp(jnp.exp(t)), lambda t: t, total)

    x = jnp.ones((5, 4), jnp.float32)
    for wanted, more in ((True, 2), (False, 0)):
        assert counted(f)(x, wanted).flops == 5 * (2 * 4 + 1) + more


def test_a_table_has_the_share_of_a_roof_and_the_count_behind_it(tmp_path):
    found, said = run(tmp_path / "found.json", "--parts", "points")
    (row,) = found["tables"]["points"]
    assert row["name"] == "points, n = 256" and row["turns"] >= 1 and row["worst_error"] <= 1e-4
    least = row[{"bandwidth": "bytes", "arithmetic": "flops"}[row["roof"]]]
    kind = {"bandwidth": "bytes", "arithmetic": "flops"}[row["roof"]]
    np.testing.assert_allclose(row["share"], least / found["roofs"][kind] / row["seconds"])
    assert row["flops"] >= row["turns"] * 256**2 * 2 * 64  # a pass forms all logits
    assert not found["not_measured"] and "points, n = 256" in said


def test_what_the_budget_leaves_out_is_said(tmp_path):
    found, said = run(tmp_path / "found.json", "--budget", "0.1", "--parts", "tests", "sweep")
    assert found["not_measured"] == ["roofs", "sweep, n = 4, 2 layers"]
    assert found["tests"] == "not finished in time" and "Not measured" in said


@pytest.mark.slow
def test_all_tables_are_measured(tmp_path):
    parts = ("projection", "derivative", "spectrum", "points", "sweep")
    found, _ = run(tmp_path / "found.json", "--budget", "3000", "--parts", *parts)
    assert not found["not_measured"]
    assert all(row["share"] > 0 for rows in found["tables"].values() for row in rows)
