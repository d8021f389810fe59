"""What is measured of trained networks is right, and so is what the claims say of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from homojax.lab.train.judgements import JUDGED, judgements_of, theorems_of
from homojax.lab.train.measures import measures_of
from homojax.lab.train.report import headline, theorems_judged
from homojax.lab.train.run import train, trainer_of
from homojax.lab.train.stacks import Stacks, stacks_of
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training, side_by_side
from homojax.parametrizations import PARAMETRIZATIONS
from homojax.theory.claim import VERDICTS

NAMES = [claim.name for claim in JUDGED]


@pytest.fixture(scope="module")
def stacks(kept):
    """Of four networks, one stack of two layers each."""
    return stacks_of(kept.trained.trainer, kept.trained.end)


# ---------------------------------------------------------------- matrices


def test_what_is_measured_is_that_of_the_matrices_in_numpy(kept, stacks):
    for index, matrices in enumerate(stacks.matrices[:, 0]):
        run = kept.ds.isel(depth=0, epsilon=index // 2, alpha=0, noise=0, seed=index % 2)
        np.testing.assert_allclose(run.sigma2_end, [oracles.sigma2(m) for m in matrices], atol=1e-5)
        layers = [0.5 * np.eye(8) + 0.5 * m for m in matrices]
        composites = [oracles.sigma2(layers[0]), oracles.sigma2(layers[1] @ layers[0])]
        np.testing.assert_allclose(run.kept_after_end, composites, atol=1e-5)
        kept_by = [0.5 + 0.5 * oracles.sigma2(m) for m in matrices]
        bounds = [kept_by[0], kept_by[0] * kept_by[1]]
        np.testing.assert_allclose(run.kept_predicted_end, bounds, atol=1e-5)
        assert float(run.kept_end) == float(run.kept_after_end[-1])
        assert float(run.row_error_end) == pytest.approx(abs(matrices.sum(-1) - 1).max(), abs=1e-6)


def test_errors_of_sums_are_the_largest_of_any_stack():
    matrices = np.stack([np.eye(3), np.eye(3) + np.diag([0, 0, 0.25])])
    one_run = Stacks(matrices[None, :, None], None, np.ones((1, 1)))  # two stacks of one layer
    measures = measures_of(one_run)
    assert measures["row_error"] == [0.25] == measures["col_error"]


def test_a_stack_of_attention_is_one_head_of_one_example_through_all_layers(small):
    architecture = Architecture("softmax", over="attention", depth=2, width=8, heads=2)
    trainer = trainer_of(
        dataclasses.replace(small, task="recall", architecture=architecture, epsilon=(1.0,)), 2
    )
    runs = side_by_side(trainer.begin, jax.random.split(jax.random.key(0), 1))
    stacks = stacks_of(trainer, runs)
    matrices = np.asarray(stacks.trace.matrices)  # [runs, examples, L, heads, n, n]
    assert stacks.matrices.shape[:3] == (1, 2 * 2, 2)
    for example, head in np.ndindex(2, 2):
        np.testing.assert_array_equal(
            stacks.matrices[0, 2 * example + head], matrices[0, example, :, head]
        )


def test_a_noisy_network_is_told_its_law_layer_by_layer(small):
    """Linear layers under isotropic noise, where law 4.2 is exact but for the fluctuation of so
    many features. Laws 5.1 and 5.2 hold.
    """
    ds = train(
        dataclasses.replace(
            small,
            architecture=Architecture(depth=2, width=64, norm="none"),
            noise=(0.0, 0.3, 1.0),
            alpha=(0.2,),
            claims=False,
        )
    )
    assert ds.cosine_end.dims == ("depth", "epsilon", "alpha", "noise", "seed", "layer")
    noisy, silent = ds.sel(noise=[0.3, 1.0]), ds.sel(noise=0.0)
    np.testing.assert_allclose(noisy.cosine_end, noisy.cosine_predicted_end, atol=0.02)
    assert float(noisy.cosine_end.min()) < 0.8 and (noisy.cosine_end.diff("layer") < 0).all()
    np.testing.assert_allclose(silent.cosine_end, 1, atol=1e-5)
    np.testing.assert_allclose(silent.cosine_predicted_end, 1, atol=1e-5)
    assert (ds.kept_after_end <= ds.kept_predicted_end + 1e-5).all()
    assert (ds.turned_end <= ds.turned_predicted_end + 1e-3).all()
    assert float(ds.turned_predicted_end.min()) < 1


# ---------------------------------------------------------------- claims


def test_no_theorem_is_violated_by_what_was_trained_and_some_are_decided(kept, stacks):
    holds, violated, undecidable = theorems_judged(kept.ds)
    assert violated == 0 and holds > 20
    assert theorems_of(stacks).tolist() == [holds, violated, undecidable]


def test_verdicts_are_told_layer_by_layer(kept, stacks):
    """Of each layer's matrix one verdict by Hilbert's bound, of stacks one for so many layers."""
    counts = sum(kept.ds[name].isel(depth=0) for name in VERDICTS)
    assert counts.sel(claim="hilbert").values.tolist() == [4, 4]
    assert counts.sel(claim="product").values.tolist() == [4, 4]
    silent = kept.ds.not_applicable.isel(depth=0).sel(claim="product")
    assert silent.values.tolist() == [4, 0]  # of one layer it says nothing
    assert counts.sel(claim="lyapunov").values.tolist() == [0, 4]  # asked of the whole stack
    spoilt = stacks.matrices.copy()
    spoilt[0, 0, 1] = np.nan
    before, after = judgements_of(stacks), judgements_of(stacks._replace(matrices=spoilt))
    hilbert = NAMES.index("hilbert")
    changed = [(after[name] != before[name])[hilbert].tolist() for name in VERDICTS]
    assert not any(first for first, _ in changed) and any(second for _, second in changed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matrices_outside_the_polytope_violate_no_law_about_it(stacks, dtype):
    """Sums of 1, and negative entries: no bound for 𝔅ₙ is about this."""
    signed = (1.5 * np.eye(8) - 0.5 * np.full((8, 8), 1 / 8)).astype(dtype)
    assert np.linalg.norm(signed, 2) > 1.4
    many = np.broadcast_to(signed, stacks.matrices.shape)
    counts = judgements_of(Stacks(many, None, np.ones(stacks.alpha.shape, dtype)))
    theorem = np.array([claim.status == "theorem" for claim in JUDGED])
    assert counts["violated"][theorem].sum() == 0
    for name in ("truncated_norm", "dobrushin", "doeblin"):
        assert (counts["not_applicable"][NAMES.index(name)] == 4).all()


# ---------------------------------------------------------------- numbers that are not finite


def test_a_network_that_gives_no_numbers_is_right_in_none(kept):
    runs = kept.trained.end
    broken = runs._replace(parameters=jax.tree.map(lambda x: x * jnp.nan, runs.parameters))
    assert np.isnan(side_by_side(kept.trained.trainer.evaluate, broken)).all()


def test_a_gradient_that_is_not_finite_is_told_with_its_layer_though_all_was_finite_forward(
    small, monkeypatch
):
    @jax.custom_jvp
    def cliff(s, epsilon):
        return jnp.eye(len(s), dtype=s.dtype)

    @cliff.defjvp
    def _(primals, tangents):
        return cliff(*primals), jnp.nan * tangents[0]  # finite forward, not backward

    rows = PARAMETRIZATIONS | {"sinkhorn": PARAMETRIZATIONS["sinkhorn"]._replace(matrix=cliff)}
    monkeypatch.setattr("homojax.networks.mixing.PARAMETRIZATIONS", rows)
    ds = train(
        dataclasses.replace(
            small,
            architecture=Architecture(depth=2, width=4),
            training=Training(steps=7, batch=2),
            epsilon=(1.0,),
            seeds=1,
            claims=False,
        )
    )
    assert ds.failed_step.item() == 0 and ds.failed_layer.item() == 2 and ds.failed_backward.item()
    assert "in the gradient of layer 2" in headline(ds)
