"""σ₂: its subgradients at ties, and its proof where a decomposition would be slower."""

import jax
import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.spectrum.rayleigh import largest_rayleigh_quotient
from homojax.spectrum.singular_value import top_singular_pair

TIES = {
    "uniform": np.full((6, 6), 1 / 6),
    "identity": np.eye(6),
    "rotation": np.roll(np.eye(6), 1, 0),
    "cycle": np.asarray(hj.birkhoff.lazy_cycle(6, 0.5)),
    "lazy permutation": oracles.lazy_permutation(np.random.default_rng(0), 6, 0.4),
}
sigma2_of_each = jax.jit(jax.vmap(hj.sigma2))
sigma2_and_gradient = jax.jit(jax.value_and_grad(hj.sigma2))


@pytest.mark.parametrize("name", TIES)
def test_gradient_of_sigma2_at_a_tie_is_a_subgradient_of_norm_at_most_one(name, rng, dtype):
    m = TIES[name].astype(dtype)
    value, gradient = sigma2_and_gradient(m)
    assert np.linalg.matrix_rank(gradient, tol=1e-4) <= 1
    assert np.linalg.norm(gradient, 2) <= 1 + 1e-5
    if name != "uniform":
        assert np.linalg.norm(gradient, 2) == pytest.approx(1, abs=1e-5)
    # σ₂ is convex: a tangent lies below it.
    others = m + rng.normal(size=(200, 6, 6)) * np.logspace(-3, 0, 200)[:, None, None]
    tangents = value + np.einsum("ij,kij->k", np.asarray(gradient, np.float64), others - m)
    kept = oracles.sigma2(np.asarray(others, np.float64))
    assert (kept >= tangents - hj.numerics.rounding(6, dtype)).all()


def test_gradients_match_differences_where_sigma2_is_simple(rng):
    m, direction = rng.uniform(size=(6, 6)) / 3, rng.normal(size=(6, 6))
    distance = jax.jit(jax.value_and_grad(hj.spectrum.distance_to_uniform))
    for function in (sigma2_and_gradient, distance):
        slope = (function(m)[1] * direction).sum()
        expected = oracles.difference(lambda m, f=function: f(m)[0], m, direction, 1e-4)
        assert slope == pytest.approx(expected, rel=1e-7)


# ---------------------------------------------------------------- beyond n = 32, where it is proved


@pytest.mark.parametrize("n", [33, 64])
def test_sigma2_of_larger_matrices_is_certified_to_the_declared_rounding(n, rng, dtype):
    family = oracles.birkhoff_family(rng, n, 6).astype(dtype)
    constant = np.ptp(family, axis=(1, 2)) == 0  # J, of which NumPy's PMP is its own rounding
    exact = np.where(constant, 0, oracles.sigma2(family.astype(float)))
    noise = 4 * np.finfo(dtype).eps / n  # of PMP near J
    within = hj.numerics.rounding(n, dtype) * exact + noise
    assert (abs(sigma2_of_each(family) - exact) <= within).all()


def test_the_iteration_alone_can_settle_on_a_lower_pair_and_the_proof_does_not_let_it(rng, dtype):
    n = 33
    start = np.asarray(jax.random.normal(jax.random.key(0), (n,), dtype), float)
    u = rng.normal(size=n)
    u = u - (u @ start) / (start @ start) * start
    left = np.linalg.qr(np.column_stack([u, rng.normal(size=(n, n - 1))]))[0]
    right = np.linalg.qr(rng.normal(size=(n, n)))[0]
    matrix = left * np.r_[1.0, np.geomspace(0.9, 0.1, n - 1)] @ right.T
    matrix, start = matrix.astype(dtype), start.astype(dtype)
    settled, _ = jax.jit(
        lambda m, x: largest_rayleigh_quotient(lambda x: m.T @ (m @ x), x, 1e-3, 3)
    )(matrix, start @ matrix)
    assert np.linalg.norm(matrix @ settled) < 0.95
    norm, left, right = jax.jit(top_singular_pair)(matrix)
    assert norm == pytest.approx(1, rel=hj.numerics.rounding(n, dtype))
    np.testing.assert_allclose(matrix @ right, norm * left, atol=1e-5)


def test_gradients_beyond_that_size_are_those_of_a_decomposition(rng):
    m, direction = rng.uniform(size=(2, 33, 33)) / 16
    p = oracles.centring(33)
    u, _, vt = np.linalg.svd(p @ m @ p)
    np.testing.assert_allclose(sigma2_and_gradient(m)[1], np.outer(u[:, 0], vt[0]), atol=1e-13)

    def slope(x):
        return (sigma2_and_gradient(x)[1] * direction).sum()

    expected = float(oracles.difference(slope, m, m[::-1], 1e-4))
    assert (jax.jit(jax.grad(slope))(m) * m[::-1]).sum() == pytest.approx(expected, rel=1e-7)
    forward = jax.jit(lambda x, along: jax.jvp(slope, (x,), (along,))[1])(m, m[::-1])
    assert forward == pytest.approx(expected, rel=1e-7)


def test_sigma2_beyond_that_size_is_nan_where_the_matrix_is_and_its_lanes_are_apart(rng):
    batch = oracles.birkhoff_family(rng, 33, 6)
    batch[3, 0, 0] = np.nan
    values = np.asarray(sigma2_of_each(batch))
    assert np.isnan(values[3])
    expected = oracles.sigma2(np.delete(batch, 3, 0))
    np.testing.assert_allclose(np.delete(values, 3), expected, atol=1e-13)
    value, slope = sigma2_and_gradient(np.full((33, 33), 1 / 33))
    assert value < 1e-15 and np.linalg.norm(slope, 2) <= 1 + 1e-9
