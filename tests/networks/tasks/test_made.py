"""Copying and recall: a solver that knows the rule is right, and a guess is right by chance."""

from fractions import Fraction
from math import factorial

import numpy as np
import pytest

from homojax.networks.tasks.made import copying, recall

COPYING, RECALL = copying(5, 3, tests=64), recall(3, 6, 4, tests=64)


def most_frequent_share(draws, choices):
    """E[the most frequent one's count]/draws, exactly, of uniform draws.

    P(no count above m) = d! [xᵈ](Σ_{k ≤ m} xᵏ/k!)ᶜ/cᵈ.
    """
    total = Fraction(0)
    for most in range(draws):
        product = [Fraction(1)] + [Fraction(0)] * draws
        for _ in range(choices):
            product = [
                sum(product[i - k] / factorial(k) for k in range(min(i, most) + 1))
                for i in range(draws + 1)
            ]
        total += 1 - product[draws] * factorial(draws) / Fraction(choices) ** draws
    return float(total / draws)


# Solvers that know the rule and nothing else: they read inputs, in plain Python and NumPy.


def recite(tokens):
    return tokens


def look_up(keys):
    def solve(tokens):
        answers = np.full(tokens.shape, -1)
        for row, answer in zip(tokens, answers, strict=True):
            answer[-1] = (
                dict(zip(row[:-1:2].tolist(), row[1::2].tolist(), strict=True))[row[-1]] - keys
            )
        return answers

    return solve


@pytest.mark.parametrize(("made", "solve"), [(COPYING, recite), (RECALL, look_up(6))])
def test_a_solver_that_knows_the_rule_is_always_right(made, solve, batch_of):
    for inputs, targets, weights in ([np.asarray(x) for x in made.test], batch_of(made, 0, 4096)):
        assert (solve(inputs) == targets)[weights > 0].all() and (weights > 0).any()


@pytest.mark.parametrize(("made", "asked"), [(COPYING, 5 * 4096), (RECALL, 4096)])
def test_no_blind_answer_beats_chance_at_any_place(made, asked, batch_of):
    _, targets, weights = batch_of(made, 0, 4096)
    assert weights.sum() == asked and made.chance == 1 / made.classes
    for answer in range(made.classes):
        at_each = ((targets == answer) * weights).sum(0)[weights[0] > 0] / 4096
        np.testing.assert_allclose(
            at_each, made.chance, atol=4.5 * np.sqrt(made.chance * (1 - made.chance) / 4096)
        )


@pytest.mark.parametrize(("make", "draws", "said"), [(copying, 8, 0.32), (recall, 4, 0.41)])
def test_the_accuracy_of_a_collapsed_network_is_the_one_that_the_docstring_says(
    make, draws, said, batch_of
):
    """The mean of the embeddings can hold how often each token occurs in the example, no more."""
    exact = most_frequent_share(draws, 8)
    docstring = " ".join(make.__doc__.split())
    assert round(exact, 2) == said and f": {said} at the default size" in docstring
    inputs, targets, weights = batch_of(make(), 2, 4096)
    bags = inputs if make is copying else inputs[:, 1:-1:2] - 8
    commonest = np.array([np.bincount(bag, minlength=8).argmax() for bag in bags])[:, None]
    right = (commonest == targets)[weights > 0]
    assert right.mean() == pytest.approx(exact, abs=0.03)


def test_recall_has_distinct_keys_and_uses_every_key_value_and_place(batch_of):
    tokens, targets, _ = batch_of(RECALL, 0, 4096)
    told, values, query = tokens[:, :-1:2], tokens[:, 1::2] - 6, tokens[:, -1]
    assert all(len(set(row)) == 3 for row in told.tolist())
    assert set(told.ravel()) == set(range(6)) and set(values.ravel()) == set(range(4))
    asked = (told == query[:, None]).sum(0)
    np.testing.assert_allclose(asked / 4096, 1 / 3, atol=0.05)
    assert (
        abs(np.corrcoef(query, targets[:, -1])[0, 1]) < 0.1
    )  # which key is asked says nothing of its value


def test_as_many_pairs_as_keys_leave_no_key_out(batch_of):
    tokens, _, _ = batch_of(recall(4, 4, 2), 0, 32)
    assert (np.sort(tokens[:, :-1:2], 1) == np.arange(4)).all()


@pytest.mark.parametrize("make", [copying, recall])
def test_the_examples_held_out_are_no_batch_of_a_plain_key_and_follow_their_seed(make, batch_of):
    made = make(tests=64, seed=4)
    assert all((batch_of(made, seed)[0] != made.test[0]).any() for seed in (0, 4))
    assert (make(tests=64, seed=5).test[0] != made.test[0]).any()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: copying(1), "units must be a whole number of at least 2, got 1"),
        (lambda: copying(4.0), "units must be a whole number"),
        (lambda: copying(4, 1), "vocabulary must be a whole number of at least 2, got 1"),
        (lambda: copying(tests=0), "tests must be a whole number of at least 1"),
        (lambda: recall(0), "pairs must be"),
        (lambda: recall(values=1), "values must be"),
        (lambda: recall(9), "9 pairs need as many different keys, got keys = 8"),
    ],
)
def test_what_makes_no_task_is_refused_in_one_sentence(make, said):
    with pytest.raises(ValueError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value) and ". " not in str(caught.value)
