"""A state comes back as it was kept; a damaged one and that of another training are refused."""

import shutil

import jax
import numpy as np
import pytest

from homojax.lab.inputs import InputError
from homojax.lab.train.checkpoints import Checkpoints, fingerprint_of

STATE = {  # arrays of size 0 are those of mixers without parameters
    "run": {"weights": np.arange(6.0, dtype=np.float32).reshape(2, 3), "none": np.zeros((2, 0))},
    "losses": np.array([[0.5, np.nan], [0.25, np.nan]]),
    "done": 1,
}
OURS = np.arange(32, dtype=np.uint8)


def empty(state):
    return jax.tree.map(np.zeros_like, state)


@pytest.fixture
def folder(tmp_path):
    """With the state of one training after its first report."""
    with Checkpoints(tmp_path, "depth-2-0", OURS) as checkpoints:
        checkpoints.save(1, STATE)
    return tmp_path


def test_the_newest_state_comes_back_with_its_structure_and_its_arrays_of_no_size(folder):
    with Checkpoints(folder, "depth-2-0", OURS) as checkpoints:
        first = checkpoints.latest(empty(STATE))
        checkpoints.save(2, {**first, "done": 2})
    jax.tree.map(np.testing.assert_array_equal, first, STATE)
    assert first["run"]["none"].shape == (2, 0)
    with Checkpoints(folder, "depth-2-0", OURS) as checkpoints:
        assert int(checkpoints.latest(empty(STATE))["done"]) == 2
    places = [path.name for path in (folder / "checkpoints" / "depth-2-0").iterdir()]
    assert places == ["2"]  # the newest alone


def test_where_nothing_was_kept_nothing_is_found_and_nothing_made(tmp_path):
    for place in (tmp_path, None):
        with Checkpoints(place, "depth-2-0", OURS) as checkpoints:
            assert checkpoints.latest(empty(STATE)) is None
    with Checkpoints(None, "depth-2-0", OURS) as checkpoints:
        checkpoints.save(1, STATE)
    assert not list(tmp_path.iterdir())


def test_groups_are_kept_apart(folder):
    with Checkpoints(folder, "depth-2-1", OURS) as checkpoints:
        assert checkpoints.latest(empty(STATE)) is None


def test_a_state_of_another_training_is_refused(folder):
    with (
        Checkpoints(folder, "depth-2-0", OURS + 1) as checkpoints,
        pytest.raises(InputError, match="of another training"),
    ):
        checkpoints.latest(empty(STATE))


def test_a_damaged_checkpoint_is_named(folder):
    data = [path for path in folder.rglob("d/*") if path.is_file()]
    for path in data:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert data
    with (
        Checkpoints(folder, "depth-2-0", OURS) as checkpoints,
        pytest.raises(InputError, match="depth-2-0 has a damaged checkpoint: remove it"),
    ):
        checkpoints.latest(empty(STATE))


def test_checkpoints_of_a_training_that_was_copied_go_on(folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(folder, copy)
    with Checkpoints(copy, "depth-2-0", OURS) as checkpoints:
        jax.tree.map(np.testing.assert_array_equal, checkpoints.latest(empty(STATE)), STATE)


def test_a_fingerprint_is_of_the_digest_and_of_every_example_held_out():
    inputs, targets, weights = np.arange(4), np.arange(4, 8), np.ones(4)
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
