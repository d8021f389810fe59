"""The derivative of a projection is that of the limit."""

from functools import partial

import jax
import numpy as np
import pytest

import homojax as hj
import oracles

NORMAL = np.random.default_rng(7).normal(size=(8, 4, 4))
ASYMMETRIC = NORMAL[0]


def random_weights(rng):
    draw = rng.normal
    return draw(size=(4, 4)), draw(size=4), draw(size=4), draw(size=(4, 4)) / 10


SOLVERS = {
    "sinkhorn": {},
    "sinkhorn newton": {"solver": partial(hj.sinkhorn, method="newton")},
    "truncated columns": {"tol": None, "solver": partial(hj.truncated_sinkhorn, num_iters=3)},
    "truncated rows": {
        "tol": None,
        "solver": partial(hj.truncated_sinkhorn, num_iters=3, last="rows"),
    },
}


@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def dtype(request):
    """In float32 where there is time: tests/test_dtypes_and_transforms.py has its derivative."""
    return np.dtype(request.param)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "sinkhorn newton" else ())
        for name in SOLVERS
    ],
)
@pytest.mark.parametrize("epsilon", [0.3, 2.0])
def test_derivatives_in_logits_and_epsilon_match_differences(name, epsilon, rng, slopes):
    at = partial(slopes, weights=random_weights(rng), **SOLVERS[name])
    direction, (grad_logits, grad_epsilon) = rng.normal(size=(4, 4)), at(ASYMMETRIC, epsilon)[1]
    along = oracles.difference(lambda s: at(s, epsilon)[0][0], ASYMMETRIC, direction)
    assert (grad_logits * direction).sum() == pytest.approx(along, rel=1e-8)
    by_epsilon = oracles.difference(lambda e: at(ASYMMETRIC, e)[0][0], epsilon, 1.0, 1e-4)
    assert grad_epsilon == pytest.approx(by_epsilon, rel=1e-8)


@pytest.mark.parametrize(
    ("epsilon", "gap"), [(50.0, 0.99), (1.0, 0.5), (0.2, 8e-3), (0.0725, 1e-6)]
)
def test_derivatives_keep_eight_digits_from_near_uniform_to_near_permutations(
    epsilon, gap, rng, slopes, of_matrix
):
    """Central differences of the projection in many digits; σ₂ from 0.01 to 1 − 1e-6."""
    logits, direction, weights = NORMAL[3], rng.normal(size=(4, 4)), rng.normal(size=(4, 4))
    assert 1 - oracles.sigma2(oracles.project(logits, epsilon)) == pytest.approx(gap, rel=0.3)
    expected = oracles.derivative_of_projection(logits, epsilon, direction)
    by_logits, by_epsilon = slopes(logits, epsilon, of_matrix(weights), tol=1e-15)[1]
    assert (by_logits * direction).sum() == pytest.approx((weights * expected).sum(), rel=1e-8)
    scaling = oracles.derivative_of_projection(logits, epsilon, -logits / epsilon)
    assert by_epsilon == pytest.approx((weights * scaling).sum(), rel=1e-8)


def test_second_derivatives_match_differences_of_first(rng, slopes, scalar):
    weights, direction = random_weights(rng), rng.normal(size=(4, 4))
    gradient = jax.grad(lambda s, e: scalar(s, e, weights, 1e-13, hj.sinkhorn)[0], (0, 1))
    (hessian, _), (_, curvature) = jax.jit(jax.jacfwd(gradient, (0, 1)))(ASYMMETRIC, 0.7)
    along = oracles.difference(lambda s: slopes(s, 0.7, weights)[1][0], ASYMMETRIC, direction)
    scale = abs(along).max()
    np.testing.assert_allclose(np.tensordot(hessian, direction, 2), along, atol=1e-8 * scale)
    np.testing.assert_allclose(hessian, hessian.transpose(2, 3, 0, 1), atol=1e-10)
    expected = oracles.difference(lambda e: slopes(ASYMMETRIC, e, weights)[1][1], 0.7, 1.0)
    assert curvature == pytest.approx(expected, rel=1e-8)


def test_implicit_derivative_is_that_of_fully_unrolled_alternation(rng, slopes, of_matrix):
    weights = of_matrix(rng.normal(size=(4, 4)))
    unrolled = partial(hj.truncated_sinkhorn, num_iters=400)
    for logits in NORMAL[:3]:
        _, implicit_slopes = slopes(logits, 0.6, weights)
        (_, result), unrolled_slopes = slopes(logits, 0.6, weights, None, unrolled)
        assert max(oracles.marginal_errors(result.matrix)) < 1e-13
        for a, b in zip(implicit_slopes, unrolled_slopes, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)


