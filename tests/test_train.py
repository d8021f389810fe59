"""Trainings of whole grids: measured by the laws, kept as they go, refused where they do not fit."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from homojax.lab.plots import training as training_figure
from test_cli import said

import oracles
from homojax.lab.inputs import InputError
from homojax.lab.probe import report as findings
from homojax.lab.runs import read_dataset
from homojax.lab.train import checkpoints
from homojax.lab.train import run as trainings
from homojax.lab.train.measures import JUDGED, Stacks, judgements_of, measures_of, stacks_of
from homojax.lab.train.run import REPORTS, Train, _report_steps, train, train_depth, trainer_of
from homojax.lab.verify.run import VERDICTS
from homojax.networks.architecture import Architecture
from homojax.networks.trainer import side_by_side
from homojax.networks.training import Training
from homojax.parametrizations import PARAMETRIZATIONS

SMALL = Train(
    architecture=Architecture(depth=2, width=8),
    training=Training(steps=40, batch=8, warmup=5),
    epsilon=(0.1, 5.0),
    seeds=2,
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(SMALL, folder)


def test_every_run_of_the_grid_is_measured_before_and_after(kept):
    _, ds = kept
    assert dict(ds.accuracy.sizes) == {"depth": 1, "epsilon": 2, "alpha": 1, "noise": 1, "seed": 2}
    assert (
        ds.loss.sizes["report"] == REPORTS
        and np.isfinite(ds.loss).all()
        and (ds.failed_step == -1).all()
    )
    assert (ds.loss.isel(report=-1) < ds.loss.isel(report=0)).all()
    assert (ds.sigma2_end.sel(epsilon=0.1) > ds.sigma2_end.sel(epsilon=5.0)).all()
    assert (ds.kept_end <= 1 + 1e-6).all() and (ds.depth_bound_start > 0).all()


def test_no_theorem_is_violated_by_what_was_trained_and_some_are_decided(kept):
    _, ds = kept
    theorems = ds.status == "theorem"
    assert int(ds.violated.where(theorems, 0).sum()) == 0 and int(ds.holds.sum()) > 20


def test_verdicts_are_told_layer_by_layer(kept):
    """Four networks of two layers: of each layer's matrix one verdict by Hilbert's bound, of stacks what is said of so many."""
    folder, ds = kept
    counts = sum(ds[name].isel(depth=0) for name in VERDICTS)
    assert counts.sel(claim="hilbert").values.tolist() == [4, 4]
    assert counts.sel(claim="product").values.tolist() == [4, 4]
    assert ds.not_applicable.isel(depth=0).sel(claim="product").values.tolist() == [
        4,
        0,
    ]  # of one layer it says nothing
    assert counts.sel(claim="lyapunov").values.tolist() == [0, 4]  # asked of the whole stack
    trained = train_depth(SMALL, 2, folder)
    stacks = stacks_of(trained.trainer, trained.end)
    spoilt = stacks.matrices.copy()
    spoilt[0, 0, 1] = np.nan
    found = judgements_of(stacks._replace(matrices=spoilt))
    names = [claim.name for claim in JUDGED]
    changed = {
        when: (found[when] != judgements_of(stacks)[when])[names.index("hilbert")].tolist()
        for when in VERDICTS
    }
    assert not any(first for first, _ in changed.values()) and any(
        second for _, second in changed.values()
    )


def test_what_is_measured_is_that_of_the_matrices_in_numpy(kept):
    folder, ds = kept
    trained = train_depth(SMALL, 2, folder)
    stacks = stacks_of(trained.trainer, trained.end)
    for index, matrices in enumerate(stacks.matrices[:, 0]):
        run = ds.isel(depth=0, epsilon=index // 2, alpha=0, noise=0, seed=index % 2)
        np.testing.assert_allclose(run.sigma2_end, [oracles.sigma2(m) for m in matrices], atol=1e-5)
        layers = [0.5 * np.eye(8) + 0.5 * m for m in matrices]
        composites = [oracles.sigma2(layers[0]), oracles.sigma2(layers[1] @ layers[0])]
        np.testing.assert_allclose(run.kept_after_end, composites, atol=1e-5)
        kept = [0.5 + 0.5 * oracles.sigma2(m) for m in matrices]
        np.testing.assert_allclose(run.kept_predicted_end, [kept[0], kept[0] * kept[1]], atol=1e-5)
        assert float(run.kept_end) == float(run.kept_after_end[-1])
        assert float(run.row_error_end) == pytest.approx(abs(matrices.sum(-1) - 1).max(), abs=1e-6)


def test_a_noisy_network_is_told_its_law_layer_by_layer():
    """Linear layers under isotropic noise, where 4.2 is exact but for the fluctuation of so many features; 5.1 and 5.2 hold."""
    linear = dataclasses.replace(
        SMALL,
        architecture=Architecture(depth=3, width=64, norm="none"),
        noise=(0.0, 0.3, 1.0),
        alpha=(0.2,),
        claims=False,
    )
    ds = train(linear)
    assert ds.cosine_end.dims == ("depth", "epsilon", "alpha", "noise", "seed", "layer")
    noisy = ds.sel(noise=[0.3, 1.0])
    np.testing.assert_allclose(noisy.cosine_end, noisy.cosine_predicted_end, atol=0.02)
    assert float(noisy.cosine_end.min()) < 0.8 and (noisy.cosine_end.diff("layer") < 0).all()
    np.testing.assert_allclose(ds.cosine_end.sel(noise=0.0), 1, atol=1e-5)
    np.testing.assert_allclose(ds.cosine_predicted_end.sel(noise=0.0), 1, atol=1e-5)
    assert (ds.kept_after_end <= ds.kept_predicted_end + 1e-5).all()
    assert (ds.turned_end <= ds.turned_predicted_end + 1e-3).all() and float(
        ds.turned_predicted_end.min()
    ) < 1


def test_layers_in_the_figure_are_those_of_the_deepest_networks(kept):
    """A median over depths would be of networks whose layers have nothing to do with each other."""
    _, ds = kept
    deeper = ds.assign_coords(depth=[9])
    deeper["sigma2_end"], deeper["kept_after_end"] = (
        0 * deeper.sigma2_end + 0.25,
        0 * deeper.kept_after_end + 0.125,
    )
    figure = training_figure(xr.concat([ds, deeper], "depth"))
    *_, layers, composite = figure.axes
    assert {tuple(line.get_ydata()) for line in layers.lines if line.get_linestyle() == "-"} == {
        (0.25, 0.25)
    }
    assert {tuple(line.get_ydata()) for line in composite.lines if line.get_linestyle() == "-"} == {
        (0.125, 0.125)
    }
    plt.close(figure)


def test_an_interrupted_training_goes_on_bit_for_bit(kept, tmp_path):
    folder, _ = kept

    def stop(done, total, doing):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_depth(SMALL, 2, tmp_path, progress=stop)
    assert any((tmp_path / "checkpoints" / "depth-2").iterdir())
    resumed, whole = train_depth(SMALL, 2, tmp_path), train_depth(SMALL, 2, folder)
    jax.tree.map(np.testing.assert_array_equal, resumed.end, whole.end)
    np.testing.assert_array_equal(resumed.losses, whole.losses)


def test_a_mixer_without_parameters_is_kept_and_resumed(tmp_path):
    still = dataclasses.replace(
        SMALL, architecture=Architecture("identity", depth=1, width=4), epsilon=(1.0,), claims=False
    )
    ds = train(still, tmp_path)
    again = train_depth(still, 1, tmp_path)
    np.testing.assert_array_equal(again.losses.ravel(), ds.loss.values.ravel())
    assert again.end.parameters["layers"]["mixing"]["parameters"]["values"][...].shape == (
        2,
        1,
        8,
        0,
    )


def test_a_run_that_has_stopped_reports_no_loss():
    """At a learning rate of next to nothing the loss does not fall, but for chance, and patience ends."""
    slow = Training(steps=40, batch=8, warmup=0, learning_rate=1e-12)
    trained = train_depth(dataclasses.replace(SMALL, training=slow, patience=1), 2)
    stopped = np.asarray(trained.end.stopped)
    assert (
        stopped.all()
        and np.isnan(trained.losses[:, -1]).all()
        and np.isfinite(trained.losses[:, 0]).all()
    )


def test_errors_of_sums_are_the_largest_of_any_stack():
    matrices = np.stack([np.eye(3), np.eye(3) + np.diag([0, 0, 0.25])])[
        None, :, None
    ]  # one run, two stacks of one layer
    measures = measures_of(Stacks(matrices, None, np.ones((1, 1))))
    assert measures["row_error"] == [0.25] == measures["col_error"]


def test_reports_stand_at_the_steps_that_they_are_of():
    short = dataclasses.replace(
        SMALL, training=Training(steps=3, batch=2), epsilon=(1.0,), seeds=1, claims=False
    )
    loss = train(short).loss
    assert loss.report.values.tolist() == [1, 2, 3] and np.isfinite(loss).all()
    fifty = [3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38, 40, 43, 45, 48, 50]
    assert _report_steps(Training(steps=50)) == fifty


def test_a_folder_of_another_training_is_refused_with_the_difference(kept):
    folder, ds = kept
    other = dataclasses.replace(
        SMALL, training=dataclasses.replace(SMALL.training, learning_rate=0.5)
    )
    with pytest.raises(InputError, match=r"learning_rate was 0.003 and is asked to be 0.5"):
        train(other, folder)
    assert train(SMALL, folder).equals(ds)


def test_a_checkpoint_of_another_training_is_refused_whatever_the_folder_says(kept, tmp_path):
    shutil.copytree(kept[0] / "checkpoints", tmp_path / "checkpoints")
    wide = dataclasses.replace(SMALL, architecture=dataclasses.replace(SMALL.architecture, width=6))
    for other in (
        wide,
        dataclasses.replace(SMALL, training=dataclasses.replace(SMALL.training, learning_rate=0.5)),
    ):
        with pytest.raises(InputError, match=r"another training|damaged"):
            train_depth(other, 2, tmp_path)
    with pytest.raises(InputError, match=r"checkpoints and no train\.json"):
        train(SMALL, tmp_path)
    assert np.array_equal(
        train_depth(SMALL, 2, tmp_path).losses, train_depth(SMALL, 2, kept[0]).losses
    )


def test_a_damaged_checkpoint_is_named(kept, tmp_path):
    shutil.copytree(kept[0] / "checkpoints", tmp_path / "checkpoints")
    data = [path for path in tmp_path.rglob("d/*") if path.is_file()]
    for path in data:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert data
    with pytest.raises(InputError, match="damaged checkpoint"):
        train_depth(SMALL, 2, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matrices_outside_the_polytope_violate_no_law_about_it(dtype):
    """Sums of 1, and negative entries: no bound for 𝔅ₙ is about this."""
    signed = (1.5 * np.eye(4) - 0.5 * np.full((4, 4), 0.25)).astype(dtype)
    found = judgements_of(Stacks(signed[None, None, None], None, np.ones(1, dtype)))
    theorem = np.array([claim.status == "theorem" for claim in JUDGED])
    named = [claim.name for claim in JUDGED]
    assert np.linalg.norm(signed, 2) > 1.4 and found["violated"][theorem].sum() == 0
    assert all(
        found["not_applicable"][named.index(name)] == 1
        for name in ("truncated_norm", "dobrushin", "doeblin")
    )


def test_a_network_that_gives_no_numbers_is_right_in_none():
    of = trainer_of(SMALL, 2)
    run = of.begin(jax.random.key(0))
    run = run._replace(parameters=jax.tree.map(lambda x: x * jnp.nan, run.parameters))
    assert np.isnan(of.evaluate(run)).all()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"epsilon": (0.0,)}, "epsilon = 0.0"),
        ({"epsilon": (1e-300,)}, "epsilon = 1e-300"),
        ({"alpha": (1 - 1e-9,), "architecture": Architecture(learned_alpha=True)}, "alpha = 0.5"),
        ({"alpha": (1.5,)}, "alpha = 1.5"),
        ({"alpha": (1.0,), "architecture": Architecture(learned_alpha=True)}, "alpha = 0.5"),
        ({"noise": ()}, "noise is an empty grid"),
        ({"depths": (2, 2)}, "twice"),
        ({"seeds": 0}, "seeds = 0"),
        ({"seeds": 2.5}, "seeds must be int"),
        ({"depths": (2.5,)}, "depths must be int"),
        ({"epsilon": ("warm",)}, "warm"),
        ({"seed": 2**32}, "seed = 4294967296"),
    ],
)
def test_a_grid_that_is_none_is_refused_by_name(wrong, text):
    with pytest.raises(InputError, match=text):
        Train(**wrong)


def test_grids_may_be_single_numbers_or_arrays():
    asked = Train(epsilon=0.5, depths=np.array([1, 4]), alpha=np.float32(0.25))
    assert (asked.epsilon, asked.depths, asked.alpha) == ((0.5,), (1, 4), (0.25,)) and asked.digest
    numbers = Train(
        architecture=Architecture(depth=np.int64(2)),
        training=Training(learning_rate=1, clip=np.float32(2)),
    )
    same = Train(architecture=Architecture(depth=2), training=Training(learning_rate=1.0, clip=2.0))
    assert numbers.digest == same.digest


@pytest.mark.parametrize(
    ("architecture", "training"),
    [
        ({"num_iters": 10}, {}),  # of a projection that converges
        ({"dynamic": True}, {}),
        ({"over": "attention", "learned": False}, {}),
        ({"over": "attention"}, {"mixing_decay": 0.1}),
        ({"learned": False}, {"mixing_decay": 0.1}),
        ({"over": "attention", "logit_scale": 3}, {}),
        ({"over": "streams", "logit_scale": 3, "mixer": "mhc-paper"}, {}),
        ({"heads": 4}, {}),
        ({"streams": 8}, {}),
        ({"over": "streams", "depth": 2}, {}),
        ({}, {"learning_rate": "0.1"}),
        ({"depth": 2.5}, {}),
        ({}, {"steps": 2.5}),
        ({}, {"batch": float("nan")}),
    ],
)
def test_a_setting_without_effect_or_sense_is_refused_by_name(architecture, training):
    named = next(iter({**training, **{k: v for k, v in architecture.items() if k != "over"}}))
    with pytest.raises((InputError, ValueError), match=named):
        train(Train(architecture=Architecture(**architecture), training=Training(**training)))


def test_what_cannot_be_trained_is_told_in_one_sentence():
    with pytest.raises(InputError, match='no task "copyng"'):
        train(dataclasses.replace(SMALL, task="copyng"))
    with pytest.raises(InputError, match="causal"):
        train(dataclasses.replace(SMALL, task="text"))
    with pytest.raises(InputError, match="depth = 2"):  # before the first is trained
        train(
            Train(architecture=Architecture(over="streams"), depths=(4, 2)),
            progress=lambda *_: pytest.fail("has begun"),
        )


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()]
)
def test_what_does_not_fit_in_memory_is_told_in_one_sentence(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(trainings, "train_depth", fail)
    with pytest.raises(
        InputError, match="4 networks of 2 layers with batches of 8 do not fit in memory: try fewer"
    ):
        train(SMALL)


# ---------------------------------------------------------------- homojax train

FLAGS = [
    *(
        "train",
        "--task",
        "copying",
        "--depth",
        "2",
        "--width",
        "8",
        "--steps",
        "40",
        "--batch",
        "8",
        "--warmup",
        "5",
    ),
    *("--epsilon", "0.1", "5", "--seeds", "2", "--no-claims"),
]


def test_the_command_leaves_data_checkpoints_and_a_page_and_says_what_came_out(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, _ = said(capsys, *FLAGS, "--out", "runs/a")
    assert (
        code == 0
        and "4 networks were trained: tell each of 8 tokens" in out
        and "runs/a/report.html" in out
    )
    kept = {path.name for path in (tmp_path / "runs" / "a").iterdir()}
    assert kept == {
        "checkpoints",
        "figure.png",
        "report.html",
        "run.json",
        "train.json",
        "train.zarr",
    }
    ds = read_dataset("runs/a/train.zarr")
    assert ds.accuracy.shape == (1, 2, 1, 1, 2) and ds.homojax.plot() is not None
    assert "data:image/png;base64" in (tmp_path / "runs" / "a" / "report.html").read_text()

    code, _, err = said(capsys, *FLAGS, "--out", "runs/a")
    assert code == 2 and "runs/a exists already" in err


def test_the_command_refuses_a_folder_where_another_training_is_under_way(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    save = checkpoints.Checkpoints.save

    def stop(*_):
        raise KeyboardInterrupt

    def save_and_stop(*of):
        save(*of)
        stop()

    for how, said_next in (
        (stop, None),
        (save_and_stop, "learning_rate was 0.003 and is asked to be 0.5"),
    ):
        monkeypatch.setattr(checkpoints.Checkpoints, "save", how)
        assert said(capsys, *FLAGS, "--out", "a")[0] == 130
        code, _, err = said(capsys, *FLAGS, "--learning-rate", "0.5", "--out", "a")
        assert code == (130 if said_next is None else 2)  # where nothing is kept, nothing is lost
        assert said_next is None or said_next in err
        shutil.rmtree(next(tmp_path.glob("a.part-*")))


def test_networks_that_all_break_at_once_are_told_and_shown(capsys, tmp_path):
    flags = [
        "--mixer",
        "unconstrained",
        "--norm",
        "none",
        "--alpha",
        "1",
        "--depth",
        "96",
        "--steps",
        "2",
        "--batch",
        "2",
    ]
    code, out, _ = said(
        capsys, "train", *flags, "--seeds", "1", "--no-claims", "--out", str(tmp_path / "a")
    )
    assert (
        code == 1
        and "None gives numbers" in out
        and "STOPPED at step 0" in out
        and (tmp_path / "a" / "report.html").exists()
    )


def test_numbers_that_break_in_the_last_step_are_not_as_expected(kept):
    _, ds = kept
    broken = ds.copy(deep=True)
    broken.test_loss[0, 0, 0, 0, 0] = np.nan
    assert not findings.training_as_expected(broken)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--mixer", "kromhc", "--over", "streams", "--streams", "6"], "n = 6"),
        (["--depth", "0"], "depth must be a whole"),
        (["--task", "recal"], "recall"),
        (["--epsilon", "-1"], "epsilon = -1"),
        (["--over", "attention", "--width", "5"], "heads"),
    ],
)
def test_the_command_says_in_one_sentence_what_cannot_be(
    capsys, tmp_path, monkeypatch, flags, text
):
    monkeypatch.chdir(tmp_path)
    code, _, err = said(capsys, "train", *flags)
    assert code == 2 and text in err and "Traceback" not in err and not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_is_told_with_its_layer(kept):
    _, ds = kept
    broken = ds.copy(deep=True)
    broken.failed_step[0, 1, 0, 0, 1], broken.failed_layer[0, 1, 0, 0, 1] = 7, 2
    text, _ = findings.describe_training(broken)
    assert (
        "epsilon 5, alpha 0.5, noise 0, seed 1 STOPPED at step 7: a number was not finite, first after layer 2"
        in text
    )
    assert not findings.training_as_expected(broken) and findings.training_as_expected(ds)


def test_what_has_no_epsilon_of_ours_is_not_said_to_have_one_and_learned_weights_are_shown(kept):
    _, ds = kept

    def shown(**architecture):
        config = json.loads(ds.attrs["config"])
        config["architecture"] |= architecture
        told = ds.isel(epsilon=[0]).assign_attrs(config=json.dumps(config))
        _, [(caption, (header, _)), *_] = findings.describe_training(told)
        legend = [text.get_text() for text in training_figure(told).legends[0].get_texts()]
        plt.close("all")
        return caption, header, legend

    caption, header, legend = shown()
    assert "ε = 0.1" in caption and "α start" not in header and legend == ["0.1"]
    caption, header, legend = shown(mixer="tokenbender", learned_alpha=True)
    assert (
        "ε: its own" in caption
        and "ε = " not in caption
        and {"α start", "α end"} < set(header)
        and legend != ["0.1"]
    )


def test_a_store_that_lacks_a_variable_is_told_so(kept, tmp_path):
    folder, _ = kept
    shutil.copytree(folder / "train.zarr", tmp_path / "train.zarr")
    shutil.rmtree(tmp_path / "train.zarr" / "accuracy")
    with pytest.raises(InputError, match="accuracy is missing"):
        read_dataset(tmp_path / "train.zarr")


def test_a_stack_of_attention_is_one_head_of_one_example_through_all_layers():
    architecture = Architecture("softmax", over="attention", depth=2, width=8, heads=2)
    of = trainer_of(Train(task="recall", architecture=architecture), 2)
    runs = side_by_side(of.begin, jax.random.split(jax.random.key(0), 1))
    stacks = stacks_of(of, runs)
    matrices = np.asarray(stacks.trace.matrices)  # [runs, examples, L, heads, n, n]
    assert stacks.matrices.shape[:3] == (1, 2 * 2, 2)
    for example, head in np.ndindex(2, 2):
        np.testing.assert_array_equal(
            stacks.matrices[0, 2 * example + head], matrices[0, example, :, head]
        )


def test_a_gradient_that_is_not_finite_is_told_with_its_layer_though_all_was_finite_forward(
    monkeypatch,
):
    @jax.custom_jvp
    def cliff(s, epsilon):
        return jnp.eye(len(s), dtype=s.dtype)

    @cliff.defjvp
    def _(primals, tangents):
        return cliff(*primals), jnp.nan * tangents[0]  # finite forward, not backward

    rows = PARAMETRIZATIONS | {"sinkhorn": PARAMETRIZATIONS["sinkhorn"]._replace(matrix=cliff)}
    monkeypatch.setattr("homojax.networks.mixing.PARAMETRIZATIONS", rows)
    what = dataclasses.replace(
        SMALL,
        architecture=Architecture(depth=3, width=4),
        training=Training(steps=7, batch=2),
        epsilon=(1.0,),
        seeds=1,
        claims=False,
    )
    ds = train(what)
    assert ds.failed_step.item() == 0 and ds.failed_layer.item() == 3 and ds.failed_backward.item()
    assert "in the gradient of layer 3" in findings.describe_training(ds)[0]


@pytest.mark.parametrize("mixer", ["orthogonal", "tokenbender"])
def test_an_epsilon_for_a_mixer_that_has_none_or_its_own_is_refused(mixer):
    with pytest.raises(InputError, match=f"{mixer} does not depend on the ε"):
        train(Train(architecture=Architecture(mixer), epsilon=(5.0,)))


def test_the_command_mixes_in_float64_without_being_told_how(tmp_path):
    args = (
        "train",
        "--mixing-dtype",
        "float64",
        "--depth",
        "1",
        "--steps",
        "1",
        "--batch",
        "2",
        "--seeds",
        "1",
        "--no-claims",
    )
    command = [
        sys.executable,
        "-m",
        "homojax",
        *args,
        "--mixer",
        "identity",
        "--out",
        str(tmp_path / "out"),
    ]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
