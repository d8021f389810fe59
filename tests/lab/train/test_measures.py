"""What is measured of trained networks is right, and so is what the claims say of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from homojax.lab.train.config import Train
from homojax.lab.train.judgements import JUDGED, judgements_of, theorems_of
from homojax.lab.train.measures import failures_of, measures_of
from homojax.lab.train.report import theorems_judged
from homojax.lab.train.run import trainer_of
from homojax.lab.train.stacks import Stacks, stacks_of
from homojax.networks.architecture import Architecture
from homojax.networks.trainer import side_by_side
from homojax.networks.training import Training
from homojax.parametrizations import PARAMETRIZATIONS
from homojax.theory.claim import VERDICTS

NAMES = [claim.name for claim in JUDGED]


# ---------------------------------------------------------------- matrices


def test_what_is_measured_is_that_of_the_matrices_in_numpy(kept):
    alpha = 0.2
    runs = kept.ds.isel(depth=0, alpha=0).stack(run=("epsilon", "noise", "seed"))
    for index, matrices in enumerate(kept.stacks.matrices[:, 0]):
        run = runs.isel(run=index)
        sigma2 = np.array([oracles.sigma2(m) for m in matrices])
        np.testing.assert_allclose(run.sigma2_end, sigma2, atol=1e-5)
        layers = [(1 - alpha) * np.eye(8) + alpha * m for m in matrices]
        composites = [oracles.sigma2(layers[0]), oracles.sigma2(layers[1] @ layers[0])]
        np.testing.assert_allclose(run.kept_after_end, composites, atol=1e-5)
        bounds = np.cumprod(1 - alpha + alpha * sigma2)
        np.testing.assert_allclose(run.kept_predicted_end, bounds, atol=1e-5)
        assert float(run.kept_end) == float(run.kept_after_end[-1])
        assert float(run.row_error_end) == pytest.approx(abs(matrices.sum(-1) - 1).max(), abs=1e-6)


def test_errors_of_sums_are_the_largest_of_any_stack(kept):
    matrices = np.broadcast_to(np.eye(8), kept.stacks.matrices.shape).copy()
    matrices[3, 0, 1, 2, 2] = 1.25
    measures = measures_of(kept.stacks._replace(matrices=matrices))
    for name in ("row_error", "col_error"):
        np.testing.assert_array_equal(measures[name], 0.25 * (np.arange(8) == 3))


def test_a_stack_of_attention_is_one_head_of_one_example_through_all_layers():
    architecture = Architecture("softmax", over="attention", depth=2, width=4, heads=2)
    trainer = trainer_of(Train(task="recall", architecture=architecture), 2)
    runs = side_by_side(trainer.begin, jax.random.split(jax.random.key(0), 1))
    stacks = stacks_of(trainer, runs)
    matrices = np.asarray(stacks.trace.matrices)  # [runs, examples, L, heads, n, n]
    assert stacks.matrices.shape[:3] == (1, 2 * 2, 2)
    for example, head in np.ndindex(2, 2):
        np.testing.assert_array_equal(
            stacks.matrices[0, 2 * example + head], matrices[0, example, :, head]
        )


def test_a_noisy_network_is_told_its_law_layer_by_layer(kept):
    """Linear layers under isotropic noise, where law 4.2 is exact but for the fluctuation of so
    many features. Laws 5.1 and 5.2 hold.
    """
    ds = kept.ds
    assert ds.cosine_end.dims == ("depth", "epsilon", "alpha", "noise", "seed", "layer")
    noisy, silent = ds.sel(noise=1.0), ds.sel(noise=0.0)
    np.testing.assert_allclose(noisy.cosine_end, noisy.cosine_predicted_end, atol=0.02)
    assert float(noisy.cosine_end.min()) < 0.8 and (noisy.cosine_end.diff("layer") < 0).all()
    np.testing.assert_allclose(silent.cosine_end, 1, atol=1e-5)
    np.testing.assert_allclose(silent.cosine_predicted_end, 1, atol=1e-5)
    assert (ds.kept_after_end <= ds.kept_predicted_end + 1e-5).all()
    assert (ds.turned_end <= ds.turned_predicted_end + 1e-3).all()
    assert float(ds.turned_predicted_end.min()) < 1


# ---------------------------------------------------------------- claims


def test_no_theorem_is_violated_by_what_was_trained_and_some_are_decided(kept):
    holds, violated, undecidable = theorems_judged(kept.ds)
    assert violated == 0 and holds > 20
    assert theorems_of(kept.stacks).tolist() == [holds, violated, undecidable]


def test_verdicts_are_told_layer_by_layer(kept):
    """Of each layer's matrix one verdict by Hilbert's bound, of stacks one for so many layers."""
    counts = sum(kept.ds[name].isel(depth=0) for name in VERDICTS)
    assert counts.sel(claim="hilbert").values.tolist() == [8, 8]
    assert counts.sel(claim="product").values.tolist() == [8, 8]
    silent = kept.ds.not_applicable.isel(depth=0).sel(claim="product")
    assert silent.values.tolist() == [8, 0]  # of one layer it says nothing
    assert counts.sel(claim="lyapunov").values.tolist() == [0, 8]  # asked of the whole stack
    spoilt = kept.stacks.matrices.copy()
    spoilt[0, 0, 1] = np.nan
    before, after = (
        judgements_of(stacks) for stacks in (kept.stacks, kept.stacks._replace(matrices=spoilt))
    )
    hilbert = NAMES.index("hilbert")
    changed = [(after[name] != before[name])[hilbert].tolist() for name in VERDICTS]
    assert not any(first for first, _ in changed) and any(second for _, second in changed)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_matrices_outside_the_polytope_violate_no_law_about_it(kept, dtype):
    """Sums of 1, and negative entries: no bound for 𝔅ₙ is about this."""
    signed = (1.5 * np.eye(8) - 0.5 * np.full((8, 8), 1 / 8)).astype(dtype)
    assert np.linalg.norm(signed, 2) > 1.4
    many = np.broadcast_to(signed, kept.stacks.matrices.shape)
    counts = judgements_of(Stacks(many, None, np.ones(kept.stacks.alpha.shape, dtype)))
    theorem = np.array([claim.status == "theorem" for claim in JUDGED])
    assert counts["violated"][theorem].sum() == 0
    for name in ("truncated_norm", "dobrushin", "doeblin"):
        assert (counts["not_applicable"][NAMES.index(name)] == 8).all()


# ---------------------------------------------------------------- numbers that are not finite


def test_a_network_that_gives_no_numbers_is_right_in_none(kept):
    runs = kept.trained.end
    broken = runs._replace(parameters=jax.tree.map(lambda x: x * jnp.nan, runs.parameters))
    assert np.isnan(side_by_side(kept.trained.trainer.evaluate, broken)).all()


@pytest.fixture
def cliff(monkeypatch):
    """Runs of a network that mixes nothing, and whose gradient is not finite; after one step."""

    @jax.custom_jvp
    def matrix(s, epsilon):
        return jnp.eye(len(s), dtype=s.dtype)

    @matrix.defjvp
    def _(primals, tangents):
        return matrix(*primals), jnp.nan * tangents[0]

    rows = PARAMETRIZATIONS | {"sinkhorn": PARAMETRIZATIONS["sinkhorn"]._replace(matrix=matrix)}
    monkeypatch.setattr("homojax.networks.mixing.PARAMETRIZATIONS", rows)
    architecture = Architecture(depth=3, width=4)
    trainer = trainer_of(Train(architecture=architecture, training=Training(batch=2)), 3)
    return trainer, side_by_side(trainer.begin, jax.random.split(jax.random.key(0), 2))


def test_what_is_not_finite_is_told_with_its_layer_and_whether_all_was_finite_forward(cliff):
    trainer, runs = cliff
    embedding = runs.parameters["embedding"]
    second = np.array([1, np.nan], np.float32)[:, None, None]
    runs.parameters["embedding"] = jax.tree.map(lambda x: x * second, embedding)
    runs, _ = side_by_side(trainer.advance, runs, steps=1)
    failures = failures_of(trainer, jax.device_get(runs))  # NumPy compiles nothing to index
    assert failures["failed_step"].tolist() == [0, 0]
    assert failures["failed_layer"].tolist() == [3, 0]  # a backward pass meets the last one first
    assert failures["failed_backward"].tolist() == [True, False]


def test_runs_that_did_not_break_have_no_layer_where_they_did(kept):
    assert (kept.ds.failed_layer == -1).all() and not kept.ds.failed_backward.any()
