"""Experiments about alternation: what they measure is what NumPy finds, and each has its page."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from rich.console import Console

import oracles
from homojax.lab.experiment import run_experiment
from homojax.projection.result import Status

RNG = np.random.default_rng(26)


@pytest.mark.parametrize("name", ["twenty", "cooling"])
def test_it_runs_and_leaves_tables_a_figure_and_a_page(name, load, tmp_path):
    module, out = load(name), tmp_path / "out"
    with (tmp_path / "said.txt").open("w") as said:
        section = run_experiment(module.study, "smoke", out, Console(file=said, width=200))
    assert section.text and section.as_expected and section.tables
    for table in section.tables:
        assert table.rows and all(len(row) == len(table.header) for row in table.rows)
    assert "nan" not in str(section.tables)
    assert (out / "figure.png").read_bytes()[:4] == b"\x89PNG"
    plt.close("all")


# ---------------------------------------------------------------- twenty alternations


def test_the_l1_error_is_that_of_all_eight_sums_after_twenty_alternations(load):
    twenty = load("twenty")
    errors = twenty.measure(twenty.METHODS["20 alternations"], 10.0, "float64", "smoke")
    for seed, l1 in enumerate(errors.l1):
        logits = 10 * np.random.default_rng(seed).normal(size=(len(l1), 4, 4))
        matrices = np.array([oracles.alternate(s, 1.0, 20) for s in logits])
        missed = [abs(matrices.sum(axis) - 1).sum(1) for axis in (1, 2)]
        np.testing.assert_allclose(l1, sum(missed), rtol=1e-9, atol=1e-13)
    assert (errors.status != Status.CONVERGED).all()


def test_a_constant_in_the_sums_is_what_the_published_mean_is(load):
    twenty = load("twenty")
    l1 = twenty.measure(twenty._add_to_sums, 1.0, "float32", "smoke").l1
    assert np.median(l1) == pytest.approx(8e-6, rel=0.05)
    plain = twenty.measure(twenty._alternate, 1.0, "float64", "smoke").l1
    assert np.median(plain) < 1e-10
    converged = twenty.measure(twenty._converge, 10.0, "float32", "smoke")
    assert (converged.status == Status.CONVERGED).all() and converged.l1.max() < 2e-5


# ---------------------------------------------------------------- cooling


def test_a_slow_cooling_lags_as_predicted_and_ends_where_the_exact_matrices_do(load):
    cooling = load("cooling")
    logits = cooling.draw_logits("normal", "smoke")
    np.testing.assert_allclose(logits.std((1, 2)), 1)
    path = cooling.cool(logits, 0.9)
    assert path.epsilon[-1] == pytest.approx(cooling.COLD)
    assert path.converged.all() and (path.right[-1] == path.exact_right[-1]).all()
    early = path.epsilon > 0.4
    np.testing.assert_allclose(path.lag[early], path.predicted[early], rtol=0.2, atol=1e-3)
    critical = 0.9 * path.growth
    late = early & (path.epsilon < 1)
    np.testing.assert_allclose(critical[late], path.kept[late], atol=0.1)
    for k, s in enumerate(logits):  # σ₂² against many alternations
        at = int(np.flatnonzero(early)[-1])
        matrix = oracles.alternate(s, path.epsilon[at], 3000)
        assert path.kept[at, k] == pytest.approx(oracles.sigma2(matrix[None])[0] ** 2, rel=1e-6)
