"""The task to continue a given text, character by character."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial

import jax
import jax.numpy as jnp

from homojax.arguments import require_count
from homojax.networks.tasks.task import Batch, Task, largest_share, require_share


def language(
    text: str, units: int = 64, *, held_out: float = 0.1, tests: int = 512, name: str = "language"
) -> Task:
    """Return the task to name the next character at every place of a window of a text.

    The first 1 − ``held_out`` of the text is for training, at random offsets. The tail is cut into
    consecutive windows, of which ``tests`` are ``test``. Tokens are the training part's characters
    in the order of their code points. The last class, vocabulary − 1, is every other character:
    it is never a target in training, and it is asked and counted in ``test``. Chance is the share
    of the most frequent class among the targets of ``test``.

    Args:
        text: the text, with at least one window of units + 1 characters in each part.
        units: n, characters of an example, at least 2.
        held_out: share of the text, at its end, that is for ``test``.
        tests: number of windows held out, at least 1, evenly spread, or all there are.
        name: name of the task.

    Raises:
        ValueError: an argument is not as described, or the training part repeats one character.

    >>> task = language("to be or not to be " * 9, units=8)
    >>> inputs, targets, weights = task.train(jax.random.key(0), 2)
    >>> task.vocabulary, inputs.shape, bool((inputs[:, 1:] == targets[:, :-1]).all())
    (8, (2, 8), True)
    """
    require_count("units", units, 2)
    require_count("tests", tests, 1)
    require_share(held_out)
    boundary = _boundary(len(text), units + 1, held_out)
    known = sorted(set(text[:boundary]))
    if len(known) < 2:
        raise ValueError(
            f"the training part is {text[0]!r} throughout: there is nothing to tell apart"
        )
    tokens = _numbered(text, known)
    test = _test_windows(tokens[boundary:], units, tests)
    vocabulary = len(known) + 1
    return Task(
        name=name,
        statement=f"tell the next of {vocabulary} characters at each of {units} places, "
        "from those before",
        units=units,
        vocabulary=vocabulary,
        features=None,
        classes=vocabulary,
        pooled=False,
        causal=True,
        train=partial(_batch, pool=tokens[:boundary], units=units),
        test=test,
        chance=largest_share(test[1]),
    )


def _boundary(length: int, window: int, held_out: float) -> int:
    """Return the number of characters to train on; ValueError: a part has no whole window."""
    if length < 2 * window:
        raise ValueError(
            f"a text of {length} characters is shorter than two windows of {window}, "
            "one to train and one to test on"
        )
    boundary = length - math.floor(held_out * length + 0.5)
    if min(boundary, length - boundary) < window:
        raise ValueError(
            f"held_out = {held_out} leaves {boundary} characters to train and {length - boundary} "
            f"to test on: each part needs a window of {window}"
        )
    return boundary


def _numbered(text: str, known: list[str]) -> jax.Array:
    """Return each character's place in ``known``, or len(known) where it is not there."""
    numbers = defaultdict(
        lambda: len(known), {ord(character): i for i, character in enumerate(known)}
    )
    return jnp.frombuffer(text.translate(numbers).encode("utf-32-le", "surrogatepass"), jnp.int32)


def _batch(key: jax.Array, batch: int, *, pool: jax.Array, units: int) -> Batch:
    return _windows(pool, jax.random.randint(key, (batch,), 0, len(pool) - units, jnp.int32), units)


def _test_windows(tail: jax.Array, units: int, tests: int) -> Batch:
    available = (len(tail) - 1) // units
    taken = min(tests, available)
    places = jnp.array([i * available // taken for i in range(taken)])
    return _windows(tail, units * places, units)


def _windows(source: jax.Array, offsets: jax.Array, units: int) -> Batch:
    cut = source[offsets[:, None] + jnp.arange(units + 1)]
    return cut[:, :-1], cut[:, 1:], jnp.ones((len(offsets), units), jnp.float32)
