"""What networks are trained on: batches that follow from their key, targets that follow from their inputs, honest chance."""

from fractions import Fraction
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from homojax.lab.inputs import InputError
from homojax.lab.sources import TASKS, digits, documentation, load_task
from homojax.networks.tasks import classification, copying, language, recall

TEXT = "".join(chr(97 + i * i % 7) + "—é"[i % 2] for i in range(400))
IMAGES = np.random.default_rng(0).normal(size=(40, 6, 4))
LABELS = np.arange(40) % 3
MADE = {
    "copying": lambda: copying(5, 3, tests=64),
    "recall": lambda: recall(3, 6, 4, tests=64),
    "classification": lambda: classification(IMAGES, LABELS),
    "language": lambda: language(TEXT, 16),
    "digits": lambda: load_task("digits"),
    "text": lambda: load_task("text"),
}
BUILT = {}
COMPILED = {}


def built(name):
    if name not in BUILT:
        BUILT[name] = MADE[name]()
    return BUILT[name]


@pytest.fixture(params=MADE)
def task(request):
    return built(request.param)


def batch_of(task, seed=0, size=64):
    key = (id(task), size)
    if key not in COMPILED:
        COMPILED[key] = (task, jax.jit(lambda key: task.train(key, size)))
    return [np.asarray(x) for x in COMPILED[key][1](jax.random.key(seed))]


def accuracy(answers, targets, weights):
    return (weights * (np.asarray(answers) == targets)).sum() / weights.sum()


def most_frequent_share(draws, choices):
    """E[the most frequent one's count]/draws, exactly, of uniform draws: P(no count above m) = d! [xᵈ](Σ_{k ≤ m} xᵏ/k!)ᶜ/cᵈ."""
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


def test_a_batch_has_the_shapes_types_and_ranges_that_the_task_says(task):
    for inputs, targets, weights in (batch_of(task, size=7), [np.asarray(x) for x in task.test]):
        assert inputs.shape == (len(inputs), task.units) + (
            () if task.features is None else (task.features,)
        )
        assert (
            targets.shape
            == weights.shape
            == ((len(inputs),) if task.pooled else (len(inputs), task.units))
        )
        assert targets.dtype == np.int32 and targets.min() >= 0 and targets.max() < task.classes
        assert (
            set(np.unique(weights)) <= {0, 1}
            and weights.any(-1).all()
            and np.isfinite(inputs).all()
        )
        assert (
            (task.vocabulary is None)
            == np.issubdtype(inputs.dtype, np.floating)
            == (task.features is not None)
        )
        if task.vocabulary is not None:
            assert inputs.dtype == np.int32 and inputs.min() >= 0 and inputs.max() < task.vocabulary
    assert (
        0 < task.chance < 1 and "\n" not in task.statement and len(batch_of(task, size=7)[0]) == 7
    )


def test_a_batch_is_a_pure_function_of_its_key_under_jit_and_vmap(task):
    traces = []
    many = jax.jit(jax.vmap(lambda key: traces.append(0) or task.train(key, 9)))
    keys = jax.random.split(jax.random.key(3), 4)
    batches = many(keys)
    for i, key in enumerate(keys):
        for lane, alone, again in zip(batches, task.train(key, 9), task.train(key, 9), strict=True):
            np.testing.assert_array_equal(lane[i], alone)
            np.testing.assert_array_equal(alone, again)
    reversed_, inputs = many(keys[::-1])[0], np.asarray(batches[0])
    np.testing.assert_array_equal(reversed_, inputs[::-1])
    assert len(traces) == 1 and all(
        (inputs[i] != inputs[j]).any() for i in range(4) for j in range(i)
    )


def test_a_task_is_the_same_every_time_it_is_made(task):
    other = MADE[next(name for name in BUILT if BUILT[name] is task)]()
    jax.tree.map(
        np.testing.assert_array_equal,
        (task.test, task.train(jax.random.key(1), 5)),
        (other.test, other.train(jax.random.key(1), 5)),
    )
    assert task[:8] == other[:8] and task.chance == other.chance


@pytest.mark.parametrize("name", ["copying", "recall", "language", "digits"])
def test_examples_are_the_same_whichever_precision_jax_is_in(name):
    made = built(name)
    with jax.enable_x64(False):
        narrow = MADE[name]()
        examples = jax.tree.map(np.asarray, (narrow.test, narrow.train(jax.random.key(1), 5)))
    for other, own in zip(
        jax.tree.leaves(examples),
        jax.tree.leaves((made.test, made.train(jax.random.key(1), 5))),
        strict=True,
    ):
        assert other.dtype == own.dtype
        np.testing.assert_allclose(other, own, rtol=1e-6)


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


@pytest.mark.parametrize(("name", "solve"), [("copying", recite), ("recall", look_up(6))])
def test_a_solver_that_knows_the_rule_is_always_right(name, solve):
    made = built(name)
    for inputs, targets, weights in ([np.asarray(x) for x in made.test], batch_of(made, 0, 4096)):
        assert accuracy(solve(inputs), targets, weights) == 1


