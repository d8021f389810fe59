"""Spectra that are known: of small families, of explicit products, and of the trained matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles
import trained_oracle

FAMILY = oracles.birkhoff_family(np.random.default_rng(2), 6)
TAU, NUM_ITERS = (trained_oracle.TRAINED[key] for key in ("tau", "num_iters"))
TRAINED = np.array([layer["logits"] for layer in trained_oracle.TRAINED["layers"]])
spectrum = jax.jit(hj.detail_singular_values)
spectrum_of_each = jax.jit(jax.vmap(hj.detail_singular_values))
sigma2_of_each = jax.jit(jax.vmap(hj.sigma2))
sigma2 = jax.jit(hj.sigma2)
lambda2 = jax.jit(hj.lambda2)
lambda2_of_each = jax.jit(jax.vmap(hj.lambda2))
distance_of_each = jax.jit(jax.vmap(hj.spectrum.distance_to_uniform))
project = jax.jit(hj.sinkhorn)


def test_sigma2_of_a_two_by_two_is_tanh_of_quarter_cross_difference(rng):
    for _ in range(40):
        logits, epsilon = rng.uniform(-5, 5, (2, 2)), 10 ** rng.uniform(-0.7, 1)
        result = project(logits, epsilon, tol=1e-13)
        cross = abs(logits[0, 0] + logits[1, 1] - logits[0, 1] - logits[1, 0])
        assert result.converged
        kept = sigma2(result.matrix)
        assert kept == pytest.approx(np.tanh(cross / (4 * epsilon)), abs=1e-12)


@pytest.mark.parametrize("n", [2, 8])
def test_circulant_spectra_are_fourier_transforms(n, rng):
    weights = rng.dirichlet(np.ones(n))
    moduli = np.sort(abs(np.fft.fft(weights)[1:]))[::-1]
    matrix = hj.birkhoff.circulant(weights)
    np.testing.assert_allclose(spectrum(matrix), moduli, atol=1e-12)
    assert lambda2(matrix) == pytest.approx(moduli[0], abs=1e-12)


@pytest.mark.parametrize(("n", "stay"), [(4, 0.0), (8, 0.5), (8, 0.1)])
def test_lazy_cycle_spectra_are_cosines(n, stay):
    eigenvalues = stay + (1 - stay) * np.cos(2 * np.pi * np.arange(1, n) / n)
    moduli = np.sort(abs(eigenvalues))[::-1]
    np.testing.assert_allclose(spectrum(hj.birkhoff.lazy_cycle(n, stay)), moduli, atol=1e-12)


@pytest.mark.parametrize(("dimension", "stay"), [(1, 0.75), (2, 0.5), (3, 0.1)])
def test_lazy_hypercube_spectra_are_binomial(dimension, stay):
    ones = np.array([word.bit_count() for word in range(1, 2**dimension)])
    moduli = np.sort(abs(1 - 2 * (1 - stay) * ones / dimension))[::-1]
    matrix = hj.birkhoff.lazy_hypercube(dimension, stay)
    np.testing.assert_allclose(spectrum(matrix), moduli, atol=1e-12)


@pytest.mark.parametrize("bits", [2, 3])
def test_de_bruijn_walk_keeps_a_direction_at_each_step_and_forgets_all_after_bits_steps(bits):
    """λ₂ = 0 in a Jordan block of that size: a backward error moves it by its bits-th root."""
    n = 2**bits
    m = hj.birkhoff.de_bruijn(bits)
    assert sigma2(m) == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(jnp.linalg.matrix_power(m, bits), hj.uniform(n))
    assert lambda2(m) <= hj.numerics.rounding(n, "float64") ** (1 / bits)


def test_singular_values_are_those_of_the_centred_product(rng):
    matrices = rng.uniform(-5, 5, (40, 6, 6))
    expected = oracles.singular_values(matrices)
    np.testing.assert_allclose(spectrum_of_each(matrices), expected, atol=1e-13 * 5)


def test_singular_values_of_float32_are_within_the_declared_rounding():
    single = FAMILY.astype(np.float32)
    expected = oracles.singular_values(single.astype(np.float64))
    error = abs(spectrum_of_each(single) - expected).max()
    assert 0 < error <= hj.numerics.rounding(6, "float32")


def test_eigenvalue_modulus_is_the_second_largest_of_the_matrix(rng):
    attention = rng.dirichlet(np.ones(6), size=6)  # rows sum to 1, columns do not
    matrices = np.array([*FAMILY, attention, attention.T])
    moduli = [np.sort(abs(np.linalg.eigvals(m)))[-2] for m in matrices]
    computed = lambda2_of_each(matrices)
    np.testing.assert_allclose(computed, moduli, atol=1e-7)
    np.testing.assert_allclose(computed[-2:], moduli[-2:], atol=1e-12)


def test_distance_to_uniform_is_sigma2_on_the_polytope_and_above_it_elsewhere(rng):
    np.testing.assert_allclose(distance_of_each(FAMILY), oracles.sigma2(FAMILY), atol=1e-13)
    others = rng.uniform(size=(len(FAMILY), 6, 6))
    distances = distance_of_each(others)
    expected = np.linalg.norm(others - 1 / 6, 2, axis=(1, 2))
    np.testing.assert_allclose(distances, expected, atol=1e-13)
    assert (distances > oracles.sigma2(others) + 1e-3).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_spectra_of_broken_matrices_are_nan(bad):
    m = np.eye(6)
    m[1, 2] = bad
    batch = np.array([m] * len(FAMILY))
    for function in (spectrum_of_each, distance_of_each, lambda2_of_each, sigma2_of_each):
        assert np.isnan(function(batch)).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_has_no_spectra_and_is_told_what_to_do(dtype):
    matrix = jnp.full((4, 4), 0.25, dtype)
    for function in (
        hj.sigma2,
        hj.lambda2,
        hj.detail_singular_values,
        hj.spectrum.distance_to_uniform,
        lambda m: hj.contraction_gap(jnp.log(m)),
    ):
        with pytest.raises(ValueError, match=f"no spectra in {dtype}: give the matrix as float32"):
            function(matrix)


# ---------------------------------------------------------------- trained matrices


@pytest.fixture(scope="module")
def as_run():
    truncate = jax.jit(jax.vmap(lambda s: hj.truncated_sinkhorn(s, TAU, NUM_ITERS)))
    return np.asarray(truncate(TRAINED).matrix)


@pytest.fixture(scope="module")
def converged():
    return np.array([project(s, TAU, tol=1e-12).matrix for s in TRAINED])


def test_trained_matrices_as_run_have_the_published_mean_eigenvalue_and_composite_distance(as_run):
    assert lambda2_of_each(as_run).mean() == pytest.approx(0.9414, abs=1e-4)
    distance = np.linalg.norm(hj.composite(as_run)[-1] - hj.uniform(4))
    assert distance == pytest.approx(0.3934, abs=1e-4)


def test_trained_matrices_mixed_with_their_transposes_end_elsewhere_as_run_and_at_1_converged(
    as_run, converged
):
    as_mixed = np.linalg.multi_dot(as_run).T  # later layers' transposes on the left
    assert np.linalg.norm(as_mixed - 0.25) == pytest.approx(0.966, abs=5e-4)
    assert oracles.sigma2(as_mixed) == pytest.approx(0.0623, abs=5e-5)
    composite = np.linalg.multi_dot(converged).T
    assert oracles.sigma2(composite) == pytest.approx(1, abs=1e-10)


def test_where_a_trained_matrix_misses_its_row_sums_the_two_norms_part(as_run):
    gap = np.asarray(distance_of_each(as_run) - sigma2_of_each(as_run))
    missed = np.linalg.norm(as_run.sum(2) - 1, axis=1)
    assert (gap[missed < 1e-10] < 1e-12).all()
    assert gap.max() > 0.5 and missed[gap.argmax()] == missed.max() > 1


def test_trained_matrices_converged_are_outside_the_trap_where_both_norms_agree(converged):
    sigma2 = sigma2_of_each(converged)
    np.testing.assert_allclose(distance_of_each(converged), sigma2, atol=1e-11)
    assert (sigma2 > 0.999).all()
