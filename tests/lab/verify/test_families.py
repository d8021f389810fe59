"""Families of cases: every one is what its name promises, at every size that it says it has."""

from functools import partial

import jax
import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.lab.inputs import InputError
from homojax.lab.judging import judge_cells, project
from homojax.lab.verify.families import FAMILIES, choose_families
from homojax.theory.claim import Verdict

PROJECTED = [
    "gaussian",
    "student",
    "two-by-two",
    "symmetric-pair",
    "gamma",
    "near-permutation",
    "identity-start",
    "weak-links",
    "rank-one",
    "digits",
]
PROJECTED += ["trained-mhc", "rising"]
MATRICES = [
    "permutations",
    "isolated-unit",
    "lazy-permutation",
    "mostly-kept",
    "cyclic",
    "circulant",
    "blocks",
    "kronecker",
    "de-bruijn",
    "design",
]
MATRICES += ["periodic", "pivot", "uniform", "identity", "gossip", "hypercube"]
NAMES = [*PROJECTED, *MATRICES, "truncated"]
SIZES = (2, 3, 4, 5, 7, 8, 13, 16, 31)
LARGEST = 0.999999999  # t above it stands for t = 1 where a spectrum is only known to rounding


def drawn(name, n, count=60, seed=0):
    return FAMILIES[name].draw(np.random.default_rng([seed, n]), n, count)


def matrices(name, n, count=60):
    return drawn(name, n, count).matrix


def detail_moduli(matrix):
    """|λ| on V⊥, descending."""
    p = oracles.centring(matrix.shape[-1])
    return np.sort(abs(np.linalg.eigvals(p @ matrix @ p)), -1)[..., :0:-1]


def projected(logits, epsilon):
    return np.asarray(project(logits, epsilon))


def at_sizes(name, *sizes):
    return pytest.mark.parametrize("n", [n for n in sizes or SIZES if FAMILIES[name].sizes(n)])


# ---------------------------------------------------------------- all


def test_there_are_the_families_that_are_known_and_each_is_chosen_by_its_name():
    assert list(FAMILIES) == NAMES
    assert [family.name for family in choose_families(NAMES[::-1])] == NAMES[::-1]
    assert all(
        family.description and "\n" not in family.description for family in FAMILIES.values()
    )


