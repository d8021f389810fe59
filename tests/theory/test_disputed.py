"""§8, the disputed claims: what holds is attained, and what is false has its smallest example."""

import math

import jax
import numpy as np
import pytest
from scipy import optimize, special

import homojax as hj
import oracles
from homojax.theory.cases.matrix import matrix_case
from homojax.theory.cases.stack import stack_case
from homojax.theory.claim import Verdict

RNG = np.random.default_rng(8)


def judge(name, logits, epsilon, matrix):
    def one(logits, matrix):
        case = matrix_case(logits, epsilon, matrix, lambda2=0.0)
        return hj.CLAIMS[name].judge(case)

    comparison, verdict = jax.jit(jax.vmap(one))(np.asarray(logits), np.asarray(matrix))
    return jax.tree.map(np.asarray, comparison), np.asarray(verdict)


def judge_stack(name, matrices):
    matrices = np.asarray(matrices, float)
    found = [np.linalg.norm(m - m.mean(0), 2) for m in matrices]
    measured = ("composites", "composite_sigma2", "distance")
    case = stack_case(matrices, sigma2=found, measured=measured)
    comparison, verdict = hj.CLAIMS[name].judge(case)
    return jax.tree.map(np.asarray, comparison), np.asarray(verdict)


def log_of(matrices):
    with np.errstate(divide="ignore"):
        return np.log(matrices)


# ---------------------------------------------------------------- 8.1


@pytest.mark.parametrize("n", [2, 3, 4, 7, 16, 64])
def test_no_row_has_a_smaller_deficit_than_the_logarithmic_sobolev_constant_says(n):
    """For distributions of every kind, and for the best that a minimiser finds."""
    share = (n - 2) / ((n - 1) * math.log(n - 1)) if n > 2 else 1

    def ratio(logits):
        m = special.softmax(logits)
        return (math.log(n) + special.xlogy(m, m).sum()) / ((m - 1 / n) ** 2).sum()

    for power in (0.1, 1, 3, 10):
        rows = special.softmax(power * RNG.normal(size=(200, n)), axis=1)
        deficit = math.log(n) + special.xlogy(rows, rows).sum(1)
        assert (share * deficit >= ((rows - 1 / n) ** 2).sum(1) - 1e-14).all()
    starts = [RNG.normal(size=n) for _ in range(4)] + [4 * np.eye(n)[0]]
    least = min(optimize.minimize(ratio, start).fun for start in starts)
    assert least == pytest.approx(1 / share, rel=1e-4 if n > 2 else 1e-2)


@pytest.mark.parametrize("n", [3, 4, 7, 31])
def test_the_bound_from_rows_is_attained_where_every_row_is_mostly_one_entry(n):
    t = (n - 2) / (n - 1)
    matrices = np.array([oracles.lazy_permutation(RNG, n, t) for _ in range(20)])
    comparison, verdict = judge("row_entropy", log_of(matrices), 1.0, matrices)
    np.testing.assert_allclose(comparison.lesser, t * math.sqrt(n - 1), rtol=1e-12)
    np.testing.assert_allclose(comparison.greater, comparison.lesser, rtol=1e-9)
    assert (verdict == Verdict.UNDECIDABLE).all()
    near = np.array([oracles.lazy_permutation(RNG, n, 0.9 * t) for _ in range(20)])
    assert (judge("row_entropy", log_of(near), 1.0, near)[1] == Verdict.HOLDS).all()


@pytest.mark.parametrize("n", [2, 4, 16])
def test_the_bound_from_rows_is_never_above_pinskers_nor_below_the_frontier(n):
    for t in np.linspace(0.01, 1, 30):
        matrix = oracles.isolated(n, t)
        bound = float(hj.bounds.row_entropy_bound(matrix))
        assert t <= bound * (1 + 1e-9) and bound <= float(hj.bounds.pinsker_bound(matrix))


# ---------------------------------------------------------------- 8.2 to 8.4


def test_neither_softmax_nor_sinkhorn_forgets_more_than_the_other():
    logits = RNG.normal(size=(200, 4, 4))
    matrices = np.array([oracles.alternate(s, 1.0, 2000) for s in logits])
    softened = special.softmax(logits, axis=2)
    kept = oracles.sigma2(matrices), oracles.sigma2(softened - softened.mean(1, keepdims=True))
    for name, expected in (
        ("sinkhorn_forgets_more", kept[0] > kept[1]),
        ("softmax_forgets_more", kept[0] < kept[1]),
    ):
        verdict = judge(name, logits, 1.0, matrices)[1]
        np.testing.assert_array_equal(verdict == Verdict.VIOLATED, expected)
        assert expected.sum() > 10


