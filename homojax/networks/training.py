"""Training as pure functions of a run: what ``jax.vmap`` over seeds and grids of ε, α and noise makes one program of.

A run's batches and noise follow from its key and the number of the step, so a run that goes on from where it was kept is, bit
for bit, the run that never stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike

from homojax.networks.architecture import Architecture
from homojax.networks.layers import residual_weight
from homojax.networks.model import Model, Trace
from homojax.networks.tasks import Batch, Task
from homojax.numerics import require_count, require_number
from homojax.presets import PRESETS


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained: AdamW with decoupled decay, a linear warm-up and a cosine to zero."""

    steps: int = 1000
    """Steps of the optimiser."""
    batch: int = 64
    """Examples a step."""
    learning_rate: float = 3e-3
    """After the warm-up."""
    warmup: int = 50
    """Steps of it."""
    weight_decay: float = 0.0
    """Of all parameters but those of mixing matrices, and α."""
    mixing_decay: float = 0.0
    """Of the parameters of mixing matrices."""
    clip: float = 1.0
    """Largest norm of a gradient."""

    def __post_init__(self):
        for name, least in (("steps", 1), ("batch", 1), ("warmup", 0)):
            object.__setattr__(self, name, require_count(name, getattr(self, name), least))
        for name in ("learning_rate", "clip", "weight_decay", "mixing_decay"):
            positive = name in ("learning_rate", "clip")
            object.__setattr__(self, name, require_number(name, getattr(self, name), positive))


class Run(NamedTuple):
    """One run under way. What it carries, no more: what it reports comes from ``Trainer.evaluate`` and ``Trainer.trace``."""

    parameters: nnx.State
    settings: nnx.State  # ε, α, noise, and matrices that are not trained
    optimiser: Any
    key: jax.Array  # of its batches and its noise, as data
    step: jax.Array  # steps done
    stopped: jax.Array  # bool: nothing more happens to it
    failed: jax.Array  # int32, the step at which the loss or its gradient was not finite, and was not taken; −1: none


class Trainer(NamedTuple):
    """Pure functions of one run, for a network, a task and a way to train."""

    begin: Callable[..., Run]  # (key, epsilon, alpha, noise), each of these a scalar or [L] -> Run
    advance: Callable[[Run, int], tuple[Run, jax.Array]]  # (run, steps) -> (run, losses [steps])
    evaluate: Callable[
        [Run], tuple[jax.Array, jax.Array]
    ]  # run -> (loss, accuracy) on the examples held out; NaN: it broke
    trace: Callable[
        [Run, jax.Array], tuple[jax.Array, Trace]
    ]  # (run, inputs [batch, …]) -> (logits, Trace), by example
    slope: Callable[
        [Run], tuple[jax.Array, nnx.State]
    ]  # run -> (loss, its gradient) of its next step
    batch: Callable[[Run], Batch]  # run -> the batch of that step
    test: Batch  # the examples held out


def side_by_side(function: Callable, *runs: Any, **same: Any) -> Any:
    """A function of a trainer over a leading axis of runs in all of ``runs``, compiled once for what is the ``same`` for all.

    >>> side_by_side(jnp.add, jnp.arange(3.0), jnp.ones(3)).tolist()
    [1.0, 2.0, 3.0]
    """
    return _batched(function, **same)(*runs)


@lru_cache(maxsize=64)
def _batched(function: Callable, **same: Any) -> Callable:
    return jax.jit(jax.vmap(partial(function, **same)))


def learning_rate(training: Training) -> optax.Schedule:
    """step -> learning rate.

    >>> float(learning_rate(Training(steps=100, warmup=10, learning_rate=0.5))(10))
    0.5
    """
    if training.warmup >= training.steps:
        return optax.linear_schedule(0.0, training.learning_rate, training.warmup)
    return optax.warmup_cosine_decay_schedule(
        0.0, training.learning_rate, training.warmup, training.steps
    )


