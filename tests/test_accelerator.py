"""JAX's first device, whatever it is, gives what NumPy gives in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles

pytestmark = pytest.mark.accelerator
EPSILON = 0.5


@pytest.fixture(autouse=True)
def device(dtype):
    """The device, where it has the dtype."""
    first = jax.devices()[0]
    if dtype == np.float64 and first.platform == "tpu":
        pytest.skip("TPUs have no float64")
    with jax.default_device(first):
        yield first


@pytest.fixture
def logits(rng, dtype):
    """[12, 8, 8]."""
    return rng.normal(size=(12, 8, 8)).astype(dtype)


@pytest.fixture(scope="module")
def project():
    return jax.jit(jax.vmap(lambda s: hj.sinkhorn(s, EPSILON)))


def test_products_have_all_digits_of_the_dtype(rng, dtype):
    """Not the 8 or 11 bits that some devices multiply float32 in by default."""
    a, b = rng.normal(size=(2, 64, 64)).astype(dtype)
    product = np.asarray(jax.jit(hj.numerics.matmul)(a, b), float)
    scale = abs(a.astype(float)) @ abs(b.astype(float))
    error = abs(product - a.astype(float) @ b.astype(float)) / scale
    assert error.max() <= 64 * np.finfo(dtype).eps


def test_projections_have_the_sums_that_they_report_and_are_the_projections(project, logits, dtype):
    result = project(logits)
    tol = hj.numerics.marginal_tolerance(8, dtype)
    assert result.matrix.dtype == dtype and result.converged.all()
    assert np.max(oracles.marginal_errors(result.matrix)) <= tol
    truth = oracles.project(logits[0].astype(float), EPSILON)
    np.testing.assert_allclose(result.matrix[0], truth, atol=8 * tol)


def test_gradients_of_projections_are_those_of_many_digits(rng, logits, dtype):
    weights, direction = rng.normal(size=(2, 8, 8))
    slope = jax.jit(
        jax.grad(lambda s: (jnp.asarray(weights, dtype) * hj.sinkhorn(s, EPSILON).matrix).sum())
    )
    found = (np.asarray(slope(logits[0]), float) * direction).sum()
    moved = oracles.derivative_of_projection(logits[0].astype(float), EPSILON, direction)
    expected = (weights * moved).sum()
    within = 1e3 * hj.numerics.marginal_tolerance(8, dtype)
    np.testing.assert_allclose(found, expected, atol=within * np.linalg.norm(direction))


def test_spectra_are_those_of_lapack(project, logits, dtype):
    matrices = project(logits).matrix
    exact = np.asarray(matrices, float)
    within = hj.numerics.rounding(8, dtype)
    truth = oracles.singular_values(exact)
    values = jax.jit(jax.vmap(hj.detail_singular_values))(matrices)
    np.testing.assert_allclose(values, truth, atol=2 * within)
    np.testing.assert_allclose(jax.jit(jax.vmap(hj.sigma2))(matrices), truth[:, 0], atol=2 * within)
    centred = oracles.centring(8) @ exact @ oracles.centring(8)
    moduli = abs(np.linalg.eigvals(centred)).max(1)
    np.testing.assert_allclose(jax.jit(jax.vmap(hj.lambda2))(matrices), moduli, atol=1e3 * within)


def test_a_projection_without_a_matrix_has_the_sums_that_it_reports(rng, dtype):
    x, y = rng.normal(size=(2, 300, 3)).astype(dtype)
    result = jax.jit(lambda x, y: hj.sinkhorn(hj.point_cloud_logits(x, y), 2.0))(x, y)
    f, g = (np.asarray(p, float) for p in (result.row_potential, result.col_potential))
    squares = ((x[:, None].astype(float) - y[None].astype(float)) ** 2).sum(2)
    matrix = np.exp(-squares / 2 + f[:, None] + g[None, :])
    assert result.converged
    assert np.max(oracles.marginal_errors(matrix)) <= 40 * hj.numerics.marginal_tolerance(
        300, dtype
    )


@pytest.mark.slow  # elsewhere it is tested at length
def test_a_sweep_keeps_what_the_product_of_its_projections_keeps(dtype):
    ds = hj.sweep(
        epsilon=(0.5, 5.0),
        depth=(1, 2),
        n=4,
        seeds=2,
        samples=8,
        dtype=dtype.name,
        measure=("spectrum", "depth"),
    )
    tol = hj.numerics.marginal_tolerance(4, dtype)
    kept, once = ds.composite_sigma2.values, ds.sigma2.values
    assert np.isfinite(kept).all() and (ds.status.values == 0).all()
    np.testing.assert_allclose(kept[..., 0], once[..., 0], atol=8 * tol)
    assert (kept[..., 1] <= once[..., :2].prod(-1) + 8 * tol).all()
