"""Trainings of whole grids: measured, kept as they go, refused where they do not fit."""

import dataclasses

import jax
import numpy as np
import pytest

from homojax.lab.inputs import InputError
from homojax.lab.runs import read_dataset
from homojax.lab.train import run as trainings
from homojax.lab.train.config import REPORTS, Train
from homojax.lab.train.dataset import COUNTS, VARIABLES
from homojax.lab.train.run import train, train_depth, trainer_of
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training

STILL = Train(  # networks that mix nothing
    architecture=Architecture("identity", width=4),
    training=Training(steps=3, batch=2),
    depths=(1, 2),
    seeds=2,
    claims=False,
)


def test_every_run_of_the_grid_is_measured_before_and_after(kept):
    ds = kept.ds
    assert dict(ds.accuracy.sizes) == {"depth": 1, "epsilon": 2, "alpha": 1, "noise": 1, "seed": 2}
    assert ds.loss.sizes["report"] == REPORTS and np.isfinite(ds.loss).all()
    assert (ds.failed_step == -1).all()
    assert (ds.loss.isel(report=-1) < ds.loss.isel(report=0)).all()
    assert (ds.sigma2_end.sel(epsilon=0.1) > ds.sigma2_end.sel(epsilon=5.0)).all()
    assert (ds.kept_end <= 1 + 1e-6).all() and (ds.depth_bound_start > 0).all()


def test_every_variable_has_its_dimensions_unit_and_meaning(kept):
    silent = {name for name in VARIABLES if not name.startswith("cosine")}  # without noise
    assert set(kept.ds.data_vars) == silent | set(COUNTS)
    for name in silent:
        dims, unit, meaning = VARIABLES[name]
        assert kept.ds[name].dims == ("depth", "epsilon", "alpha", "noise", "seed", *dims)
        assert kept.ds[name].attrs == {"units": unit, "long_name": meaning}
    assert {"verb", "config", "config_hash", "versions", "dtype", "device"} <= set(kept.ds.attrs)


def test_a_finished_training_is_read_and_not_trained_again(kept, monkeypatch):
    monkeypatch.setattr(trainings, "train_depth", lambda *_, **__: pytest.fail("trained again"))
    assert train(kept.config, kept.folder).equals(kept.ds)


def test_depths_are_kept_as_they_are_measured_and_filled_up_with_nan(tmp_path, monkeypatch):
    """The identity has no parameters: orbax keeps no array of size 0, and they come back."""
    measured = []

    def measure(trainer, start, end, **options):
        depth = start.parameters["layers"]["mixing"]["parameters"]["values"][...].shape[1]
        if depth == 2 and not measured[1:]:
            measured.append(depth)
            raise KeyboardInterrupt
        measured.append(depth)
        return made(trainer, start, end, **options)

    made = trainings.measure
    monkeypatch.setattr(trainings, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        train(STILL, tmp_path)
    ds = train(STILL, tmp_path)
    assert measured == [1, 2, 2]  # the first depth once
    assert ds.equals(read_dataset(tmp_path / "train.zarr"))
    assert not list(tmp_path.glob("*.blocks-*"))

    assert ds.loss.report.values.tolist() == [1, 2, 3] and np.isfinite(ds.loss).all()
    shallow, deep = (ds.isel(depth=i).squeeze(drop=True) for i in (0, 1))
    assert np.isnan(shallow.sigma2_end.sel(layer=2)).all() and np.allclose(
        shallow.sigma2_end[:, 0], 1
    )
    assert np.isnan(shallow.energy_end.sel(after=2)).all() and np.allclose(deep.sigma2_end, 1)
    again = train_depth(STILL, 1, tmp_path)
    np.testing.assert_array_equal(again.losses, shallow.loss)
    values = again.end.parameters["layers"]["mixing"]["parameters"]["values"][...]
    assert values.shape == (2, 1, 8, 0)


def test_a_run_that_has_stopped_reports_no_loss(small):
    """At a learning rate of next to nothing the loss does not fall, but for chance."""
    slow = Training(steps=40, batch=8, warmup=0, learning_rate=1e-12)
    trained = train_depth(dataclasses.replace(small, training=slow, patience=1), 2)
    assert np.asarray(trained.end.stopped).all()
    assert np.isnan(trained.losses[:, -1]).all() and np.isfinite(trained.losses[:, 0]).all()
    for losses in trained.losses:  # a run stops after the first report without a lower loss
        reported = losses[np.isfinite(losses)]
        assert (np.diff(reported[:-1]) < 0).all() and reported[-1] >= reported[-2]


def test_a_folder_of_another_run_is_refused_with_the_difference(kept, tmp_path):
    fast = dataclasses.replace(kept.config.training, learning_rate=0.5)
    with pytest.raises(InputError, match=r"learning_rate was 0.003 and is asked to be 0.5"):
        train(dataclasses.replace(kept.config, training=fast), kept.folder)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"no run\.json"):
        train(kept.config, tmp_path)


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
    assert not folder.exists()


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()]
)
def test_what_does_not_fit_in_memory_is_told_in_one_sentence(small, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(trainings, "train_depth", fail)
    text = "4 networks of 2 layers with batches of 8 do not fit in memory: try fewer"
    with pytest.raises(InputError, match=text):
        train(small)


def test_an_error_of_the_machine_that_is_not_of_memory_is_not_hidden(small, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(trainings, "train_depth", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        train(small)


def test_a_trainer_is_made_once_so_that_its_programs_are_found_again(small):
    assert trainer_of(small, 2) is trainer_of(dataclasses.replace(small, epsilon=(0.3,)), 2)
