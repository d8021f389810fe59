"""Spectra that are known: of small families, of explicit products, and of the trained matrices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles
import trained_oracle

FAMILY = oracles.birkhoff_family(np.random.default_rng(2), 8)
TAU, NUM_ITERS = (trained_oracle.TRAINED[key] for key in ("tau", "num_iters"))
TRAINED = np.array([layer["logits"] for layer in trained_oracle.TRAINED["layers"]])
project = jax.jit(hj.sinkhorn)
sigma2 = jax.jit(hj.sigma2)


class Spectra(NamedTuple):
    singular_values: np.ndarray  # [K, n − 1]
    sigma2: np.ndarray  # [K], as are the others
    lambda2: np.ndarray
    distance: np.ndarray


@jax.jit
@jax.vmap
def all_spectra(matrix):
    distance = hj.spectrum.distance_to_uniform(matrix)
    return hj.detail_singular_values(matrix), hj.sigma2(matrix), hj.lambda2(matrix), distance


def spectra_of(matrices):
    """[K, n, n] -> their spectra, by one program for each n: batches are filled up to 84."""
    filled = np.resize(matrices, (84, *np.shape(matrices)[1:]))
    return Spectra(*(np.asarray(x)[: len(matrices)] for x in all_spectra(filled)))


def spectra(matrix):
    return Spectra(*(x[0] for x in spectra_of(np.asarray(matrix)[None])))


def test_sigma2_of_a_two_by_two_is_tanh_of_quarter_cross_difference(rng):
    for _ in range(40):
        logits, epsilon = rng.uniform(-5, 5, (2, 2)), 10 ** rng.uniform(-0.7, 1)
        result = project(logits, epsilon, tol=1e-13)
        cross = abs(logits[0, 0] + logits[1, 1] - logits[0, 1] - logits[1, 0])
        assert result.converged
        kept = sigma2(result.matrix)
        assert kept == pytest.approx(np.tanh(cross / (4 * epsilon)), abs=1e-12)


@pytest.mark.parametrize("n", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_circulant_spectra_are_fourier_transforms(n, rng):
    weights = rng.dirichlet(np.ones(n))
    moduli = np.sort(abs(np.fft.fft(weights)[1:]))[::-1]
    found = spectra(hj.birkhoff.circulant(weights))
    np.testing.assert_allclose(found.singular_values, moduli, atol=1e-12)
    assert found.lambda2 == pytest.approx(moduli[0], abs=1e-12)


@pytest.mark.parametrize(("n", "stay"), [(4, 0.0), (8, 0.5), (8, 0.1)])
def test_lazy_cycle_spectra_are_cosines(n, stay):
    eigenvalues = stay + (1 - stay) * np.cos(2 * np.pi * np.arange(1, n) / n)
    moduli = np.sort(abs(eigenvalues))[::-1]
    found = spectra(hj.birkhoff.lazy_cycle(n, stay)).singular_values
    np.testing.assert_allclose(found, moduli, atol=1e-12)


@pytest.mark.parametrize(
    ("dimension", "stay"), [pytest.param(1, 0.75, marks=pytest.mark.slow), (2, 0.5), (3, 0.1)]
)
def test_lazy_hypercube_spectra_are_binomial(dimension, stay):
    ones = np.array([word.bit_count() for word in range(1, 2**dimension)])
    moduli = np.sort(abs(1 - 2 * (1 - stay) * ones / dimension))[::-1]
    found = spectra(hj.birkhoff.lazy_hypercube(dimension, stay)).singular_values
    np.testing.assert_allclose(found, moduli, atol=1e-12)


@pytest.mark.parametrize("bits", [2, 3])
def test_de_bruijn_walk_keeps_a_direction_at_each_step_and_forgets_all_after_bits_steps(bits):
    """λ₂ = 0 in a Jordan block of that size: a backward error moves it by its bits-th root."""
    n = 2**bits
    m = np.asarray(hj.birkhoff.de_bruijn(bits))
    found = spectra(m)
    assert found.sigma2 == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(np.linalg.matrix_power(m, bits), np.full((n, n), 1 / n))
    assert found.lambda2 <= hj.numerics.rounding(n, "float64") ** (1 / bits)


def test_singular_values_are_those_of_the_centred_product(rng):
    matrices = rng.uniform(-5, 5, (40, 8, 8))
    expected = oracles.singular_values(matrices)
    np.testing.assert_allclose(spectra_of(matrices).singular_values, expected, atol=1e-13 * 5)


def test_singular_values_of_float32_are_within_the_declared_rounding():
    single = FAMILY.astype(np.float32)
    expected = oracles.singular_values(single.astype(np.float64))
    error = abs(jax.jit(jax.vmap(hj.detail_singular_values))(single) - expected).max()
    assert 0 < error <= hj.numerics.rounding(8, "float32")


def test_eigenvalue_modulus_is_the_second_largest_of_the_matrix(rng):
    attention = rng.dirichlet(np.ones(8), size=8)  # rows sum to 1, columns do not
    matrices = np.array([*FAMILY, attention, attention.T])
    moduli = [np.sort(abs(np.linalg.eigvals(m)))[-2] for m in matrices]
    computed = spectra_of(matrices).lambda2
    np.testing.assert_allclose(computed, moduli, atol=1e-7)
    np.testing.assert_allclose(computed[-2:], moduli[-2:], atol=1e-12)


def test_distance_to_uniform_is_sigma2_on_the_polytope_and_above_it_elsewhere(rng):
    np.testing.assert_allclose(spectra_of(FAMILY).distance, oracles.sigma2(FAMILY), atol=1e-13)
    others = rng.uniform(size=FAMILY.shape)
    distances = spectra_of(others).distance
    expected = np.linalg.norm(others - 1 / 8, 2, axis=(1, 2))
    np.testing.assert_allclose(distances, expected, atol=1e-13)
    assert (distances > oracles.sigma2(others) + 1e-3).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("n", [4, 8])
def test_spectra_of_broken_matrices_are_nan(n, bad):
    m = np.eye(n)
    m[1, 2] = bad
    for values in spectra(m):
        assert np.isnan(values).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_has_no_spectra_and_is_told_what_to_do(dtype):
    matrix = np.full((4, 4), 0.25, jnp.dtype(dtype))
    for function in (
        hj.sigma2,
        hj.lambda2,
        hj.detail_singular_values,
        hj.spectrum.distance_to_uniform,
        lambda m: hj.contraction_gap(np.log(m)),
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
    assert spectra_of(as_run).lambda2.mean() == pytest.approx(0.9414, abs=1e-4)
    distance = np.linalg.norm(hj.composite(as_run)[-1] - np.full((4, 4), 0.25))
    assert distance == pytest.approx(0.3934, abs=1e-4)


def test_with_rows_last_the_trained_products_reach_a_norm_of_1_77_of_the_2_that_rows_allow():
    truncate = jax.jit(jax.vmap(lambda s: hj.truncated_sinkhorn(s, TAU, NUM_ITERS, last="rows")))
    product, norms = np.eye(4), []
    for matrix in np.asarray(truncate(TRAINED).matrix):
        product = matrix @ product
        norms.append(np.linalg.norm(product, 2))
    assert max(norms) == pytest.approx(1.768, abs=1e-3)


def test_trained_matrices_mixed_with_their_transposes_end_elsewhere_as_run_and_at_1_converged(
    as_run, converged
):
    as_mixed = np.linalg.multi_dot(as_run).T  # later layers' transposes on the left
    assert np.linalg.norm(as_mixed - 0.25) == pytest.approx(0.966, abs=5e-4)
    assert oracles.sigma2(as_mixed) == pytest.approx(0.0623, abs=5e-5)
    composite = np.linalg.multi_dot(converged).T
    assert oracles.sigma2(composite) == pytest.approx(1, abs=1e-10)


def test_where_a_trained_matrix_misses_its_row_sums_the_two_norms_part(as_run):
    found = spectra_of(as_run)
    gap = found.distance - found.sigma2
    missed = np.linalg.norm(as_run.sum(2) - 1, axis=1)
    assert (gap[missed < 1e-10] < 1e-12).all()
    assert gap.max() > 0.5 and missed[gap.argmax()] == missed.max() > 1


def test_trained_matrices_converged_are_outside_the_trap_where_both_norms_agree(converged):
    found = spectra_of(converged)
    np.testing.assert_allclose(found.distance, found.sigma2, atol=1e-11)
    assert (found.sigma2 > 0.999).all()
