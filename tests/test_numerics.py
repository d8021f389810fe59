import jax
import jax.numpy as jnp
import numpy as np
import pytest

from homojax import numerics
from oracles import permutation_mixture


@pytest.mark.parametrize("coerce", [numerics.as_float, numerics.as_square])
def test_floats_keep_their_dtype_and_the_rest_gets_the_default(coerce, dtype):
    assert coerce(np.eye(2, dtype=dtype)).dtype == dtype
    assert coerce(np.eye(2, dtype=int)).dtype == coerce(np.eye(2, dtype=bool)).dtype == np.float64


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2), (1, 1), (0, 0)])
def test_what_is_not_square_or_has_no_detail_is_refused_by_name_and_shape(shape):
    with pytest.raises(ValueError, match="logits must .*" + repr(list(shape)).replace("[", r"\[")):
        numerics.as_square(np.zeros(shape), "logits")


@pytest.mark.parametrize("shape", [(2, 2), (0, 2, 2), (3, 1, 2), (3, 1, 1)])
def test_what_is_not_a_stack_of_layers_is_refused_by_name(shape):
    with pytest.raises(ValueError, match="layers must "):
        numerics.as_stack(np.zeros(shape), "layers")


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


def farthest(matrix):
    """Over rows, max of half the distance from one to the other in the 1-norm, twice."""
    return numerics.max_over_row_pairs(jnp.add, lambda x: jnp.maximum(x, 0), matrix)


@pytest.mark.parametrize("n", [2, 5, 8, 19])
def test_max_over_row_pairs_visits_every_pair_and_column(n, rng):
    matrices = rng.normal(size=(20, n, n)) * rng.normal(size=(20, n, n)) ** 2
    far = jax.vmap(farthest)(matrices)
    np.testing.assert_allclose(
        far, [max(abs(a - b).sum() for a in m for b in m) for m in matrices], rtol=1e-12
    )
    wide = jax.vmap(lambda m: numerics.max_over_row_pairs(jnp.maximum, lambda x: x, m))(matrices)
    np.testing.assert_allclose(
        wide, [max(np.ptp(a - b) for a in m for b in m) for m in matrices], rtol=1e-12
    )


def test_the_derivative_of_max_over_row_pairs_is_that_of_the_farthest_pair(rng):
    matrix, direction = jnp.asarray(rng.normal(size=(2, 4, 4)))

    def at(x):
        return farthest(matrix + x * direction)

    assert float(jax.grad(at)(0.0)) == pytest.approx(float(at(1e-6) - at(-1e-6)) / 2e-6, rel=1e-6)


def test_matrix_products_ask_for_full_precision_on_accelerators():
    assert "HIGHEST" in str(jax.make_jaxpr(numerics.matmul)(jnp.eye(2), jnp.eye(2)))


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match="real, got complex"):
        numerics.as_float([[1 + 2j, 0], [0, 1]])
