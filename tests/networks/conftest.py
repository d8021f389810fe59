"""Networks whose parameters are NumPy's, so that their initialisation is not compiled; batches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from homojax.networks.model import Model, Trace
from homojax.networks.tasks.made import copying


class Traced(NamedTuple):
    """One example through a network, and the network's parameters by name, as float64."""

    parameters: dict
    logits: jax.Array
    trace: Trace

    def layer(self, index):
        return jax.tree.map(lambda x: x[index], self.parameters["layers"])

    def embedded(self, tokens):
        x = self.parameters["embedding"]["embedding"][np.asarray(tokens)]
        return x + self.parameters.get("places", 0)

    def read_out(self, x):
        return x @ self.parameters["readout"]["kernel"] + self.parameters["readout"]["bias"]


class Kind:
    """Networks of one architecture for one task: their structure, shapes and program."""

    def __init__(self, architecture, task):
        shape = nnx.eval_shape(lambda: Model(architecture, task, rngs=nnx.Rngs(0)))
        structure, self.shapes = nnx.split(shape)
        self.structure = structure
        self.trace = jax.jit(
            lambda state, tokens, key: nnx.merge(structure, state).trace(tokens, key)
        )


@pytest.fixture(scope="module")
def kind():
    """(architecture, task) -> ``Kind``, the same for the same two."""
    kinds = {}

    def known(architecture, task):
        key = (architecture, task.name, task.units)
        if key not in kinds:
            kinds[key] = Kind(architecture, task)
        return kinds[key]

    return known


@pytest.fixture(scope="session")
def task():
    """Copying of 4 tokens, each one of 5."""
    return copying(units=4, vocabulary=5, tests=64)


@pytest.fixture(scope="session")
def tokens():
    return jnp.array([3, 0, 4, 1])


@pytest.fixture(scope="module")
def drawn(kind, task):
    """(architecture, task, ε, α, noise) -> a model whose parameters are NumPy's normal draws."""

    def draw(architecture, task=task, **values):
        of_kind = kind(architecture, task)
        rng = np.random.default_rng(20260102)
        state = jax.tree.map(
            lambda x: jnp.asarray(0.6 * rng.standard_normal(x.shape), x.dtype), of_kind.shapes
        )
        model = nnx.merge(of_kind.structure, state)
        model.set(**values)
        return model

    return draw


@pytest.fixture(scope="module")
def traced(kind, drawn, task, tokens):
    """As ``drawn``, and ``tokens``, ``key`` -> ``Traced``."""

    def trace(architecture, task=task, tokens=tokens, key=None, **values):
        model = drawn(architecture, task, **values)
        state = nnx.state(model)
        key = jax.random.key(0) if key is None else key
        logits, trace = kind(architecture, task).trace(state, tokens, key)
        parameters = jax.tree.map(lambda x: np.asarray(x, np.float64), nnx.to_pure_dict(state))
        return Traced(parameters, logits, trace)

    return trace


@pytest.fixture(scope="module")
def batch_of():
    """(task, seed, size) -> a batch of NumPy arrays, by one program for each task and size."""
    programs = {}

    def batch(task, seed=0, size=64):
        key = (id(task), size)
        if key not in programs:
            programs[key] = task, jax.jit(lambda key: task.train(key, size))
        return [np.asarray(x) for x in programs[key][1](jax.random.key(seed))]

    return batch
