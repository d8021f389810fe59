"""What networks are trained on: tasks that need detail to survive the layers, made or cut from data that the caller brings.

A network that mixes everything into its mean still sees *which* tokens an example has, no longer where: it can name the most
frequent of them. Copying and recall therefore have two floors, ``chance`` (blind) and this one (collapsed), and say both.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.numerics import as_float, require_count

Key = jax.Array
Batch = tuple[jax.Array, jax.Array, jax.Array]


class Task(NamedTuple):
    """Examples of n tokens, and what is asked about them.

    A batch is (inputs, targets, weights): int32 tokens [batch, n], or floats [batch, n, features]; int32 classes [batch, n], or
    [batch] where ``pooled``; floats of the targets' shape, 0 where nothing is asked.
    """

    name: str
    statement: str  # one line
    units: int  # n, tokens an example
    vocabulary: int | None  # inputs are tokens 0 … vocabulary − 1; None: they are floats
    features: int | None  # floats a token; None: inputs are tokens
    classes: int  # targets are 0 … classes − 1
    pooled: bool  # one target an example, read from the mean over tokens; otherwise one a token
    causal: bool  # a token may see itself and those before it only
    train: Callable[
        [Key, int], Batch
    ]  # (key, batch size) → a batch: pure, and jax.jit and jax.vmap over keys can have it
    test: Batch  # held out: the same for every network
    chance: (
        float  # accuracy, over what is asked, of the best answer that does not look at the input
    )


def copying(units: int = 8, vocabulary: int = 8, *, tests: int = 512, seed: int = 0) -> Task:
    """Every token, uniform and independent, is to be told again at its own place: as many numbers to keep apart as there are.

    Chance is 1/vocabulary. A network that has only the mean of its tokens can name the most frequent one: 0.32 at the
    default size. ``test`` is ``tests`` draws from a stream of their own (of vocabularyⁿ examples there are: where those are few,
    training meets them too).

    Raises:
        ValueError: units < 2 (one token has nothing to mix), vocabulary < 2, or tests < 1.

    >>> task = copying(units=3, vocabulary=5)
    >>> inputs, targets, weights = task.train(jax.random.key(0), 2)
    >>> inputs.shape, bool((inputs == targets).all()), weights.tolist()
    ((2, 3), True, [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    """
    require_count("units", units, 2)
    require_count("vocabulary", vocabulary, 2)

    def train(key: Key, batch: int) -> Batch:
        tokens = jax.random.randint(key, (batch, units), 0, vocabulary, jnp.int32)
        return tokens, tokens, jnp.ones(tokens.shape, jnp.float32)

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
        test=_drawn(train, tests, seed),
        chance=1 / vocabulary,
    )


def recall(
    pairs: int = 4, keys: int = 8, values: int = 8, *, tests: int = 512, seed: int = 0
) -> Task:
    """Associative recall: key value key value … query, and at the query, the last token, the value that followed its key.

    n = 2 pairs + 1. Keys are tokens 0 … keys − 1, distinct within an example, values keys … keys + values − 1, uniform and
    independent; the query is one of the keys, each as likely, and the target is the value's number, 0 … values − 1. Nothing
    is asked at the other tokens. Chance is 1/values. A network that has only the mean of its tokens can name the most
    frequent value: 0.41 at the default size. ``test`` is ``tests`` draws from a stream of their own. After Ba et al. (2016),
    "Using Fast Weights to Attend to the Recent Past", arXiv 1610.06258, section 4.1.

    Raises:
        ValueError: pairs < 1, keys < 2 or fewer than pairs, values < 2, or tests < 1.

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
    units = 2 * pairs + 1

    def train(key: Key, batch: int) -> Batch:
        for_keys, for_values, for_query = jax.random.split(key, 3)
        chosen = jnp.argsort(jax.random.bits(for_keys, (batch, keys), jnp.uint32), axis=1)[
            :, :pairs
        ].astype(jnp.int32)
        drawn = jax.random.randint(for_values, (batch, pairs), 0, values, jnp.int32)
        place = jax.random.randint(for_query, (batch, 1), 0, pairs, jnp.int32)
        query = jnp.take_along_axis(chosen, place, axis=1)
        told = jnp.stack([chosen, keys + drawn], axis=2).reshape(batch, units - 1)
        targets = (
            jnp.zeros((batch, units), jnp.int32)
            .at[:, -1:]
            .set(jnp.take_along_axis(drawn, place, axis=1))
        )
        weights = jnp.zeros((batch, units), jnp.float32).at[:, -1].set(1)
        return jnp.concatenate([told, query], axis=1), targets, weights

    return Task(
        name="recall",
        statement=f"of {pairs} pairs of a key (of {keys}) and a value (of {values}), tell the value of the key asked last",
        units=units,
        vocabulary=keys + values,
        features=None,
        classes=values,
        pooled=False,
        causal=False,
        train=train,
        test=_drawn(train, tests, seed),
        chance=1 / values,
    )


def classification(
    images: ArrayLike,
    labels: ArrayLike,
    *,
    patch: int = 2,
    held_out: float = 0.2,
    seed: int = 0,
    name: str = "classification",
) -> Task:
    """Which class an image [height, width] is of, its square patches the tokens, row by row: one answer from their mean.

    ``images`` [N, height, width] give n = height·width/patch² tokens of patch² features, in their own dtype (JAX's default for
    integers), shifted and scaled by the one mean and standard deviation of all training pixels. The split is fixed by
    ``seed``: ``held_out`` of every class, rounded and at least one image, is ``test``; a class of a single image is trained
    on. Training draws with replacement from the rest. Classes are 0 … max label; chance is the share of the most frequent
    one in ``test``. Images that occur twice in ``images`` may be in both parts.

    Raises:
        ValueError: other shapes, non-finite images or ones of a single colour, labels that are not whole numbers from 0 or all
            the same, a patch that does not divide the image into at least 2, or a share held out that leaves no test image.

    >>> images = jnp.arange(160.0).reshape(10, 4, 4)
    >>> task = classification(images, [0, 1] * 5)
    >>> task.units, task.features, task.test[0].shape, task.test[1].tolist(), task.chance
    (4, 4, (2, 4, 4), [0, 1], 0.5)
    """
    images, labels = as_float(images), jnp.asarray(labels)
    require_count("patch", patch, 1)
    _require_share(held_out)
    if images.ndim != 3 or not images.size:
        raise ValueError(
            f"images must have shape [N, height, width] and none be empty, got {list(images.shape)}"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{images.shape[0]} images need labels of shape [{images.shape[0]}], got {list(labels.shape)}"
        )
    numbers = labels.tolist()
    if not jnp.issubdtype(labels.dtype, jnp.integer) or min(numbers) < 0:
        raise ValueError("labels must be whole numbers from 0, one a class")
    if min(numbers) == max(numbers):
        raise ValueError(f"every label is {numbers[0]}: there is nothing to tell apart")
    if not jnp.isfinite(images).all():
        index = [int(i[0]) for i in jnp.nonzero(~jnp.isfinite(images), size=1)]
        raise ValueError(f"images are {images[tuple(index)]} at {index}: they must be finite")
    height, width = images.shape[1:]
    if height % patch or width % patch:
        raise ValueError(f"patches of {patch} x {patch} do not tile images of {height} x {width}")
    units, features = height * width // patch**2, patch**2
    if units < 2:
        raise ValueError(
            f"a patch of {patch} x {patch} is the whole image: one token has nothing to mix"
        )

    kept, held = _stratified(numbers, held_out, seed)
    if not held:
        raise ValueError("no class has two images, one to train on and one to hold out")
    pool, test, deviation = _tokens(images, jnp.array(kept), jnp.array(held), patch)
    if not deviation > 0:
        raise ValueError("all training images are of one and the same colour")
    labels = labels.astype(jnp.int32)
    answers, expected = labels[jnp.array(kept)], labels[jnp.array(held)]

    def train(key: Key, batch: int) -> Batch:
        chosen = jax.random.randint(key, (batch,), 0, len(pool), jnp.int32)
        return pool[chosen], answers[chosen], jnp.ones(batch, pool.dtype)

    classes = max(numbers) + 1
    return Task(
        name=name,
        statement=f"tell which of {classes} classes an image of {units} patches, {patch} x {patch}, is of",
        units=units,
        vocabulary=None,
        features=features,
        classes=classes,
        pooled=True,
        causal=False,
        train=train,
        test=(test, expected, jnp.ones(len(held), test.dtype)),
        chance=_largest_share(expected),
    )


def language(
    text: str, units: int = 64, *, held_out: float = 0.1, tests: int = 512, name: str = "language"
) -> Task:
    """The next character at every place of a window of a text, from those before it.

    The first 1 − ``held_out`` of the text is for training, at random offsets; the tail is cut into consecutive windows, and
    ``test`` is ``tests`` of them, evenly spread, or all there are. Tokens are the training part's characters in order of
    their code points; the last class, vocabulary − 1, is every other character: never a target in training, asked and
    counted in ``test``. Chance is the share of the most frequent class among ``test``'s targets.

    Raises:
        ValueError: units < 2, tests < 1, a share that is none, a text too short for one window of units + 1 characters in each
            part, or a training part of one and the same character.

    >>> task = language("to be or not to be " * 9, units=8)
    >>> inputs, targets, weights = task.train(jax.random.key(0), 2)
    >>> task.vocabulary, inputs.shape, bool((inputs[:, 1:] == targets[:, :-1]).all())
    (8, (2, 8), True)
    """
    require_count("units", units, 2)
    require_count("tests", tests, 1)
    _require_share(held_out)
    length, window = len(text), units + 1
    if length < 2 * window:
        raise ValueError(
            f"a text of {length} characters is shorter than two windows of {window}, one to train and one to test on"
        )
    boundary = length - math.floor(held_out * length + 0.5)
    if min(boundary, length - boundary) < window:
        raise ValueError(
            f"held_out = {held_out} leaves {boundary} characters to train and {length - boundary} to test on: "
            f"each part needs a window of {window}"
        )
    known = sorted(set(text[:boundary]))
    if len(known) < 2:
        raise ValueError(
            f"the training part is {text[0]!r} throughout: there is nothing to tell apart"
        )
    vocabulary = len(known) + 1
    numbers = defaultdict(
        lambda: len(known), {ord(character): i for i, character in enumerate(known)}
    )
    tokens = jnp.frombuffer(text.translate(numbers).encode("utf-32-le", "surrogatepass"), jnp.int32)
    pool, tail = tokens[:boundary], tokens[boundary:]

    def windows(source: jax.Array, offsets: jax.Array) -> Batch:
        cut = source[offsets[:, None] + jnp.arange(window)]
        return cut[:, :-1], cut[:, 1:], jnp.ones((len(offsets), units), jnp.float32)

    def train(key: Key, batch: int) -> Batch:
        return windows(pool, jax.random.randint(key, (batch,), 0, boundary - units, jnp.int32))

    available = (len(tail) - 1) // units
    taken = min(tests, available)
    test = windows(tail, units * jnp.array([i * available // taken for i in range(taken)]))
    return Task(
        name=name,
        statement=f"tell the next of {vocabulary} characters at each of {units} places, from those before",
        units=units,
        vocabulary=vocabulary,
        features=None,
        classes=vocabulary,
        pooled=False,
        causal=True,
        train=train,
        test=test,
        chance=_largest_share(test[1]),
    )


_TEST_STREAM = 0x7E57  # what sets the key of a made test apart from jax.random.key(seed), with which somebody may train


def _drawn(train: Callable[[Key, int], Batch], tests: int, seed: int) -> Batch:
    require_count("tests", tests, 1)
    return jax.jit(train, static_argnums=1)(
        jax.random.fold_in(jax.random.key(seed), _TEST_STREAM), tests
    )


def _stratified(labels: list[int], held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Places to train on and places held out, each ascending: of a class of c ≥ 2, held_out · c rounded, 1 … c − 1 of them."""
    members = defaultdict(list)
    for place in jax.random.permutation(jax.random.key(seed), len(labels)).tolist():
        members[labels[place]].append(place)
    kept, held = [], []
    for places in members.values():
        wanted = min(max(math.floor(held_out * len(places) + 0.5), 1), len(places) - 1)
        held += places[:wanted]
        kept += places[wanted:]
    return sorted(kept), sorted(held)


@partial(jax.jit, static_argnames="patch")
def _tokens(
    images: jax.Array, kept: jax.Array, held: jax.Array, patch: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens [kept, n, patch²] and [held, n, patch²] in units of the kept pixels' deviation, and that deviation."""
    wide = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    mean, deviation = wide[kept].mean(), wide[kept].std()
    standard = ((wide - mean) / deviation).astype(images.dtype)
    count, height, width = images.shape
    patches = standard.reshape(count, height // patch, patch, width // patch, patch).swapaxes(2, 3)
    tokens = patches.reshape(count, height * width // patch**2, patch**2)
    return tokens[kept], tokens[held], deviation


def _largest_share(targets: jax.Array) -> float:
    return Counter(targets.ravel().tolist()).most_common(1)[0][1] / targets.size


def _require_share(held_out: float) -> None:
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be strictly between 0 and 1, got {held_out}")
