"""``balance`` is right in every entry, however small."""

import jax
import mpmath as mp
import numpy as np
import pytest

import homojax as hj
import oracles
import trained_oracle
from homojax.projection.balance import balance
from homojax.spectrum.gap import log_contraction_gap

TRAINED = (
    np.array([layer["logits"] for layer in trained_oracle.TRAINED["layers"]])
    / trained_oracle.TRAINED["tau"]
)


@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def dtype(request):
    """In float32 where there is time, but for large negative numbers, which it tells from −inf."""
    return np.dtype(request.param)


balanced = jax.jit(balance)
balanced_each = jax.jit(jax.vmap(balance))


@jax.jit
def log_gap_and_gradient(logits):
    """((log gap, result), the gradient of the log gap): most tests at n = 4 share this program."""

    def log_gap(logits):
        result = balance(logits)
        return log_contraction_gap(result.log_matrix), result

    return jax.value_and_grad(log_gap, has_aux=True)(logits)


@pytest.mark.parametrize("layer", range(12))
def test_trained_matrices_are_right_in_every_entry_and_in_gaps_down_to_1e_minus_78(layer, dtype):
    (log_gap, result), _ = log_gap_and_gradient(TRAINED[layer].astype(dtype))
    expected = trained_oracle.trained_log_matrices()[layer]
    assert result.converged and result.num_steps <= 20 and result.log_matrix.dtype == dtype
    np.testing.assert_allclose(
        result.log_matrix, expected, atol=20 * np.finfo(dtype).eps * abs(expected).max()
    )
    expected = float(mp.log(trained_oracle.trained_gaps()[layer]))
    assert log_gap == pytest.approx(expected, abs=1e-12 if dtype == np.float64 else 1e-4)


def test_trained_composite_has_the_oracles_distance_to_uniform():
    matrices = np.exp([balanced(logits).log_matrix for logits in TRAINED])
    distance = np.linalg.norm(hj.composite(matrices)[-1] - np.full((4, 4), 0.25))
    assert distance == pytest.approx(float(trained_oracle.trained_composite_distance()), rel=1e-12)
    assert (
        trained_oracle.trained_gaps()[1]
        < 2e-78
        < 1e-12
        < trained_oracle.trained_gaps()[9] * mp.mpf(10) ** 31
    )


def test_balance_is_the_entropic_projection(rng):
    for _ in range(25):
        logits, epsilon = rng.uniform(-5, 5, (4, 4)), 10 ** rng.uniform(-1, 1)
        result = balanced(logits / epsilon)
        assert result.converged
        expected = oracles.project(logits, epsilon)
        np.testing.assert_allclose(np.exp(result.log_matrix), expected, rtol=1e-11)


@pytest.mark.parametrize("epsilon", [0.002, 0.01, 0.05, 5.0])
def test_balance_of_cold_random_logits_converges_and_only_rescales(epsilon, rng, dtype):
    n = 16
    for logits in rng.standard_t(3, size=(4, n, n)) / epsilon:
        result = balanced(logits.astype(dtype))
        assert result.converged and result.num_steps <= 60
        matrix = np.exp(np.asarray(result.log_matrix, float))
        np.testing.assert_allclose(
            [matrix.sum(0), matrix.sum(1)], 1, atol=4 * n**0.5 * np.finfo(dtype).eps
        )
        scaling = np.asarray(result.log_matrix, float) - logits
        np.testing.assert_allclose(
            oracles.centring(n) @ scaling @ oracles.centring(n), 0, atol=abs(logits).max() * 1e-5
        )


def test_balance_in_any_order_of_rows_and_columns_is_the_same(rng):
    logits = rng.normal(size=(4, 4)) / 0.01
    expected = np.asarray(balanced(logits).log_matrix)
    for _ in range(10):
        order = np.ix_(rng.permutation(4), rng.permutation(4))
        np.testing.assert_allclose(balanced(logits[order]).log_matrix, expected[order], atol=1e-12)


def test_balance_keeps_a_support_that_can_be(rng):
    log_matrix = rng.normal(size=(4, 4)) * 20
    log_matrix[rng.uniform(size=(4, 4)) < 0.6] = -np.inf
    log_matrix[range(4), range(4)] = log_matrix[range(4), [1, 2, 3, 0]] = 1.0
    assert np.isneginf(log_matrix).any() and np.isfinite(log_matrix).sum() > 8
    result = balanced(log_matrix)
    np.testing.assert_array_equal(np.isneginf(result.log_matrix), np.isneginf(log_matrix))
    blocks = np.where(
        np.kron(np.eye(2), np.ones((2, 2))) > 0, rng.normal(size=(4, 4)) * 30, -np.inf
    )
    permutation = np.where(oracles.permutation(rng, 4) > 0, 3.0, -np.inf)
    for scaled in (result, balanced(blocks), balanced(permutation), balanced(np.zeros((4, 4)))):
        assert scaled.converged
        matrix = np.exp(scaled.log_matrix)
        np.testing.assert_allclose([matrix.sum(0), matrix.sum(1)], 1, atol=1e-14)


