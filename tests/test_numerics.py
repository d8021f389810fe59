"""What a dtype can deliver, and primitives at their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from homojax import numerics
from oracles import permutation_mixture


def test_marginal_tolerance_is_three_quarters_of_the_digits_and_grows_where_sums_are_long():
    assert numerics.marginal_tolerance(4, "float64") == pytest.approx(1.8e-12, rel=0.02)
    assert numerics.marginal_tolerance(4, "float32") == pytest.approx(6.4e-6, rel=0.01)
    assert numerics.marginal_tolerance(4096, "float32") == pytest.approx(4 * 64 * 2.0**-23)


@pytest.mark.parametrize("n", [4, 64, 512])
def test_rounding_a_doubly_stochastic_matrix_keeps_it_within_the_marginal_tolerance(n, dtype, rng):
    rounded = permutation_mixture(rng, n, 50).astype(dtype)
    error = max(abs(rounded.sum(axis) - 1).max() for axis in (0, 1))
    assert error <= numerics.marginal_tolerance(n, dtype)


def test_square_root_has_derivative_zero_at_zero_and_the_usual_one_elsewhere(dtype):
    x = jnp.array([0.0, 0.25, 4.0], dtype)
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jnp.diag(derivative(numerics.sqrt)(x)), [0, 1, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(numerics.sqrt(x), [0, 0.5, 2])
    assert np.isnan(numerics.sqrt(jnp.array([-1.0, np.nan]))).all()


@pytest.mark.parametrize("n", [4, 64])
@pytest.mark.parametrize("lanes", [3, 300])
def test_a_nan_is_never_lost_in_a_maximum_whatever_is_compiled_with_it(n, lanes, dtype, rng):
    """XLA's ``max`` on CPUs loses it at some of these sizes (openxla/xla issue 21461)."""
    x = rng.normal(size=(lanes, n)).astype(dtype)
    x[::2, -1] = np.nan
    expected = np.where(np.isnan(x).any(1), np.nan, x.max(1))
    for function in (numerics.max_or_nan, lambda x: numerics.max_or_nan(x, 0)):
        np.testing.assert_array_equal(jax.vmap(function)(x), expected)
        np.testing.assert_array_equal(jax.jit(jax.vmap(function))(x), expected)
    gradient = jax.grad(numerics.max_or_nan)(x[1])
    np.testing.assert_array_equal(gradient, np.arange(n) == x[1].argmax())


def test_matrix_products_ask_for_full_precision_on_accelerators():
    """Or are sums, of small matrices, which accelerators do in full precision anyway."""
    small, large = (str(jax.make_jaxpr(numerics.matmul)(x, x)) for x in (jnp.eye(2), jnp.eye(9)))
    assert "dot_general" not in small and "HIGHEST" in large


def test_small_products_are_those_of_numpy(rng):
    for shape in ((2, 3, 4), (8, 8, 1), (1, 5, 8), (9, 3, 2)):
        a, b = rng.normal(size=shape[:2]), rng.normal(size=shape[1:])
        np.testing.assert_allclose(numerics.matmul(a, b), a @ b, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(numerics.matmul(a, b[:, 0]), a @ b[:, 0], rtol=1e-12, atol=1e-13)