def test_derivative_of_a_two_by_two_is_that_of_the_logistic_function(slopes, of_matrix):
    """M₀₀ = 1/(1 + e^−x), x = (S₀₀ + S₁₁ − S₀₁ − S₁₀)/2ε: down to where 1 − σ₂ is 1e4 eps."""
    corner, tol = of_matrix(np.array([[1.0, 0], [0, 0]])), hj.numerics.marginal_tolerance(2, float)
    for x in (0.1, 1.0, 5.0, 20.0):
        p = 1 / (1 + np.exp(-x))
        expected = p * (1 - p) / 2 * np.array([[1, -1], [-1, 1]])
        by_logits = slopes(x * np.eye(2), 1.0, corner, tol)[1][0]
        np.testing.assert_allclose(by_logits, expected, rtol=1e-4 if x == 20 else 1e-9)


def test_derivatives_at_near_permutations_are_finite_and_vanish_for_the_matrix(
    dtype, rng, slopes, of_matrix
):
    weights, logits = rng.normal(size=(2, 16, 16)).astype(dtype)
    zeros, tol = np.zeros((16, 16), dtype), hj.numerics.marginal_tolerance(16, dtype)
    for epsilon in (1e-2, 1e-3, 1e-5):
        for scalar_weights in ((zeros, zeros[0], weights[0], zeros), of_matrix(weights)):
            (_, result), (by_logits, by_epsilon) = slopes(logits, epsilon, scalar_weights, tol)
            assert result.converged
            assert np.isfinite(by_logits).all() and np.isfinite(by_epsilon).all()
    # By now a permutation to the last bit: the matrix has derivative 0, up to rounding over ε.
    assert abs(by_logits).max() * epsilon < 1e4 * np.finfo(dtype).eps


def test_a_mask_is_the_limit_of_very_negative_logits_and_so_is_its_derivative(
    masked_logits, slopes, of_matrix
):
    weights = of_matrix(np.random.default_rng(3).normal(size=(4, 4)))
    for logits in masked_logits(4, 6):
        masked = logits == -np.inf
        (value, _), (by_logits, by_epsilon) = slopes(logits, 0.7, weights)
        near = slopes(np.where(masked, -60.0, logits), 0.7, weights)
        (near_value, _), (near_logits, near_epsilon) = near
        assert float(value) == pytest.approx(float(near_value), abs=1e-9)
        assert (by_logits[masked] == 0).all()
        np.testing.assert_allclose(by_logits, near_logits, atol=1e-8)
        assert float(by_epsilon) == pytest.approx(float(near_epsilon), abs=1e-8)


def test_derivatives_are_right_where_the_support_falls_apart(
    dtype, masked_logits, slopes, of_matrix
):
    """I − MᵀM is then singular beyond the constants; a pseudoinverse says what they are (1.6)."""
    weights = np.random.default_rng(3).normal(size=(4, 4))
    tol = 1e-13 if dtype == np.float64 else 3e-6
    for logits in masked_logits(4, 60):
        (_, result), _ = slopes(logits, 0.7, of_matrix(weights), 1e-14)
        m = np.asarray(result.matrix)
        moved = m * np.eye(16).reshape(16, 4, 4) / 0.7  # by each logit in turn
        a, b = moved.sum(2), moved.sum(1)
        dg = (a @ m - b) @ np.linalg.pinv(np.eye(4) - m.T @ m, rcond=1e-12)
        df = -a - dg @ m.T
        dm = moved + m * (df[:, :, None] + dg[:, None, :])
        expected = (weights * dm).sum((1, 2)).reshape(4, 4)
        gradient = slopes(logits.astype(dtype), 0.7, of_matrix(weights), tol)[1][0]
        np.testing.assert_allclose(gradient, expected, atol=1e-8 if dtype == np.float64 else 1e-4)


@pytest.mark.parametrize(
    "n", [128, pytest.param(600, marks=pytest.mark.slow)]
)  # factorised: steps and derivative, steps alone
def test_large_cold_projections_and_their_derivatives(n, rng):
    logits, direction = rng.normal(size=(2, n, n))

    @jax.jit
    def projection_and_slope(logits):
        def project(logits):
            result = hj.sinkhorn(logits, 0.02)
            return result.matrix, result.converged

        return jax.jvp(project, (logits,), (direction,), has_aux=True)

    matrix, slope, converged = projection_and_slope(logits)
    tol = hj.numerics.marginal_tolerance(n, np.float64)
    assert converged and max(oracles.marginal_errors(matrix)) <= tol
    expected = oracles.difference(
        lambda s: projection_and_slope(s)[0], logits, direction, step=2e-4
    )
    assert abs(expected).max() > 1
    np.testing.assert_allclose(slope, expected, atol=1e-5 * abs(expected).max())


def test_sinkhorn_keeps_no_memory_of_its_steps_for_the_derivative():
    def saved(max_steps):
        # Partial evaluation alone, without a program: what the backward pass will need.
        def residuals(s):
            return jax.vjp(lambda s: hj.sinkhorn(s, 0.05, max_steps=max_steps).matrix, s)[1]

        return sum(np.prod(x.shape) for x in jax.tree.leaves(jax.eval_shape(residuals, ASYMMETRIC)))

    assert 0 < saved(3) == saved(1000) < 50 * ASYMMETRIC.size
