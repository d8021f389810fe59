"""A sweep measures what it says, beside what the laws predict, and loses nothing."""

import dataclasses
import json
from functools import partial, update_wrapper

import jax
import numpy as np
import pytest
import xarray as xr

import homojax as hj
from homojax.lab.datasets import trained_mhc
from homojax.lab.inputs import InputError
from homojax.lab.sources import load_source
from homojax.lab.store import open_run, read_dataset
from homojax.lab.sweep import fill, measure
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.dataset import LAWS, OF_ALL_SEEDS, VARIABLES
from homojax.lab.sweep.report import ks_rejections, summary
from homojax.lab.sweep.run import sweep
from homojax.theory import CLAIMS
from homojax.theory.claim import Verdict, mutants_of


@pytest.fixture(scope="module")
def config(two_sizes):
    """The larger of the two sizes, two cells at once."""
    return dataclasses.replace(two_sizes.config, n=(4,), memory_mb=Sweep().memory_mb)


@pytest.fixture(scope="module")
def small(config):
    return sweep(config)


def np_center(n):
    return np.eye(n) - 1 / n


def np_sinkhorn(logits, epsilon, steps=20_000):
    s = logits / epsilon
    g = np.zeros(len(s))
    for _ in range(steps):
        f = -np.log(np.exp(s + g).sum(1))
        g = -np.log(np.exp(s + f[:, None]).sum(0))
    return np.exp(s + f[:, None] + g)


def norm2(a):
    return np.linalg.norm(a, 2)


def test_every_variable_is_there_with_its_dimensions_unit_and_meaning(small):
    assert set(small.data_vars) == set(VARIABLES)
    for name, (_, dims, units, _) in VARIABLES.items():
        own = ("n", "epsilon") if name == "lyapunov_sigma2" else ("n", "epsilon", "seed")
        assert small[name].dims == (*own, *dims)
        assert small[name].attrs["long_name"]
        if not name.startswith(("verdict", "status")):
            assert (
                small[name].attrs["units"] == units and np.isfinite(small[name]).all()
            ) or name == "effective_depth_measured"
    assert all(small[coordinate].attrs["long_name"] for coordinate in small.coords)


def test_a_cell_is_what_numpy_finds_by_other_means(config, small):
    epsilon, seed = 1.0, 2
    logits = load_source(config).draw(4, seed, 5)
    matrices = [np_sinkhorn(s, epsilon) for s in logits]
    cell = small.sel(n=4, epsilon=epsilon, seed=seed)
    p = np_center(4)
    sigma2 = np.array([norm2(p @ m @ p) for m in matrices])
    np.testing.assert_allclose(cell.sigma2, sigma2, atol=1e-10)
    np.testing.assert_allclose(
        cell.lambda2, [sorted(abs(np.linalg.eigvals(m)))[-2] for m in matrices], atol=1e-10
    )
    np.testing.assert_allclose(cell.entropy, [-(m * np.log(m)).sum() for m in matrices], atol=1e-10)
    np.testing.assert_allclose(cell.entropy_deficit, 4 * np.log(4) - cell.entropy, atol=1e-10)
    np.testing.assert_allclose(cell.doeblin_bound, [1 - 4 * m.min() for m in matrices], atol=1e-10)
    products = [np.linalg.multi_dot([*matrices[:d][::-1], np.eye(4)]) for d in config.depth]
    np.testing.assert_allclose(
        cell.composite_sigma2, [norm2(c - 0.25) for c in products], atol=1e-10
    )
    np.testing.assert_allclose(
        cell.dist_to_uniform, [np.linalg.norm(c - 0.25) for c in products], atol=1e-10
    )
    np.testing.assert_allclose(
        cell.product_sigma2, [sigma2[:d].prod() for d in config.depth], atol=1e-10
    )
    logs = np.concatenate([[0], np.cumsum(np.log(sigma2))])  # it falls to the share on the way
    bound = np.interp(-np.log(0.3), -logs, np.arange(len(logs)))
    np.testing.assert_allclose(cell.effective_depth_bound, bound, atol=1e-8)
    assert cell.effective_depth_measured <= cell.effective_depth_bound
    for alpha in (0.25, 1.0):
        layers = [(1 - alpha) * np.eye(4) + alpha * m for m in matrices]
        residual = [
            norm2(np.linalg.multi_dot([*layers[:d][::-1], np.eye(4)]) - 0.25) for d in config.depth
        ]
        np.testing.assert_allclose(cell.residual_sigma2.sel(alpha=alpha), residual, atol=1e-10)
        bound = [np.prod(1 - alpha + alpha * sigma2[:d]) for d in config.depth]
        np.testing.assert_allclose(cell.residual_sigma2_bound.sel(alpha=alpha), bound, atol=1e-10)
    spread = np.linalg.norm(p @ logits[0] @ p) / 3
    np.testing.assert_allclose(cell.relative_epsilon[0], epsilon / spread)


