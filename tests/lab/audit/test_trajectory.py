"""Several checkpoints of one training: what changed, and what weight decay would have done."""

import shlex
from typing import Any

import numpy as np
import pytest

import homojax as hj
from homojax.lab.audit.plots import trajectory as draw
from homojax.lab.audit.report import as_json
from homojax.lab.cli import main
from homojax.lab.inputs import InputError
from oracles import project, sigma2
from recipes import CODES

RATE, DECAY = 0.01, 0.1
STEPS = (100, 200, 400)


@pytest.fixture(scope="module")
def logits():
    """Of three layers at each step, where decay alone acts: [step, layer, n, n]."""
    first = np.random.default_rng(5).normal(size=(3, 4, 4))
    return np.stack([(1 - RATE * DECAY) ** (step - STEPS[0]) * first for step in STEPS])


@pytest.fixture(scope="module")
def files(logits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    for step, stack in zip(STEPS, logits, strict=True):
        np.savez(folder / f"step-{step}.npz", **{f"h.{k}.mix": x for k, x in enumerate(stack)})
    return [folder / f"step-{step}.npz" for step in STEPS]


HOW: Any = {"pattern": "h.*.mix", "preset": "mhc-paper"}


@pytest.fixture(scope="module")
def ds(files):
    return hj.audit(files, learning_rate=RATE, decay=DECAY, **HOW)


def test_each_checkpoint_is_measured_as_numpy_measures_it(ds, logits):
    assert ds.step.values.tolist() == list(STEPS)
    for k, stack in enumerate(logits):
        runs, limits = [CODES["mhc-paper"](x) for x in stack], [project(x, 1.0) for x in stack]
        expected = {
            "sigma2": [sigma2(m) for m in runs],
            "sigma2_converged": [sigma2(m) for m in limits],
            "sum_error": [max(abs(m.sum(0) - 1).max(), abs(m.sum(1) - 1).max()) for m in runs],
            "leaving_converged": [1 - np.trace(m) / 4 for m in limits],
            "composite_sigma2": sigma2(np.linalg.multi_dot(runs[::-1])),
            "composite_sigma2_converged": sigma2(np.linalg.multi_dot(limits[::-1])),
        }
        for name, values in expected.items():
            found = ds[f"trajectory_{name}"][k]
            np.testing.assert_allclose(found, values, atol=1e-9, err_msg=name)


def test_where_decay_alone_acts_the_prediction_is_what_happens(ds, files):
    for name in ("sigma2", "composite_sigma2"):
        predicted, found = ds[f"trajectory_{name}_decayed"], ds[f"trajectory_{name}_converged"]
        np.testing.assert_allclose(predicted, found, rtol=1e-9)
        assert (predicted.diff("checkpoint") < 0).all()  # law 6.1: towards J
    told = hj.audit(files, learning_rate=RATE, decay=DECAY, steps=(0, 100, 300), **HOW)
    np.testing.assert_allclose(told.trajectory_sigma2_decayed, ds.trajectory_sigma2_decayed)
    half = hj.audit(files, learning_rate=RATE / 2, decay=DECAY, **HOW)
    assert (half.trajectory_sigma2_decayed[1:] > ds.trajectory_sigma2_decayed[1:]).all()


def test_steps_are_read_from_folders_where_files_are_called_alike(files, tmp_path):
    places = []
    for step, file in zip(STEPS, files, strict=True):
        (tmp_path / f"checkpoint-{step}").mkdir()
        places.append(tmp_path / f"checkpoint-{step}" / "model2.npz")
        places[-1].write_bytes(file.read_bytes())
    assert hj.audit(places, **HOW).step.values.tolist() == list(STEPS)


def test_the_last_checkpoint_is_the_one_that_is_audited(ds, files):
    last = hj.audit(files[-1], **HOW)
    assert "checkpoint" not in last.dims and ds.attrs["checkpoint"] == str(files[-1])
    for name, values in last.data_vars.items():
        assert values.identical(ds[name].drop_vars("step", errors="ignore")), name


def test_what_changed_is_in_the_json_too(ds, files):
    changes = as_json(ds)["changes"]
    assert [change["step"] for change in changes] == list(STEPS)
    assert [change["checkpoint"] for change in changes] == list(map(str, files))
    for name in ("sigma2", "sigma2_converged", "sigma2_decayed"):
        means = ds[f"trajectory_{name}"].mean("layer")
        np.testing.assert_allclose([change[name] for change in changes], means)
    assert changes[1]["sum_error"] == float(ds.trajectory_sum_error[1].max())
    assert changes[2]["composite_sigma2"] == float(ds.trajectory_composite_sigma2[2])
    assert "changes" not in as_json(hj.audit(files[0], **HOW))


def test_an_order_against_the_numbers_in_names_is_noted(ds, files):
    assert "do not grow" not in ds.attrs["notes"]
    swapped = hj.audit([files[0], files[2], files[1]], **HOW)
    assert "do not grow: the last one given is audited" in swapped.attrs["notes"]
    told = hj.audit([files[0], files[2], files[1]], steps=(1, 2, 3), **HOW)
    assert "do not grow" not in told.attrs["notes"]


def test_checkpoints_that_are_of_no_one_training_are_refused(files, tmp_path):
    np.savez(tmp_path / "other.npz", **{"h.7.mix": np.eye(4)})
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ([files[0], tmp_path / "other.npz"], {}, "other layers than"),
        (files, {"learning_rate": RATE}, r"^learning_rate = .* needs a decay \(--decay\) beside"),
        (files, {"decay": DECAY}, r"^decay = .* needs a learning_rate beside"),
        (files[:1], {"learning_rate": RATE, "decay": DECAY}, "give several checkpoints"),
        (files, {"steps": (1, 2)}, r"2 steps \(--steps\) for 3 checkpoints"),
        (files, {"steps": (3, 2, 1)}, "steps must grow"),
        (files[::-1], {"learning_rate": RATE, "decay": DECAY}, "add --steps, or give"),
    ]
    for places, how, said in wrong:
        with pytest.raises(InputError, match=said):
            hj.audit(places, **HOW, **how)


def test_the_command_shows_the_checkpoints_and_says_how_to_ask_again(files, tmp_path, capsys):
    args = [*map(str, files), "--pattern", "h.*.mix", "--preset", "mhc-paper"]
    args += ["--learning-rate", "0.01", "--decay", "0.1"]
    with pytest.raises(SystemExit) as stop:
        main(["audit", *args, "--out", str(tmp_path / "run")])
    shown = capsys.readouterr().out
    assert not stop.value.code and "From checkpoint to checkpoint" in shown
    assert (tmp_path / "run" / "trajectory.png").exists()
    ds = hj.open_run(tmp_path / "run")
    assert shlex.split(ds.attrs["command"])[2:] == args
    lines = draw(ds).axes[1].lines
    np.testing.assert_allclose(lines[0].get_ydata(), ds.trajectory_composite_sigma2_converged)
    with pytest.raises(InputError, match="one checkpoint was audited"):
        draw(ds.drop_dims("checkpoint"))