def decayed(training: Training) -> jax.Array:
    """What decay alone leaves of the mixing logits after 0 … ``steps`` steps, Π(1 − lr_t·decay), [steps + 1]. theory.md 6.1.

    >>> decayed(Training(steps=4, mixing_decay=0.0)).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    rates = jax.vmap(learning_rate(training))(jnp.arange(training.steps))
    return jnp.concatenate([jnp.ones(1), jnp.cumprod(1 - rates * training.mixing_decay)])


def optimiser(training: Training) -> optax.GradientTransformation:
    """AdamW whose decay of mixing parameters is its own."""

    def mixing(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: _names(path)[-2:-1] == ["values"], tree
        )

    def others(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, chosen: not chosen and "alpha" not in _names(path), mixing(tree)
        )

    return optax.chain(
        optax.clip_by_global_norm(training.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(training.weight_decay, others),
        optax.add_decayed_weights(training.mixing_decay, mixing),
        optax.scale_by_learning_rate(learning_rate(training)),
    )


def mixing_parameters(run: Run) -> jax.Array:
    """Of every layer's matrix, [L, …]; of runs side by side, [runs, L, …]. Attention has none: KeyError."""
    layers: Any = run.parameters["layers"]
    return layers["mixing"]["parameters"]["values"][...]


def residual_weights(run: Run) -> jax.Array:
    """α of every layer, [L]; of runs side by side, [runs, L]."""
    fixed: Any = run.settings["layers"]
    learned: Any = run.parameters
    return residual_weight(fixed["alpha"] if "alpha" in fixed else learned["layers"]["alpha"])


def _names(path: tuple) -> list[str]:
    return [str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path]


def trainer(architecture: Architecture, task: Task, training: Training) -> Trainer:
    """The functions that train such a network on such a task; nothing is compiled yet.

    Raises:
        ValueError: the mixer is unknown, has no matrix of that size, or cannot do what the task asks; or a setting has no effect.
    """
    _require_effect(architecture, training)
    shape = nnx.eval_shape(lambda: Model(architecture, task, rngs=nnx.Rngs(0)))
    structure, _, _ = nnx.split(shape, nnx.Param, ...)
    transform = optimiser(training)

    def begin(
        key: jax.Array, epsilon: ArrayLike = 1.0, alpha: ArrayLike = 0.5, noise: ArrayLike = 0.0
    ) -> Run:
        first, later = jax.random.split(key)
        model = Model(architecture, task, rngs=nnx.Rngs(first))
        model.set(epsilon=epsilon, alpha=alpha, noise=noise)
        _, parameters, settings = nnx.split(model, nnx.Param, ...)
        data, counts = jax.random.key_data(later), (jnp.int32(0), jnp.asarray(False), jnp.int32(-1))
        return Run(parameters, settings, transform.init(parameters), data, *counts)

    def forward(parameters, settings, inputs, key):
        def one(inputs, key):
            return nnx.merge(structure, parameters, settings, copy=True).trace(inputs, key)

        return jax.vmap(one)(inputs, jax.random.split(key, len(inputs)))

    def losses_of(logits, targets, weights):
        return (
            optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets)
            * weights
        )

    def keys_of(run: Run) -> jax.Array:
        return jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(run.key), run.step))

    def batch(run: Run) -> Batch:
        return task.train(keys_of(run)[0], training.batch)

    def slope(run: Run) -> tuple[jax.Array, nnx.State]:
        inputs, targets, weights = batch(run)

        def loss(parameters):
            logits, _ = forward(parameters, run.settings, inputs, keys_of(run)[1])
            return losses_of(logits, targets, weights).sum() / weights.sum()

        return jax.value_and_grad(loss)(run.parameters)

    def step(run: Run, _) -> tuple[Run, jax.Array]:
        value, gradient = slope(run)
        usable = (
            jnp.isfinite(value)
            & jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(gradient)]).all()
        )
        updates, state = transform.update(gradient, run.optimiser, run.parameters)
        moved = run._replace(
            parameters=optax.apply_updates(run.parameters, updates),
            optimiser=state,
            step=run.step + 1,
        )
        taken = usable & ~run.stopped
        after = jax.tree.map(lambda new, old: jnp.where(taken, new, old), moved, run)
        failed = jnp.where(usable | run.stopped, run.failed, run.step)
        return after._replace(failed=failed, stopped=run.stopped | ~usable), value

    def advance(run: Run, steps: int) -> tuple[Run, jax.Array]:
        return jax.lax.scan(step, run, length=steps)

    def evaluate(run: Run) -> tuple[jax.Array, jax.Array]:
        inputs, targets, weights = task.test
        key = jax.random.key(0)  # noise is the same at every evaluation

        def some(of):
            inputs, targets, weights, index = of
            logits, _ = forward(
                run.parameters, run.settings, inputs[None], jax.random.fold_in(key, index)
            )
            right = (logits[0].argmax(-1) == targets) * weights
            return losses_of(logits[0], targets, weights).sum(), right.sum(), weights.sum()

        losses, right, asked = jax.lax.map(
            some, (inputs, targets, weights, jnp.arange(len(inputs))), batch_size=training.batch
        )
        loss = losses.sum() / asked.sum()
        return loss, jnp.where(
            jnp.isfinite(loss), right.sum() / asked.sum(), jnp.nan
        )  # argmax finds a class in NaN, too

    def trace(run: Run, inputs: jax.Array) -> tuple[jax.Array, Trace]:
        return forward(run.parameters, run.settings, inputs, keys_of(run)[1])

    return Trainer(begin, advance, evaluate, trace, slope, batch, task.test)


