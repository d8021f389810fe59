import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import homojax as hj
import oracles
from homojax.spectrum.eigenvalue import spectral_radius
from homojax.spectrum.singular_value import largest_rayleigh_quotient, top_singular_pair

FAMILY = oracles.birkhoff_family(np.random.default_rng(2), 6)
TRAINED = json.loads((Path(hj.__file__).parent / "data" / "trained_mhc_logits.json").read_text())
LOGITS = np.array([layer["logits"] for layer in TRAINED["layers"]])
spectrum = jax.jit(hj.detail_singular_values)
tight_sinkhorn = partial(hj.sinkhorn, tol=1e-13)


@given(oracles.squares(2), st.floats(0.2, 10))
def test_sigma2_of_a_two_by_two_is_tanh_of_quarter_cross_difference(logits, epsilon):
    result = tight_sinkhorn(logits, epsilon)
    cross = abs(logits[0, 0] + logits[1, 1] - logits[0, 1] - logits[1, 0])
    assert result.converged
    assert hj.sigma2(result.matrix) == pytest.approx(np.tanh(cross / (4 * epsilon)), abs=1e-12)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_circulant_spectra_are_fourier_transforms(n, rng):
    weights = rng.dirichlet(np.ones(n))
    moduli = np.sort(abs(np.fft.fft(weights)[1:]))[::-1]
    matrix = hj.birkhoff.circulant(weights)
    np.testing.assert_allclose(hj.detail_singular_values(matrix), moduli, atol=1e-12)
    assert hj.lambda2(matrix) == pytest.approx(moduli[0], abs=1e-12)


@pytest.mark.parametrize(("n", "stay"), [(3, 0.5), (4, 0.0), (5, 0.1), (8, 0.5)])
def test_lazy_cycle_spectra_are_cosines(n, stay):
    eigenvalues = stay + (1 - stay) * np.cos(2 * np.pi * np.arange(1, n) / n)
    np.testing.assert_allclose(
        spectrum(hj.birkhoff.lazy_cycle(n, stay)), np.sort(abs(eigenvalues))[::-1], atol=1e-12
    )


@pytest.mark.parametrize(("dimension", "stay"), [(1, 0.75), (2, 0.5), (3, 0.1), (4, 0.5)])
def test_lazy_hypercube_spectra_are_binomial(dimension, stay):
    ones = np.array([word.bit_count() for word in range(1, 2**dimension)])
    eigenvalues = 1 - 2 * (1 - stay) * ones / dimension
    np.testing.assert_allclose(
        spectrum(hj.birkhoff.lazy_hypercube(dimension, stay)),
        np.sort(abs(eigenvalues))[::-1],
        atol=1e-12,
    )


@pytest.mark.parametrize("bits", [2, 3])
def test_de_bruijn_walk_keeps_a_direction_at_each_step_and_forgets_all_after_bits_steps(bits):
    """λ₂ = 0 in a Jordan block of size ``bits``: a backward error of ``rounding`` moves it by
    rounding^(1/bits), no less.
    """
    m = hj.birkhoff.de_bruijn(bits)
    assert hj.sigma2(m) == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(jnp.linalg.matrix_power(m, bits), hj.uniform(2**bits))
    assert hj.lambda2(m) <= hj.numerics.rounding(2**bits, "float64") ** (1 / bits)


@given(oracles.squares(5))
def test_singular_values_are_those_of_the_centred_product(matrix):
    np.testing.assert_allclose(
        spectrum(matrix), oracles.singular_values(matrix), atol=1e-13 * max(1, abs(matrix).max())
    )


def test_singular_values_of_float32_are_within_the_declared_rounding():
    single = FAMILY.astype(np.float32)
    error = abs(
        jax.vmap(spectrum)(single) - oracles.singular_values(single.astype(np.float64))
    ).max()
    assert 0 < error <= hj.numerics.rounding(6, "float32")