@pytest.mark.parametrize(("name", "asked"), [("copying", 5 * 4096), ("recall", 4096)])
def test_no_blind_answer_beats_chance_at_any_place_of_a_made_task(name, asked):
    made = built(name)
    _, targets, weights = batch_of(made, 0, 4096)
    assert weights.sum() == asked and made.chance == 1 / made.classes
    for answer in range(made.classes):
        at_each = ((targets == answer) * weights).sum(0)[weights[0] > 0] / 4096
        np.testing.assert_allclose(
            at_each, made.chance, atol=4.5 * np.sqrt(made.chance * (1 - made.chance) / 4096)
        )


@pytest.mark.parametrize("name", ["classification", "language", "digits", "text"])
def test_the_best_constant_answer_on_the_held_out_examples_has_the_accuracy_chance(name):
    made = built(name)
    _, targets, weights = map(np.asarray, made.test)
    best = max(
        accuracy(np.full(targets.shape, answer), targets, weights) for answer in range(made.classes)
    )
    assert made.chance == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(("make", "draws", "said"), [(copying, 8, 0.32), (recall, 4, 0.41)])
def test_the_accuracy_of_a_collapsed_network_is_the_one_that_the_docstring_says(make, draws, said):
    """It knows how often each token occurs in the example, which is what the mean of their embeddings can hold, and no more."""
    exact = most_frequent_share(draws, 8)
    assert round(exact, 2) == said and f": {said} at the default size" in " ".join(
        make.__doc__.split()
    )
    inputs, targets, weights = batch_of(make(), 2, 4096)
    bags = inputs if make is copying else inputs[:, 1:-1:2] - 8
    commonest = np.array([np.bincount(bag, minlength=8).argmax() for bag in bags])[:, None]
    assert accuracy(commonest, targets, weights) == pytest.approx(exact, abs=0.03)


def test_recall_has_distinct_keys_and_uses_every_key_value_and_place():
    tokens, targets, _ = batch_of(built("recall"), 0, 4096)
    told, values, query = tokens[:, :-1:2], tokens[:, 1::2] - 6, tokens[:, -1]
    assert all(len(set(row)) == 3 for row in told.tolist())
    assert set(told.ravel()) == set(range(6)) and set(values.ravel()) == set(range(4))
    asked = (told == query[:, None]).sum(0)
    np.testing.assert_allclose(asked / 4096, 1 / 3, atol=0.05)
    assert (
        abs(np.corrcoef(query, targets[:, -1])[0, 1]) < 0.1
    )  # which key is asked says nothing of its value


def test_as_many_pairs_as_keys_leave_no_key_out():
    tokens, _, _ = batch_of(recall(4, 4, 2), 0, 32)
    assert (np.sort(tokens[:, :-1:2], 1) == np.arange(4)).all()


@pytest.mark.parametrize("make", [copying, recall])
def test_a_made_test_is_none_of_the_batches_of_plain_keys_and_follows_its_seed(make):
    made = make(tests=64, seed=4)
    assert all((batch_of(made, seed)[0] != made.test[0]).any() for seed in (0, 4))
    assert (make(tests=64, seed=5).test[0] != made.test[0]).any()


def test_patches_are_the_image_row_by_row_in_training_standard_units():
    made = classification(IMAGES, LABELS, patch=2, held_out=0.25)
    inputs, targets, _ = map(np.asarray, made.test)
    seen = batch_of(made, 0, 2000)
    patches = np.array(
        [[im[r : r + 2, c : c + 2].ravel() for r in (0, 2, 4) for c in (0, 2)] for im in IMAGES]
    )

    def places(
        tokens,
    ):  # which image an example is: standard units are an increasing affine map, so correlation 1
        flat, whole = tokens.reshape(len(tokens), -1), patches.reshape(40, -1)
        likeness = np.array([[np.corrcoef(a, b)[0, 1] for b in whole] for a in flat])
        np.testing.assert_allclose(likeness.max(1), 1)
        return likeness.argmax(1)

    held = places(inputs)
    kept, first = np.unique(seen[0].reshape(2000, -1), axis=0, return_index=True)
    trained = places(kept)
    assert sorted([*held, *trained]) == list(range(40))  # every image in one part
    np.testing.assert_array_equal(targets, LABELS[held])
    np.testing.assert_array_equal(seen[1][first], LABELS[trained])
    pixels = IMAGES[trained]
    np.testing.assert_allclose(
        inputs, (patches[held] - pixels.mean()) / pixels.std(), rtol=1e-12, atol=1e-12
    )


