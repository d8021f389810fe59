"""Bounds on the error of a projection hold, and say something."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.projection.errors import (
    entropy_error,
    missed_sums,
    projection_distance,
    relative_error,
)

LOGITS = np.random.default_rng(7).normal(size=(8, 4, 4))


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-10])
def test_a_scaling_is_as_near_to_the_projection_as_its_errors_say(epsilon, size, rng):
    bound = jax.jit(projection_distance)
    for logits in LOGITS:
        exact = oracles.project(logits, epsilon)
        matrix = exact * np.exp(size * (rng.normal(size=(4, 1)) + rng.normal(size=4)))
        errors, sigma2 = oracles.marginal_errors(matrix), oracles.sigma2(matrix)
        claimed = float(bound(matrix, *map(jnp.asarray, errors), sigma2))
        missed = max(np.linalg.norm(matrix - exact, order) for order in (1, 2, np.inf))
        assert missed <= claimed
        assert claimed == np.inf or claimed <= 60 * max(errors) / (1 - sigma2) + 1e-12
        of_entries = missed_sums(*map(jnp.asarray, errors), 4, "float64")
        assert abs(matrix / exact - 1).max() <= relative_error(of_entries, 1 - sigma2)


def test_errors_that_are_too_large_prove_nothing():
    one, zero = jnp.ones(()), jnp.zeros(())
    assert projection_distance(jnp.eye(3), one, one, zero) == np.inf
    assert projection_distance(jnp.eye(3), 1e-9 * one, zero, one) == np.inf
    assert relative_error(zero, one, 0.6) == np.inf


@pytest.mark.parametrize("distance", [1e-8, 1e-3, 0.3, 3.0])
def test_entropies_of_near_matrices_differ_by_no_more_than_told(distance, rng):
    for _ in range(40):
        matrix, other = (oracles.permutation_mixture(rng, 5, 4) for _ in range(2))
        near = matrix + min(1, distance / np.linalg.norm(other - matrix, 1)) * (other - matrix)
        apart = np.linalg.norm(near - matrix, 1)
        difference = abs(hj.entropy(near) - hj.entropy(matrix))
        assert difference <= entropy_error(5, jnp.asarray(apart)) + 1e-13
