"""Trainings of whole grids: measured, kept as they go, refused where they do not fit."""

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import CancelledError

import jax
import numpy as np
import pytest

from homojax.lab.inputs import InputError
from homojax.lab.progress import Steps
from homojax.lab.store import read_dataset
from homojax.lab.train import run as trainings
from homojax.lab.train.config import REPORTS, Train
from homojax.lab.train.dataset import COUNTS, VARIABLES
from homojax.lab.train.run import Trained, train, train_depth, train_group, trainer_of
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training


def stop(*_, **__):
    raise KeyboardInterrupt


# ---------------------------------------------------------------- a training


def test_every_run_of_the_grid_is_measured_before_and_after(kept):
    ds = kept.ds
    assert dict(ds.accuracy.sizes) == {"depth": 1, "epsilon": 2, "alpha": 1, "noise": 2, "seed": 2}
    assert ds.loss.sizes["report"] == REPORTS and np.isfinite(ds.loss).all()
    assert (ds.failed_step == -1).all() and (ds.accuracy > ds.attrs["chance"]).all()
    assert (ds.loss.isel(report=-1) < ds.loss.isel(report=0)).all()
    assert (ds.sigma2_end.sel(epsilon=0.1) > ds.sigma2_end.sel(epsilon=5.0)).all()
    assert (ds.kept_end <= 1 + 1e-6).all() and (ds.depth_bound_start > 0).all()


def test_every_variable_has_its_dimensions_unit_and_meaning(kept):
    assert set(kept.ds.data_vars) == set(VARIABLES) | set(COUNTS)
    for name, (dims, unit, meaning) in VARIABLES.items():
        assert kept.ds[name].dims == ("depth", "epsilon", "alpha", "noise", "seed", *dims)
        assert kept.ds[name].attrs == {"units": unit, "long_name": meaning}
    assert {"verb", "config", "config_hash", "versions", "dtype", "device"} <= set(kept.ds.attrs)


def test_an_interrupted_training_goes_on_bit_for_bit(kept, tmp_path):
    def stop_half_way(done, total, doing):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_depth(kept.config, 2, tmp_path, progress=stop_half_way)
    assert any((tmp_path / "checkpoints" / "depth-2-0").iterdir())
    other = dataclasses.replace(kept.config, seed=1)  # the same network
    with pytest.raises(InputError, match="of another training"):
        train_depth(other, 2, tmp_path)
    resumed = train_depth(kept.config, 2, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, resumed.end, kept.trained.end)
    np.testing.assert_array_equal(resumed.losses, kept.trained.losses)


def test_a_run_whose_loss_does_not_fall_stops_and_reports_no_more(small):
    """A mean over two small batches rises sometimes, and with a patience of 1 that is the end."""
    trained = train_depth(dataclasses.replace(small, patience=1), 2)
    stopped = np.asarray(trained.end.stopped)
    assert stopped.any() and np.isfinite(trained.losses[:, 0]).all()
    for losses in trained.losses[stopped]:
        reported = losses[np.isfinite(losses)]
        assert (np.diff(reported[:-1]) < 0).all() and reported[-1] >= reported[-2]
        assert np.isnan(losses[len(reported) :]).all()


def test_depths_are_kept_as_they_are_measured_and_filled_up_where_no_layer_is(
    small, tmp_path, monkeypatch
):
    config = dataclasses.replace(small, depths=(1, 3), training=Training(steps=3))
    measured = []

    def fake_networks(config, folder, steps, group):
        depth = np.full(8, group.depth)
        return Trained(None, depth, depth, np.full((8, 3), float(group.depth)))

    def fake_measures(trainer, start, end, **options):
        depth = int(start[0])
        measured.append(depth)
        if len(measured) == 2:
            raise KeyboardInterrupt
        by_layer = np.arange(8 * depth, dtype=np.float32).reshape(8, depth)
        counts = {name: np.ones((2, depth), int) for name in COUNTS}
        return {"sigma2_end": by_layer, "energy_end": np.ones((8, depth + 1)), **counts}

    monkeypatch.setattr(trainings, "train_group", fake_networks)
    monkeypatch.setattr(trainings, "measure", fake_measures)
    monkeypatch.setattr("homojax.lab.train.dataset.JUDGED", tuple(_two_claims()))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path)
    ds = train(config, tmp_path)
    assert measured == [1, 3, 3]  # the first depth once
    assert ds.equals(read_dataset(tmp_path / "train.zarr"))
    assert not list(tmp_path.glob("*.blocks-*"))

    assert ds.loss.report.values.tolist() == [1, 2, 3]
    shallow, deep = (ds.isel(depth=i, epsilon=1, alpha=0, noise=0, seed=1) for i in (0, 1))
    assert (shallow.loss == 1).all() and (deep.loss == 3).all()
    np.testing.assert_array_equal(shallow.sigma2_end, [5, np.nan, np.nan])  # the sixth run
    np.testing.assert_array_equal(deep.sigma2_end, [15, 16, 17])
    np.testing.assert_array_equal(shallow.energy_end, [1, 1, np.nan, np.nan])
    assert shallow.holds.values.tolist() == [[1, 0, 0]] * 2 and (deep.holds == 1).all()


def _two_claims():
    from homojax.theory import CLAIMS

    return [CLAIMS["hilbert"], CLAIMS["product"]]


# ---------------------------------------------------------------- groups

