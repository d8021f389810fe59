"""Residual matrices: what they keep, and by how much they can turn a detail vector."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import homojax as hj
import oracles

FAMILY = oracles.birkhoff_family(np.random.default_rng(3), 5)
SHARES = st.floats(0, 1)


def rotation(sigma, phase):
    """A 3 × 3 circulant that scales detail by ``sigma`` ≤ ½ and rotates it by ``phase``."""
    angles = phase - 2 * np.pi * np.arange(3) / 3
    weights = (1 + 2 * sigma * np.cos(angles)) / 3
    assert (weights >= 0).all()
    return np.array([[weights[(i - j) % 3] for j in range(3)] for i in range(3)])


def angle(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return np.arccos(
        np.clip((x * y).sum(0) / np.linalg.norm(x, axis=0) / np.linalg.norm(y, axis=0), -1, 1)
    )


@given(SHARES, st.integers(0, len(FAMILY) - 1))
def test_residual_matrix_stays_doubly_stochastic_and_within_the_residual_bound(alpha, index):
    matrix = hj.residual.residual_matrix(FAMILY[index], alpha)
    np.testing.assert_allclose(matrix, (1 - alpha) * np.eye(5) + alpha * FAMILY[index], atol=1e-15)
    assert (matrix >= 0).all() and max(hj.marginal_errors(matrix)) < 1e-13
    sigma2 = oracles.sigma2(FAMILY[index])
    assert (
        oracles.sigma2(np.asarray(matrix))
        <= hj.residual.residual_bound(sigma2, alpha=alpha) + 1e-13
    )


@pytest.mark.parametrize("alpha", [-0.5, 1.7, 3.0])
def test_residual_bound_holds_outside_0_to_1_and_is_attained_by_a_swap(alpha, rng):
    for _ in range(20):
        matrix = rng.dirichlet(np.ones(4), 4)
        bound = float(hj.residual.residual_bound(np.linalg.norm(matrix, 2), alpha=alpha))
        residual = (1 - alpha) * np.eye(4) + alpha * matrix
        assert np.linalg.norm(residual, 2) <= bound + 1e-12
    swap = np.array([[0.25, 0.75], [0.75, 0.25]])  # detail is kept by half, and turned round
    found = hj.residual.residual_bound(0.5, alpha=alpha)
    expected = oracles.sigma2((1 - alpha) * np.eye(2) + alpha * swap)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_residual_bound_has_its_slope_at_the_ends(alpha):
    slope = jax.grad(lambda a: hj.residual.residual_bound(0.25, alpha=a))(alpha)
    assert float(slope) == -0.75


@given(SHARES, st.integers(1, 12))
def test_residual_bound_is_attained_by_positive_semidefinite_matrices(alpha, index):
    matrix = FAMILY[-index]
    kept = oracles.sigma2(np.asarray(hj.residual.residual_matrix(matrix, alpha)))
    assert kept == pytest.approx(
        float(hj.residual.residual_bound(oracles.sigma2(matrix), alpha=alpha)), abs=1e-13
    )


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.5, 0.6])
def test_no_detail_vector_turns_by_more_than_the_turn_bound(alpha, rng):
    x = rng.normal(size=(5, 2000))
    x -= x.mean(0)
    bounds = np.asarray(hj.residual.turn_bound(oracles.sigma2(FAMILY), alpha=alpha))
    worst = np.array([angle(x, (1 - alpha) * x + alpha * m @ x).max() for m in FAMILY])
    assert (worst <= bounds + 1e-7).all()  # arccos near 1
    assert (bounds < np.pi / 2 + 1e-12)[alpha * oracles.sigma2(FAMILY) < 1 - alpha].all()


@pytest.mark.parametrize(("sigma", "alpha"), [(0.3, 0.4), (0.4, 0.5), (0.5, 0.3), (0.45, 0.6)])
def test_turn_bound_is_attained_by_a_rotation_of_detail(sigma, alpha, rng):
    ratio = alpha * sigma / (1 - alpha)
    matrix = rotation(sigma, np.arccos(-ratio))
    x = rng.normal(size=3)
    turned = hj.residual.turn_angle(x, hj.residual.residual_matrix(matrix, alpha) @ x)
    assert oracles.sigma2(matrix) == pytest.approx(sigma, abs=1e-14)
    assert turned == pytest.approx(np.arcsin(ratio), abs=1e-13)
    assert turned == pytest.approx(float(hj.residual.turn_bound(sigma, alpha=alpha)), abs=1e-13)


@pytest.mark.parametrize(
    ("sigma2", "alpha", "bound"),
    [
        (0.5, 0.0, 0.0),
        (0.0, 0.7, 0.0),
        (1.0, 0.5, np.pi),
        (0.5, 0.9, np.pi),
        (0.5, 1.0, np.pi),
        (0.0, 1.0, np.pi),
        (1.0, 1 / 3, np.pi / 6),
        (np.nan, 0.5, np.nan),
        (0.5, np.nan, np.nan),
    ],
)
def test_turn_bound_is_no_bound_where_its_premise_fails(sigma2, alpha, bound):
    np.testing.assert_allclose(hj.residual.turn_bound(sigma2, alpha=alpha), bound, rtol=1e-14)


def test_turn_of_collapsed_layers_vanishes_identity_stagnation(rng):
    x, near_uniform = rng.normal(size=6), oracles.isolated(6, 1e-9)
    after = hj.residual.residual_matrix(near_uniform, 0.5) @ x
    assert (
        0 < hj.residual.turn_angle(x, after) <= hj.residual.turn_bound(1e-9, alpha=0.5) * (1 + 1e-6)
    )
    np.testing.assert_allclose(hj.center(after), 0.5 * hj.center(x), atol=1e-8)


def test_turns_over_layers_add_at_most(rng):
    x = start = rng.normal(size=5)
    total = 0.0
    for m in FAMILY[13:33]:
        x = hj.residual.residual_matrix(m, 0.2) @ x
        total += float(hj.residual.turn_bound(oracles.sigma2(m), alpha=0.2))
        assert hj.residual.turn_angle(start, x) <= total


@given(st.floats(1e-12, 3.1))
def test_turn_angle_is_exact_from_tiny_to_straight_and_ignores_mean_and_scale(theta):
    u, v = np.array([1, -1, 0]) / np.sqrt(2), np.array([1, 1, -2]) / np.sqrt(6)
    after = 7 * (np.cos(theta) * u + np.sin(theta) * v) if theta > 1e-3 else u + np.tan(theta) * v
    assert jax.jit(hj.residual.turn_angle)(u, after) == pytest.approx(theta, rel=1e-9, abs=1e-15)
    assert jax.jit(hj.residual.turn_angle)(3 * u + 5, after - 2) == pytest.approx(
        theta, rel=1e-3, abs=1e-14
    )


def test_turn_angle_without_detail_is_nan_and_of_opposites_is_pi():
    x = np.array([1.0, -2.0, 4.0])
    assert np.isnan(hj.residual.turn_angle(x, np.ones(3))) and np.isnan(
        hj.residual.turn_angle(np.zeros(3), x)
    )
    assert hj.residual.turn_angle(x, -x) == pytest.approx(
        np.pi, rel=1e-15
    ) and hj.residual.turn_angle(x, 2 * x + 1) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("size", [1e-25, 1e20, 3e38])
def test_a_turn_is_the_same_for_vectors_of_any_size(size):
    x, y = np.array([1.0, -1.0, 0.0], "float32"), np.array([1.0, 1.0, -1.0], "float32")
    expected = np.arccos(0.0)
    turned = jax.jit(hj.residual.turn_angle)(np.float32(size) * x, np.float32(size) * y)
    assert abs(turned - expected) < 1e-6


def test_a_residual_weight_is_one_number():
    with pytest.raises(ValueError, match=r"alpha must be a scalar, got shape \[2\]"):
        hj.residual.residual_matrix([[0, 1], [1, 0]], [0.5, 1.0])


def test_alpha_goes_by_name():
    for wrong in (hj.residual.residual_bound, hj.residual.turn_bound):
        with pytest.raises(TypeError, match="positional"):
            wrong(0.5, 0.1)