def test_eigenvalue_modulus_is_the_second_largest_of_the_matrix(rng):
    moduli = [np.sort(abs(np.linalg.eigvals(m)))[-2] for m in FAMILY]
    np.testing.assert_allclose(jax.vmap(hj.lambda2)(FAMILY), moduli, atol=1e-7)
    attention = rng.dirichlet(np.ones(6), size=6)  # rows sum to 1, columns do not
    for m in (attention, attention.T):
        assert hj.lambda2(m) == pytest.approx(np.sort(abs(np.linalg.eigvals(m)))[-2], abs=1e-12)


def test_distance_to_uniform_is_sigma2_on_the_polytope_and_above_it_elsewhere(rng):
    distance = jax.vmap(hj.spectrum.distance_to_uniform)
    np.testing.assert_allclose(distance(FAMILY), oracles.sigma2(FAMILY), atol=1e-13)
    others = rng.uniform(size=(30, 6, 6))
    np.testing.assert_allclose(
        distance(others), np.linalg.norm(others - 1 / 6, 2, axis=(1, 2)), atol=1e-13
    )
    assert (distance(others) > oracles.sigma2(others) + 1e-3).all()


TIES = {
    "uniform": hj.uniform(6, "float64"),
    "identity": np.eye(6),
    "rotation": hj.birkhoff.circulant([0.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
    "hypercube": hj.birkhoff.lazy_cycle(6, 0.5),
    "lazy permutation": oracles.lazy_permutation(np.random.default_rng(0), 6, 0.4),
}


@pytest.mark.parametrize("name", TIES)
def test_gradient_of_sigma2_at_a_tie_is_a_subgradient_of_norm_at_most_one(name, rng, dtype):
    m = jnp.asarray(TIES[name], dtype)
    value, gradient = jax.value_and_grad(hj.sigma2)(m)
    assert (
        np.linalg.matrix_rank(gradient, tol=1e-4) <= 1 and np.linalg.norm(gradient, 2) <= 1 + 1e-5
    )
    if name != "uniform":
        assert np.linalg.norm(gradient, 2) == pytest.approx(1, abs=1e-5)
    others = (
        m + rng.normal(size=(200, 6, 6)) * np.logspace(-3, 0, 200)[:, None, None]
    )  # σ₂ is convex: a tangent lies below it
    tangents = value + np.einsum("ij,kij->k", np.asarray(gradient, np.float64), others - m)
    assert (
        oracles.sigma2(np.asarray(others, np.float64)) >= tangents - hj.numerics.rounding(6, dtype)
    ).all()


def test_gradients_of_both_moduli_match_differences_where_simple(rng):
    m, direction = rng.uniform(size=(6, 6)) / 3, rng.normal(size=(6, 6))
    for function in (hj.sigma2, hj.lambda2, hj.spectrum.distance_to_uniform):
        slope = (jax.grad(function)(m) * direction).sum()
        assert slope == pytest.approx(
            oracles.difference(jax.jit(function), m, direction, 1e-4), rel=1e-7
        )


# ------------- beyond the size where a decomposition is faster

sigma2_of_each = jax.jit(jax.vmap(hj.sigma2))
sigma2_and_gradient = jax.jit(jax.value_and_grad(hj.sigma2))


def with_top_pair(rng, n, u, singular_values):
    """A square matrix whose top left singular vector is ``u``."""
    left = np.linalg.qr(np.column_stack([u, rng.normal(size=(n, n - 1))]))[0]
    right = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return left * singular_values @ right.T


@pytest.mark.parametrize("n", [33, 64])
def test_sigma2_of_larger_matrices_is_certified_to_the_declared_rounding(n, rng, dtype):
    family = oracles.birkhoff_family(rng, n, 6).astype(dtype)
    exact = oracles.sigma2(family.astype(float))
    noise = 4 * np.finfo(dtype).eps / n  # of PMP near J
    assert (
        abs(sigma2_of_each(family) - exact) <= hj.numerics.rounding(n, dtype) * exact + noise
    ).all()


def test_the_iteration_alone_can_settle_on_a_lower_pair_and_the_proof_does_not_let_it(rng, dtype):
    n = 40
    start = np.asarray(jax.random.normal(jax.random.key(0), (n,), dtype), float)
    u = rng.normal(size=n)
    u = u - (u @ start) / (start @ start) * start
    matrix = with_top_pair(rng, n, u, np.r_[1.0, np.geomspace(0.9, 0.1, n - 1)]).astype(dtype)
    settled, _ = largest_rayleigh_quotient(
        lambda x: matrix.T @ (matrix @ x), start.astype(dtype) @ matrix, 1e-3, 3
    )
    assert np.linalg.norm(matrix @ settled) < 0.95
    norm, left, right = jax.jit(top_singular_pair)(matrix)
    assert norm == pytest.approx(1, rel=hj.numerics.rounding(n, dtype))
    np.testing.assert_allclose(matrix @ right, norm * left, atol=1e-5)


def test_gradients_beyond_that_size_are_those_of_a_decomposition(rng):
    m, direction = rng.uniform(size=(2, 40, 40)) / 20
    p = oracles.centring(40)
    u, _, vt = np.linalg.svd(p @ m @ p)
    np.testing.assert_allclose(sigma2_and_gradient(m)[1], np.outer(u[:, 0], vt[0]), atol=1e-13)

    def slope(x):
        return (sigma2_and_gradient(x)[1] * direction).sum()

    expected = float(oracles.difference(slope, m, m[::-1], 1e-4))
    assert (jax.jit(jax.grad(slope))(m) * m[::-1]).sum() == pytest.approx(expected, rel=1e-7)
    assert jax.jit(lambda x, along: jax.jvp(slope, (x,), (along,))[1])(m, m[::-1]) == pytest.approx(
        expected, rel=1e-7
    )


def test_sigma2_beyond_that_size_is_nan_where_the_matrix_is_and_its_lanes_are_apart(rng):
    batch = oracles.birkhoff_family(rng, 33, 6)
    batch[3, 0, 0] = np.nan
    values = np.asarray(sigma2_of_each(batch))
    assert np.isnan(values[3]) and np.isfinite(np.delete(values, 3)).all()
    np.testing.assert_allclose(
        np.delete(values, 3), np.delete(oracles.sigma2(np.nan_to_num(batch)), 3), atol=1e-13
    )
    value, slope = sigma2_and_gradient(np.full((40, 40), 1 / 40))
    assert value < 1e-15 and np.linalg.norm(slope, 2) <= 1 + 1e-9


lambda2_of_each = jax.jit(jax.vmap(hj.lambda2))


def eigenvalue_family(rng, n):
    """Doubly stochastic, with simple, paired, tied and nearly tied dominant eigenvalues, normal and
    not.
    """
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


@pytest.mark.parametrize("n", [16, 33])
def test_eigenvalue_modulus_of_larger_matrices_is_that_of_a_matrix_within_rounding(n, rng, dtype):
    family = eigenvalue_family(rng, n).astype(dtype)
    p = oracles.centring(n)
    for m, computed in zip(p @ family.astype(float) @ p, lambda2_of_each(family), strict=True):
        values, left, right = scipy.linalg.eig(m, left=True)
        largest = abs(values).argmax()
        condition = 1 / abs(
            left[:, largest].conj() @ right[:, largest]
        )  # first-order change per backward error
        error = abs(float(computed) - abs(values[largest]))
        assert (
            error
            <= (hj.numerics.rounding(n, dtype) + np.finfo(dtype).eps)
            * max(1, min(condition, 10))
            * np.linalg.norm(m, 2)
            + 1e-15
        )


def test_a_dominant_eigenvalue_that_the_start_does_not_see_is_found_all_the_same(rng, dtype):
    """Diagonal in a basis whose dominant left vector is orthogonal to both starts: powers of the
    others is all they show.
    """
    n = 20
    starts = np.asarray(jax.random.normal(jax.random.key(0), (2, n), dtype), float)
    left = rng.normal(size=n)
    left = left - np.linalg.lstsq(starts.T, left, rcond=None)[0] @ starts
    basis = np.linalg.qr(np.column_stack([left, rng.normal(size=(n, n - 1))]))[0]
    matrix = (basis * np.r_[0.9, -0.8, np.linspace(1e-5, 0, n - 2)] @ basis.T).astype(dtype)
    assert spectral_radius(matrix) == pytest.approx(0.9, rel=hj.numerics.rounding(n, dtype))


def test_gradient_of_the_eigenvalue_modulus_beyond_that_size_matches_differences(rng):
    m, direction = rng.uniform(size=(2, 16, 16)) / 8
    lambda2_and_gradient = jax.jit(jax.value_and_grad(hj.lambda2))
    slope = (lambda2_and_gradient(m)[1] * direction).sum()
    expected = oracles.difference(lambda m: lambda2_and_gradient(m)[0], m, direction, 1e-4)
    assert slope == pytest.approx(float(expected), rel=1e-7)
    m[3, 4] = np.nan
    assert np.isnan(lambda2_and_gradient(m)[0]) and lambda2_and_gradient(np.zeros((16, 16)))[0] == 0


def test_eigenvalue_modulus_has_a_finite_derivative_at_uniform():
    assert np.isfinite(jax.grad(hj.lambda2)(hj.uniform(3))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_spectra_of_broken_matrices_are_nan(bad):
    m = np.eye(4)
    m[1, 2] = bad
    functions = (hj.detail_singular_values, hj.spectrum.distance_to_uniform, hj.lambda2)
    assert all(np.isnan(function(m)).all() for function in functions)


@pytest.fixture(scope="module")
def as_run():
    return jax.jit(
        jax.vmap(lambda s: hj.truncated_sinkhorn(s, TRAINED["tau"], TRAINED["num_iters"]))
    )(LOGITS)


def test_trained_matrices_as_run_have_the_published_mean_eigenvalue_and_composite_distance(as_run):
    assert jax.vmap(hj.lambda2)(as_run.matrix).mean() == pytest.approx(0.9414, abs=1e-4)
    assert np.linalg.norm(hj.composite(as_run.matrix)[-1] - hj.uniform(4)) == pytest.approx(
        0.3934, abs=1e-4
    )


def test_trained_matrices_mixed_with_their_transposes_end_elsewhere_as_run_and_at_1_converged(
    as_run,
):
    as_mixed = np.linalg.multi_dot(
        np.asarray(as_run.matrix)
    ).T  # later layers' transposes on the left
    assert np.linalg.norm(as_mixed - 0.25) == pytest.approx(0.966, abs=5e-4)
    assert oracles.sigma2(as_mixed) == pytest.approx(0.0623, abs=5e-5)
    converged = jax.jit(jax.vmap(lambda s: hj.sinkhorn(s, TRAINED["tau"], tol=1e-12)))(
        LOGITS
    ).matrix
    assert oracles.sigma2(np.linalg.multi_dot(np.asarray(converged)).T) == pytest.approx(
        1, abs=1e-10
    )


def test_where_a_trained_matrix_misses_its_row_sums_the_two_norms_part(as_run):
    gap = jax.vmap(hj.spectrum.distance_to_uniform)(as_run.matrix) - jax.vmap(hj.sigma2)(
        as_run.matrix
    )
    missed = np.linalg.norm(np.asarray(as_run.matrix).sum(2) - 1, axis=1)
    assert (gap[missed < 1e-10] < 1e-12).all()
    assert gap.max() > 0.5 and missed[gap.argmax()] == missed.max() > 1


def test_trained_matrices_converged_are_outside_the_trap_where_both_norms_agree():
    result = jax.jit(jax.vmap(lambda s: hj.sinkhorn(s, TRAINED["tau"], tol=1e-12)))(LOGITS)
    sigma2 = jax.vmap(hj.sigma2)(result.matrix)
    np.testing.assert_allclose(
        jax.vmap(hj.spectrum.distance_to_uniform)(result.matrix), sigma2, atol=1e-11
    )
    assert (sigma2 > 0.999).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_has_no_spectra_and_is_told_what_to_do(dtype):
    matrix = jnp.full((4, 4), 0.25, dtype)
    for of in (
        hj.sigma2,
        hj.lambda2,
        hj.detail_singular_values,
        hj.spectrum.distance_to_uniform,
        lambda m: hj.contraction_gap(jnp.log(m)),
    ):
        with pytest.raises(ValueError, match=f"no spectra in {dtype}: give the matrix as float32"):
            of(matrix)
