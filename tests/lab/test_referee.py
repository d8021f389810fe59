"""The referee: it agrees with float64 where float64 can tell, and decides where it cannot."""

import jax
import mpmath as mp
import numpy as np
import pytest
import scipy.optimize

import homojax as hj
import oracles
from homojax.lab.judging import judge_cells, project
from homojax.lab.referee import decided, referee, referee_stack
from homojax.lab.verify.families import FAMILIES
from homojax.theory.claim import Verdict


def claims_about(scope):
    return tuple(claim for claim in hj.CLAIMS.values() if claim.scope == scope)


NAMES = [claim.name for claim in claims_about("matrix")]
RNG = np.random.default_rng(3)
UNIFORM, IDENTITY = np.full((3, 3), 1 / 3), np.eye(3)


def slack(name, logits=None, epsilon=1.0, matrix=None, digits=50):
    lesser, greater = referee(name, logits, epsilon, matrix, digits)
    with mp.workdps(400):
        return greater - lesser


# ---------------------------------------------------------------- against float64


def cells_of_size(n):
    """A cell of every family at n: logits, ε, float64 matrix, and whether the referee sees that."""
    for name, family in FAMILIES.items():
        if family.sizes(n) and name not in ("truncated", "student"):
            logits, epsilon, matrix = family.draw(np.random.default_rng([n, 9]), n, 1)
            found = project(logits, epsilon) if matrix is None else matrix
            yield from zip(logits, epsilon, found, [matrix is not None], strict=True)


@pytest.mark.parametrize("n", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 6))])
def test_it_agrees_with_every_verdict_of_float64_and_with_its_slack_within_the_errors(n):
    logits, epsilon, matrix, seen = map(np.array, zip(*cells_of_size(n), strict=True))
    cells = {"logits": logits, "epsilon": epsilon, "matrix": matrix}
    distance = 2 * sum(abs(matrix.sum(axis) - 1).max(1) for axis in (1, 2)) + 1e-14 * n
    lost = oracles.sigma2(matrix) > 1 - 1e-9  # for artanh σ₂, in float64
    told = 0
    for name, (comparison, verdict, _) in judge_cells(
        "matrix", claims_about("matrix"), cells, "float64"
    ).items():
        for k in np.flatnonzero(verdict != Verdict.NOT_APPLICABLE):
            if name == "logit_budget" and lost[k]:
                continue
            given = matrix[k] if seen[k] or name == "truncated_norm" else None
            exact = slack(name, logits[k], epsilon[k], given)
            claim = hj.CLAIMS[name]
            kept = claim.resolution - abs(exact) if claim.is_equality else exact
            assert not (verdict[k] == Verdict.HOLDS and kept <= 0)
            assert not (verdict[k] == Verdict.VIOLATED and kept >= 0)
            if name != "eigenvalue":  # λ₂ of a matrix nearby can be anywhere
                error = comparison.margin[k] + 2 * distance[k]
                assert abs(float(exact) - (comparison.greater[k] - comparison.lesser[k])) <= error
            told += verdict[k] != Verdict.UNDECIDABLE
    assert told > len(logits)


@pytest.mark.slow
def test_its_sides_of_a_projection_are_those_of_float64_within_their_margin():
    logits, epsilon = RNG.normal(size=(6, 3, 3)), np.repeat([2.0, 0.5], 3)
    cells = {"logits": logits, "epsilon": epsilon}
    judged = judge_cells("projection", claims_about("projection"), cells, "float64")
    for name, (comparison, _, _) in judged.items():
        scale = epsilon if name == "gradient_trap" else np.ones(6)  # the referee's is for ε = 1
        for k in range(6):
            sides = [float(side) for side in referee(name, logits[k], epsilon[k], None)]
            assert sides == pytest.approx(
                [comparison.lesser[k] * scale[k], comparison.greater[k] * scale[k]],
                abs=1e-14 + comparison.margin[k],
            ), name


