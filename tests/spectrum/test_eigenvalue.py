"""λ₂, proved by repeated squaring, and its derivative."""

import jax
import numpy as np
import pytest
import scipy.linalg

import homojax as hj
import oracles
from homojax.spectrum import eigenvalue


@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def dtype(request):
    """In float32 where there is time: the derivative at the barycentre has it in a fast test."""
    return np.dtype(request.param)


lambda2_of_each = jax.jit(jax.vmap(hj.lambda2))
lambda2_and_gradient = jax.jit(jax.value_and_grad(hj.lambda2))


def eigenvalue_family(rng, n):
    """Doubly stochastic; dominant eigenvalues simple, paired, tied, nearly tied; normal or not."""
    logits = [
        oracles.alternate(rng.normal(size=(n, n)), epsilon, 3000)
        for epsilon in (0.4, 0.6, 1, 2, 10, 100)
    ]
    mixtures = [oracles.permutation_mixture(rng, n, k) for k in (2, 3, 5, 40)]
    symmetric = [oracles.symmetric_psd(rng, n) for _ in range(3)]
    cycle = np.roll(np.eye(n), 1, 0)
    tied = [
        np.eye(n),
        cycle,
        0.5 * cycle + 0.5 / n,
        0.7 * cycle + 0.3 * np.eye(n),
        oracles.lazy_permutation(rng, n, 0.3),
    ]
    nearly = [0.999 * m + 0.001 * oracles.permutation(rng, n) for m in tied]
    return np.array([*logits, *mixtures, *symmetric, *tied, *nearly, oracles.isolated(n, 0.6)])


@pytest.mark.parametrize("n", [16, pytest.param(33, marks=pytest.mark.slow)])
def test_eigenvalue_modulus_of_larger_matrices_is_that_of_a_matrix_within_rounding(n, rng, dtype):
    family = eigenvalue_family(rng, n).astype(dtype)
    p = oracles.centring(n)
    backward = hj.numerics.rounding(n, dtype) + np.finfo(dtype).eps
    for m, computed in zip(p @ family.astype(float) @ p, lambda2_of_each(family), strict=True):
        values, left, right = scipy.linalg.eig(m, left=True)
        largest = abs(values).argmax()
        # The first-order change per backward error.
        condition = 1 / abs(left[:, largest].conj() @ right[:, largest])
        error = abs(float(computed) - abs(values[largest]))
        within = backward * max(1, min(condition, 10)) * np.linalg.norm(m, 2)
        assert error <= within + 1e-15


def test_a_dominant_eigenvalue_that_the_start_does_not_see_is_found_all_the_same(rng, dtype):
    """Its left vector is orthogonal to both starts, which show powers of the others alone."""
    n = 16
    starts = np.asarray(jax.random.normal(jax.random.key(0), (2, n), dtype), float)
    unseen = np.vstack([starts, np.ones(n)])
    left = rng.normal(size=n)
    left = left - np.linalg.lstsq(unseen.T, left, rcond=None)[0] @ unseen
    others = rng.normal(size=(n, n - 2))
    basis = np.linalg.qr(np.column_stack([np.ones(n), left, others]))[0]
    matrix = (basis * np.r_[0, 0.9, -0.8, np.linspace(1e-5, 0, n - 3)] @ basis.T).astype(dtype)
    radius = lambda2_and_gradient(matrix)[0]
    assert radius == pytest.approx(0.9, rel=hj.numerics.rounding(n, dtype))


@pytest.mark.parametrize("turn", [[[1, 0], [0, 0.7]], [[0.6, -0.8], [0.8, 0.6]]])
def test_far_from_normal_a_newton_step_proves_most_of_what_powers_leave_open(turn, rng):
    """One dominant eigenvalue, or a pair, with vectors that are nearly dependent; float32."""
    n, batch = 16, 64
    diagonal = scipy.linalg.block_diag(turn, np.diag(rng.uniform(-0.8, 0.8, n - 2)))
    vectors = rng.normal(size=(batch, n, n)) * np.geomspace(1, 0.03, n)
    matrices = vectors @ diagonal @ np.linalg.inv(vectors)
    matrices = (matrices / np.linalg.norm(matrices, 2, (1, 2))[:, None, None]).astype(np.float32)
    proved, refined = (
        np.asarray(jax.jit(jax.vmap(find))(matrices))
        for find in (eigenvalue._square_and_prove, eigenvalue._square_to_the_end)
    )
    unproved, left_open = np.isnan(proved), np.isnan(refined)
    assert unproved.sum() > 10 and left_open[unproved].mean() < 0.5
    for matrix, radius in zip(matrices[~left_open].astype(float), refined[~left_open], strict=True):
        values, left, right = scipy.linalg.eig(matrix, left=True)
        largest = abs(values).argmax()
        condition = 1 / abs(left[:, largest].conj() @ right[:, largest])
        assert abs(radius - abs(values[largest])) <= hj.numerics.rounding(n, "float32") * condition


@pytest.mark.parametrize("n", [4, 16])
def test_gradient_of_the_eigenvalue_modulus_matches_differences_where_simple(n, rng):
    m, direction = rng.uniform(size=(2, n, n)) * 2 / n
    slope = (np.asarray(lambda2_and_gradient(m)[1]) * direction).sum()
    expected = oracles.difference(lambda m: lambda2_and_gradient(m)[0], m, direction, 1e-4)
    assert slope == pytest.approx(float(expected), rel=1e-7)
    m[2, 3] = np.nan
    assert np.isnan(lambda2_and_gradient(m)[0]) and lambda2_and_gradient(np.zeros((n, n)))[0] == 0


@pytest.mark.parametrize(
    ("n", "dtype"),
    [
        (4, "float64"),
        (16, "float64"),
        pytest.param(16, "float32", marks=pytest.mark.slow),
        pytest.param(4, "float32", marks=pytest.mark.slow),
        pytest.param(40, "float64", marks=pytest.mark.slow),
        pytest.param(40, "float32", marks=pytest.mark.slow),
    ],
    indirect=["dtype"],
)
def test_the_derivative_at_the_barycentre_is_finite_at_every_size(n, dtype):
    """Zero-initialised mixing starts there."""
    value, slope = lambda2_and_gradient(np.full((n, n), 1 / n, dtype))
    assert value <= hj.numerics.rounding(n, dtype) and np.isfinite(slope).all()
