"""Every experiment on networks runs in its smallest size, and leaves tables, figure and page."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from homojax.lab.experiment import Bench, run_experiment
from homojax.lab.train.dataset import COUNTS, VARIABLES, assemble
from homojax.lab.train.judgements import JUDGED
from homojax.lab.train.run import trainer_of

NETWORKS = (
    *("as_run", "decay", "depth", "escape", "gradient_trap", "noise", "precision"),
    *("stagnation", "ways_out"),
)


def check_tables(tables):
    assert tables
    for table in tables:
        assert table.rows and all(len(row) == len(table.header) for row in table.rows)
    assert "nan" not in str(tables)


# Their smallest sizes have four layers and two runs each, so that most of them share programs.
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_runs_and_leaves_tables_a_figure_and_a_page(name, load, tmp_path):
    module, out = load(name), tmp_path / "out"
    with (tmp_path / "said.txt").open("w") as said:
        section = run_experiment(module.study, "smoke", out, Console(file=said, width=200))
    assert section.text and section.as_expected
    check_tables(section.tables)
    assert (out / "figure.png").read_bytes()[:4] == b"\x89PNG"
    page = (out / "report.html").read_text()
    assert module.__doc__.splitlines()[0].split(" (")[0] in page and "data:image/png;base64" in page


class MadeUp(Bench):
    """Trains nothing: its networks can be made, and their results are random numbers."""

    def train(self, label, config):
        for depth in {min(config.all_depths), max(config.all_depths)}:
            trainer_of(config, depth)
        rng = np.random.default_rng(0)

        def made_up(depth, name, dims):
            if name.startswith("failed"):
                return np.full(len(config.cells), -1)
            lengths = {"layer": depth, "after": depth + 1, "report": len(config.report_steps)}
            return rng.random((len(config.cells), *(lengths[dim] for dim in dims)))

        parts = [
            {name: made_up(depth, name, dims) for name, (dims, _, _) in VARIABLES.items()}
            | {name: np.ones((len(JUDGED), depth), int) for name in COUNTS}
            for depth in config.all_depths
        ]
        return assemble(config, parts)

    def measured(self, label, about, measure):
        rng, runs, depth = np.random.default_rng(0), 5, 16
        values = {name: rng.random(runs) for name in ("accuracy", "kept", "turn")}
        values |= {name: rng.random() for name in ("off", "least", "seconds")}
        return {**values, "ε": rng.random((runs, depth)), "failed": np.full(runs, -1)}


@pytest.mark.parametrize("name", ["depth", "escape", "stagnation"])
def test_in_full_size_every_network_can_be_made_and_has_its_row(name, load, tmp_path):
    module = load(name)
    study = module.study("full", MadeUp(tmp_path))
    check_tables(study.tables)
    *_, table = study.tables
    assert {row[0] for row in table.rows} == set(module.CHOSEN["full"])
    plt.close("all")


def test_in_full_size_every_way_out_can_be_made_and_has_its_row(load, tmp_path):
    module = load("ways_out")
    for way in module.WAYS.values():
        trainer_of(module.training("full", way.mixer), module.DEPTH["full"])
    study = module.study("full", MadeUp(tmp_path))
    check_tables(study.tables)
    (table,) = study.tables
    assert [row[0] for row in table.rows] == list(module.WAYS)
    plt.close("all")


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