def test_no_theorem_is_violated_and_most_are_decided(small):
    for law in LAWS:
        verdicts = small[f"verdict_{law}"]
        assert not (verdicts == Verdict.VIOLATED).any(), law
        judged = verdicts != Verdict.NOT_APPLICABLE
        assert (verdicts == Verdict.HOLDS).sum() > 0.5 * judged.sum(), law


def test_a_bound_made_wrong_is_called_violated(monkeypatch, config, small):
    halved = next(m for m in mutants_of(CLAIMS["hilbert"]) if "halved" in m.name)
    wrong = [halved if claim.name == "hilbert" else claim for claim in measure.BOUNDS]
    wrong = [dataclasses.replace(c, name="hilbert") if c is halved else c for c in wrong]
    monkeypatch.setattr(measure, "BOUNDS", wrong)
    # A stage of its own, so that this one alone is compiled anew, and the old one is kept.
    stage = update_wrapper(partial(measure._measure_bounds), measure._measure_bounds)
    monkeypatch.setattr(measure, "_measure_bounds", stage)
    ds = sweep(dataclasses.replace(config, measure=("bounds",)))
    assert not (small.verdict_hilbert == Verdict.VIOLATED).any()
    assert (ds.verdict_hilbert == Verdict.VIOLATED).any()


def test_monte_carlo_agrees_with_the_exact_law_of_layer_norm(config, small):
    z = (small.cosine_mean - small.cosine_exact) / small.cosine_stderr
    assert abs(z).max() < 5  # 24 points: a false alarm in about 70,000 runs
    limit = np.sqrt(np.log(2 * small.cosine_ks.size / 1e-6) / (2 * config.samples))
    assert small.cosine_ks.max() < limit


def test_results_depend_neither_on_blocks_nor_on_other_n_and_a_stage_is_compiled_once_for_each_n(
    monkeypatch, config, small, two_sizes
):
    assert two_sizes.traced == [2, 4]
    traced, entropy = [], measure.entropy
    monkeypatch.setattr(measure, "entropy", lambda m: traced.append(m.shape[-1]) or entropy(m))
    sweep(dataclasses.replace(config, seed=7, epsilon=(0.7, 7.0, 9.0)))
    assert not traced  # again, by what is no setting of a stage
    for name in VARIABLES:
        np.testing.assert_allclose(
            two_sizes.ds[name].sel(n=[4]), small[name], rtol=1e-9, atol=1e-12, err_msg=name
        )


def test_a_cell_is_the_same_to_the_last_bit_wherever_its_ε_stands_in_the_grid(two_sizes):
    """Its Monte Carlo draws, too."""
    asked = dataclasses.replace(two_sizes.config, n=(4,), epsilon=(7.0, 5.0, 0.2), seeds=2)
    other = sweep(asked).sel(epsilon=[0.2, 5.0])
    same = two_sizes.ds.sel(n=[4], epsilon=[0.2, 5.0], seed=[0, 1])
    for name in set(VARIABLES) - set(OF_ALL_SEEDS):
        xr.testing.assert_equal(other[name], same[name])
    draws = [other.cosine_mean.sel(seed=0, epsilon=epsilon) for epsilon in (0.2, 5.0)]
    assert not np.array_equal(*draws)


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path, monkeypatch, config, small):
    store = tmp_path / "sweep.zarr"

    def interrupt(done, total, doing):
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(config, store, progress=interrupt)
    half = open_run(store)
    assert half.unfinished == "3 of 6 blocks are there"
    assert (
        (half.status == -99).sum() == half.sigma2.isnull().sum()
    ) and half.sigma2.notnull().any()
    calls = []
    original = fill.measure_block
    monkeypatch.setattr(fill, "measure_block", lambda *args: calls.append(1) or original(*args))
    resumed = sweep(config, store)
    assert len(calls) == 3  # of 6
    xr.testing.assert_identical(resumed, small)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.zarr"]
    calls.clear()
    xr.testing.assert_identical(sweep(config, store), read_dataset(store))
    assert not calls
    with pytest.raises(InputError, match="holds something else"):
        sweep(Sweep(seeds=1), store)


