"""The projection is right, and says so when it is not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear import sinkhorn as ott_sinkhorn

import homojax as hj
import oracles
import trained_oracle

TAU = trained_oracle.TRAINED["tau"]
TRAINED = np.array([layer["logits"] for layer in trained_oracle.TRAINED["layers"]])
ASYMMETRIC = np.random.default_rng(7).normal(size=(4, 4))
METHODS = ("auto", "alternating", "newton")
MANY = {"alternating": {"max_steps": 20_000}}  # steps, where a method needs them
project = partial(hj.sinkhorn, tol=1e-13)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("k", [0.125, 0.5, 1.0, 3.0, 40.0, 1e4, 1e8])
def test_one_raised_entry_of_a_three_by_three_has_a_closed_limit(k):
    logits, r = np.zeros((3, 3)), np.sqrt(1 + 8 * k)
    logits[0, 0] = np.log(k)
    assert project(logits, 1.0).matrix[0, 0] == pytest.approx((r - 1) / (r + 3), abs=1e-12)


@pytest.mark.parametrize("index", range(12))
def test_trained_logits_project_to_what_many_digits_say(index):
    result = hj.sinkhorn(TRAINED[index], TAU, tol=1e-12)
    assert result.converged and result.num_steps <= 30
    assert max(oracles.marginal_errors(result.matrix)) <= 1e-12
    np.testing.assert_allclose(result.matrix, oracles.project(TRAINED[index], TAU), atol=4e-12)


def test_trained_composite_is_as_far_from_uniform_as_many_digits_say_and_alternation_is_not():
    def distance(method):
        solve = partial(hj.sinkhorn, tol=1e-12, method=method, **MANY.get(method, {}))
        matrices = np.array([solve(logits, TAU).matrix for logits in TRAINED])
        return np.linalg.norm(hj.composite(matrices)[-1] - np.full((4, 4), 0.25))

    expected = float(trained_oracle.trained_composite_distance())
    assert distance("auto") == pytest.approx(expected, rel=1e-10)
    assert abs(distance("alternating") / expected - 1) > 1e-4


@pytest.mark.parametrize(
    ("method", "epsilon"),
    [(m, e) for m in METHODS for e in (0.02, 0.1, 1.0, 10.0) if m != "alternating" or e >= 0.1],
)
def test_every_method_finds_what_many_digits_say(method, epsilon):
    options = MANY.get(method, {})
    result = hj.sinkhorn(ASYMMETRIC, epsilon, tol=1e-12, method=method, **options)
    assert result.converged
    np.testing.assert_allclose(result.matrix, oracles.project(ASYMMETRIC, epsilon), atol=1e-11)


def test_projection_agrees_with_ott_and_pot_where_they_converge(normal):
    """On the scale of row sums = 1: theirs are 1/n."""
    compared = {"ott": 0, "pot": 0}
    solve = jax.jit(ott_sinkhorn.Sinkhorn(threshold=1e-12, max_iterations=20_000))

    def by_ott(logits, epsilon):
        geometry = Geometry(cost_matrix=jnp.asarray(-logits), epsilon=epsilon)
        return solve(LinearProblem(geometry)).matrix

    def by_pot(logits, epsilon):
        uniform, options = [0.25] * 4, {"numItermax": 20_000, "stopThr": 1e-14}
        return ot.sinkhorn(uniform, uniform, -logits, epsilon, "sinkhorn_log", **options)

    for logits in normal[:3]:
        for epsilon in (0.3, 1.0, 5.0):
            for name, rival in (("ott", by_ott), ("pot", by_pot)):
                matrix = 4 * np.asarray(rival(logits, epsilon))
                if max(oracles.marginal_errors(matrix)) < 1e-10:
                    np.testing.assert_allclose(project(logits, epsilon).matrix, matrix, atol=1e-9)
                    compared[name] += 1
    assert min(compared.values()) >= 8, compared


# ---------------------------------------------------------------- symmetries


def test_projection_ignores_shifts_and_commutes_with_transposition_and_permutation(rng):
    for _ in range(25):
        logits, shifts = rng.uniform(-5, 5, (4, 4)), rng.uniform(-50, 50, (2, 4))
        epsilon, rows, cols = 10 ** rng.uniform(-1, 1), rng.permutation(4), rng.permutation(4)
        result = project(logits, epsilon)
        assert result.converged
        for changed, expected in [
            (logits + shifts[0][:, None] + shifts[1], result.matrix),
            (logits.T, result.matrix.T),
            (logits[rows][:, cols], result.matrix[rows][:, cols]),
        ]:
            np.testing.assert_allclose(project(changed, epsilon).matrix, expected, atol=2e-11)


# ---------------------------------------------------------------- an honest no


@pytest.mark.parametrize(
    ("method", "max_steps"),
    [
        pytest.param(method, count, marks=() if quick else pytest.mark.slow)
        for method, count, quick in [  # each of them a program
            ("auto", 0, False),
            ("auto", 1, False),
            ("auto", 3, True),
            ("alternating", 0, False),
            ("alternating", 1, False),
            ("alternating", 3, True),
            ("newton", 0, False),
            ("newton", 1, False),
            ("newton", 3, False),
        ]
    ],
)
def test_too_few_steps_are_reported_as_such(method, max_steps):
    result = hj.sinkhorn(ASYMMETRIC, 0.05, method=method, max_steps=max_steps)
    assert not result.converged and result.num_steps <= max_steps
    assert result.status == hj.Status.STEP_LIMIT
    errors = oracles.marginal_errors(result.matrix)
    np.testing.assert_allclose([result.row_error, result.col_error], errors, atol=1e-15)
    assert max(errors) > 1e-4


BROKEN = {
    "nan logit": (np.where(np.eye(4) > 0, np.nan, 0.0), 1.0),
    "one nan logit": (np.where(np.arange(16).reshape(4, 4) == 6, np.nan, ASYMMETRIC), 1.0),
    "infinite logit": (np.where(np.eye(4) > 0, np.inf, 0.0), 1.0),
    "zero epsilon": (ASYMMETRIC, 0.0),
    "negative epsilon": (ASYMMETRIC, -1.0),
    "nan epsilon": (ASYMMETRIC, np.nan),
}


@pytest.mark.parametrize("name", BROKEN)
def test_values_without_a_projection_never_raise_and_never_converge(name):
    for method in METHODS:
        result = hj.sinkhorn(*BROKEN[name], method=method, **MANY.get(method, {}))
        assert not result.converged and result.status == hj.Status.NOT_FINITE
        assert np.isnan(result.row_error) or np.isnan(result.col_error)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_batch_says_which_of_its_larger_matrices_have_none(bad, project_each, rng):
    """XLA's programs for CPUs can lose a NaN in a maximum, at such sizes (openxla/xla 21461)."""
    logits = rng.normal(size=(100, 16, 16))
    logits[::3, 5, 7] = bad
    result = project_each(logits, 0.05)
    broken = np.arange(100) % 3 == 0
    np.testing.assert_array_equal(result.status == hj.Status.NOT_FINITE, broken)
    np.testing.assert_array_equal(result.converged, ~broken)
    assert np.isnan(result.row_error[broken] + result.col_error[broken]).all()


