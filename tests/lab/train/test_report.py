"""What a person sees of a training: a page, a figure and sentences that fit what was trained."""

import json
import os
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from homojax.lab.inputs import InputError
from homojax.lab.runs import read_dataset
from homojax.lab.train import checkpoints
from homojax.lab.train.plots import training as training_figure
from homojax.lab.train.report import describe, headline, training_as_expected

FLAGS = (
    *("train", "--task", "copying", "--depth", "2", "--width", "8"),
    *("--steps", "40", "--batch", "8", "--warmup", "5"),
    *("--epsilon", "0.1", "5", "--seeds", "2", "--no-claims"),
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- sentences and tables


def test_a_training_is_described_by_its_best_network_and_its_verdicts(kept):
    section = describe(kept.ds)
    best = f"{float(kept.ds.accuracy.max()):.1%}"
    assert section.text.startswith("4 networks were trained: tell each of 8 tokens")
    assert f"The best is right in {best} (blind: 12.5%)." in section.text
    assert "Theorems violated on the trained matrices: 0 of" in section.text
    assert section.as_expected and section.text == kept.ds.homojax.summary()
    networks, claims = section.tables
    assert [row[0] for row in networks.rows] == ["2", "2"] and len(networks.header) == 11
    assert len(claims.rows) == kept.ds.sizes["claim"] and not any(claims.wrong)


def test_a_violated_theorem_is_marked_and_not_as_expected(kept):
    broken = kept.ds.copy(deep=True)
    broken.violated.loc[{"claim": "hilbert"}] = 1
    section = describe(broken)
    wrong = [row[0] for row, bad in zip(*section.tables[1][2:], strict=True) if bad]
    assert wrong == ["hilbert"] and not section.as_expected


def test_a_number_that_is_not_finite_is_told_with_its_layer(kept):
    broken = kept.ds.copy(deep=True)
    place = {"depth": 0, "epsilon": 1, "alpha": 0, "noise": 0, "seed": 1}
    broken.failed_step[place], broken.failed_layer[place] = 7, 2
    where = "depth 2, epsilon 5, alpha 0.5, noise 0, seed 1"
    stopped = f"{where} STOPPED at step 7: a number was not finite, first after layer 2."
    assert stopped in headline(broken) and "1 stopped in all: try a smaller" in headline(broken)
    broken.failed_layer[place] = 0
    assert "first in the embedding" in headline(broken)
    broken.failed_layer[place] = 3
    assert "first beyond the layers" in headline(broken)
    assert not training_as_expected(broken) and training_as_expected(kept.ds)


def test_numbers_that_break_in_the_last_step_are_not_as_expected(kept):
    broken = kept.ds.copy(deep=True)
    broken.test_loss[0, 0, 0, 0, 0] = np.nan
    assert not training_as_expected(broken)


def test_what_has_no_epsilon_of_ours_is_not_said_to_have_one_and_learned_weights_are_shown(kept):
    def shown(tempered, **architecture):
        config = json.loads(kept.ds.attrs["config"])
        config["architecture"] |= architecture
        attrs = {"config": json.dumps(config), "tempered": tempered}
        told = kept.ds.isel(epsilon=[0]).assign_attrs(attrs)
        table, *_ = describe(told).tables
        legend = [text.get_text() for text in training_figure(told).legends[0].get_texts()]
        plt.close("all")
        return table.caption, table.header, legend

    caption, header, legend = shown(1)
    assert "ε = 0.1" in caption and "α start" not in header and legend == ["0.1"]
    caption, header, legend = shown(0, mixer="tokenbender", learned_alpha=True)
    assert "ε: its own" in caption and "ε = " not in caption and legend != ["0.1"]
    assert {"α start", "α end"} < set(header)


def test_layers_in_the_figure_are_those_of_the_deepest_networks(kept):
    """A median over depths would be of layers that have nothing to do with each other."""
    deeper = kept.ds.assign_coords(depth=[9])
    deeper["sigma2_end"] = 0 * deeper.sigma2_end + 0.25
    deeper["kept_after_end"] = 0 * deeper.kept_after_end + 0.125
    figure = training_figure(xr.concat([kept.ds, deeper], "depth"))
    *_, layers, composite = figure.axes

    def curves(ax):
        return {tuple(line.get_ydata()) for line in ax.lines if line.get_linestyle() == "-"}

    assert curves(layers) == {(0.25, 0.25)} and curves(composite) == {(0.125, 0.125)}
    plt.close(figure)


def test_a_store_that_lacks_a_variable_is_told_so(kept, tmp_path):
    shutil.copytree(kept.folder / "train.zarr", tmp_path / "train.zarr")
    shutil.rmtree(tmp_path / "train.zarr" / "accuracy")
    with pytest.raises(InputError, match="accuracy is missing"):
        read_dataset(tmp_path / "train.zarr")


# ---------------------------------------------------------------- homojax train


def test_the_command_leaves_data_checkpoints_and_a_page_and_says_what_came_out(said, tmp_path):
    code, out, _ = said(*FLAGS, "--out", "runs/a")
    assert code == 0 and "4 networks were trained: tell each of 8 tokens" in out
    assert "runs/a/report.html" in out
    written = {path.name for path in (tmp_path / "runs" / "a").iterdir()}
    assert written == {"checkpoints", "figure.png", "report.html", "run.json", "train.zarr"}
    ds = read_dataset("runs/a/train.zarr")
    assert ds.accuracy.shape == (1, 2, 1, 1, 2) and ds.homojax.plot() is not None
    assert "data:image/png;base64" in (tmp_path / "runs" / "a" / "report.html").read_text()
    code, _, err = said(*FLAGS, "--out", "runs/a")
    assert code == 2 and "runs/a exists already" in err


def test_the_command_refuses_a_folder_where_another_training_is_under_way(said, monkeypatch):
    save = checkpoints.Checkpoints.save

    def stop(*_):
        raise KeyboardInterrupt

    def save_and_stop(*arguments):
        save(*arguments)
        stop()

    other = (*FLAGS, "--learning-rate", "0.5", "--out", "a")
    monkeypatch.setattr(checkpoints.Checkpoints, "save", stop)
    assert said(*FLAGS, "--out", "a")[0] == 130
    assert said(*other)[0] == 130  # where nothing is kept, nothing is lost
    monkeypatch.setattr(checkpoints.Checkpoints, "save", save_and_stop)
    assert said(*FLAGS, "--out", "a")[0] == 130
    code, _, err = said(*other)
    assert code == 2 and "learning_rate was 0.003 and is asked to be 0.5" in err


def test_networks_that_all_break_at_once_are_told_and_shown(said, tmp_path):
    flags = [*("--mixer", "unconstrained", "--logit-scale", "1e30"), *("--norm", "none")]
    flags += ["--alpha", "1", "--depth", "2", "--width", "8", "--steps", "2", "--batch", "2"]
    code, out, _ = said("train", *flags, "--seeds", "1", "--no-claims", "--out", "a")
    assert code == 1 and "None gives numbers" in out and "STOPPED at step 0" in out
    assert (tmp_path / "a" / "report.html").exists()


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
def test_the_command_says_in_one_sentence_what_cannot_be(said, tmp_path, flags, text):
    code, _, err = said("train", *flags)
    assert code == 2 and text in err and "Traceback" not in err and not list(tmp_path.iterdir())


def test_the_command_mixes_in_float64_without_being_told_how():
    flags = ("--mixing-dtype", "float64", "--mixer", "identity", "--depth", "1", "--width", "4")
    flags += ("--steps", "1", "--batch", "2", "--seeds", "1", "--no-claims", "--out", "out")
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # the working directory is another
    done = subprocess.run(
        [sys.executable, "-m", "homojax", "train", *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
