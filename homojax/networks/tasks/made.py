"""Tasks that are made from keys: copying and recall.

A network that mixes everything into its mean still sees *which* tokens an example has, and no
longer *where*: it can name the most frequent token. These tasks therefore have two floors, which
their docstrings both give: ``chance`` (blind) and the accuracy of the mean (collapsed).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from homojax.arguments import require_count
from homojax.networks.tasks.task import Batch, Task

TEST_STREAM = 0x7E57  # keeps the test's key apart from the plain keys with which people train


def copying(units: int = 8, vocabulary: int = 8, *, tests: int = 512, seed: int = 0) -> Task:
    """Return the task to name every token at its own place: each is a number to keep apart.

    Chance is 1/vocabulary. A network that has only the mean of its tokens can name the most
    frequent token: 0.32 at the default size. Where vocabularyⁿ is small, training meets the
    examples of the test, too.

    Args:
        units: n, tokens of an example, at least 2: one token has nothing to mix.
        vocabulary: number of different tokens, at least 2; draws are uniform and independent.
        tests: number of examples held out, at least 1, from a stream of their own.
        seed: fixes the examples held out.

    Raises:
        ValueError: a number is below its least value.

    >>> task = copying(units=3, vocabulary=5)
    >>> inputs, targets, weights = task.train(jax.random.key(0), 2)
    >>> inputs.shape, bool((inputs == targets).all()), weights.tolist()
    ((2, 3), True, [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    """
    require_count("units", units, 2)
    require_count("vocabulary", vocabulary, 2)
    train = partial(_copying_batch, units=units, vocabulary=vocabulary)
    return Task(
        name="copying",
        statement=f"tell each of {units} tokens, one of {vocabulary}, again at its own place",
        units=units,
        vocabulary=vocabulary,
        features=None,
        classes=vocabulary,
        pooled=False,
        causal=False,
        train=train,
        test=_test_examples(train, tests, seed),
        chance=1 / vocabulary,
    )


def recall(
    pairs: int = 4, keys: int = 8, values: int = 8, *, tests: int = 512, seed: int = 0
) -> Task:
    """Return the task to name the value that followed a key: key value key value … query.

    An example has n = 2 pairs + 1 tokens. Keys are tokens 0 … keys − 1, distinct within an example;
    values are tokens keys … keys + values − 1, uniform and independent. The last token, the query,
    is one of the example's keys, each as likely. The only question is asked at the query, and its
    target is the value's number, 0 … values − 1.

    Chance is 1/values. A network that has only the mean of its tokens can name the most frequent
    value: 0.41 at the default size.

    Args:
        pairs: number of pairs of an example, at least 1.
        keys: number of different keys, at least 2 and at least ``pairs``.
        values: number of different values, at least 2.
        tests: number of examples held out, at least 1, from a stream of their own.
        seed: fixes the examples held out.

    Raises:
        ValueError: a number is below its least value.

    Source: Ba et al., Using Fast Weights to Attend to the Recent Past (2016), arXiv 1610.06258,
    section 4.1.

    >>> tokens, targets, weights = recall(pairs=2, keys=3, values=4).train(jax.random.key(1), 1)
    >>> asked = tokens[0, :-1:2] == tokens[0, -1]
    >>> int(tokens[0, 1::2][asked][0]) - 3 == targets[0, -1], weights.tolist()
    (Array(True, dtype=bool), [[0.0, 0.0, 0.0, 0.0, 1.0]])
    """
    require_count("pairs", pairs, 1)
    require_count("keys", keys, 2)
    require_count("values", values, 2)
    if keys < pairs:
        raise ValueError(f"{pairs} pairs need as many different keys, got keys = {keys}")
    train = partial(_recall_batch, pairs=pairs, keys=keys, values=values)
    return Task(
        name="recall",
        statement=f"of {pairs} pairs of a key (of {keys}) and a value (of {values}), "
        "tell the value of the key asked last",
        units=2 * pairs + 1,
        vocabulary=keys + values,
        features=None,
        classes=values,
        pooled=False,
        causal=False,
        train=train,
        test=_test_examples(train, tests, seed),
        chance=1 / values,
    )


def _copying_batch(key: jax.Array, batch: int, *, units: int, vocabulary: int) -> Batch:
    tokens = jax.random.randint(key, (batch, units), 0, vocabulary, jnp.int32)
    return tokens, tokens, jnp.ones(tokens.shape, jnp.float32)


def _recall_batch(key: jax.Array, batch: int, *, pairs: int, keys: int, values: int) -> Batch:
    for_keys, for_values, for_query = jax.random.split(key, 3)
    # Distinct keys are the first of a random order of all keys.
    order = jnp.argsort(jax.random.bits(for_keys, (batch, keys), jnp.uint32), axis=1)
    chosen = order[:, :pairs].astype(jnp.int32)
    drawn = jax.random.randint(for_values, (batch, pairs), 0, values, jnp.int32)
    place = jax.random.randint(for_query, (batch, 1), 0, pairs, jnp.int32)
    query = jnp.take_along_axis(chosen, place, axis=1)
    told = jnp.stack([chosen, keys + drawn], axis=2).reshape(batch, 2 * pairs)
    tokens = jnp.concatenate([told, query], axis=1)
    # The question is asked at the last token alone.
    answer = jnp.take_along_axis(drawn, place, axis=1)
    targets = jnp.zeros(tokens.shape, jnp.int32).at[:, -1:].set(answer)
    weights = jnp.zeros(tokens.shape, jnp.float32).at[:, -1].set(1)
    return tokens, targets, weights


def _test_examples(train: Callable[[jax.Array, int], Batch], tests: int, seed: int) -> Batch:
    require_count("tests", tests, 1)
    key = jax.random.fold_in(jax.random.key(seed), TEST_STREAM)
    return jax.jit(train, static_argnums=1)(key, tests)
