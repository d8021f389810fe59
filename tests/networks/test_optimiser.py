"""The schedule, and what decay alone does to each kind of parameter."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from homojax.networks.architecture import Architecture
from homojax.networks.model import Model
from homojax.networks.optimiser import decayed, learning_rate, optimiser
from homojax.networks.training import Training


def warm_up_then_cosine(step, training):
    if step < training.warmup:
        return training.learning_rate * step / training.warmup
    passed = (step - training.warmup) / (training.steps - training.warmup)
    return training.learning_rate * (1 + math.cos(math.pi * passed)) / 2


@pytest.mark.parametrize("warmup", [0, 5, 20])
def test_the_learning_rate_is_a_linear_warm_up_and_a_cosine_to_zero(warmup):
    training = Training(steps=20, warmup=warmup, learning_rate=0.3)
    rates = [float(learning_rate(training)(step)) for step in range(20)]
    expected = [warm_up_then_cosine(step, training) for step in range(20)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7)


def test_decay_alone_leaves_the_product_of_the_schedules_factors():
    training = Training(steps=20, warmup=5, learning_rate=1e-2, mixing_decay=0.5)
    rates = [warm_up_then_cosine(step, training) for step in range(20)]
    left = np.concatenate([[1], np.cumprod([1 - 0.5 * rate for rate in rates])])
    np.testing.assert_allclose(decayed(training), left, rtol=1e-6)
    assert (decayed(dataclasses.replace(training, mixing_decay=0.0)) == 1).all()


def test_decay_moves_all_parameters_but_residual_weights_and_those_of_mixing_by_its_own(task):
    architecture = Architecture(over="streams", depth=3, width=8, learned_alpha=True)
    shape = nnx.eval_shape(lambda: Model(architecture, task, rngs=nnx.Rngs(0)))
    parameters = jax.tree.map(
        lambda x: jnp.full(x.shape, 2.0, x.dtype), nnx.state(shape, nnx.Param)
    )
    transform = optimiser(
        Training(steps=60, warmup=0, learning_rate=1e-2, weight_decay=0.5, mixing_decay=0.25)
    )

    @jax.jit
    def first_update(parameters):
        still = jax.tree.map(jnp.zeros_like, parameters)
        return transform.update(still, transform.init(parameters), parameters)[0]

    updates = first_update(parameters)
    moved = nnx.to_pure_dict(jax.tree.map(lambda update: np.asarray(update / 2.0), updates))
    mixing, alpha = moved["layers"]["mixing"], moved["layers"].pop("alpha")
    np.testing.assert_array_equal(alpha, 0)
    values = mixing["parameters"].pop("values")
    np.testing.assert_allclose(values, np.full(values.shape, -1e-2 * 0.25), rtol=1e-5)
    others = jax.tree.leaves(moved)
    assert len(others) > 5
    for update in others:
        np.testing.assert_allclose(update, -1e-2 * 0.5, rtol=1e-5)


def test_a_gradient_is_clipped_to_the_norm_that_was_asked():
    """Adam's first moment is the sum of the clipped gradients, by its weights 0.9 and 0.1."""
    training = Training(steps=60, warmup=0, learning_rate=1e-2, clip=1.0)
    transform, parameters = optimiser(training), {"kernel": jnp.zeros(2)}
    state = transform.init(parameters)
    for gradient in (jnp.array([0.3, 0.4]), jnp.array([30.0, 40.0])):
        _, state = transform.update({"kernel": gradient}, state, parameters)
    (moments,) = (part for part in state if hasattr(part, "mu"))
    first, second = np.array([0.3, 0.4]), np.array([0.6, 0.8])
    np.testing.assert_allclose(moments.mu["kernel"], 0.09 * first + 0.1 * second, rtol=1e-5)
