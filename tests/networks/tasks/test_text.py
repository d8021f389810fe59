"""Language: the next character of a given text, with its tail held out."""

import numpy as np
import pytest

from homojax.networks.tasks.text import language

TEXT = "".join(chr(97 + i * i % 7) + "—é"[i % 2] for i in range(400))


def test_language_asks_for_the_character_that_follows_in_the_text(batch_of):
    made = language(TEXT, 16, held_out=0.25)
    head, tail = TEXT[:600], TEXT[600:]
    alphabet = sorted(set(head))
    assert made.vocabulary == made.classes == len(alphabet) + 1
    inputs, targets, weights = batch_of(made, 0, 500)
    spelled = [
        "".join(alphabet[i] for i in [*row, last])
        for row, last in zip(inputs, targets[:, -1], strict=True)
    ]
    assert all(window in head for window in spelled) and len(set(spelled)) > 1
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    held = [*np.asarray(made.test[0]).ravel(), np.asarray(made.test[1])[-1, -1]]
    assert "".join(alphabet[i] for i in held) == tail[: len(held)] and len(tail) - len(held) < 16
    assert weights.all() and np.asarray(made.test[2]).all()


def test_language_reaches_both_ends_of_its_training_part_and_none_of_the_tail(batch_of):
    text = "".join(
        map(chr, range(0x4E00, 0x4E00 + 60))
    )  # no character twice: a token is its own offset
    made = language(text, 4, held_out=0.5)
    inputs, targets, _ = batch_of(made, 0, 2000)
    assert inputs.min() == 0 and targets.max() == 29 and set(inputs[:, 0]) == set(range(26))
    assert (
        made.vocabulary == 31 and (np.asarray(made.test[0]) == 30).all() and made.chance == 1
    )  # all of the tail is unknown
    two = language("ab" * 5, 4, held_out=0.5)
    assert two.test[0].shape == (1, 4) and set(batch_of(two)[0][:, 0]) == {
        0
    }  # exactly two windows: one each


def test_fewer_test_windows_are_spread_over_the_whole_tail():
    whole, few = (
        np.asarray(language(TEXT, 8, held_out=0.5, tests=tests).test[0]) for tests in (999, 5)
    )
    assert len(whole) == 49
    np.testing.assert_array_equal(few, whole[[0, 9, 19, 29, 39]])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: language("ab" * 4, 4), "8 characters is shorter than two windows of 5"),
        (lambda: language("", 4), "0 characters"),
        (
            lambda: language("ab" * 9, 4),
            "held_out = 0.1 leaves 16 characters to train and 2 to test on",
        ),
        (lambda: language("a" * 90 + "b" * 5, 4), "'a' throughout"),
        (lambda: language(TEXT, 1), "units must be"),
        (lambda: language(TEXT, tests=0), "tests must be"),
    ],
)
def test_what_makes_no_task_is_refused_in_one_sentence(make, said):
    with pytest.raises(ValueError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value) and ". " not in str(caught.value)
