"""A task: examples of n tokens, a question about them, and the accuracy of guessing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import jax

Batch = tuple[jax.Array, jax.Array, jax.Array]
"""(inputs, targets, weights), as ``Task`` says."""


class Task(NamedTuple):
    """Examples of n tokens, and a question about them.

    A batch is (inputs, targets, weights). Inputs are int32 tokens [batch, n], or floats
    [batch, n, features]. Targets are int32 classes [batch, n], or [batch] where ``pooled``. Weights
    are floats of the targets' shape, 0 where nothing is asked.

    >>> from homojax.networks.tasks import copying
    >>> task = copying(units=4, vocabulary=8)
    >>> inputs, targets, weights = task.train(jax.random.key(0), 2)
    >>> inputs.shape, bool((inputs == targets).all()), task.chance < 0.2
    ((2, 4), True, True)
    """

    name: str
    statement: str
    """The question, in one line."""
    units: int
    """n, tokens of an example."""
    vocabulary: int | None
    """Inputs are tokens 0 … vocabulary − 1; None: inputs are floats."""
    features: int | None
    """Floats of a token; None: inputs are tokens."""
    classes: int
    """Targets are 0 … classes − 1."""
    pooled: bool
    """One target for an example, read from the mean over tokens; otherwise one for each token."""
    causal: bool
    """A token may see only itself and the tokens before it."""
    train: Callable[[jax.Array, int], Batch]
    """(key, batch size) -> a batch: a pure function, for ``jax.jit`` and ``jax.vmap`` over keys."""
    test: Batch
    """Examples held out: the same for every network."""
    chance: float
    """Accuracy, over all questions, of the best answer that does not look at the input."""


def largest_share(targets: jax.Array) -> float:
    """Return the share of the most frequent class.

    >>> import numpy as np
    >>> largest_share(np.array([0, 2, 2, 1]))
    0.5
    """
    return Counter(targets.ravel().tolist()).most_common(1)[0][1] / targets.size


def require_share(held_out: float) -> None:
    """Refuse a share to hold out that is not strictly between 0 and 1.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be strictly between 0 and 1, got {held_out}")
