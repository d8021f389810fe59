"""σ₂: its subgradients at ties, and the proof that no singular value is larger."""

import jax
import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.spectrum.rayleigh import largest_rayleigh_quotient
from homojax.spectrum.singular_value import spectral_norm, top_singular_pair

DTYPES = "float32", "float64"
N = 33  # of most tests, to share their programs
TIES = {
    "uniform": np.full((N, N), 1 / N),
    "identity": np.eye(N),
    "rotation": np.roll(np.eye(N), 1, 0),
    "cycle": np.asarray(hj.birkhoff.lazy_cycle(N, 0.5)),
    "lazy permutation": oracles.lazy_permutation(np.random.default_rng(0), N, 0.4),
}


@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def dtype(request):
    """In float32 where there is time: tests/test_dtypes_and_transforms.py has it at n = 4."""
    return np.dtype(request.param)


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
    others = m + rng.normal(size=(200, N, N)) * np.logspace(-3, 0, 200)[:, None, None]
    tangents = value + np.einsum("ij,kij->k", np.asarray(gradient, np.float64), others - m)
    kept = oracles.sigma2(np.asarray(others, np.float64))
    assert (kept >= tangents - hj.numerics.rounding(N, dtype)).all()


def test_gradients_match_differences_where_sigma2_is_simple(rng):
    m, direction = rng.uniform(size=(4, 4)) / 2, rng.normal(size=(4, 4))
    functions = (hj.sigma2, hj.spectrum.distance_to_uniform)
    both = jax.jit(lambda m: [jax.value_and_grad(function)(m) for function in functions])
    expected = oracles.difference(lambda m: [value for value, _ in both(m)], m, direction, 1e-4)
    slopes = [(np.asarray(gradient) * direction).sum() for _, gradient in both(m)]
    np.testing.assert_allclose(slopes, expected, rtol=1e-7)


# ---------------------------------------------------------------- the proof


def with_singular_values(rng, values):
    """Return matrices with these singular values [B, n], [B, n, n]."""
    lanes, n = values.shape
    left, right = np.linalg.qr(rng.normal(size=(2, lanes, n, n)))[0]
    return left * values[:, None, :] @ right.mT