@pytest.mark.parametrize(
    "name, offered",
    [("gausian", "gaussian"), ("hyper-cube", "hypercube"), ("zzz", "there are: blocks")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, offered):
    with pytest.raises(InputError, match=f'no family "{name}".*{offered}'):
        choose_families(["uniform", name])


@pytest.mark.parametrize("name", NAMES)
def test_cells_have_the_promised_shapes_and_values_and_follow_from_the_seed(name):
    exist = [n for n in SIZES if FAMILIES[name].sizes(n)]
    assert exist
    for n in exist:
        cells, again, other = drawn(name, n), drawn(name, n), drawn(name, n, seed=1)
        for array, repeated in zip(cells, again, strict=True):
            np.testing.assert_array_equal(array, repeated)
        assert (
            name in ("uniform", "identity")
            or n == 2
            or not np.array_equal(cells.logits, other.logits)
        )
        assert cells.logits.shape == (60, n, n) and cells.epsilon.shape == (60,)
        assert cells.logits.dtype == cells.epsilon.dtype == np.float64
        assert (cells.epsilon > 0).all() and np.isfinite(cells.epsilon).all()
        assert (cells.matrix is None) == (name in PROJECTED)
        if cells.matrix is None:
            assert np.isfinite(cells.logits).all()
        else:
            assert cells.matrix.shape == (60, n, n) and cells.matrix.dtype == np.float64
            assert (cells.epsilon == 1).all() and (cells.matrix >= 0).all()
            np.testing.assert_array_equal(cells.logits == -np.inf, cells.matrix == 0)
            np.testing.assert_allclose(np.exp(cells.logits), cells.matrix, rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_a_family_draws_at_exactly_the_sizes_that_it_says_it_has(name):
    family = FAMILIES[name]
    assert not family.sizes(1)
    for n in range(1, 34):
        if family.sizes(n):
            assert len(drawn(name, n, 1).logits) == 1
        else:
            with pytest.raises(InputError, match=rf"{name} needs .*n = {n} was asked"):
                drawn(name, n, 1)
    least = next(n for n in range(2, 34) if family.sizes(n))
    assert "n " in family.needs and str(least) in family.needs


@pytest.mark.parametrize("name", MATRICES)
def test_matrices_are_doubly_stochastic_to_rounding(name):
    for n in SIZES:
        if FAMILIES[name].sizes(n):
            m = matrices(name, n, 300)
            assert abs(m.sum(-1) - 1).max() <= 1e-14 * n and abs(m.sum(-2) - 1).max() <= 1e-14 * n


ATTAINED = tuple(c for c in hj.CLAIMS.values() if c.scope == "matrix" and c.attained_by)


@pytest.mark.parametrize("claim", ATTAINED, ids=lambda claim: claim.name)
def test_a_family_that_a_claim_says_attains_it_does(claim):
    n = next(n for n in (4, 2) if FAMILIES[claim.attained_by].sizes(n))
    logits, epsilon, matrix = drawn(claim.attained_by, n, 100)
    matrix = projected(logits, epsilon) if matrix is None else matrix
    cells = {"logits": logits, "epsilon": epsilon, "matrix": matrix}
    comparison, verdict, _ = judge_cells("matrix", ATTAINED, cells, "float64")[claim.name]
    tight = abs(comparison.greater - comparison.lesser) <= comparison.margin
    if claim.name == "doeblin":  # of 2 × 2 matrices those with M₁₁ ≥ ½
        tight |= matrix[:, 0, 0] < 0.5
    if claim.name == "logit_budget":  # beyond it artanh σ₂ is lost in float64
        tight |= oracles.sigma2(matrix) > 1 - 1e-12
    assert tight.all() and (verdict != Verdict.VIOLATED).all()


# ---------------------------------------------------------------- logits


def test_logits_have_the_spread_and_the_entropy_weights_that_they_say():
    for name in ("gaussian", "student", "digits"):
        epsilon = drawn(name, 4, 4000).epsilon
        assert 0.05 <= epsilon.min() < 0.06 and 18 < epsilon.max() <= 20
        assert np.median(epsilon) == pytest.approx(1, rel=0.15)
    logits = drawn("gaussian", 5, 4000).logits
    assert abs(logits.mean()) < 0.02 and abs(logits.std() - 1) < 0.02
    assert (abs(drawn("student", 5, 4000).logits) > 6).mean() == pytest.approx(
        0.0093, abs=0.002
    )  # normal: 2e-9
    scales = abs(drawn("two-by-two", 2, 4000).logits).max((1, 2))
    assert scales.min() < 0.05 and scales.max() > 15
    near = drawn("near-permutation", 6).logits
    assert np.median(near.max(-1) - np.median(near, -1)) > 10
    links = drawn("weak-links", 8, 500).logits
    assert np.ptp(links, axis=(1, 2)).max() > 50


def test_gamma_logits_are_logarithms_of_gamma_variates():
    variates = np.exp(drawn("gamma", 6, 4000).logits)
    means = variates.mean((1, 2))
    for a in (0.1, 1, 10):
        near = abs(means - a) < 0.5 * a + 0.2 * (a == 0.1)
        assert near.mean() > 0.25 and means[near].mean() == pytest.approx(a, rel=0.1)


def test_rank_one_logits_have_rank_one_and_centred_factors():
    logits = drawn("rank-one", 6).logits
    singular = np.linalg.svd(logits, compute_uv=False)
    assert (singular[:, 1] < 1e-13 * singular[:, 0]).all()
    assert singular[:, 0].min() < 0.1 and singular[:, 0].max() > 100
    assert (abs(logits.sum(-1)).max(-1) < 1e-14 * 6 * singular[:, 0]).all()
    symmetric = abs(logits - logits.swapaxes(1, 2)).max((1, 2)) < 1e-13 * singular[:, 0]
    assert 0.2 < symmetric.mean() < 0.8


def test_digits_are_scaled_dot_products_of_distinct_images():
    from sklearn.datasets import load_digits

    pixels = load_digits().data
    images = (pixels - pixels.mean(0)) / (pixels - pixels.mean(0)).std()
    known = np.sort((images**2).sum(1)) / 8
    logits = drawn("digits", 31, 40).logits
    np.testing.assert_allclose(logits, logits.swapaxes(1, 2))
    for diagonal in logits.diagonal(axis1=1, axis2=2):
        assert abs(known[None] - diagonal[:, None]).min(1).max() < 1e-11
        assert len(np.unique(diagonal)) == 31
    assert FAMILIES["digits"].sizes(1797) and not FAMILIES["digits"].sizes(1798)
    everything = np.sort(drawn("digits", 1797, 1).logits[0].diagonal())
    np.testing.assert_allclose(everything, known, atol=1e-11)


def test_trained_logits_are_the_twelve_that_ship():
    from homojax.lab.datasets import trained_mhc

    shipped = {str(np.array(layer["logits"], float)) for layer in trained_mhc()["layers"]}
    cells = drawn("trained-mhc", 4, 400)
    assert {str(logits) for logits in cells.logits} == shipped and len(shipped) == 12
    assert 0.02 <= cells.epsilon.min() < 0.03 and 15 < cells.epsilon.max() <= 20


@pytest.mark.parametrize("n", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_sigma2_of_rising_logits_rises_with_epsilon_and_so_does_entropy(n):
    logits, epsilon, _ = drawn("rising", n, 100)
    now, later = projected(logits, epsilon), projected(logits, 1.05 * epsilon)
    assert (oracles.sigma2(later) > oracles.sigma2(now) + 1e-4).all()
    assert (
        np.array([oracles.entropy_deficit(m) for m in later])
        < [oracles.entropy_deficit(m) for m in now]
    ).all()


def test_a_symmetric_pair_needs_its_logits_and_no_less():
    logits, epsilon, _ = drawn("symmetric-pair", 2, 100)
    kept = oracles.sigma2(projected(logits, epsilon))
    size = abs(logits).max((1, 2)) / epsilon
    np.testing.assert_allclose(kept, np.tanh(size), rtol=1e-9, atol=1e-13)
    assert size.min() < 1e-3 and size.max() > 20 and {*np.sign(logits[:, 0, 0])} == {-1, 1}


# ---------------------------------------------------------------- matrices


@at_sizes("permutations")
def test_mixtures_of_permutations_go_from_one_permutation_to_dense(n):
    entries = (matrices("permutations", n, 400) > 0).sum((1, 2))
    assert entries.min() == n and entries.max() > min(n * n, 2 * n) * 0.9


@at_sizes("isolated-unit")
def test_an_isolated_unit_leaves_rank_one_at_a_random_place(n):
    m = matrices("isolated-unit", n, 400)
    singular = np.linalg.svd(m - 1 / n, compute_uv=False)
    assert (singular[:, 1] < 1e-14).all()
    kept = singular[:, 0]
    assert (
        kept.min() < 1e-4
        and (kept > LARGEST).mean() > 0.1
        and (abs(kept - 0.5) < 0.25).mean() > 0.15
    )
    units = (m[kept > 0.9] > 0.9).argmax(-1).max(-1)
    assert len(np.unique(units)) > n / 2 or n == 2
    references = np.array([oracles.isolated(n, t) for t in kept])
    np.testing.assert_allclose(
        np.sort(m.reshape(400, -1)), np.sort(references.reshape(400, -1)), atol=1e-14
    )


@at_sizes("lazy-permutation")
def test_all_detail_singular_values_of_a_lazy_permutation_are_equal(n):
    singular = oracles.singular_values(matrices("lazy-permutation", n, 400))
    assert np.ptp(singular, axis=-1).max() < 1e-14
    assert (
        singular.min() < 1e-4
        and (singular == singular.max()).any()
        and singular.max() == pytest.approx(1, abs=1e-14)
    )


@at_sizes("cyclic")
def test_cyclic_permutations_are_one_cycle(n):
    m = matrices("cyclic", n)
    assert ((m == 0) | (m == 1)).all()
    powers = [np.linalg.matrix_power(m, k).trace(axis1=1, axis2=2) for k in range(1, n + 1)]
    np.testing.assert_array_equal(powers, np.outer([*[0] * (n - 1), n], np.ones(60)))


@at_sizes("circulant")
def test_the_spectrum_of_a_circulant_is_the_transform_of_its_weights(n):
    m = matrices("circulant", n, 300)
    np.testing.assert_array_equal(m, np.roll(m, (1, 1), (1, 2)))
    modes = np.sort(abs(np.fft.fft(m[:, :, 0]))[:, 1:], -1)[:, ::-1]
    np.testing.assert_allclose(oracles.singular_values(m), modes, atol=1e-14)
    np.testing.assert_allclose(detail_moduli(m), modes, atol=1e-12)
    support = (m[:, 0] > 0).sum(-1)
    assert support.min() == 1 and support.max() == n


@at_sizes("blocks")
def test_blocks_are_reducible_so_that_sigma2_is_one(n):
    m = matrices("blocks", n, 300)
    np.testing.assert_allclose(oracles.sigma2(m), 1, atol=1e-14)
    # The graph between rows and columns falls apart: steps there and back do not reach everything.
    linked = (m > 0) @ (m > 0).swapaxes(1, 2)
    assert not np.linalg.matrix_power(linked, n).all((1, 2)).any()
    assert n == 2 or (np.linalg.svd(m, compute_uv=False) > 1 - 1e-12).sum(-1).min() == 2


@at_sizes("kronecker")
def test_singular_values_of_a_kronecker_matrix_are_products_of_its_factors(n):
    bits = np.arange(n)[:, None] >> np.arange(n.bit_length() - 1) & 1
    for m in matrices("kronecker", n):
        factors = abs(m[:, 0] @ (1 - 2 * bits))  # p − q of one bit is p + q of the others times it
        products = np.prod(np.where(bits[1:], factors, 1), -1)
        np.testing.assert_allclose(oracles.singular_values(m), np.sort(products)[::-1], atol=1e-14)
        np.testing.assert_array_equal(m, m[np.arange(n)[:, None] ^ np.arange(n), 0])


@at_sizes("de-bruijn", 4, 8, 16, 32)
def test_a_de_bruijn_walk_keeps_all_and_has_no_eigenvalue(n):
    m = matrices("de-bruijn", n, 200)
    kept = oracles.sigma2(m)
    assert kept.min() < 1e-4 and (kept > LARGEST).mean() > 0.1
    bits = n.bit_length() - 1
    np.testing.assert_allclose(np.linalg.matrix_power(m, bits), 1 / n, atol=1e-15)
    singular = oracles.singular_values(m)
    np.testing.assert_allclose(
        singular, kept[:, None] * (np.arange(n - 1) < n // 2 - 1), atol=1e-14
    )


@at_sizes("design", 3, 7, 11, 13, 19, 31, 57)
def test_all_detail_singular_values_of_a_design_are_equal(n):
    kinds = set()
    for m in matrices("design", n, 40):
        k = (m > 0).sum(1)[0]
        assert ((m == 0) | (m == 1 / k)).all()
        common = np.unique(((m > 0).astype(int) @ (m > 0).T)[~np.eye(n, dtype=bool)])
        assert len(common) == 1 and common[0] * (n - 1) == k * (k - 1)
        np.testing.assert_allclose(
            oracles.singular_values(m), np.sqrt(k - common[0]) / k, atol=1e-14
        )
        kinds.add(int(k))
    assert {n - k for k in kinds} == kinds
    assert (
        kinds
        == {
            3: {1, 2},
            7: {3, 4},
            11: {5, 6},
            13: {4, 9},
            19: {9, 10},
            31: {15, 16, 6, 25},
            57: {8, 49},
        }[n]
    )


def test_designs_exist_at_paley_and_plane_orders_alone():
    exist = [n for n in range(1, 150) if FAMILIES["design"].sizes(n)]
    primes = [3, 7, 11, 19, 23, 31, 43, 47, 59, 67, 71, 79, 83, 103, 107, 127, 131, 139]
    assert exist == sorted({*primes, 7, 13, 31, 57, 133})


@at_sizes("periodic", 2, 3, 4, 6, 8, 12, 13)
def test_a_periodic_chain_has_as_many_eigenvalues_of_modulus_one_as_its_period(n):
    m = matrices("periodic", n, 200)
    period = np.rint((m[:, 0].max(-1)) * n).astype(int)
    assert set(period) == {p for p in range(2, n + 1) if n % p == 0}
    moduli = detail_moduli(m)
    np.testing.assert_allclose(moduli, np.arange(1, n) < period[:, None], atol=1e-6)
    for p in set(period):
        power = np.linalg.matrix_power(m[period == p], p)
        np.testing.assert_allclose(power @ power, power, atol=1e-15)


@at_sizes("pivot", 2, 4, 7, 16)
def test_couplings_glued_through_a_pivot_have_every_rank_up_to_full(n):
    singular = np.linalg.svd(matrices("pivot", n, 500), compute_uv=False)
    ranks = (singular > 1e-13).sum(-1)
    assert ranks.min() == 1 and ranks.max() >= min(n, 7)
    assert (singular[:, 1] > LARGEST).any() and ((singular[:, 1] < 0.5) & (ranks > 1)).any()


@pytest.mark.parametrize("n", SIZES)
def test_uniform_forgets_all_detail_and_identity_none(n):
    assert (matrices("uniform", n) == 1 / n).all()
    assert (matrices("identity", n) == np.eye(n)).all()


@at_sizes("gossip")
def test_gossip_is_symmetric_and_connected(n):
    m = matrices("gossip", n, 300)
    np.testing.assert_array_equal(m, m.swapaxes(1, 2))
    assert (oracles.sigma2(m) < 1 - 1e-4).all()
    edges = (m > 0).sum((1, 2)) - n
    assert edges.min() == 2 * (n - 1) and (edges.max() == n * (n - 1) or n > 8)
    off = m - m * np.eye(n)
    degree = (off > 0).sum(-1)
    np.testing.assert_allclose(
        off[off > 0], (1 / (1 + np.maximum(degree[:, :, None], degree[:, None, :])))[off > 0]
    )


@at_sizes("hypercube")
def test_the_walk_on_a_hypercube_has_its_arithmetic_spectrum(n):
    m, dimension = matrices("hypercube", n, 200), n.bit_length() - 1
    stay = m[:, 0, 0]
    assert stay.min() < 1e-4 and stay.max() == 1
    changed = np.bitwise_count(np.arange(n))
    known = np.sort(1 - 2 * (1 - stay)[:, None] * changed / dimension, -1)
    np.testing.assert_allclose(np.linalg.eigvalsh(m), known, atol=1e-14)


@at_sizes("truncated")
def test_truncated_matrices_have_exact_columns_and_rows_that_often_are_not(n):
    m = matrices("truncated", n, 1000)
    assert abs(m.sum(1) - 1).max() <= 1e-14 * n
    missed = abs(m.sum(2) - 1).max(-1)
    assert 0.005 < (missed > 1e-3).mean() < 0.9


def test_a_truncated_matrix_is_twenty_alternations_from_its_logits():
    rng = np.random.default_rng([0, 5])
    logits = rng.standard_normal((60, 5, 5)) * rng.choice([1, 3, 6], (60, 1, 1))
    references = np.array([oracles.alternate(s, 1.0, 20) for s in logits])
    np.testing.assert_allclose(matrices("truncated", 5), references, rtol=1e-11)
    library = np.asarray(
        jax.vmap(partial(hj.truncated_sinkhorn, num_iters=20), (0, None))(logits, 1.0).matrix
    )
    np.testing.assert_allclose(matrices("truncated", 5), library, rtol=1e-11)