def test_status_says_how_a_projection_ended():
    def status(logits, epsilon, method="auto", **options):
        options = MANY.get(method, {}) | options
        result = hj.sinkhorn(logits, epsilon, method=method, **options)
        return hj.Status(int(result.status)).name

    no_matching = np.zeros((4, 4))
    no_matching[:2, 1:] = -np.inf
    assert status(ASYMMETRIC, 1.0) == "CONVERGED"
    assert status(ASYMMETRIC, 0.05, max_steps=3) == "STEP_LIMIT"
    assert status(ASYMMETRIC, 0.01, method="alternating") == "STEP_LIMIT"
    assert status(ASYMMETRIC, 0.05, tol=1e-17) == "STALLED"
    wide = np.random.default_rng(0).normal(size=(16, 16))  # not all 32 sums are 1 by luck
    assert status(wide, 1.0, tol=1e-17, method="alternating") == "STALLED"
    assert status(ASYMMETRIC, 1.0, tol=np.nan) == "NOT_FINITE"
    assert [status(no_matching, 1.0, method=method) for method in METHODS] == ["INFEASIBLE"] * 3
    assert np.isnan(hj.sinkhorn(no_matching, 1.0).matrix).all()


def test_an_unreachable_tolerance_ends_in_an_honest_no():
    result = hj.sinkhorn(ASYMMETRIC, 0.05, tol=1e-17)
    assert result.converged == (max(result.row_error, result.col_error) <= 1e-17)
    assert max(result.row_error, result.col_error) < 1e-14 and result.num_steps <= 1000


def test_a_bad_lane_does_not_spoil_its_neighbours(normal, project_each):
    lanes = normal[:3].copy()
    lanes[1, 0, 0] = np.nan
    result = project_each(lanes, 0.05)
    np.testing.assert_array_equal(result.converged, [True, False, True])
    np.testing.assert_allclose(result.matrix[2], project(normal[2], 0.05).matrix, atol=1e-11)


SQUARE = np.zeros((2, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hj.sinkhorn(np.zeros((2, 3)), 1.0), r"logits .* shape \[n, n\], got \[2, 3\]"),
        (lambda: hj.sinkhorn(SQUARE, np.ones(2)), r"epsilon .* scalar, got shape \[2\]"),
        (lambda: hj.sinkhorn(SQUARE, 1.0, method="fast"), "method must be .*'fast'"),
        (lambda: hj.sinkhorn(SQUARE, 1.0, init=np.zeros(3)), r"shape \[2\], got \[3\]"),
        (lambda: hj.sinkhorn(SQUARE, 1.0, tol=[1e-3, 1e-3]), r"tol .* scalar, got shape \[2\]"),
    ],
)
def test_shapes_and_names_that_do_not_exist_are_refused_with_what_was_given(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("n", "method"),
    [
        (4, "auto"),
        *(
            pytest.param(n, method, marks=pytest.mark.slow)
            for n, method in (
                (4, "newton"),
                (128, "auto"),
                (128, "newton"),
                (130, "auto"),
                (130, "newton"),
            )
        ),
    ],
)
def test_half_precision_projects_at_every_size(n, method, rng):
    logits = rng.normal(size=(n, n)).astype(jnp.bfloat16)
    result = hj.sinkhorn(logits, 0.5, method=method)
    exact = oracles.project_down(logits.astype(float), [8.0, 4.0, 2.0, 1.0, 0.5])[-1]
    assert result.converged and result.matrix.dtype == jnp.bfloat16
    assert abs(np.asarray(result.matrix, float) - exact).max() < 0.1 * exact.max()