GROUPS = {"depths": (1, 2), "epsilon": (0.1, 1.0, 5.0), "seeds": 6}  # four groups of nine
PROGRAM = f"""
import sys, jax, numpy as np
from homojax.lab.train import run
jax.config.update("jax_enable_x64", True)
used, train_group = set(), run.train_group

def seen(*args):
    trained = train_group(*args)
    used.update(trained.end.step.devices())
    return trained

run.train_group = seen
few = run.Training(steps=6, batch=4, warmup=2)
fixed = run.Architecture("kronecker", width=8, norm="none")
run.train(folder=sys.argv[1], architecture=fixed, training=few, **{GROUPS})
assert used == set(jax.local_devices()), used
"""


@pytest.mark.slow
def test_all_devices_of_a_process_give_the_bits_of_one(tmp_path):
    for devices in (1, 2, 4):
        flags = f"--xla_force_host_platform_device_count={devices}"
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / str(devices))]
        subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, check=True)
    one, two, four = (read_dataset(tmp_path / str(n) / "train.zarr") for n in (1, 2, 4))
    assert np.isfinite(one.loss).all() and one.holds.sum() > 0
    assert two.identical(one) and four.identical(one)


def test_groups_are_joined_in_the_order_of_the_cells(small, monkeypatch):
    """And each run is the one that trains alone."""
    config = dataclasses.replace(small, training=Training(steps=3, batch=4))
    monkeypatch.setattr("homojax.lab.train.config.TOGETHER", 4)
    assert [len(group.cells) for group in config.groups(2)] == [4, 4]
    whole, ds = train_depth(config, 2), train(config)
    for place, cell in enumerate(config.cells):
        alone = dataclasses.replace(config, epsilon=(cell.epsilon,), noise=(cell.noise,))
        losses = train_depth(alone, 2).losses[cell.seed]
        np.testing.assert_allclose(whole.losses[place], losses, rtol=1e-4)
    assert whole.end.step.tolist() == [3] * 8
    np.testing.assert_array_equal(ds.loss.values.reshape(8, 3), whole.losses)


def test_where_one_group_fails_the_others_stop(small, monkeypatch):
    """On a machine with several devices, whose threads would train on."""
    config = dataclasses.replace(small, depths=(1, 2))
    steps = Steps(80, lambda *_: None)
    with pytest.raises(KeyboardInterrupt), steps:
        stop()
    with pytest.raises(CancelledError):
        train_group(config, None, steps, config.groups(2)[0])


# ---------------------------------------------------------------- a folder


def test_a_finished_training_is_read_and_not_trained_again(kept, monkeypatch):
    monkeypatch.setattr(trainings, "train_group", lambda *_, **__: pytest.fail("trained again"))
    assert train(kept.config, kept.folder).equals(kept.ds)


def test_a_folder_of_another_run_is_refused_with_the_difference(kept, tmp_path):
    fast = dataclasses.replace(kept.config.training, learning_rate=0.5)
    with pytest.raises(InputError, match=r"learning_rate was 0.01 and is asked to be 0.5"):
        train(dataclasses.replace(kept.config, training=fast), kept.folder)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"no run\.json"):
        train(kept.config, tmp_path)


def test_where_nothing_was_kept_nothing_is_lost(small, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(small, tmp_path, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    with pytest.raises(KeyboardInterrupt):  # another training may have the folder
        train(dataclasses.replace(small, seed=1), tmp_path, progress=stop)


# ---------------------------------------------------------------- what cannot be trained


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
        train(architecture=Architecture(**architecture), training=Training(**training))


@pytest.mark.parametrize("mixer", ["orthogonal", "tokenbender"])
def test_an_epsilon_for_a_mixer_that_has_none_or_its_own_is_refused(mixer):
    with pytest.raises(InputError, match=f"{mixer} does not depend on the ε"):
        train(architecture=Architecture(mixer), epsilon=(5.0,))


def test_what_cannot_be_trained_is_told_in_one_sentence_before_anything_is_kept(tmp_path):
    folder = tmp_path / "new"
    with pytest.raises(InputError, match='no task "copyng"'):
        train(task="copyng", folder=folder)
    with pytest.raises(InputError, match="causal"):
        train(task="text", folder=folder)
    with pytest.raises(InputError, match="depth = 2"):  # before the first is trained
        train(architecture=Architecture(over="streams"), depths=(4, 2), folder=folder)
    with pytest.raises(InputError, match='no option "depth": did you mean "depths"'):
        train(depth=3, folder=folder)
    with pytest.raises(InputError, match="not both"):
        train(Train(), seeds=3, folder=folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()]
)
@pytest.mark.parametrize("where", ["side_by_side", "measure"])
def test_what_does_not_fit_in_memory_is_told_in_one_sentence(small, monkeypatch, error, where):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(trainings, where, fail)
    small = dataclasses.replace(small, training=Training(steps=1, batch=8, warmup=0))
    text = "no memory for 8 networks of 2 layers with batches of 8: try fewer"
    with pytest.raises(InputError, match=text):
        train(small)


def test_an_error_of_the_machine_that_is_not_of_memory_is_not_hidden(small, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(trainings, "train_group", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        train(small)


def test_a_trainer_is_made_once_so_that_its_programs_are_found_again(small):
    assert trainer_of(small, 2) is trainer_of(dataclasses.replace(small, epsilon=(0.3,)), 2)