def test_a_matrix_that_shifts_high_into_low_is_no_low_pass():
    """tΠ + (1 − t)J keeps all frequencies alike; a random matrix keeps either more."""
    matrices = np.array([oracles.alternate(s, 1.0, 2000) for s in RNG.normal(size=(100, 5, 5))])
    comparison, verdict = judge("low_pass", log_of(matrices), 1.0, matrices)
    positions = (np.arange(5) + 0.5) / 5
    for side, k in ((comparison.lesser, 4), (comparison.greater, 1)):
        wave = np.cos(np.pi * k * positions)
        kept = np.linalg.norm(matrices @ (wave / np.linalg.norm(wave)), axis=1)
        np.testing.assert_allclose(side, kept, rtol=1e-9, atol=1e-12)
    assert {Verdict.VIOLATED, Verdict.HOLDS} <= set(verdict.tolist())


@pytest.mark.parametrize("n", [2, 3, 4, 16])
def test_the_identity_start_has_its_closed_form_and_decay_takes_it_down(n):
    for d in (-3.0, 0.1, 4.0, 4.0 * 0.9685, 30.0):
        shifts = RNG.normal(size=(n, 1)) + RNG.normal(size=(1, n))
        logits = 0.5 * (d * np.eye(n) + shifts)
        entry = math.exp(d) / (math.exp(d) + n - 1)
        matrix = np.where(np.eye(n, dtype=bool), entry, (1 - entry) / (n - 1))
        comparison, verdict = judge("identity_start", logits[None], 0.5, matrix[None])
        expected = oracles.sigma2(matrix[None])[0]
        assert comparison.greater[0] == pytest.approx(expected, rel=1e-9)
        assert verdict[0] == Verdict.HOLDS
    other = RNG.normal(size=(1, n, n))
    verdict = judge("identity_start", other, 1.0, np.full((1, n, n), 1 / n))[1]
    assert (verdict[0] == Verdict.NOT_APPLICABLE) == (n > 2)  # of two units all are identity starts


# ---------------------------------------------------------------- 8.5 and 8.6


def test_de_bruijn_forgets_all_without_any_gap():
    n = 8
    walk = np.array([[0.5 * (j // 2 == i % 4) for j in range(n)] for i in range(n)])
    comparison, verdict = judge_stack("gap_sum_needed", [walk] * 3)
    assert comparison.lesser[-1] == pytest.approx(1) and comparison.greater[-1] < 1e-12
    assert verdict[-1] == Verdict.VIOLATED
    assert judge_stack("gap_sum", [walk] * 3)[1][-1] == Verdict.HOLDS


def test_the_sum_of_gaps_is_attained_by_permutations():
    comparison, verdict = judge_stack("gap_sum", [oracles.permutation(RNG, 4) for _ in range(5)])
    np.testing.assert_allclose(comparison.lesser, comparison.greater, atol=1e-12)
    assert (verdict == Verdict.UNDECIDABLE).all()


def test_what_sums_miss_refutes_no_sum_of_gaps():
    """exp(−32) = 1.3e-14, and ‖C − J‖ is the 1e-13 by which sums miss 1."""
    missed = np.full((4, 4), 0.25) + 1e-13 * np.outer(np.ones(4), [1, -1, 0, 0])
    comparison, verdict = judge_stack("gap_sum", [missed] * 32)
    assert comparison.lesser[-1] > comparison.greater[-1]
    assert (verdict != Verdict.VIOLATED).all()


def test_one_marginal_bounds_every_product_and_is_attained_where_all_copy_one():
    copied = np.zeros((5, 5))
    copied[:, 2] = 1
    comparison, verdict = judge_stack("one_marginal", [copied] * 4)
    np.testing.assert_allclose(comparison.lesser, math.sqrt(5), rtol=1e-12)
    np.testing.assert_allclose(comparison.greater, math.sqrt(5), rtol=1e-12)
    assert (verdict == Verdict.UNDECIDABLE).all()
    rows = special.softmax(3 * RNG.normal(size=(64, 5, 5)), axis=2)
    comparison, verdict = judge_stack("one_marginal", rows)
    assert (verdict == Verdict.HOLDS).all() and (comparison.lesser > 1 - 1e-9).all()
    missed = 1.5 * rows
    assert (judge_stack("one_marginal", missed)[1] == Verdict.NOT_APPLICABLE).all()