def test_rounding_of_the_cosines_violates_no_law():
    snr = (1e2, 1e6, 1e12, 1e20, 1e30)
    only = {"n": 4, "seeds": 2, "depth": (1,), "epsilon": (0.3, 10.0), "samples": 16}
    ds = sweep(snr=snr, measure=("layernorm",), dtype="float32", **only)
    assert ks_rejections(ds, ds) == (0, int(ds.cosine_ks.notnull().sum()))
    assert ds.cosine_ks.sel(snr=1e2).notnull().all() and ds.cosine_ks.sel(snr=1e20).isnull().any()


def test_the_store_says_how_to_run_it_again(tmp_path, small):
    attrs = small.attrs
    again = json.loads(attrs["config"])
    assert (
        Sweep(
            **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in again.items()
            }
        ).digest
        == attrs["config_hash"]
    )
    versions = json.loads(attrs["versions"])
    assert versions["jax"] == jax.__version__ and versions["homojax"]
    assert attrs["dtype"] == "float64" and attrs["device"] and attrs["seed"] == 0


def test_trained_matrices_as_run_have_the_published_figures_and_converged_they_do_not_collapse():
    common = {  # as in tests/lab/test_accessor.py, to compile once for both
        "source": "trained-mhc",
        "epsilon": (0.05,),
        "depth": tuple(range(1, 13)),
        "samples": 8,
        "snr": (1.0,),
        "alpha": (1.0,),
    }
    whole = sweep(Sweep(iterations=10, **common))
    table = summary(whole)
    assert [table.rows[0][table.header.index(f"L {rate}")] for rate in ("bound", "typical")] == [
        "n.a.",  # of matrices that are not doubly stochastic
        "n.a.",
    ]
    as_run = whole.squeeze()
    published = trained_mhc()["published"]
    assert abs(as_run.lambda2.mean() - published["mean_abs_lambda2"]) < 1e-4
    assert (
        abs(as_run.dist_to_uniform[-1] - published["composite_frobenius_distance_to_uniform"])
        < 1e-4
    )
    worst = np.maximum(as_run.row_error, as_run.col_error)
    converged = worst <= hj.numerics.marginal_tolerance(4, "float64")
    np.testing.assert_array_equal(as_run.status == hj.Status.CONVERGED, converged)
    np.testing.assert_array_equal(as_run.status == hj.Status.STEP_LIMIT, ~converged)
    assert (
        as_run.composite_distance[-1] > 4 * as_run.composite_sigma2[-1]
    )  # ‖C − J‖₂ is not ‖PCP‖₂ here
    assert (as_run.verdict_product != Verdict.VIOLATED).all()
    converged = sweep(Sweep(**common)).squeeze()
    assert (converged.status == hj.Status.CONVERGED).all()
    assert converged.composite_sigma2[-1] > 0.999 and as_run.composite_sigma2[-1] < 0.2
    np.testing.assert_allclose(converged.composite_distance, converged.composite_sigma2, atol=1e-9)


def test_one_matrix_from_a_file_is_shared_by_all_layers(tmp_path):
    logits = np.random.default_rng(1).standard_normal((4, 4))
    np.save(tmp_path / "one.npy", logits)
    # shapes and precision of the example in sweep, to compile once for both
    ds = sweep(
        Sweep(
            source="file",
            path=tmp_path / "one.npy",
            epsilon=(0.7,),
            depth=(1, 2),
            samples=8,
            dtype="float32",
        )
    )
    assert ds.attrs["distinct_layers"] == 1 and ds.sigma2.dtype == np.float32
    matrix = np_sinkhorn(logits, 0.7)
    kept = norm2(np.linalg.matrix_power(matrix, 2) - 1 / 4)
    np.testing.assert_allclose(ds.composite_sigma2.squeeze()[-1], kept, rtol=1e-3)


def test_cells_that_do_not_converge_are_marked_and_the_rest_is_kept(config):
    """With as many cells as the others."""
    ds = sweep(dataclasses.replace(config, max_steps=4, tol=1e-12, epsilon=(0.01, 1.0, 50.0)))
    assert (ds.status.sel(epsilon=0.01) == hj.Status.STEP_LIMIT).any()
    assert (ds.status.sel(epsilon=50.0) == hj.Status.CONVERGED).any()
    worst = np.maximum(ds.row_error, ds.col_error).sel(epsilon=0.01)
    assert worst.max() > 1e-3
    for law in LAWS:
        assert not (ds[f"verdict_{law}"] == Verdict.VIOLATED).any(), law


def test_float64_without_x64_is_refused(config):
    with jax.enable_x64(False), pytest.raises(InputError, match="jax_enable_x64"):
        sweep(config)
