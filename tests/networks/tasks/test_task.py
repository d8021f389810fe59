"""What holds of every task: batches follow from their key, chance is that of the best guess."""

import jax
import numpy as np
import pytest

from homojax.lab.train.tasks import load_task
from homojax.networks.tasks.images import classification
from homojax.networks.tasks.made import copying, recall
from homojax.networks.tasks.text import language

slow = pytest.mark.slow
SIZE = 7  # of every batch here: one program for each task
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


@pytest.fixture(scope="module")
def built():
    """name -> the task, made once."""
    tasks = {}

    def build(name):
        if name not in tasks:
            tasks[name] = MADE[name]()
        return tasks[name]

    return build


@pytest.fixture(params=MADE)
def task(request, built):
    return built(request.param)


def test_a_batch_has_the_shapes_types_and_ranges_that_the_task_says(task, batch_of):
    for inputs, targets, weights in (batch_of(task, size=SIZE), [np.asarray(x) for x in task.test]):
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
    assert 0 < task.chance < 1 and "\n" not in task.statement
    assert len(batch_of(task, size=SIZE)[0]) == SIZE


def test_a_batch_is_a_pure_function_of_its_key_under_jit_and_vmap(task):
    traces = []
    many = jax.jit(jax.vmap(lambda key: traces.append(0) or task.train(key, SIZE)))
    keys = jax.random.split(jax.random.key(3), 4)
    batches, one = many(keys), jax.jit(lambda key: task.train(key, SIZE))
    for i, key in enumerate(keys):
        for lane, alone, again in zip(batches, one(key), one(key), strict=True):
            np.testing.assert_array_equal(lane[i], alone)
            np.testing.assert_array_equal(alone, again)
    reversed_, inputs = many(keys[::-1])[0], np.asarray(batches[0])
    np.testing.assert_array_equal(reversed_, inputs[::-1])
    assert len(traces) == 1 and all(
        (inputs[i] != inputs[j]).any() for i in range(4) for j in range(i)
    )


@pytest.mark.parametrize("name", MADE)
def test_a_task_is_the_same_every_time_it_is_made(name, built, batch_of):
    task, other = built(name), MADE[name]()
    jax.tree.map(
        np.testing.assert_array_equal,
        (task.test, batch_of(task, 1, SIZE)),
        (other.test, batch_of(other, 1, SIZE)),
    )
    assert task[:8] == other[:8] and task.chance == other.chance


@pytest.mark.parametrize(
    "name",
    ["copying", *(pytest.param(x, marks=slow) for x in ("recall", "language", "digits"))],
)
def test_examples_are_the_same_whichever_precision_jax_is_in(name, built):
    def examples(task):
        batch = jax.jit(lambda key: task.train(key, SIZE))(jax.random.key(1))
        return [np.asarray(x) for x in (*task.test, *batch)]

    with jax.enable_x64(False):
        narrow = examples(MADE[name]())
    for other, own in zip(narrow, examples(built(name)), strict=True):
        assert other.dtype == own.dtype
        np.testing.assert_allclose(other, own, rtol=1e-6)


@pytest.mark.parametrize("name", ["classification", "language", "digits", "text"])
def test_the_best_constant_answer_on_the_held_out_examples_has_the_accuracy_chance(name, built):
    made = built(name)
    _, targets, weights = map(np.asarray, made.test)
    best = max(
        (weights * (targets == answer)).sum() / weights.sum() for answer in range(made.classes)
    )
    assert made.chance == pytest.approx(best, rel=1e-6)
