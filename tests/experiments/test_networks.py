"""Every experiment on networks runs in its smallest size, and leaves tables, figure and page."""

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from homojax.lab.experiment import run_experiment

NAMES = (
    *("depth", "escape", "noise", "stagnation", "decay"),
    *("gradient_trap", "as_run", "ways_out", "precision"),
)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_leaves_tables_a_figure_and_a_page(name, load, tmp_path):
    module, out = load(name), tmp_path / "out"
    console = Console(file=(tmp_path / "said.txt").open("w"), width=200)
    section = run_experiment(module.study, "smoke", out, console)
    assert section.text and section.tables and section.as_expected
    for table in section.tables:
        assert table.rows and all(len(row) == len(table.header) for row in table.rows)
    assert "nan" not in str(section.tables)
    assert (out / "figure.png").read_bytes()[:4] == b"\x89PNG"
    page = (out / "report.html").read_text()
    assert module.__doc__.splitlines()[0].split(" (")[0] in page and "data:image/png;base64" in page


@pytest.mark.parametrize(
    ("left", "depth"),
    [
        ([1, 0.9, 0.8, 0.7], np.inf),  # never below
        ([0.4, 0.3, 0.2, 0.1], 0),  # always
        ([1, 0.8, 0.4, 0.2], 2 * 2**0.5),  # half-way from 2 layers to 4, in their logarithms
        ([0.5, 1, 0.2, 0.9], 2 * 2**0.5),  # past the best, and for the first time
    ],
)
def test_a_depth_fails_past_the_best_one_where_half_is_lost(load, left, depth):
    values = xr.DataArray(left, {"depth": [1, 2, 4, 8]})
    assert load("depth").failing_depth(values, 0.6) == pytest.approx(depth)
