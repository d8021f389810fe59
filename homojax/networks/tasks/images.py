"""The task to classify given images from their patches."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_float, require_count
from homojax.networks.tasks.task import Batch, Task, largest_share, require_share


def classification(
    images: ArrayLike,
    labels: ArrayLike,
    *,
    patch: int = 2,
    held_out: float = 0.2,
    seed: int = 0,
    name: str = "classification",
) -> Task:
    """Return the task to name an image's class: its tokens are square patches, row by row.

    The answer is read from the mean over tokens. Pixels are shifted and scaled by the one mean and
    standard deviation of all training pixels. A class of a single image is trained on. Training
    draws with replacement. Images that occur twice may be in both parts. Chance is the share of
    the most frequent class in ``test``.

    Args:
        images: [N, height, width], finite; floats keep their dtype.
        labels: [N], whole numbers from 0; the classes are 0 … the largest label.
        patch: side of a patch in pixels, which divides height and width into at least 2 patches.
        held_out: share of every class that is ``test``, rounded, and at least one image.
        seed: fixes which images are held out.
        name: name of the task.

    Raises:
        ValueError: an argument is not as described, all images have one colour, all labels are
            equal, or no class has two images.

    >>> images = jnp.arange(160.0).reshape(10, 4, 4)
    >>> task = classification(images, [0, 1] * 5)
    >>> task.units, task.features, task.test[0].shape, task.test[1].tolist(), task.chance
    (4, 4, (2, 4, 4), [0, 1], 0.5)
    """
    images, labels = as_float(images), jnp.asarray(labels)
    _require_images(images)
    _require_labels(labels, len(images))
    _require_patches(images, patch)
    require_share(held_out)
    numbers = labels.tolist()
    kept, held = _stratified(numbers, held_out, seed)
    if not held:
        raise ValueError("no class has two images, one to train on and one to hold out")
    pool, test, deviation = _tokens(images, jnp.array(kept), jnp.array(held), patch)
    if not deviation > 0:
        raise ValueError("all training images are of one and the same colour")
    labels = labels.astype(jnp.int32)
    expected, classes = labels[jnp.array(held)], max(numbers) + 1
    _, units, features = test.shape
    return Task(
        name=name,
        statement=f"tell which of {classes} classes an image of {units} patches, "
        f"{patch} x {patch}, is of",
        units=units,
        vocabulary=None,
        features=features,
        classes=classes,
        pooled=True,
        causal=False,
        train=partial(_batch, pool=pool, answers=labels[jnp.array(kept)]),
        test=(test, expected, jnp.ones(len(held), test.dtype)),
        chance=largest_share(expected),
    )


def _batch(key: jax.Array, batch: int, *, pool: jax.Array, answers: jax.Array) -> Batch:
    chosen = jax.random.randint(key, (batch,), 0, len(pool), jnp.int32)
    return pool[chosen], answers[chosen], jnp.ones(batch, pool.dtype)


def _require_images(images: jax.Array) -> None:
    if images.ndim != 3 or not images.size:
        raise ValueError(
            f"images must have shape [N, height, width] and none be empty, got {list(images.shape)}"
        )
    if not jnp.isfinite(images).all():
        index = [int(i[0]) for i in jnp.nonzero(~jnp.isfinite(images), size=1)]
        raise ValueError(f"images are {images[tuple(index)]} at {index}: they must be finite")


def _require_labels(labels: jax.Array, count: int) -> None:
    if labels.shape != (count,):
        raise ValueError(f"{count} images need labels of shape [{count}], got {list(labels.shape)}")
    numbers = labels.tolist()
    if not jnp.issubdtype(labels.dtype, jnp.integer) or min(numbers) < 0:
        raise ValueError("labels must be whole numbers from 0, one a class")
    if min(numbers) == max(numbers):
        raise ValueError(f"every label is {numbers[0]}: there is nothing to tell apart")


def _require_patches(images: jax.Array, patch: int) -> None:
    require_count("patch", patch, 1)
    _, height, width = images.shape
    if height % patch or width % patch:
        raise ValueError(f"patches of {patch} x {patch} do not tile images of {height} x {width}")
    if height * width < 2 * patch**2:
        raise ValueError(
            f"a patch of {patch} x {patch} is the whole image: one token has nothing to mix"
        )


def _stratified(labels: list[int], held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the places to train on and the places held out, each ascending.

    Of a class of c ≥ 2 images, held_out · c are held out, rounded, and from 1 to c − 1.
    """
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
    """Return tokens [kept, n, patch²] and [held, n, patch²] in units of a deviation, and that.

    The deviation is that of all kept pixels.
    """
    wide = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    mean, deviation = wide[kept].mean(), wide[kept].std()
    standard = ((wide - mean) / deviation).astype(images.dtype)
    count, height, width = images.shape
    patches = standard.reshape(count, height // patch, patch, width // patch, patch).swapaxes(2, 3)
    tokens = patches.reshape(count, height * width // patch**2, patch**2)
    return tokens[kept], tokens[held], deviation
