"""AdamW with a warm-up, a cosine, and a decay of its own for the parameters of mixing matrices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from homojax.networks.training import Training


def learning_rate(training: Training) -> optax.Schedule:
    """Return the schedule, step -> learning rate: a linear warm-up, then a cosine to zero.

    >>> float(learning_rate(Training(steps=100, warmup=10, learning_rate=0.5))(10))
    0.5
    """
    if training.warmup >= training.steps:
        return optax.linear_schedule(0.0, training.learning_rate, training.warmup)
    return optax.warmup_cosine_decay_schedule(
        0.0, training.learning_rate, training.warmup, training.steps
    )


def decayed(training: Training) -> jax.Array:
    """Return the share of the mixing logits that decay alone leaves after 0 … ``steps`` steps.

    It is Π(1 − lr_t·decay), [steps + 1]. Source: theory.md 6.1, decay of logits.

    >>> decayed(Training(steps=4, mixing_decay=0.0)).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    rates = jax.vmap(learning_rate(training))(jnp.arange(training.steps))
    return jnp.concatenate([jnp.ones(1), jnp.cumprod(1 - rates * training.mixing_decay)])


def optimiser(training: Training) -> optax.GradientTransformation:
    """Return AdamW: ``mixing_decay`` acts on the parameters of mixing matrices.

    ``weight_decay`` acts on all other parameters except residual weights α.

    >>> state = optimiser(Training()).init({"kernel": jnp.zeros(2)})
    """
    return optax.chain(
        optax.clip_by_global_norm(training.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(training.weight_decay, _others),
        optax.add_decayed_weights(training.mixing_decay, _mixing),
        optax.scale_by_learning_rate(learning_rate(training)),
    )


def _mixing(tree: Any) -> Any:
    """Return True at each leaf that holds the parameters of mixing matrices."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_mixing(_names(path)), tree)


def _others(tree: Any) -> Any:
    """Return True at each leaf that holds neither those parameters nor residual weights."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not _is_mixing(_names(path)) and "alpha" not in _names(path), tree
    )


def _is_mixing(names: list[str]) -> bool:
    return names[-2:-1] == ["values"]


def _names(path: tuple) -> list[str]:
    return [str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path]
