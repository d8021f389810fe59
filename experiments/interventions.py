"""What is changed, to see why softmax or Sinkhorn keeps more.

Read by collapse.py (law 8.2, doubly stochastic or softmax). If a cause is the true one, the lead of
a rule goes where its cause is taken away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rules import FAMILIES, draw, products, project, softmax

from homojax.birkhoff import detail
from homojax.programs import program

EVEN_LAYERS = 16  # of the stacks that are made even


class Stack(NamedTuple):
    """A stack of one rule, as its causes are told."""

    kept: jax.Array  # log₁₀ of ‖P A_L ⋯ A_1 P‖₂
    tokens: jax.Array  # log₁₀ of what Gaussian tokens keep
    entropy: jax.Array  # of a row, mean over rows and layers
    size: jax.Array  # log₁₀ of ‖P A P‖_F, mean over layers


@cache
def stack_of(rule: Callable) -> Callable[[np.ndarray, float], Stack]:
    """Return the compiled (logits [L, n, n], ε) -> Stack."""

    def measure(logits: jax.Array, epsilon: jax.Array) -> Stack:
        matrices = jax.vmap(rule, (0, None))(logits, epsilon)
        kept, tokens = products(matrices)
        return Stack(
            kept=kept[-1],
            tokens=tokens[-1],
            entropy=jax.scipy.special.entr(matrices).sum(-1).mean(),
            size=jnp.log10((jax.vmap(detail)(matrices) ** 2).sum((1, 2))).mean() / 2,
        )

    return program(measure)


def kept_by(rule: Callable, logits: np.ndarray, epsilon: float) -> float:
    return float(stack_of(rule)(logits, epsilon).kept)


# ---------------------------------------------------------------- logits, changed


def with_tops_apart(logits: np.ndarray) -> np.ndarray:
    """Return logits [L, n, n] whose rows are turned until row i has its largest entry at i.

    Each row keeps its values, and so its entropy.
    """
    n = logits.shape[-1]
    places = (np.arange(n)[None, :] - np.arange(n)[:, None] + logits.argmax(-1)[..., None]) % n
    return np.take_along_axis(logits, places, axis=-1)


def with_level_diagonal(logits: np.ndarray) -> np.ndarray:
    """Return logits [L, n, n] whose diagonal entries are the means of the others in their rows."""
    n = logits.shape[-1]
    own = np.eye(n, dtype=bool)
    others = np.where(own, 0, logits).sum(-1, keepdims=True) / (n - 1)
    return np.where(own, others, logits)


def with_columns_centred(logits: np.ndarray) -> np.ndarray:
    """Return logits [L, n, n] whose columns have mean 0. The projection does not feel it."""
    return logits - logits.mean(-2, keepdims=True)


# ---------------------------------------------------------------- the lead that is left


def lead(logits: np.ndarray, epsilon: float) -> float:
    """Return log₁₀ of what softmax keeps over what Sinkhorn keeps."""
    return kept_by(softmax, logits, epsilon) - kept_by(project, logits, epsilon)


def lead_with_tops_apart(logits: np.ndarray, epsilon: float) -> float:
    return kept_by(softmax, with_tops_apart(logits), epsilon) - kept_by(project, logits, epsilon)


def lead_with_level_diagonal(logits: np.ndarray, epsilon: float) -> float:
    return lead(with_level_diagonal(logits), epsilon)


def lead_with_columns_centred(logits: np.ndarray, epsilon: float) -> float:
    return lead(with_columns_centred(logits), epsilon)


def lead_of_tokens(logits: np.ndarray, epsilon: float) -> float:
    """Return log₁₀ of what Gaussian tokens keep by softmax, over what they keep by Sinkhorn."""
    mixed, projected = (stack_of(rule)(logits, epsilon) for rule in (softmax, project))
    return float(mixed.tokens - projected.tokens)


def lead_at_even(what: str, of: str, logits: np.ndarray, epsilon: float) -> float:
    """Return the lead where ε of the projection makes ``what`` of its stack that of softmax's.

    The lead is that ``of`` the detail kept at most, or of tokens.

    Entropy rises with ε (law 1.3, entropy rises), and the size of detail falls from that of a
    permutation to 0. So the root lies between two ε, and false position finds it: to 1e-4 nats, or
    a ten-thousandth of a decade, or in 12 steps.
    """
    mixed = stack_of(softmax)(logits, epsilon)
    rises = 1 if what == "entropy" else -1

    def excess(log_epsilon: float) -> tuple[float, float]:
        stack = stack_of(project)(logits, math.exp(log_epsilon))
        off = rises * (getattr(stack, what) - getattr(mixed, what))
        return float(off), float(getattr(mixed, of) - getattr(stack, of))

    low, high, left = math.log(epsilon) - 0.5, math.log(epsilon), math.nan
    while (below := excess(low)[0]) > 0:
        low -= 1
    while (above := excess(high)[0]) < 0:
        high += 1
    for _ in range(12):
        middle = low + (high - low) * below / (below - above)
        off, left = excess(middle)
        if abs(off) < 1e-4:
            break
        if off > 0:
            high, above, below = middle, off, below / 2  # the other end counts half (Illinois)
        else:
            low, below, above = middle, off, above / 2
    return left


class Intervention(NamedTuple):
    """One change, in the regime whose cause it takes away."""

    regime: str
    then: Callable[[np.ndarray, float], float]  # the lead that is left
    layers: int | None = None  # all, if none are given
    before: Callable[[np.ndarray, float], float] = lead
    families: tuple[str, ...] = FAMILIES


INTERVENTIONS = {
    "rows as mixed": Intervention("warm", partial(lead_at_even, "entropy", "kept"), EVEN_LAYERS),
    "detail as large": Intervention("warm", partial(lead_at_even, "size", "kept"), EVEN_LAYERS),
    "detail as large, tokens": Intervention(
        "warm", partial(lead_at_even, "size", "tokens"), EVEN_LAYERS, lead_of_tokens
    ),
    "tops apart": Intervention("cold", lead_with_tops_apart),
    "level diagonal": Intervention("cold", lead_with_level_diagonal, families=("digits",)),
    "level diagonal, warm": Intervention("warm", lead_with_level_diagonal, families=("digits",)),
    "columns centred": Intervention("hot", lead_with_columns_centred),
}


def intervene(
    name: str, family: str, n: int, epsilon: float, seeds: int, layers: int
) -> np.ndarray:
    """Return the lead as it is, and after an intervention, [2, seed]."""
    change = INTERVENTIONS[name]
    stacks = [draw(family, n, seed, layers)[: change.layers] for seed in range(seeds)]
    return np.array(
        [[one(logits, epsilon) for logits in stacks] for one in (change.before, change.then)]
    )
