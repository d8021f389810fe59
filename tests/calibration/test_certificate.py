"""What is proved of a projection: its errors against many digits, and the ε between and below."""

from functools import partial

import jax
import numpy as np
import pytest

import oracles
from homojax.calibration.certificate import project_stack, range_between
from homojax.calibration.misfit import entropy_error, entropy_range, measure_misfit, sigma2_error


def entropy(matrix):
    return -(matrix * np.log(np.maximum(matrix, 1e-300))).sum((-1, -2))


@jax.jit
def margins(log_matrix, row_error, col_error, sigma2, largest_logit, entropy):
    misfit = measure_misfit(
        log_matrix, row_error, col_error, sigma2=sigma2, largest_logit=largest_logit
    )
    between = entropy_range(log_matrix, misfit.divergence)
    return sigma2_error(misfit, 3), between, entropy_error(misfit, entropy, between, 3)


@pytest.mark.parametrize("epsilon", [3.0, 0.4, 0.1])
def test_the_errors_of_unfinished_projections_are_within_their_margins(epsilon, rng):
    """Of σ₂ and of the entropy, after 1 to 400 alternations, against 40 digits."""
    informative = 0
    for logits in rng.normal(size=(4, 3, 3)):
        exact = oracles.project(logits, epsilon)
        sigma2, h = oracles.sigma2(exact), entropy(exact)
        for num_iters in (1, 3, 10, 40, 400):
            m = oracles.alternate(logits, epsilon, num_iters)
            missed = abs(m.sum(1) - 1).max(), abs(m.sum(0) - 1).max()
            found = oracles.sigma2(m), entropy(m)
            off, (least, most), h_off = margins(
                np.log(m), *missed, found[0], abs(logits).max() / epsilon, found[1]
            )
            assert abs(found[0] - sigma2) <= off <= 1
            assert least <= h <= most
            assert abs(found[1] - h) <= h_off
            informative += off < 0.01 and h_off < 0.01
    assert informative >= 2


@pytest.mark.parametrize(
    ("kept", "spacing"), [("bound", 10), pytest.param("composite", 2, marks=pytest.mark.slow)]
)
def test_what_is_kept_between_two_epsilons_and_below_them_is_as_certified(kept, spacing, rng):
    """Between two that are as near as half of the ranges need be to say something."""
    stack, power = rng.normal(size=(2, 3, 3)), 2
    project = jax.jit(partial(project_stack, kept=kept, power=power))
    between = jax.jit(partial(range_between, kept=kept, power=power))
    epsilons = np.geomspace(3, 0.02, 121)
    layers = np.stack([oracles.project_down(s, epsilons) for s in stack], axis=1)
    if kept == "bound":
        share = np.prod(oracles.sigma2(layers), axis=1) ** power
    else:
        product = layers[:, 1] @ layers[:, 0]
        share = oracles.sigma2(product @ product)
    points_at = range(0, 121, spacing)
    points = {k: project(stack, np.log(epsilons[k]), np.zeros((2, 3))) for k in points_at}
    tight = 0
    for k, point in points.items():
        assert point.converged and point.kept == pytest.approx(share[k], abs=1e-9)
        np.testing.assert_allclose(point.entropy, entropy(layers[k]), atol=1e-8)
        assert point.kept_colder <= share[k:].min() + 1e-12
        if k + spacing in points:
            least, most = between(point, points[k + spacing])
            inside = share[k : k + spacing + 1]
            assert least - 1e-12 <= inside.min() and inside.max() <= most + 1e-12
            tight += most - least < 0.3
    assert 2 * tight >= len(points) - 1 and points[120].kept_colder > 0.9