HOPELESS = {
    "an entry on no permutation": [[0, -np.inf], [0, 0]],
    "no permutation": [[0, 0, 0], [0, -np.inf, -np.inf], [0, -np.inf, -np.inf]],
    "an empty column": [[0, -np.inf], [0, -np.inf]],
    "an empty row": [[0, 0], [-np.inf, -np.inf]],
    "nan": [[0, np.nan], [0, 0]],
    "inf": [[0, np.inf], [0, 0]],
    "inf beside a mask": [[np.inf, -0.36], [-1.9, -np.inf]],
    "inf beside nan": [[np.inf, np.nan], [-1.9, 0]],
}


@pytest.mark.parametrize("name", HOPELESS)
def test_balance_says_so_where_there_is_none(name, dtype):
    logits = np.where(np.eye(4), 0, -np.inf).astype(dtype)  # the rest is a permutation
    block = np.array(HOPELESS[name])
    logits[: len(block), : len(block)] = block
    (_, result), _ = log_gap_and_gradient(logits)
    assert not result.converged


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)], indirect=True
)
def test_a_large_negative_number_forbids_an_entry_as_a_mask_does(dtype, rng):
    logits = 3 * rng.normal(size=(64, 8, 8))
    for value in (-1e6, -1e9):
        assert_masks_alike(logits, value, dtype)


def test_balance_loses_no_digit_to_a_larger_one_either():
    logits = np.random.default_rng(1).normal(size=(64, 8, 8)) / 0.05
    assert_masks_alike(logits, -2e16, np.dtype("float32"))


def assert_masks_alike(logits, value, dtype):
    """On masks of four permutations each, so that every entry is on one."""
    rng = np.random.default_rng(1)
    orders = [[rng.permutation(8) for _ in range(4)] for _ in logits]
    allowed = np.eye(8)[orders].sum(1) > 0
    result, masked = (
        balanced_each(np.where(allowed, logits, x).astype(dtype)) for x in (value, -np.inf)
    )
    assert result.converged.all() and masked.converged.all()
    matrices = np.exp(result.log_matrix), np.exp(masked.log_matrix)
    np.testing.assert_allclose(*matrices, atol=1e3 * np.finfo(dtype).eps)


def test_balance_says_so_where_its_steps_do_not_do():
    result = hj.balance(TRAINED[1], max_steps=5)
    assert not result.converged and result.num_steps == 5


def log_balanced(log_matrix):
    return balance(log_matrix).log_matrix


@jax.jit
def derivatives(x, direction, cotangent):
    """The value, its slope along a direction, and what the cotangent is pulled back to."""
    pull = jax.vjp(log_balanced, x)[1]
    return *jax.jvp(log_balanced, (x,), (direction,)), pull(cotangent)[0]


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.02])
def test_derivative_of_balance_is_that_of_the_limit_at_every_temperature(epsilon, rng):
    logits, direction = rng.normal(size=(4, 4)) / epsilon, rng.normal(size=(4, 4))
    expected = oracles.difference(lambda x: balanced(x).log_matrix, logits, direction)
    cotangent = rng.normal(size=(4, 4))
    _, computed, back = map(np.asarray, derivatives(logits, direction, cotangent))
    np.testing.assert_allclose(computed, expected, atol=1e-8)
    pulled = (back * direction).sum()
    assert pulled == pytest.approx(float((cotangent * computed).sum()), rel=1e-12)


@pytest.mark.parametrize("layer", [0, 1, 4, 9, 11])
def test_gradient_of_a_trained_log_gap_is_right(layer, rng, dtype):
    # Two units are alike in the logits, and some are at a tie.
    logits = TRAINED[layer] + rng.normal(size=(4, 4))
    gradient = np.asarray(log_gap_and_gradient(logits.astype(dtype))[1])
    for direction in rng.normal(size=(2, 4, 4)):
        expected = oracles.difference(lambda x: log_gap_and_gradient(x)[0][0], logits, direction)
        slope, within = (gradient * direction).sum(), 1e-8 if dtype == np.float64 else 1e-3
        assert slope == pytest.approx(expected, abs=within)


@pytest.mark.slow
def test_derivative_agrees_with_that_of_sinkhorn_where_both_have_it(rng):
    logits, direction = rng.normal(size=(2, 4, 4))
    (log_gap, _), gradient = log_gap_and_gradient(logits / 0.7)
    ours = np.exp(log_gap) * (np.asarray(gradient) * direction).sum() / 0.7

    def kept(s):
        return hj.sigma2(hj.sinkhorn(s, 0.7, tol=1e-13).matrix)

    theirs = jax.jit(lambda s, d: jax.jvp(kept, (s,), (d,))[1])(logits, direction)
    assert ours == pytest.approx(-float(theirs), rel=1e-8)


def test_balance_under_vmap_is_the_same_lane_by_lane(rng):
    batch = np.concatenate([TRAINED, rng.normal(size=(4, 4, 4))])
    result = balanced_each(batch)
    assert result.converged.all()
    for log_matrix, lane in zip(batch, result.log_matrix, strict=True):
        np.testing.assert_allclose(balanced(log_matrix).log_matrix, lane, rtol=1e-13, atol=1e-13)