@pytest.mark.slow
def test_its_sides_of_a_stack_are_those_of_float64_but_for_missed_sums():
    logits, probes = RNG.normal(size=(4, 2, 3, 3)), RNG.normal(size=(4, 3))
    matrices = np.asarray(project(logits.reshape(8, 3, 3), np.full(8, 0.3))).reshape(4, 2, 3, 3)
    alphas = np.array([0.1, 0.25, 0.3, 0.9])
    cells = {"matrices": matrices, "alpha": alphas, "probe": probes}
    judged = judge_cells("stack", claims_about("stack"), cells, "float64")
    for name, (comparison, verdict, _) in judged.items():
        for k in range(4):
            sides = referee_stack(name, cells["matrices"][k], alphas[k], probes[k])
            if name == "effective_depth" and verdict[k] == Verdict.NOT_APPLICABLE:
                assert sides is None
                continue
            pairs = np.stack(
                [x[k, -1] if np.ndim(x) > 1 else x[k] for x in comparison[:2]], -1
            ).reshape(-1, 2)  # of all layers
            off = abs(pairs - [float(side) for side in sides]).max(
                1
            )  # horn has a pair for every k, the gain two
            assert off.min() < 1e-11 or verdict[k].min() == Verdict.NOT_APPLICABLE, name


def test_an_equality_holds_to_within_its_resolution_and_an_attained_bound_is_left_undecided():
    assert decided("alternation_rate", mp.mpf(0.5), mp.mpf(0.5)) == Verdict.HOLDS
    assert (
        decided("alternation_rate", mp.mpf(0.5), mp.mpf(0.6))
        == Verdict.VIOLATED
        == decided("alternation_rate", mp.mpf(0.6), mp.mpf(0.5))
    )
    assert decided("doeblin", mp.mpf(0.5), mp.mpf(0.5)) == Verdict.UNDECIDABLE


def test_the_heaviest_assignment_is_found_among_all():
    for logits in RNG.normal(size=(3, 7, 7)):
        best = logits[scipy.optimize.linear_sum_assignment(logits, maximize=True)].sum()
        missed = best - (logits * oracles.alternate(logits, 1.0, 2000)).sum()
        assert float(referee("assignment_limit", logits, 1.0, None)[0]) == pytest.approx(
            missed, abs=1e-10
        )


@pytest.mark.slow
def test_what_is_left_of_one_is_that_of_the_contraction_gap():
    """Far beyond float64's 1 − σ₂, down to 1e-20 and less."""
    logits, epsilon = RNG.normal(size=(12, 4, 4)), np.repeat([1.0, 0.1, 0.01], 4)
    gap_of = jax.jit(jax.vmap(lambda *cell: hj.contraction_gap(hj.sinkhorn(*cell).log_matrix)))
    gaps = np.asarray(gap_of(logits, epsilon))
    assert gaps.min() < 1e-20
    for *cell, gap in zip(logits, epsilon, gaps, strict=True):
        with mp.workdps(400):
            assert float(1 - referee("frobenius_upper", *cell, None)[0]) == pytest.approx(
                float(gap), rel=1e-8
            )


def test_the_projection_is_that_of_another_solver_of_many_digits():
    logits = RNG.normal(size=(3, 3))
    reference = oracles.sigma2(oracles.project(logits, 0.7))
    assert float(referee("doeblin", logits, 0.7, None)[0]) == pytest.approx(
        float(reference), abs=1e-15
    )


# ---------------------------------------------------------------- beyond float64


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_two_by_two_attains_hilbert_to_the_last_of_45_digits(scale):
    for logits in scale * RNG.normal(size=(5, 2, 2)):
        for name in ("hilbert", "frobenius_lower", "frontier", "schatten_upper"):
            lesser, greater = referee(name, logits, 0.5, None)
            with mp.workdps(400):
                assert abs(greater - lesser) < mp.mpf(10) ** -45 * (1 - lesser)


def test_a_lazy_permutation_attains_the_lower_bounds_and_the_least_push_off_it_is_seen():
    lazy = IDENTITY
    for name in ("frobenius_lower", "schatten_lower"):
        assert abs(slack(name, lazy)) < 1e-55
        pushed = []
        for push in (1e-20, 1e-38):
            logits = lazy.copy()
            logits[0, 1] = push
            np.testing.assert_array_equal(
                *(oracles.alternate(s, 1.0, 10) for s in (lazy, logits))
            )  # float64 sees nothing
            pushed.append(slack(name, logits))
        assert 1e-40 < pushed[1] < 1e-38
        assert float(pushed[0] / pushed[1]) == pytest.approx(1e18, rel=1e-9)