FAMILIES = {  # largest first
    "gaps of every size": lambda rng, n: np.r_[1, 1 - 10 ** rng.uniform(-17, 0, n - 1)],
    "equal ones": lambda rng, n: np.r_[np.ones(n - n // 2), np.zeros(n // 2)],
    "one": lambda rng, n: np.r_[1, np.zeros(n - 1)],
    "none": lambda rng, n: np.zeros(n),
    "tiny": lambda rng, n: 1e-30 * np.geomspace(1, 1e-5, n),
}


@pytest.mark.parametrize("n", [2, 5, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_top_singular_pair_is_a_pair_and_the_top_one(name, n, dtype, rng):
    values = np.stack([FAMILIES[name](rng, n) for _ in range(60)])
    matrices = with_singular_values(rng, values)
    # Half of them have singular vectors of one entry.
    matrices[::2] = [rng.permutation(np.diag(row)) for row in values[::2]]
    matrices = matrices.astype(dtype)
    norm, u, v = map(np.asarray, jax.jit(jax.vmap(top_singular_pair))(matrices))
    exact = np.linalg.norm(matrices.astype(float), 2, axis=(1, 2))
    unit = np.where(exact > 0, exact, 1)
    within = hj.numerics.rounding(n, dtype)
    assert (abs(norm - exact) <= within * unit).all()
    image = np.einsum("bij,bj->bi", matrices.astype(float), v)
    back = np.einsum("bij,bi->bj", matrices.astype(float), u)
    assert (np.linalg.norm(image - norm[:, None] * u, axis=1) <= within * unit).all()
    assert (np.linalg.norm(back - norm[:, None] * v, axis=1) <= within * unit).all()
    assert (abs(np.linalg.norm(u, axis=1) - (exact > 0)) <= within).all()


def spread_beside_localised(n, kept, localised):
    """Two units that mix among themselves, and others whose best-kept detail is ±1 everywhere."""
    others = n - 2
    stay, swap = localised * np.array([0.875, 0.125])
    leak = (1 - stay - swap) / others
    matrix = np.full((n, n), leak)
    matrix[:2, :2] = [[stay, swap], [swap, stay]]
    signs = (-1.0) ** np.arange(others)
    share = (1 - 2 * leak) / others
    matrix[2:, 2:] = share + min(kept / others, share) * np.outer(signs, signs)
    return matrix


@pytest.mark.parametrize(
    ("n", "dtype"),
    [(2 * N, "float32"), *(pytest.param(256, t, marks=pytest.mark.slow) for t in DTYPES)],
)
def test_a_top_vector_spread_over_all_units_is_found_beside_one_of_two_units(n, dtype):
    """The powers of the second one fill more of single columns than those of the first."""
    localised = np.linspace(0.4, 0.88, 48)
    matrices = np.stack([spread_beside_localised(n, 0.9, share) for share in localised])
    np.testing.assert_allclose(matrices.sum(1), 1)
    found = sigma2_of_each(matrices.astype(dtype))
    within = hj.numerics.rounding(n, dtype)
    np.testing.assert_allclose(found, oracles.sigma2(matrices), rtol=within)


def test_tops_that_only_rounding_holds_apart_are_found_beside_a_third_of_any_gap(rng):
    gaps = np.geomspace(1e-9, 1, 4000)
    matrices = with_singular_values(rng, np.stack([1 + 0 * gaps, 1 + 0 * gaps, 1 - gaps], 1))
    norm = jax.jit(jax.vmap(spectral_norm))(matrices.astype("float32"))
    np.testing.assert_allclose(norm, 1, rtol=hj.numerics.rounding(3, "float32"))


@pytest.mark.parametrize("n", [N, pytest.param(64, marks=pytest.mark.slow)])
def test_sigma2_of_larger_matrices_is_certified_to_the_declared_rounding(n, rng, dtype):
    family = oracles.birkhoff_family(rng, n, 6).astype(dtype)
    constant = np.ptp(family, axis=(1, 2)) == 0  # J, of which NumPy's PMP is its own rounding
    exact = np.where(constant, 0, oracles.sigma2(family.astype(float)))
    noise = 4 * np.finfo(dtype).eps / n  # of PMP near J
    within = hj.numerics.rounding(n, dtype) * exact + noise
    assert (abs(sigma2_of_each(family) - exact) <= within).all()


def test_conjugate_gradients_can_settle_on_a_lower_pair_and_squaring_does_not(rng, dtype):
    start = np.asarray(jax.random.normal(jax.random.key(0), (N,), dtype), float)
    ones, unseen = np.ones(N), np.column_stack([np.ones(N), start])
    u = rng.normal(size=N)
    u = u - unseen @ np.linalg.lstsq(unseen, u, rcond=None)[0]
    left = np.linalg.qr(np.column_stack([ones, u, rng.normal(size=(N, N - 2))]))[0]
    right = np.linalg.qr(np.column_stack([ones, rng.normal(size=(N, N - 1))]))[0]
    exact = left * np.r_[0, 1.0, np.geomspace(0.9, 0.1, N - 2)] @ right.T
    matrix, start = exact.astype(dtype), start.astype(dtype)
    settled, _ = jax.jit(
        lambda m, x: largest_rayleigh_quotient(lambda x: m.T @ (m @ x), x, 1e-3, 3)
    )(matrix, start @ matrix)
    assert np.linalg.norm(matrix @ settled) < 0.95
    norm, gradient = sigma2_and_gradient(matrix)
    assert norm == pytest.approx(1, rel=hj.numerics.rounding(N, dtype))
    np.testing.assert_allclose(gradient, np.outer(left[:, 1], right[:, 1]), atol=1e-5)


def test_gradients_are_those_of_a_decomposition(rng):
    m = rng.uniform(size=(N, N)) / 16
    p = oracles.centring(N)
    u, _, vt = np.linalg.svd(p @ m @ p)
    np.testing.assert_allclose(sigma2_and_gradient(m)[1], np.outer(u[:, 0], vt[0]), atol=1e-13)


@pytest.mark.slow
def test_second_derivatives_are_those_of_differences(rng):
    m, direction = rng.uniform(size=(2, N, N)) / 16

    def slope(x):
        return (jax.grad(hj.sigma2)(x) * direction).sum()

    @jax.jit
    def second_derivatives(x, along):
        return (jax.grad(slope)(x) * along).sum(), jax.jvp(slope, (x,), (along,))[1]

    def slope_at(x):
        return (np.asarray(sigma2_and_gradient(x)[1]) * direction).sum()

    expected = float(oracles.difference(slope_at, m, m[::-1], 1e-4))
    for computed in second_derivatives(m, m[::-1]):
        assert computed == pytest.approx(expected, rel=1e-7)


def test_sigma2_is_nan_where_the_matrix_is_and_its_lanes_are_apart(rng):
    batch = oracles.birkhoff_family(rng, N, 6)
    batch[3, 0, 0] = np.nan
    values = np.asarray(sigma2_of_each(batch))
    assert np.isnan(values[3])
    expected = oracles.sigma2(np.delete(batch, 3, 0))
    np.testing.assert_allclose(np.delete(values, 3), expected, atol=1e-13)
    value, slope = sigma2_and_gradient(np.full((N, N), 1 / N))
    assert value < 1e-15 and np.linalg.norm(slope, 2) <= 1 + 1e-9
