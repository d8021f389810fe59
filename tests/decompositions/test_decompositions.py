"""Decompositions without LAPACK are those of NumPy, which has them from LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import oracles
from homojax.decompositions.cholesky import cholesky, solve_positive
from homojax.decompositions.eigenvalues import eigenvalues
from homojax.decompositions.jacobi import singular_values, svd
from homojax.decompositions.qr import qr, solve

slow = pytest.mark.slow
# One block of a Cholesky factor, and three.
SIZES = [1, 4, 7, 70, *(pytest.param(n, marks=slow) for n in (2, 3, 33))]
EIGENVALUE_SIZES = [2, 4, 33, *(pytest.param(n, marks=slow) for n in (3, 7))]


@pytest.fixture(params=["float64", pytest.param("float32", marks=slow)])
def dtype(request):
    """In float32 where there is time: spectra at n = 4 have it in fast tests."""
    return np.dtype(request.param)


@jax.jit
def factor_and_solutions(matrix, b):
    return cholesky(matrix), solve_positive(matrix, b)


@jax.jit
def reflections_and_solution(matrix, b):
    return qr(matrix), solve(matrix, b)


@jax.jit
def all_singular_values(matrix):
    return svd(matrix), singular_values(matrix)


eigenvalues_of = jax.jit(eigenvalues)


def rounding(n, dtype):
    return 8 * (n + 8) * float(np.finfo(dtype).eps)


@pytest.mark.parametrize("n", SIZES)
def test_a_positive_definite_matrix_has_its_factor_and_its_solutions(n, rng):
    half = rng.normal(size=(n, 2 * n))
    matrix, b = half @ half.T, rng.normal(size=(n, 2))
    expected = np.linalg.cholesky(matrix)
    factor, solutions = factor_and_solutions(matrix, b)
    np.testing.assert_allclose(factor, expected, atol=1e-13 * n)
    np.testing.assert_allclose(matrix @ np.asarray(solutions), b, atol=1e-10)
    below = matrix - 1.001 * np.linalg.eigvalsh(matrix)[0] * np.eye(n)
    assert np.isnan(
        factor_and_solutions(below, b)[0]
    ).any()  # no factor: it is not positive definite


@pytest.mark.parametrize("n", SIZES)
def test_reflections_give_orthogonal_and_triangular_factors_and_solutions(n, rng):
    matrix, b = rng.normal(size=(n, n)) + 2 * np.eye(n), rng.normal(size=n)
    (q, r), solution = jax.tree.map(np.asarray, reflections_and_solution(matrix, b))
    np.testing.assert_allclose(q @ r, matrix, atol=1e-13 * n)
    np.testing.assert_allclose(q.T @ q, np.eye(n), atol=1e-13 * n)
    np.testing.assert_array_equal(np.tril(r, -1), 0)
    np.testing.assert_allclose(solution, np.linalg.solve(matrix, b), rtol=1e-8)


@pytest.mark.parametrize("n", SIZES)
def test_singular_values_and_vectors(n, dtype, rng):
    matrix = rng.normal(size=(n, n)).astype(dtype)
    (u, s, v), alone = jax.tree.map(np.asarray, all_singular_values(matrix))
    expected = np.linalg.svd(matrix.astype(float), compute_uv=False)
    np.testing.assert_allclose(s, expected, atol=rounding(n, dtype) * expected[0])
    np.testing.assert_allclose(alone, s, atol=rounding(n, dtype) * s[0])
    np.testing.assert_allclose(u * s @ v.T, matrix, atol=rounding(n, dtype) * s[0])
    np.testing.assert_allclose(v.T @ v, np.eye(n), atol=rounding(n, dtype))
    assert (np.diff(s) <= 0).all() and s.dtype == dtype


def test_small_singular_values_of_graded_columns_have_relative_accuracy(rng):
    matrix = rng.normal(size=(7, 7)) * np.geomspace(1, 1e-12, 7)
    with oracles.mp.workdps(40):
        exact = oracles.mp.svd_r(oracles.mp.matrix(matrix.tolist()), compute_uv=False)
    np.testing.assert_allclose(
        all_singular_values(matrix)[1], [float(x) for x in exact], rtol=1e-13
    )


@pytest.mark.parametrize(
    ("dtype", "power"), [("float32", 80), ("float64", 600)], indirect=["dtype"]
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_power_of_two_changes_no_digit_of_singular_values_and_vectors(sign, power, dtype, rng):
    matrix, unit = rng.normal(size=(7, 7)).astype(dtype), dtype.type(2.0) ** (sign * power)
    (u, s, v), alone = jax.tree.map(np.asarray, all_singular_values(matrix))
    (scaled_u, scaled_s, scaled_v), scaled_alone = all_singular_values(unit * matrix)
    np.testing.assert_array_equal(scaled_s, unit * s)
    np.testing.assert_array_equal(scaled_alone, unit * alone)
    np.testing.assert_array_equal(scaled_u, u)
    np.testing.assert_array_equal(scaled_v, v)


@pytest.mark.parametrize("kind", ["normal", "orthogonal", "nilpotent", "stochastic", "zero"])
@pytest.mark.parametrize("n", EIGENVALUE_SIZES)
def test_eigenvalues(kind, n, dtype, rng):
    matrix = {
        "normal": lambda: rng.normal(size=(n, n)),
        "orthogonal": lambda: np.linalg.qr(rng.normal(size=(n, n)))[0],
        "nilpotent": lambda: np.eye(n, k=1),
        "stochastic": lambda: rng.dirichlet(np.ones(n), n),
        "zero": lambda: np.zeros((n, n)),
    }[kind]().astype(dtype)
    found = np.asarray(eigenvalues_of(matrix)).astype(complex)
    if kind == "nilpotent":  # a backward error moves 0 by its n-th root
        assert abs(found).max() <= rounding(n, dtype) ** (1 / n)
        return
    expected = np.linalg.eigvals(matrix.astype(float))
    distances = abs(found[:, None] - expected[None, :])
    worst = distances[linear_sum_assignment(distances)].max()
    assert worst <= 20 * rounding(n, dtype) * max(1, np.linalg.norm(matrix, 2))


def test_what_is_not_finite_has_no_decomposition(rng):
    matrix = rng.normal(size=(7, 7))
    matrix[2, 3] = np.nan
    assert np.isnan(factor_and_solutions(matrix @ matrix.T, rng.normal(size=(7, 2)))[0]).any()
    assert np.isnan(all_singular_values(matrix)[1]).all()
    assert np.isnan(eigenvalues_of(matrix[:4, :4])).all()


@pytest.mark.parametrize("function", [singular_values, qr, solve_positive, solve])
def test_derivatives_are_those_of_differences(function, rng):
    matrix, direction = rng.normal(size=(2, 5, 5))
    b = rng.normal(size=5)

    def value(x):
        x = x @ x.T + jnp.eye(5) if function is solve_positive else x
        found = function(x, b) if "solve" in function.__name__ else function(x)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found)])

    @jax.jit
    def derivatives(x, direction, cotangent):
        found, slope = jax.jvp(value, (x,), (direction,))
        return found, slope, jax.vjp(value, x)[1](cotangent)[0]

    cotangent = rng.normal(size=jax.eval_shape(value, matrix).shape)
    _, slope, back = map(np.asarray, derivatives(matrix, direction, cotangent))
    expected = oracles.difference(
        lambda x: derivatives(x, direction, cotangent)[0], matrix, direction
    )
    np.testing.assert_allclose(slope, expected, atol=1e-6 * max(1, abs(expected).max()))
    assert (back * direction).sum() == pytest.approx(float(slope @ cotangent), rel=1e-9)