def _require_effect(architecture: Architecture, training: Training) -> None:
    """ValueError where something is asked for that this network does not have."""
    if (
        architecture.num_iters != Architecture.num_iters
        and architecture.mixer != "truncated-sinkhorn"
    ):
        raise ValueError(
            f"{architecture.mixer} has no num_iters to set: the mixer truncated-sinkhorn has"
        )
    if architecture.logit_scale != Architecture.logit_scale and (
        architecture.over == "attention" or architecture.mixer in PRESETS
    ):
        owner = "attention" if architecture.over == "attention" else architecture.mixer
        raise ValueError(f"{owner} starts from its own logits: leave logit_scale out")
    if architecture.heads != Architecture.heads and architecture.over == "tokens":
        raise ValueError("a matrix over tokens has no heads: over must be attention or streams")
    if architecture.streams != Architecture.streams and architecture.over != "streams":
        raise ValueError(
            f"streams are of hyper-connections: over must be streams, not {architecture.over}"
        )
    if not architecture.learned and training.mixing_decay:
        raise ValueError(
            "mixing parameters that are not learned do not decay: leave mixing_decay out"
        )
    if architecture.dynamic and architecture.over != "streams":
        raise ValueError(
            f"dynamic is of hyper-connections: over must be streams, not {architecture.over}"
        )
    if architecture.over == "attention" and not architecture.learned:
        raise ValueError(
            "attention has no mixing parameters that learned = False could keep as they are"
        )
    if architecture.over == "attention" and training.mixing_decay:
        raise ValueError(
            "attention has no mixing parameters that mixing_decay could act on: try weight_decay"
        )
    if architecture.over == "streams" and architecture.depth < 3:
        raise ValueError(
            f"hyper-connections of depth = {architecture.depth} have no matrix with something to do: the first layer mixes equal "
            "streams and the last one's are averaged; try depth = 3 or more"
        )


def last_not_finite(gradient: nnx.State) -> int | None:
    """The last layer of whose parameters a gradient is not finite, which a backward pass meets first; None if there is none.

    >>> last_not_finite(nnx.State({"layers": {"scale": nnx.Param(jnp.array([1.0, jnp.nan, 0.0]))}}))
    2
    """
    leaves = [
        jnp.isfinite(x).reshape(len(x), -1).all(1)
        for x in jax.tree.leaves(gradient["layers"])
        if x.size
    ]
    broken = jnp.flatnonzero(~jnp.stack(leaves).all(0))
    return int(broken[-1]) + 1 if len(broken) else None


def first_not_finite(trace: Trace) -> int | None:
    """The layer after which a state of a traced batch was first not finite: 0 for the embedding, None if all were finite.

    >>> states = jnp.array([[True, True, False], [True, False, False]])
    >>> first_not_finite(Trace(None, None, None, states, None))
    1
    """
    broken = ~trace.finite.all(0)
    return int(broken.argmax()) if broken.any() else None
