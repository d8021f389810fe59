"""Training as pure functions of a run, so that ``jax.vmap`` makes one program of many runs.

The runs of one program differ in their seeds, ε, α and noise. A run's batches and noise follow from
its key and the number of the step: a run that continues from a stored state is, bit for bit, the
run that never stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike

from homojax.networks.architecture import Architecture
from homojax.networks.effects import require_effects
from homojax.networks.model import Model, Trace
from homojax.networks.optimiser import optimiser
from homojax.networks.run import Run
from homojax.networks.tasks import Batch, Task
from homojax.networks.training import Training


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """Pure functions of one run, for a network, a task and a way to train; see ``trainer``.

    Trainers are equal only to themselves. ``side_by_side`` compiles a method once for each trainer.

    >>> from homojax.networks.tasks import copying
    >>> made = trainer(Architecture(depth=2), copying(), Training(steps=10))
    >>> made.test[0].shape
    (512, 8)
    """

    architecture: Architecture
    task: Task
    training: Training
    structure: nnx.GraphDef  # of the model
    transform: optax.GradientTransformation

    @property
    def test(self) -> Batch:
        """The examples held out."""
        return self.task.test

    def begin(
        self,
        key: jax.Array,
        epsilon: ArrayLike = 1.0,
        alpha: ArrayLike = 0.5,
        noise: ArrayLike = 0.0,
    ) -> Run:
        """Return a run before its first step; ε, α and noise are scalars, or [L], one a layer."""
        first, later = jax.random.split(key)
        model = Model(self.architecture, self.task, rngs=nnx.Rngs(first))
        model.set(epsilon=epsilon, alpha=alpha, noise=noise)
        _, parameters, settings = nnx.split(model, nnx.Param, ...)
        return Run(
            parameters=parameters,
            settings=settings,
            optimiser=self.transform.init(parameters),
            key=jax.random.key_data(later),
            step=jnp.int32(0),
            stopped=jnp.asarray(False),
            failed=jnp.int32(-1),
        )

    def advance(self, run: Run, steps: int) -> tuple[Run, jax.Array]:
        """Return the run ``steps`` steps later, and the loss of each step, [steps]."""
        return jax.lax.scan(self._step, run, length=steps)

    def evaluate(self, run: Run) -> tuple[jax.Array, jax.Array]:
        """Return (loss, accuracy) on the examples held out; both NaN where the network gives NaN.

        The noise is the same at every evaluation.
        """
        inputs, targets, weights = self.test
        key = jax.random.key(0)

        def score(example: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
            inputs, targets, weights, index = example
            noise_key = jax.random.fold_in(key, index)
            logits, _ = self._forward(run.parameters, run.settings, inputs[None], noise_key)
            right = (logits[0].argmax(-1) == targets) * weights
            return _losses(logits[0], targets, weights).sum(), right.sum(), weights.sum()

        examples = (inputs, targets, weights, jnp.arange(len(inputs)))
        losses, right, asked = jax.lax.map(score, examples, batch_size=self.training.batch)
        loss = losses.sum() / asked.sum()
        # argmax names a class even among NaN: such an answer is not right
        return loss, jnp.where(jnp.isfinite(loss), right.sum() / asked.sum(), jnp.nan)

    def trace(self, run: Run, inputs: jax.Array) -> tuple[jax.Array, Trace]:
        """Return (logits, Trace) of inputs [batch, …], by example, with the noise of its step."""
        return self._forward(run.parameters, run.settings, inputs, _step_keys(run)[1])

    def batch(self, run: Run) -> Batch:
        """Return the batch of the run's next step."""
        return self.task.train(_step_keys(run)[0], self.training.batch)

    def slope(self, run: Run) -> tuple[jax.Array, nnx.State]:
        """Return the loss of the run's next step, and the loss's gradient."""
        inputs, targets, weights = self.batch(run)

        def loss(parameters: nnx.State) -> jax.Array:
            logits, _ = self._forward(parameters, run.settings, inputs, _step_keys(run)[1])
            return _losses(logits, targets, weights).sum() / weights.sum()

        return jax.value_and_grad(loss)(run.parameters)

    def _forward(
        self, parameters: nnx.State, settings: nnx.State, inputs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Trace]:
        def one(example: jax.Array, key: jax.Array) -> tuple[jax.Array, Trace]:
            model = nnx.merge(self.structure, parameters, settings, copy=True)
            return model.trace(example, key)

        return jax.vmap(one)(inputs, jax.random.split(key, len(inputs)))

    def _step(self, run: Run, _: None) -> tuple[Run, jax.Array]:
        """Return the run one step later and the step's loss; a run that has stopped stays."""
        loss, gradient = self.slope(run)
        finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(gradient)]
        usable = jnp.isfinite(loss) & jnp.stack(finite).all()
        updates, state = self.transform.update(gradient, run.optimiser, run.parameters)
        moved = run._replace(
            parameters=optax.apply_updates(run.parameters, updates),
            optimiser=state,
            step=run.step + 1,
        )
        # A step that is not finite is not taken: the run keeps the state that explains it.
        taken = usable & ~run.stopped
        after = jax.tree.map(lambda new, old: jnp.where(taken, new, old), moved, run)
        failed = jnp.where(usable | run.stopped, run.failed, run.step)
        return after._replace(failed=failed, stopped=run.stopped | ~usable), loss


def trainer(architecture: Architecture, task: Task, training: Training) -> Trainer:
    """Return the functions that train such a network on such a task; this compiles nothing.

    Raises:
        ValueError: the mixer is unknown, has no matrix of that size, or cannot do what the task
            asks; or a setting has no effect.

    >>> from homojax.networks.tasks import copying
    >>> copier = trainer(Architecture(depth=2), copying(), Training(steps=10))
    >>> jax.eval_shape(copier.begin, jax.random.key(0)).key.shape
    (2,)
    """
    shape = nnx.eval_shape(lambda: Model(architecture, task, rngs=nnx.Rngs(0)))
    structure, _, _ = nnx.split(shape, nnx.Param, ...)
    require_effects(architecture, training)
    return Trainer(
        architecture=architecture,
        task=task,
        training=training,
        structure=structure,
        transform=optimiser(training),
    )


def side_by_side(function: Callable, *runs: Any, **same: Any) -> Any:
    """Return a trainer's function of many runs at once, over the leading axis of all ``runs``.

    Args:
        function: a method of a trainer; it is compiled once for each ``same``.
        runs: arguments with a leading axis of runs.
        same: arguments that all runs share; they must be hashable.

    >>> side_by_side(jnp.add, jnp.arange(3.0), jnp.ones(3)).tolist()
    [1.0, 2.0, 3.0]
    """
    return _batched(function, **same)(*runs)


@lru_cache(maxsize=64)
def _batched(function: Callable, **same: Any) -> Callable:
    return jax.jit(jax.vmap(partial(function, **same)))


def _step_keys(run: Run) -> jax.Array:
    """Return the keys of the next step's batch and of its noise."""
    return jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(run.key), run.step))


def _losses(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the weighted cross-entropy at every place, in float32."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets)
    return losses * weights
