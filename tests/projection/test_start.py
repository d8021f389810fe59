"""A start saves steps where it is good, and costs nothing but steps where it is not."""

from functools import partial

import numpy as np
import pytest

import homojax as hj

ASYMMETRIC = np.random.default_rng(7).normal(size=(4, 4))
project = partial(hj.sinkhorn, tol=1e-13)


@pytest.fixture
def warm_started(project_each):
    """Projections from zero, from the potentials at 1.02 ε, and from their own. [200] each."""

    def solve(dtype, epsilon):
        logits = np.random.default_rng(7).normal(size=(200, 4, 4)).astype(dtype)
        epsilon = np.asarray(epsilon, dtype)
        expected = project_each(logits, epsilon)
        neighbour = project_each(logits, epsilon * np.asarray(1.02, dtype))
        starts = neighbour.col_potential, expected.col_potential
        return expected, *(project_each(logits, epsilon, start) for start in starts)

    return solve


def test_a_warm_start_saves_steps_and_changes_nothing_else(warm_started):
    expected, near, again = warm_started("float64", 0.3)
    assert near.converged.all() and (again.num_steps <= 2).all()
    assert np.median(near.num_steps) < np.median(expected.num_steps)
    np.testing.assert_allclose([near.matrix, again.matrix], [expected.matrix] * 2, atol=2e-11)


@pytest.mark.parametrize(
    "dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize("epsilon", [0.01, 0.02, 0.05])
def test_a_warm_start_converges_wherever_a_cold_one_does(epsilon, dtype, warm_started):
    expected, near, _ = warm_started(dtype, epsilon)
    assert expected.converged.all() and near.converged.all()


def test_newton_goes_on_from_a_start_that_is_near():
    cold = hj.sinkhorn(ASYMMETRIC, 0.05, method="newton")
    warm = hj.sinkhorn(ASYMMETRIC, 0.05, init=cold.col_potential, method="newton")
    assert cold.num_steps > 4 >= 2 >= warm.num_steps and warm.converged


def test_a_misleading_start_is_recovered_from(rng, project_each):
    starts = np.array([*(1e3 * rng.normal(size=(20, 4))), [0, 0, 0, 5e3]])
    expected = project(ASYMMETRIC, 0.05).matrix
    together = project_each(np.array([ASYMMETRIC] * 21), 0.05, starts)
    newton = [hj.sinkhorn(ASYMMETRIC, 0.05, init=start, method="newton") for start in starts]
    assert together.converged.all() and all(result.converged for result in newton)
    matrices = [*together.matrix, *(result.matrix for result in newton)]
    np.testing.assert_allclose(matrices, [expected] * 42, atol=2e-11)
