"""Tasks by name: digits and text are real data, and a mistake is told in one sentence."""

import jax
import numpy as np
import pytest

from homojax.lab.datasets import digits, documentation
from homojax.lab.inputs import InputError
from homojax.lab.train.tasks import TASKS, load_task


@pytest.fixture(scope="module")
def digits_task():
    return load_task("digits")


@pytest.fixture(scope="module")
def trained_on(digits_task):
    """As many draws as meet every digit that is trained on: (images, answers)."""
    images, answers, _ = digits_task.train(jax.random.key(0), 20_000)
    return np.asarray(images), np.asarray(answers)


def test_digits_are_real_images_with_their_labels_and_no_test_image_is_trained_on(
    digits_task, trained_on
):
    from sklearn.datasets import load_digits

    images, labels = digits()
    raw = load_digits()
    np.testing.assert_array_equal(images, raw.images)
    np.testing.assert_array_equal(labels, raw.target)
    assert images.dtype == np.float32 and not images.flags.writeable and not labels.flags.writeable
    made = digits_task
    assert (made.units, made.features, made.classes, made.test[0].dtype) == (16, 4, 10, np.float32)
    held = {row.tobytes() for row in np.asarray(made.test[0])}
    seen = {row.tobytes() for row in trained_on[0]}
    assert len(held) == len(made.test[0]) == 359 and len(seen) == 1438 and not held & seen
    assert np.bincount(made.test[1]).tolist() == [
        round(0.2 * c) for c in np.bincount(labels).tolist()
    ]
    assert load_task("digits", patch=4).units == 4


def test_a_nearest_neighbour_tells_digits_apart_so_that_the_targets_are_the_images_own(
    digits_task, trained_on
):
    known, answers = trained_on
    known, first = np.unique(known.reshape(len(known), -1), axis=0, return_index=True)
    asked = np.asarray(digits_task.test[0]).reshape(-1, 64)
    distances = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)
    assert (answers[first][distances.argmin(1)] == digits_task.test[1]).mean() > 0.95


def test_the_text_is_pythons_own_and_the_tail_of_it_is_held_out():
    from pydoc_data.topics import topics

    text = documentation()
    assert (
        len(text) == sum(map(len, topics.values()))
        and text.startswith(topics[min(topics)])
        and text.endswith(topics[max(topics)])
    )
    made = load_task("text")
    assert (
        made.test[0].shape == (512, 64) and 90 < made.vocabulary < 200 and 0.1 < made.chance < 0.3
    )
    alphabet = sorted(set(text[: round(0.9 * len(text))]))
    first = "".join(alphabet[i] for i in np.asarray(made.test[0][0]))
    assert first == text[round(0.9 * len(text)) :][:64]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("digit", {}, 'there is no task "digit": did you mean "digits"?'),
        ("zzz", {}, "there are: copying, digits, recall, text."),
        ("recall", {"pair": 3}, 'task recall has no option "pair": did you mean "pairs"?'),
        ("digits", {"patch": 3}, "task digits: patches of 3 x 3 do not tile images of 8 x 8."),
        (
            "copying",
            {"units": 1},
            "task copying: units must be a whole number of at least 2, got 1.",
        ),
    ],
)
def test_from_the_lab_what_makes_no_task_is_an_input_error(name, options, said):
    with pytest.raises(InputError) as caught:
        load_task(name, **options)
    assert said in str(caught.value)


def test_every_task_of_the_lab_goes_by_its_own_name():
    assert all(load_task(name).name == name for name in TASKS)
