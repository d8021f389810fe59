"""What a person sees of a training: a page, a figure and sentences that fit what was trained."""

import json
import shutil

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from homojax.lab.inputs import InputError
from homojax.lab.store import read_dataset
from homojax.lab.train import run as trainings
from homojax.lab.train.plots import training as training_figure
from homojax.lab.train.report import describe, headline, training_as_expected

FLAGS = (
    *(
        "train",
        "--mixer",
        "kronecker",
        "--depth",
        "2",
        "--width",
        "64",
        "--norm",
        "none",
        "--alpha",
        "0.2",
    ),
    *("--steps", "40", "--batch", "8", "--learning-rate", "0.01", "--warmup", "5"),
    *("--epsilon", "0.1", "5", "--noise", "0", "1", "--seeds", "2"),
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- sentences and tables


def test_a_training_is_described_by_its_best_network_and_its_verdicts(kept):
    section = describe(kept.ds)
    best = f"{float(kept.ds.accuracy.max()):.1%}"
    assert section.text.startswith("8 networks were trained: tell each of 8 tokens")
    assert f"The best is right in {best} (blind: 12.5%)." in section.text
    assert "Theorems violated on the trained matrices: 0 of" in section.text
    assert section.as_expected and section.text == kept.ds.homojax.summary()
    networks, claims = section.tables
    assert [row[:3] for row in networks.rows] == [
        ["2", epsilon, noise] for epsilon in ("0.1", "5") for noise in ("0", "1")
    ]
    assert all(len(row) == len(networks.header) for row in networks.rows)
    assert len(claims.rows) == kept.ds.sizes["claim"] and not any(claims.wrong)


def test_a_violated_theorem_is_marked_and_not_as_expected(kept):
    broken = kept.ds.copy(deep=True)
    broken.violated.loc[{"claim": "hilbert"}] = 1
    section = describe(broken)
    _, claims = section.tables
    wrong = [row[0] for row, is_wrong in zip(claims.rows, claims.wrong, strict=True) if is_wrong]
    assert wrong == ["hilbert"] and not section.as_expected


def test_a_number_that_is_not_finite_is_told_with_its_layer(kept):
    broken = kept.ds.copy(deep=True)
    place = {"depth": 0, "epsilon": 1, "alpha": 0, "noise": 0, "seed": 1}
    broken.failed_step[place] = 7
    words = {2: "after layer 2", 0: "in the embedding", 3: "beyond the layers"}
    where = "depth 2, epsilon 5, alpha 0.2, noise 0, seed 1"
    for layer, text in words.items():
        broken.failed_layer[place] = layer
        stopped = f"{where} STOPPED at step 7: a number was not finite, first {text}."
        assert stopped in headline(broken)
    assert "1 stopped in all: try a smaller learning rate" in headline(broken)
    broken.failed_layer[place], broken.failed_backward[place] = 2, True
    assert "first in the gradient of layer 2" in headline(broken)
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
        told = kept.ds.isel(epsilon=[0], noise=[0]).assign_attrs(attrs)
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
    ds = kept.ds.isel(noise=[0])
    deeper = ds.assign_coords(depth=[9])
    deeper["sigma2_end"] = 0 * deeper.sigma2_end + 0.25
    deeper["kept_after_end"] = 0 * deeper.kept_after_end + 0.125
    figure = training_figure(xr.concat([ds, deeper], "depth"))
    *_, layers, composite = figure.axes

    def curves(ax):
        return {tuple(line.get_ydata()) for line in ax.lines if line.get_linestyle() == "-"}

    assert curves(layers) == {(0.25, 0.25)} and curves(composite) == {(0.125, 0.125)}
    plt.close(figure)


def test_a_store_that_lacks_a_variable_is_told_so(kept, tmp_path):
    shutil.copytree(kept.folder / "train.zarr", tmp_path / "train.zarr")
    shutil.rmtree(tmp_path / "train.zarr" / "accuracy")
    with pytest.raises(InputError, match="it lacks accuracy"):
        read_dataset(tmp_path / "train.zarr")


# ---------------------------------------------------------------- homojax train


def test_the_command_leaves_data_checkpoints_and_a_page_and_says_what_came_out(kept):
    assert kept.as_expected and "8 networks were trained: tell each of 8 tokens" in kept.said
    assert f"{kept.folder}/report.html" in kept.said.replace("\n", "")
    written = {path.name for path in kept.folder.iterdir()}
    assert written == {"checkpoints", "figure.png", "report.html", "run.json", "train.zarr"}
    assert kept.ds.accuracy.shape == (1, 2, 1, 2, 2) and kept.ds.homojax.plot() is not None
    plt.close("all")
    assert "data:image/png;base64" in (kept.folder / "report.html").read_text()


def test_flags_are_the_config_and_a_folder_that_is_there_is_refused(kept, said, monkeypatch):
    asked = []

    def fake(config, folder, progress):
        asked.append(config)
        return kept.ds

    monkeypatch.setattr(trainings, "train", fake)
    code, out, _ = said(*FLAGS, "--out", "runs/a")
    assert code == 0 and asked == [kept.config] and "runs/a/report.html" in out
    code, _, err = said(*FLAGS, "--out", "runs/a")
    assert code == 2 and "runs/a exists already" in err


def test_the_command_refuses_a_folder_where_another_training_is_under_way(said, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    def keep_and_stop(config, folder, steps, group):
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "1").touch()
        raise KeyboardInterrupt

    other = (*FLAGS, "--seed", "1", "--out", "a")
    monkeypatch.setattr(trainings, "train_group", stop)
    assert said(*FLAGS, "--out", "a")[0] == 130
    assert said(*other)[0] == 130  # where nothing is kept, nothing is lost
    monkeypatch.setattr(trainings, "train_group", keep_and_stop)
    assert said(*FLAGS, "--out", "a")[0] == 130
    code, _, err = said(*other)
    assert code == 2 and "seed was 0 and is asked to be 1" in err


def test_networks_that_all_break_at_once_are_told_and_shown(kept, said, monkeypatch, tmp_path):
    broken = kept.ds.map(lambda x: x.where(False) if x.dtype.kind == "f" else x, keep_attrs=True)
    broken["failed_step"] = 0 * kept.ds.failed_step
    broken["failed_layer"] = 0 * kept.ds.failed_layer
    monkeypatch.setattr(trainings, "train", lambda *_, **__: broken)
    code, out, _ = said(*FLAGS, "--out", "a")
    assert code == 1 and "None gives numbers" in out and "STOPPED at step 0" in out
    assert (tmp_path / "a" / "report.html").exists() and (tmp_path / "a" / "figure.png").exists()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--mixer", "kromhc", "--over", "streams", "--streams", "6"], "n = 6"),
        (["--depth", "0"], "depth must be a whole"),
        (["--task", "recal"], "recall"),
        (["--epsilon", "-1"], "--epsilon -1"),
        (["--over", "attention", "--width", "5"], "heads"),
    ],
)
def test_the_command_says_in_one_sentence_what_cannot_be(said, tmp_path, flags, text):
    code, _, err = said("train", *flags)
    assert code == 2 and text in err and "Traceback" not in err and not list(tmp_path.iterdir())


def test_the_command_mixes_in_float64_without_being_told_how(kept, said, monkeypatch):
    monkeypatch.setattr(trainings, "train", lambda *_, **__: kept.ds)
    jax.config.update("jax_enable_x64", False)
    try:
        code, _, err = said(*FLAGS, "--mixing-dtype", "float64", "--out", "a")
        assert code == 0 and jax.config.read("jax_enable_x64"), err
    finally:
        jax.config.update("jax_enable_x64", True)
