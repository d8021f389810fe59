"""An interrupted training goes on where it was; what does not fit it is refused."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from homojax.lab.inputs import InputError
from homojax.lab.train.checkpoints import fingerprint_of
from homojax.lab.train.run import train_depth


def test_an_interrupted_training_goes_on_bit_for_bit(kept, tmp_path):
    def stop(done, total, doing):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_depth(kept.config, 2, tmp_path, progress=stop)
    assert any((tmp_path / "checkpoints" / "depth-2").iterdir())
    resumed = train_depth(kept.config, 2, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, resumed.end, kept.trained.end)
    np.testing.assert_array_equal(resumed.losses, kept.trained.losses)


def test_nothing_is_left_where_nothing_was_kept(kept, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_depth(kept.config, 2, tmp_path, progress=stop)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_training_is_refused_whatever_the_folder_says(kept, tmp_path):
    shutil.copytree(kept.folder / "checkpoints", tmp_path / "checkpoints")
    wide = dataclasses.replace(kept.config.architecture, width=6)
    fast = dataclasses.replace(kept.config.training, learning_rate=0.5)
    for changes in ({"architecture": wide}, {"training": fast}):
        with pytest.raises(InputError, match=r"another training|damaged"):
            train_depth(dataclasses.replace(kept.config, **changes), 2, tmp_path)
    again = train_depth(kept.config, 2, tmp_path)
    assert np.array_equal(again.losses, kept.trained.losses)


def test_a_damaged_checkpoint_is_named(kept, tmp_path):
    shutil.copytree(kept.folder / "checkpoints", tmp_path / "checkpoints")
    data = [path for path in tmp_path.rglob("d/*") if path.is_file()]
    for path in data:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert data
    with pytest.raises(InputError, match="damaged checkpoint"):
        train_depth(kept.config, 2, tmp_path)


def test_a_fingerprint_is_of_the_digest_and_of_every_example_held_out(kept):
    inputs, targets, weights = kept.trained.trainer.test
    prints = {
        fingerprint_of(digest, examples).tobytes()
        for digest in ("a", "b")
        for examples in (
            (inputs, targets, weights),
            (inputs + 1, targets, weights),
            (inputs, targets, weights * 2),
        )
    }
    assert len(prints) == 6