def test_every_class_is_held_out_in_proportion_and_a_single_image_is_trained_on():
    labels = np.repeat([0, 1, 2, 4], [20, 7, 2, 1])
    made = classification(IMAGES[:30], labels, held_out=0.2)
    assert (
        np.bincount(made.test[1]).tolist() == [4, 1, 1]
        and made.classes == 5
        and made.chance == 4 / 6
    )
    splits = {
        tuple(np.asarray(classification(IMAGES[:30], labels, seed=seed).test[0][:, 0, 0]))
        for seed in range(4)
    }
    assert len(splits) == 4


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_task_on_images_keeps_their_dtype_and_unit_scale(dtype):
    made = classification(jnp.asarray(IMAGES * 9 + 50, dtype), LABELS)
    for inputs, targets, weights in (
        made.test,
        jax.eval_shape(lambda: made.train(jax.random.key(0), 3)),
    ):
        assert inputs.dtype == weights.dtype == dtype and targets.dtype == np.int32
    assert np.asarray(made.train(jax.random.key(0), 400)[0], float).std() == pytest.approx(
        1, abs=0.05
    )
    assert (
        classification((IMAGES * 9).astype(int), LABELS).test[0].dtype == np.float64
    )  # the default dtype of this session


def test_language_asks_for_the_character_that_follows_in_the_text():
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


def test_language_reaches_both_ends_of_its_training_part_and_none_of_the_tail():
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


def test_digits_are_real_images_with_their_labels_and_no_test_image_is_trained_on():
    from sklearn.datasets import load_digits

    images, labels = digits()
    raw = load_digits()
    np.testing.assert_array_equal(images, raw.images)
    np.testing.assert_array_equal(labels, raw.target)
    assert images.dtype == np.float32 and not images.flags.writeable and not labels.flags.writeable
    made = built("digits")
    assert (made.units, made.features, made.classes, made.test[0].dtype) == (16, 4, 10, np.float32)
    held = {row.tobytes() for row in np.asarray(made.test[0])}
    seen = {row.tobytes() for row in batch_of(made, 0, 20_000)[0]}
    assert len(held) == len(made.test[0]) == 359 and len(seen) == 1438 and not held & seen
    assert np.bincount(made.test[1]).tolist() == [
        round(0.2 * c) for c in np.bincount(labels).tolist()
    ]
    assert load_task("digits", patch=4).units == 4


def test_a_nearest_neighbour_tells_digits_apart_so_that_the_targets_are_the_images_own():
    made = built("digits")
    known, answers, _ = batch_of(made, 0, 20_000)
    known, first = np.unique(known.reshape(len(known), -1), axis=0, return_index=True)
    asked = np.asarray(made.test[0]).reshape(-1, 64)
    distances = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)
    assert (
        accuracy(answers[first][distances.argmin(1)], np.asarray(made.test[1]), np.ones(359)) > 0.95
    )


def test_the_text_is_pythons_own_and_the_tail_of_it_is_held_out():
    from pydoc_data.topics import topics

    text = documentation()
    assert (
        len(text) == sum(map(len, topics.values()))
        and text.startswith(topics[min(topics)])
        and text.endswith(topics[max(topics)])
    )
    made = built("text")
    assert (
        made.test[0].shape == (512, 64) and 90 < made.vocabulary < 200 and 0.1 < made.chance < 0.3
    )
    alphabet = sorted(set(text[: round(0.9 * len(text))]))
    first = "".join(alphabet[i] for i in np.asarray(made.test[0][0]))
    assert first == text[round(0.9 * len(text)) :][:64]


NAN = np.where(np.arange(40)[:, None, None] == 3, np.nan, IMAGES)


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
        (
            lambda: classification(NAN, LABELS),
            r"images are nan at \[3, 0, 0\]: they must be finite",
        ),
        (lambda: classification(IMAGES[0], LABELS), r"shape \[N, height, width\].* got \[6, 4\]"),
        (lambda: classification(IMAGES[:0], LABELS[:0]), "none be empty"),
        (
            lambda: classification(IMAGES, LABELS[1:]),
            r"40 images need labels of shape \[40\], got \[39\]",
        ),
        (lambda: classification(IMAGES, LABELS / 2), "labels must be whole numbers"),
        (lambda: classification(IMAGES, LABELS - 1), "labels must be whole numbers from 0"),
        (lambda: classification(IMAGES, 0 * LABELS), "every label is 0"),
        (lambda: classification(IMAGES[:3], LABELS[:3]), "no class has two images"),
        (lambda: classification(0 * IMAGES, LABELS), "one and the same colour"),
        (
            lambda: classification(IMAGES, LABELS, patch=4),
            "patches of 4 x 4 do not tile images of 6 x 4",
        ),
        (lambda: classification(IMAGES[:, :4], LABELS, patch=4), "is the whole image"),
        (
            lambda: classification(IMAGES, LABELS, held_out=1),
            "held_out must be strictly between 0 and 1",
        ),
        (lambda: classification(IMAGES, LABELS, held_out=float("nan")), "held_out must be"),
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
