"""The largest over pairs of rows is what a loop finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from homojax.row_pairs import max_over_row_pairs


def farthest(matrix):
    """Over rows, max of the distance from one to the other in the 1-norm."""
    return max_over_row_pairs(jnp.add, lambda x: jnp.maximum(x, 0), matrix)


def widest(matrix):
    """Over rows, max of the range of their difference."""
    return max_over_row_pairs(jnp.maximum, lambda x: x, matrix)


@pytest.mark.parametrize("n", [2, 8, 19])
def test_max_over_row_pairs_visits_every_pair_and_column(n, rng):
    matrices = rng.normal(size=(20, n, n)) * rng.normal(size=(20, n, n)) ** 2
    for function, of_pair in ((farthest, lambda x: abs(x).sum()), (widest, np.ptp)):
        expected = [max(of_pair(a - b) for a in m for b in m) for m in matrices]
        np.testing.assert_allclose(jax.jit(jax.vmap(function))(matrices), expected, rtol=1e-12)


def test_the_derivative_is_that_of_the_farthest_pair(rng):
    matrix, direction = jnp.asarray(rng.normal(size=(2, 4, 4)))

    def at(x):
        return farthest(matrix + x * direction)

    assert float(jax.grad(at)(0.0)) == pytest.approx(float(at(1e-6) - at(-1e-6)) / 2e-6, rel=1e-6)
