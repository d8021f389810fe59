"""Softmax and Sinkhorn as rules that make a mixing matrix of logits; what stacks of them keep.

Read by collapse.py. Rows of both rules sum to 1. So no detail comes back from the mean, and
P A_L ⋯ A_1 P is the product of the P A P.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import homojax as hj
from homojax.birkhoff import center, detail
from homojax.lab.sources import LogitSource, load_source
from homojax.numerics import arbitrary
from homojax.programs import program
from homojax.spectrum.rayleigh import largest_rayleigh_quotient

FAMILIES = ("Gaussian", "heavy tails", "low rank", "digits")
STACKS = ("independent", "shared", "residual")
DEPTH = 64
DEPTHS = (1, 2, 4, 8, 16, 32, 64)
FEATURES = 16  # of a token of self-attention


class Kept(NamedTuple):
    """What stacks keep, log₁₀."""

    kept: np.ndarray  # [rule, stack, ε, seed, depth]
    tokens: np.ndarray  # [rule, ε, seed, depth], of Gaussian tokens, independent layers


# ---------------------------------------------------------------- logits


def draw(family: str, n: int, seed: int, layers: int) -> np.ndarray:
    """Return logits [layers, n, n] of one stack."""
    if family == "digits":
        return load_source(LogitSource(source="digits", n=(n,))).draw(n, seed, layers)
    rng = np.random.default_rng([n, seed])
    if family == "Gaussian":
        return rng.standard_normal((layers, n, n))
    if family == "heavy tails":
        return rng.standard_t(2, (layers, n, n))
    rank = max(1, n // 8)
    queries, keys = rng.standard_normal((2, layers, n, rank))
    return queries @ keys.swapaxes(1, 2) / math.sqrt(rank)


# ---------------------------------------------------------------- measuring


def softmax(logits: jax.Array, epsilon: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits / epsilon, axis=-1)


def project(logits: jax.Array, epsilon: jax.Array) -> jax.Array:
    return hj.sinkhorn(logits, epsilon).matrix  # type: ignore[return-value]


RULES = (softmax, project)


def products(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return log₁₀ of ‖P A_l ⋯ A_1 P‖₂, and of what Gaussian tokens keep, at ``DEPTHS``."""
    layers, n = matrices.shape[:2]

    def multiply(state, matrix):
        block, log_size = state
        block = center(matrix @ block)
        size = abs(block).max()
        unit = jnp.where(size > 0, size, 1)
        state = block / unit, log_size + jnp.log10(unit)
        return state, state

    start = detail(jnp.eye(n)), jnp.zeros(())
    _, (blocks, log_size) = jax.lax.scan(multiply, start, matrices)
    rows = np.asarray([depth - 1 for depth in DEPTHS if depth <= layers])
    blocks, log_size = blocks[rows], log_size[rows]
    typical = jnp.sqrt((blocks**2).sum((1, 2)) / (n - 1))
    return tuple(log_size + jnp.log10(x) for x in (jax.vmap(norm_of)(blocks), typical))


def norm_of(block: jax.Array) -> jax.Array:
    """Return ‖A‖₂ to six digits, without the proof of ``hj.sigma2``, which ties make costly."""
    lost = (block == 0).all()
    safe = jnp.where(lost, 1, block)
    start = safe.T @ (safe @ arbitrary((len(block),), block.dtype))
    top, _ = largest_rayleigh_quotient(lambda x: safe.T @ (safe @ x), start, 1e-6, 200)
    return jnp.where(lost, 0, jnp.sqrt(((safe @ top) ** 2).sum()))


@cache
def stacks_of(rule: Callable) -> Callable:
    """Return the compiled (logits [L, n, n], ε [E]) -> what stacks keep, and what tokens keep."""

    def measure(logits: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, ...]:
        matrices = jax.vmap(rule, (0, None))(logits, epsilon)
        n = matrices.shape[1]
        kinds = (
            matrices,
            jnp.broadcast_to(matrices[:1], matrices.shape),
            (jnp.eye(n) + matrices) / 2,
        )
        kept, tokens = zip(*map(products, kinds), strict=True)
        return jnp.stack(kept), tokens[0]

    return program(jax.vmap(measure, (None, 0)))


def measure(family: str, n: int, epsilon: tuple[float, ...], seeds: int, layers: int) -> Kept:
    """Return what stacks of one family keep, seed by seed."""
    by_seed = []
    for seed in range(seeds):
        logits = draw(family, n, seed, layers)
        given = logits, np.asarray(epsilon)
        by_seed.append([jax.device_get(stacks_of(rule)(*given)) for rule in RULES])
    kept, tokens = (
        np.stack([[of_rule[k] for of_rule in one] for one in by_seed]) for k in range(2)
    )
    return Kept(kept=kept.transpose(1, 3, 2, 0, 4), tokens=tokens.transpose(1, 2, 0, 3))


def attend(
    rule: Callable, branch: float, tokens: jax.Array, weights: jax.Array, epsilon: jax.Array
) -> jax.Array:
    """Return log₁₀ of the detail that tokens [n, d] keep of themselves, [L].

    Logits are X W Xᵀ of the current tokens X. Their mean and their detail are carried apart, so
    that the detail keeps its digits. What is the same in a row of logits changes neither rule.
    """
    begin = center(tokens)

    def layer(state, weight):
        mean, rest = state
        logits = (mean + rest) @ weight @ rest.T
        image = (1 - branch) * (rule(logits, epsilon) @ rest) + branch * rest
        return (mean + image.mean(0), center(image)), jnp.sqrt((center(image) ** 2).sum())

    _, sizes = jax.lax.scan(layer, (tokens.mean(0), begin), weights)
    return jnp.log10(sizes) - jnp.log10(jnp.sqrt((begin**2).sum()))


@cache
def attention_of(rule: Callable, branch: float) -> Callable:
    """Return the compiled (tokens [S, n, d], weights [S, L, d, d], ε [E]) -> kept, [E, S, L]."""
    over_epsilon = jax.vmap(partial(attend, rule, branch), (None, None, 0))
    return program(jax.vmap(over_epsilon, (0, 0, None), 1))


def measure_attention(n: int, epsilon: tuple[float, ...], seeds: int) -> np.ndarray:
    """Return what the tokens of self-attention keep, [rule, kind, ε, seed, L]."""
    rng = np.random.default_rng([n, 1])
    tokens = rng.standard_normal((seeds, n, FEATURES))
    weights = rng.standard_normal((seeds, DEPTH, FEATURES, FEATURES)) / FEATURES
    given = tokens, weights, np.asarray(epsilon)
    return np.array(
        [[attention_of(rule, branch)(*given) for branch in (0.0, 0.5)] for rule in RULES]
    )