@pytest.mark.parametrize("t", [1.0, 0.7, 1e-6, 1 - 1e-9])
def test_an_isolated_unit_attains_the_frontier_though_its_entries_are_rounded(t):
    for n in (3, 5):
        matrix = oracles.isolated(n, t)
        for name in ("frontier", "frobenius_upper", "schatten_upper"):
            assert abs(slack(name, matrix=matrix)) < 1e-45
        assert slack("normalised_entropy", matrix=matrix) < 0
        assert float(referee("frontier", None, 1.0, matrix)[0]) == pytest.approx(t, rel=1e-9)


def test_uniform_attains_every_bound():
    for name in NAMES:
        if name != "truncated_norm":  # which takes the rounded thirds as they are
            lesser, greater = referee(name, None, 1.0, UNIFORM)
            assert abs(lesser) < 1e-45 and abs(greater) < 1e-45


def test_a_circulant_attains_the_eigenvalue_bound_and_a_de_bruijn_walk_is_farthest_from_it():
    matrix = np.asarray(hj.birkhoff.circulant(RNG.dirichlet(np.ones(5))))
    assert abs(slack("eigenvalue", matrix=matrix)) < 1e-45
    lesser, greater = referee("eigenvalue", None, 1.0, np.asarray(hj.birkhoff.de_bruijn(2)))
    assert lesser < 1e-25 and abs(greater - 1) < 1e-45


# ---------------------------------------------------------------- inputs


def test_zeros_stay_zeros_and_blocks_are_scaled_apart():
    rows, cols = RNG.permutation(5), RNG.permutation(5)
    matrix = np.zeros((5, 5))
    matrix[:2, :2], matrix[2:, 2:] = (
        oracles.permutation_mixture(RNG, 2, 3),
        oracles.permutation_mixture(RNG, 3, 6),
    )
    matrix = matrix[rows][:, cols] * (1 + 1e-9 * RNG.normal(size=(5, 5)))
    for name in ("dobrushin", "doeblin"):
        lesser, greater = referee(name, None, 1.0, matrix)
        assert abs(lesser - 1) < 1e-45 and abs(greater - 1) < 1e-45


def test_entries_that_no_doubly_stochastic_matrix_has_are_left_out():
    lesser, greater = referee(
        "doeblin", None, 1.0, np.array([[1.0, 1e-17, 0], [0, 1, 0], [0, 0, 1]])
    )
    assert abs(lesser - 1) < 1e-45 and greater == 1


def test_logits_in_units_of_epsilon_are_all_that_counts():
    logits = RNG.normal(size=(4, 4))
    for name in NAMES:
        a, b = referee(name, logits, 0.5, None), referee(name, 2 * logits, 1.0, None)
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) < 1e-45


def test_truncated_norm_is_of_the_matrix_as_it_is():
    matrix = np.array([[0.75, 0.5], [0.25, 0.5]])
    lesser, greater = referee("truncated_norm", None, 1.0, matrix)
    with mp.workdps(60):
        assert abs(greater - mp.sqrt(mp.mpf(5) / 4)) < 1e-50
        assert (
            abs(lesser - mp.sqrt((mp.mpf(9) / 8 + mp.sqrt(mp.mpf(81) / 64 - mp.mpf(1) / 4)) / 2))
            < 1e-50
        )


def test_every_matrix_claim_has_sides_of_its_own():
    for name in NAMES:
        lesser, greater = referee(name, RNG.normal(size=(3, 3)), 1.0, None)
        assert isinstance(lesser, mp.mpf) and isinstance(greater, mp.mpf)
        claim = hj.CLAIMS[name]
        is_bound = claim.status != "refuted" and not claim.is_equality
        assert lesser < greater or not is_bound or name == "truncated_norm"  # an equality


def test_it_says_nothing_where_nothing_can_be_said():
    logits = RNG.normal(size=(3, 3))
    assert referee("entropy_monotone", logits, 1.0, None) is None
    assert referee("doeblin", np.where(IDENTITY, np.nan, logits), 1.0, None) is None
    assert referee("doeblin", np.where(IDENTITY, np.inf, logits), 1.0, None) is None
    assert referee("doeblin", None, 1.0, UNIFORM - IDENTITY) is None
    assert (
        referee("doeblin", None, 1.0, np.array([[0.0, 0, 1], [0, 0, 1], [1, 1, 1]])) is None
    )  # no permutation fits in it
    assert (
        referee("hilbert", None, 1.0, IDENTITY) is None
        and referee("logit_budget", None, 1.0, IDENTITY) is None
    )
