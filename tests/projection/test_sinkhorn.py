import importlib
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear import sinkhorn as ott_sinkhorn
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits

import homojax as hj
import oracles
import trained_oracle
from homojax.projection.masks import total_support

TRAINED = json.loads((Path(hj.__file__).parent / "data" / "trained_mhc_logits.json").read_text())
TRAINED_LOGITS = np.array([layer["logits"] for layer in TRAINED["layers"]])
NORMAL = np.random.default_rng(7).normal(size=(8, 4, 4))
ASYMMETRIC = NORMAL[0]
METHODS = ("auto", "alternating", "newton")

# Compiling is most of the time of these tests. Called without jax.jit around it, hj.sinkhorn
# compiles its solver once for each
# shape, dtype, method, max_steps and whether there is an init, whatever the tolerance: these are
# what tests had better share.
project = partial(hj.sinkhorn, tol=1e-13)
LANES = {2: 400, 4: 400, 16: 100, 64: 192}  # of every batch, by n


def project_each(logits, epsilon, init=None, **options):
    """[B, n, n] at one ε or [B], filled up to ``LANES`` with the last one -> [B]."""
    count, n, _ = logits.shape
    epsilon = np.broadcast_to(np.asarray(epsilon, logits.dtype), count)
    lanes = [logits, epsilon] if init is None else [logits, epsilon, init]
    filled = [
        np.concatenate([x, np.repeat(x[-1:], LANES[n] - count, 0)]) for x in map(np.asarray, lanes)
    ]
    result = jax.vmap(
        lambda s, e, *init: hj.sinkhorn(s, e, init=init[0] if init else None, **options)
    )(*filled)
    return jax.tree.map(lambda x: x[:count], result)


def project_all(logits, epsilons):
    """[B, n, n], [E] -> [B, E]."""
    result = project_each(np.repeat(logits, len(epsilons), 0), np.tile(epsilons, len(logits)))
    return jax.tree.map(lambda x: x.reshape(len(logits), len(epsilons), *x.shape[1:]), result)


def scalar(logits, epsilon, weights, tol, solver):
    """A scalar of all that is differentiable in a result, and the result; a weight of 0 leaves out
    what is infinite.
    """
    result = solver(logits, epsilon) if tol is None else solver(logits, epsilon, tol=tol)
    c, u, v, w = weights
    potentials = u @ result.row_potential + v @ result.col_potential
    return (c * result.matrix).sum() + potentials + jnp.where(
        w != 0, w * result.log_matrix, 0
    ).sum(), result


_slopes = jax.jit(jax.value_and_grad(scalar, (0, 1), has_aux=True), static_argnames="solver")


def slopes(logits, epsilon, weights, tol=1e-13, solver=hj.sinkhorn):
    """((scalar, result), (its derivative by the logits, by ε)): one compilation for any weights and
    tolerance.
    """
    dtype = logits.dtype
    weights = jax.tree.map(lambda x: np.asarray(x, dtype), weights)
    return _slopes(
        logits,
        np.asarray(epsilon, dtype),
        weights,
        None if tol is None else np.asarray(tol, dtype),
        solver=solver,
    )


def of_matrix(weights):
    """Weights of the matrix alone."""
    zeros = np.zeros_like(weights)
    return weights, zeros[0], zeros[0], zeros


truncate = jax.jit(hj.truncated_sinkhorn, static_argnums=2, static_argnames="last")
sigma2 = jax.jit(jax.vmap(hj.sigma2))


def true_errors(matrix):
    matrix = np.asarray(matrix, np.float64)
    return [abs(matrix.sum(-1) - 1).max(-1), abs(matrix.sum(-2) - 1).max(-1)]


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("k", [0.125, 0.5, 1.0, 3.0, 40.0, 1e4, 1e8])
def test_one_raised_entry_of_a_three_by_three_has_a_closed_limit(k):
    logits, r = np.zeros((3, 3)), np.sqrt(1 + 8 * k)
    logits[0, 0] = np.log(k)
    assert project(logits, 1.0).matrix[0, 0] == pytest.approx((r - 1) / (r + 3), abs=1e-12)


@pytest.mark.parametrize("index", range(12))
def test_trained_logits_project_to_what_many_digits_say(index):
    result = hj.sinkhorn(TRAINED_LOGITS[index], TRAINED["tau"], tol=1e-12)
    assert result.converged and result.num_steps <= 30 and max(true_errors(result.matrix)) <= 1e-12
    np.testing.assert_allclose(
        result.matrix, oracles.project(TRAINED_LOGITS[index], TRAINED["tau"]), atol=4e-12
    )


def test_trained_composite_is_as_far_from_uniform_as_many_digits_say_and_alternation_is_not():
    def distance(method):
        options = {"max_steps": 20_000} if method == "alternating" else {}
        solve = partial(hj.sinkhorn, tol=1e-12, method=method, **options)
        matrices = jnp.stack([solve(logits, TRAINED["tau"]).matrix for logits in TRAINED_LOGITS])
        return np.linalg.norm(hj.composite(matrices)[-1] - hj.uniform(4))

    expected = float(trained_oracle.trained_composite_distance())
    assert distance("auto") == pytest.approx(expected, rel=1e-10)
    assert abs(distance("alternating") / expected - 1) > 1e-4


@pytest.mark.parametrize(
    ("method", "epsilon"),
    [
        (method, e)
        for method in METHODS
        for e in (0.02, 0.1, 1.0, 10.0)
        if method != "alternating" or e >= 0.1
    ],
)
def test_every_method_finds_what_many_digits_say(method, epsilon):
    options = {"max_steps": 20_000} if method == "alternating" else {}
    result = hj.sinkhorn(ASYMMETRIC, epsilon, tol=1e-12, method=method, **options)
    assert result.converged
    np.testing.assert_allclose(result.matrix, oracles.project(ASYMMETRIC, epsilon), atol=1e-11)


@pytest.mark.parametrize(
    "n", [128, pytest.param(600, marks=pytest.mark.slow)]
)  # factorised: steps and derivative, steps alone
def test_large_cold_projections_and_their_derivatives(n, rng):
    logits, direction = rng.normal(size=(2, n, n))
    solve = jax.jit(lambda s: hj.sinkhorn(s, 0.02))
    result = solve(logits)
    assert result.converged and max(true_errors(result.matrix)) <= hj.numerics.marginal_tolerance(
        n, np.float64
    )
    computed = jax.jit(lambda s, d: jax.jvp(lambda s: hj.sinkhorn(s, 0.02).matrix, (s,), (d,))[1])(
        logits, direction
    )
    expected = oracles.difference(lambda s: solve(s).matrix, logits, direction, step=2e-4)
    assert abs(expected).max() > 1
    np.testing.assert_allclose(computed, expected, atol=1e-5 * abs(expected).max())


def test_projection_agrees_with_ott_and_pot_where_they_converge():
    """On the scale of row sums = 1: theirs are 1/n."""
    compared = {"ott": 0, "pot": 0}
    solve = jax.jit(ott_sinkhorn.Sinkhorn(threshold=1e-12, max_iterations=20_000))
    for logits in NORMAL[:3]:
        for epsilon in (0.3, 1.0, 5.0):
            theirs = {
                "ott": 4
                * solve(
                    LinearProblem(Geometry(cost_matrix=-jnp.asarray(logits), epsilon=epsilon))
                ).matrix,
                "pot": 4
                * ot.sinkhorn(
                    [0.25] * 4,
                    [0.25] * 4,
                    -logits,
                    epsilon,
                    "sinkhorn_log",
                    numItermax=20_000,
                    stopThr=1e-14,
                ),
            }
            for name, matrix in theirs.items():
                if max(true_errors(matrix)) < 1e-10:
                    np.testing.assert_allclose(project(logits, epsilon).matrix, matrix, atol=1e-9)
                    compared[name] += 1
    assert min(compared.values()) >= 8, compared


# ---------------------------------------------------------------- honesty


@pytest.mark.parametrize(
    ("n", "dtype"),
    [
        *((n, np.dtype("float64")) for n in (16, 64)),
        (16, np.dtype("float32")),
        pytest.param(64, np.dtype("float32"), marks=pytest.mark.slow),
    ],
)
def test_hard_cases_converge_with_true_errors_and_a_matrix_of_the_right_form(n, dtype, rng):
    logits = np.concatenate([rng.normal(size=(6, n, n)), rng.standard_t(3, size=(6, n, n))]).astype(
        dtype
    )
    epsilons = np.array([0.005, 0.02, 0.1, 1.0], dtype)
    result = project_all(logits, epsilons)
    tol, eps = hj.numerics.marginal_tolerance(n, dtype), np.finfo(dtype).eps
    assert result.converged.all() and (result.num_steps <= 100).all()  # design.md: tens
    assert max(result.row_error.max(), result.col_error.max()) <= tol
    for reported, true in zip(
        (result.row_error, result.col_error), true_errors(result.matrix), strict=True
    ):
        np.testing.assert_allclose(reported, true, atol=n * eps)
    scaled = logits[:, None].astype(float) / epsilons[:, None, None].astype(float)
    potentials = (
        np.asarray(result.row_potential)[..., None] + np.asarray(result.col_potential)[..., None, :]
    )
    largest = abs(scaled).max((2, 3), keepdims=True)
    assert (
        abs(result.log_matrix - scaled - potentials) <= 64 * eps * largest
    ).all()  # diag(e^f) exp(S/ε) diag(e^g)
    np.testing.assert_allclose(
        np.asarray(result.col_potential).mean(-1) / largest[..., 0, 0], 0, atol=8 * eps
    )
    np.testing.assert_allclose(result.matrix, np.exp(result.log_matrix), atol=4 * eps)


@pytest.mark.parametrize("method", ["auto", "newton"])
def test_a_large_negative_number_forbids_an_entry_as_a_mask_does(method, dtype, rng):
    logits = rng.normal(size=(6, 16, 16))
    allowed = (rng.uniform(size=logits.shape) < 0.5) | np.eye(16, dtype=bool)[rng.permutation(16)]
    for value in (-1e5, -1e9):
        found, masked = (
            project_each(np.where(allowed, logits, x).astype(dtype), 0.05, method=method)
            for x in (value, -np.inf)
        )
        assert found.converged.all() and masked.converged.all()
        np.testing.assert_allclose(
            found.matrix, masked.matrix, atol=300 * hj.numerics.marginal_tolerance(16, dtype)
        )


def masks_of_permutations(n=8, lanes=64):
    """Normal logits, and masks of four permutations: often a row and a column have only each other,
    and a free potential.
    """
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(lanes, n, n))
    return logits, np.eye(n)[[[rng.permutation(n) for _ in range(4)] for _ in range(lanes)]].sum(
        1
    ) > 0


@pytest.mark.parametrize("value", [-1e5, -1e9, -1e30])
def test_units_with_none_but_each_other_lose_no_digit_to_a_large_negative_number(value, dtype):
    logits, allowed = masks_of_permutations()
    solve = jax.jit(jax.vmap(lambda s: hj.sinkhorn(s, 0.05)))
    found, masked = (solve(np.where(allowed, logits, x).astype(dtype)) for x in (value, -np.inf))
    assert found.converged.all() and masked.converged.all()
    np.testing.assert_allclose(
        found.matrix, masked.matrix, atol=100 * hj.numerics.marginal_tolerance(8, dtype)
    )


def test_a_matrix_that_lost_the_logits_beside_a_large_number_is_not_said_to_have_converged(
    monkeypatch,
):
    """Without what keeps the test above: sums are 1, and the rest is rounding."""
    projection = importlib.import_module("homojax.sinkhorn")
    monkeypatch.setattr(projection, "without_stand_ins", lambda logits, epsilon: logits)
    logits, allowed = masks_of_permutations()
    solve = jax.jit(
        jax.vmap(lambda s: hj.sinkhorn(s, 0.05, max_steps=999))
    )  # compiled for this test
    found, masked = (
        solve(np.where(allowed, logits, x).astype(np.float32)) for x in (-1e9, -np.inf)
    )
    wrong = np.asarray(abs(found.matrix - masked.matrix).max((1, 2))) > 0.01
    assert masked.converged.all() and 0 < wrong.sum() < 8
    assert (found.status[wrong] == hj.Status.STALLED).all() and found.converged[~wrong].all()


def test_logits_as_far_apart_as_numbers_can_be_come_to_an_end():
    logits = np.array([[2e38, 1e38], [1e38, -2e38]], np.float32)
    result = hj.sinkhorn(logits, 1.0)
    assert not result.converged or np.array_equal(result.matrix, np.eye(2)[::-1])


def stubborn_logits(name):
    """[B, n, n]: matrices that converge to near-permutations, 1 − σ₂ from 1e-9 down to nothing."""
    if name == "one entry of a two by two":
        return np.linspace(40, 80, 400)[:, None, None] * np.array([[1, 0], [0, 0]])
    return np.clip(np.random.default_rng(5).standard_cauchy((400, 4, 4)), -1e4, 1e4) * 10


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("heavy tails", "auto"),
        ("heavy tails", "newton"),
        ("one entry of a two by two", "auto"),
        pytest.param("one entry of a two by two", "newton", marks=pytest.mark.slow),
    ],
)
def test_near_permutations_converge_from_a_cold_start(name, method):
    result = project_each(stubborn_logits(name), 1.0, method=method)
    assert result.converged.all() and result.num_steps.max() <= 100


def digit_logits(n, count):
    """[count, n, n]: scaled dot products of handwritten digits, which fall into groups with links
    down to e^−60 between them.
    """
    pixels = load_digits().data
    pixels = (pixels - pixels.mean(0)) / (pixels - pixels.mean(0)).std()
    rng = np.random.default_rng(n)
    chosen = pixels[np.stack([rng.choice(len(pixels), n, replace=False) for _ in range(count)])]
    return chosen @ chosen.swapaxes(1, 2) / 8


def test_groups_with_links_of_every_strength_converge():
    """Conjugate gradients cut off after n steps, and steps kept for a descent that was rounding,
    left 1 in 16 stalled.
    """
    result = project_all(digit_logits(64, 24), np.geomspace(0.02, 1, 8))
    assert result.converged.all() and result.num_steps.max() <= 100


def test_alternations_that_end_just_within_the_tolerance_are_gone_on_from():
    """The error that the iteration sees and that of the matrix differ by rounding."""
    alternate = partial(hj.sinkhorn, tol=0.0, max_steps=64, method="alternating")
    logits, epsilon = NORMAL.astype(np.float32), np.geomspace(0.05, 0.6, 60).astype(np.float32)
    stopped = jax.jit(jax.vmap(jax.vmap(alternate, (None, 0)), (0, None)))(logits, epsilon)
    error = np.maximum(stopped.row_error, stopped.col_error)
    i, j = np.nonzero((error > 1e-6) & (error < 1e-3))
    assert len(i) > 40
    to_tolerance = jax.jit(jax.vmap(lambda s, e, tol: hj.sinkhorn(s, e, tol=tol)))
    for above in (-1e-7, 0, 1e-7):
        assert to_tolerance(
            logits[i], epsilon[j], error[i, j] * np.float32(1 + above)
        ).converged.all()


STEP_LIMITS = [
    (method, max_steps) for method in METHODS for max_steps in (0, 1, 3)
]  # each of them a compilation
QUICK_STEP_LIMITS = [("auto", 0), ("auto", 3), ("newton", 1), ("alternating", 3)]


@pytest.mark.parametrize(
    ("method", "max_steps"),
    [
        pytest.param(*case, marks=() if case in QUICK_STEP_LIMITS else pytest.mark.slow)
        for case in STEP_LIMITS
    ],
)
def test_too_few_steps_are_reported_as_such(method, max_steps):
    result = hj.sinkhorn(ASYMMETRIC, 0.05, method=method, max_steps=max_steps)
    assert not result.converged and result.num_steps <= max_steps
    np.testing.assert_allclose(
        [result.row_error, result.col_error], true_errors(result.matrix), atol=1e-15
    )
    assert max(true_errors(result.matrix)) > 1e-4


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
    for result in (
        *(hj.sinkhorn(*BROKEN[name], method=method) for method in METHODS),
        truncate(*BROKEN[name], 5),
    ):
        assert not result.converged and result.status == hj.Status.NOT_FINITE


def test_status_says_how_a_projection_ended():
    def status(logits, epsilon, **options):
        return hj.Status(int(hj.sinkhorn(logits, epsilon, **options).status)).name

    no_matching = np.where(
        np.arange(4)[:, None] < 2, np.where(np.arange(4) == 0, 0.0, -np.inf), 0.0
    )
    assert status(ASYMMETRIC, 1.0) == "CONVERGED"
    assert (
        status(ASYMMETRIC, 0.05, max_steps=3)
        == status(ASYMMETRIC, 0.05, method="alternating")
        == "STEP_LIMIT"
    )
    assert status(ASYMMETRIC, 0.05, tol=1e-17) == "STALLED"
    assert status(ASYMMETRIC, 1.0, tol=1e-17, method="alternating") == "STALLED"
    assert [status(no_matching, 1.0, method=method) for method in METHODS] == ["INFEASIBLE"] * 3
    assert np.isnan(hj.sinkhorn(no_matching, 1.0).matrix).all()


def test_an_unreachable_tolerance_ends_in_an_honest_no():
    result = hj.sinkhorn(ASYMMETRIC, 0.05, tol=1e-17)
    assert result.converged == (max(result.row_error, result.col_error) <= 1e-17)
    assert max(result.row_error, result.col_error) < 1e-14 and result.num_steps <= 1000


def test_a_bad_lane_does_not_spoil_its_neighbours():
    lanes = jnp.asarray(NORMAL[:3]).at[1, 0, 0].set(jnp.nan)
    result = project_each(lanes, 0.05)
    np.testing.assert_array_equal(result.converged, [True, False, True])
    np.testing.assert_allclose(result.matrix[2], project(NORMAL[2], 0.05).matrix, atol=1e-11)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: hj.sinkhorn(np.zeros((2, 3)), 1.0),
            r"logits must have shape \[n, n\], got \[2, 3\]",
        ),
        (
            lambda: hj.sinkhorn(np.zeros((2, 2)), np.ones(2)),
            r"epsilon must be a scalar, got shape \[2\]",
        ),
        (lambda: hj.sinkhorn(np.zeros((2, 2)), 1.0, method="fast"), "method must be .*'fast'"),
        (lambda: hj.sinkhorn(np.zeros((2, 2)), 1.0, init=np.zeros(3)), r"shape \[2\], got \[3\]"),
        (
            lambda: hj.truncated_sinkhorn(np.zeros((2, 2)), 1.0, 0),
            "num_iters must be a whole number of at least 1, got 0",
        ),
        (
            lambda: hj.truncated_sinkhorn(np.zeros((2, 2)), 1.0, 1, last="both"),
            "last must be .*'both'",
        ),
    ],
)
def test_shapes_and_names_that_do_not_exist_are_refused_with_what_was_given(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------- forbidden entries


def masked_logits(n, count, dtype="float64"):
    """Logits allowed on a random permutation, so that a projection exists, and on a third of the
    other entries.
    """
    rng = np.random.default_rng(n)
    allowed = (rng.random((count, n, n)) < 1 / 3) | np.array(
        [oracles.permutation(rng, n) for _ in range(count)]
    ).astype(bool)
    return np.where(allowed, rng.normal(size=(count, n, n)), -np.inf).astype(dtype)


@pytest.mark.parametrize("n", [4, 16])
@pytest.mark.parametrize("epsilon", [1.0, 0.05])
def test_masked_logits_project_onto_the_face_that_their_support_allows(n, epsilon, dtype):
    """The sums, the form diag(e^f) exp(S/ε) diag(e^g) and the support together leave only one
    matrix.
    """
    logits = masked_logits(n, 100, dtype)
    result = project_each(logits, np.asarray(epsilon, dtype))
    assert result.converged.all() and max(
        map(np.max, true_errors(result.matrix))
    ) <= hj.numerics.marginal_tolerance(n, dtype)
    used = np.asarray(result.log_matrix) > -np.inf
    np.testing.assert_array_equal(used, jax.vmap(total_support)(logits > -np.inf))
    assert (used != (logits > -np.inf)).any() and (np.asarray(result.matrix)[~used] == 0).all()
    potentials = (
        np.asarray(result.row_potential)[:, :, None] + np.asarray(result.col_potential)[:, None, :]
    )
    form = np.where(
        used,
        np.where(used, logits, 0) / epsilon + potentials - np.where(used, result.log_matrix, 0),
        0,
    )
    assert (
        abs(form).max()
        <= 200 * np.finfo(dtype).eps * abs(np.where(used, logits, 0)).max() / epsilon
    )


def test_a_block_diagonal_mask_projects_block_by_block():
    logits = np.full((16, 16), -np.inf)
    for block in (slice(0, 4), slice(4, 16)):
        logits[block, block] = np.random.default_rng(2).normal(size=logits[block, block].shape)
    whole = project_each(logits[None], 0.1, tol=1e-13).matrix[0]
    np.testing.assert_allclose(whole[:4, :4], oracles.project(logits[:4, :4], 0.1), atol=1e-11)
    np.testing.assert_allclose(whole[4:, 4:], oracles.project(logits[4:, 4:], 0.1), atol=1e-11)


def test_a_mask_is_the_limit_of_very_negative_logits_and_so_is_its_derivative():
    weights = of_matrix(np.random.default_rng(3).normal(size=(4, 4)))
    for logits in masked_logits(4, 6):
        masked = logits == -np.inf
        (value, _), (by_logits, by_epsilon) = slopes(logits, 0.7, weights)
        (near, _), (near_logits, near_epsilon) = slopes(
            np.where(masked, -60.0, logits), 0.7, weights
        )
        assert (
            float(value) == pytest.approx(float(near), abs=1e-9) and (by_logits[masked] == 0).all()
        )
        np.testing.assert_allclose(by_logits, near_logits, atol=1e-8)
        assert float(by_epsilon) == pytest.approx(float(near_epsilon), abs=1e-8)


def test_derivatives_are_right_where_the_support_falls_apart(dtype):
    """I − MᵀM is then singular beyond the constants, and a pseudoinverse says what the derivative
    is (theory.md 1.6).
    """
    weights = np.random.default_rng(3).normal(size=(4, 4))
    tol = 1e-13 if dtype == np.float64 else 3e-6
    for logits in masked_logits(4, 60):
        m = np.asarray(hj.sinkhorn(logits, 0.7, tol=1e-14).matrix)
        moved = m * np.eye(16).reshape(16, 4, 4) / 0.7  # by each logit in turn
        a, b = moved.sum(2), moved.sum(1)
        dg = (a @ m - b) @ np.linalg.pinv(np.eye(4) - m.T @ m, rcond=1e-12)
        df = -a - dg @ m.T
        expected = (
            (weights * (moved + m * (df[:, :, None] + dg[:, None, :]))).sum((1, 2)).reshape(4, 4)
        )
        gradient = slopes(logits.astype(dtype), 0.7, of_matrix(weights), tol)[1][0]
        np.testing.assert_allclose(gradient, expected, atol=1e-8 if dtype == np.float64 else 1e-4)


# ---------------------------------------------------------------- symmetries


@given(
    oracles.squares(4),
    oracles.squares(4, 50),
    st.floats(0.1, 10),
    st.randoms(use_true_random=False),
)
def test_projection_ignores_shifts_and_commutes_with_transposition_and_permutation(
    logits, shifts, epsilon, random
):
    result = project(logits, epsilon)
    rows, cols = random.sample(range(4), 4), random.sample(range(4), 4)
    assert result.converged
    for changed, expected in [
        (logits + shifts[0][:, None] + shifts[1], result.matrix),
        (logits.T, result.matrix.T),
        (logits[rows][:, cols], result.matrix[jnp.array(rows)][:, jnp.array(cols)]),
    ]:
        np.testing.assert_allclose(project(changed, epsilon).matrix, expected, atol=2e-11)


def warm_started(dtype, epsilon):
    """Two hundred projections from zero, and again from the column potentials of the neighbouring
    problem at 1.02 ε.
    """
    logits, epsilon = (
        np.random.default_rng(7).normal(size=(200, 4, 4)).astype(dtype),
        np.asarray(epsilon, dtype),
    )
    expected, neighbour = (
        project_each(logits, epsilon),
        project_each(logits, epsilon * np.asarray(1.02, dtype)),
    )
    return expected, *(
        project_each(logits, epsilon, source.col_potential) for source in (neighbour, expected)
    )


def test_a_warm_start_saves_steps_and_changes_nothing_else():
    expected, near, again = warm_started("float64", 0.3)
    assert (
        near.converged.all()
        and np.median(near.num_steps) < np.median(expected.num_steps)
        and (again.num_steps <= 2).all()
    )
    np.testing.assert_allclose([near.matrix, again.matrix], [expected.matrix] * 2, atol=2e-11)


@pytest.mark.parametrize("epsilon", [0.01, 0.02, 0.05])
def test_a_warm_start_converges_wherever_a_cold_one_does(epsilon, dtype):
    expected, near, _ = warm_started(dtype, epsilon)
    assert expected.converged.all() and near.converged.all()


def test_newton_goes_on_from_a_start_that_is_near():
    cold = hj.sinkhorn(ASYMMETRIC, 0.05, method="newton")
    warm = hj.sinkhorn(ASYMMETRIC, 0.05, init=cold.col_potential, method="newton")
    assert cold.num_steps > 4 >= 2 >= warm.num_steps and warm.converged


def test_a_misleading_start_is_recovered_from(rng):
    starts = np.array([*(1e3 * rng.normal(size=(20, 4))), [0, 0, 0, 5e3]])
    expected = project(ASYMMETRIC, 0.05).matrix
    together = project_each(np.array([ASYMMETRIC] * 21), 0.05, starts)
    newton = [hj.sinkhorn(ASYMMETRIC, 0.05, init=start, method="newton") for start in starts]
    assert together.converged.all() and all(result.converged for result in newton)
    np.testing.assert_allclose(
        [*together.matrix, *(result.matrix for result in newton)], [expected] * 42, atol=2e-11
    )


# ---------------------------------------------------------------- theory.md §1


def test_hot_projections_are_uniform_plus_centred_logits_over_n_epsilon_to_second_order():
    epsilons = np.array([1e2, 2e2, 4e2])
    first_order = 0.25 + np.array(
        [oracles.centring(4) @ ASYMMETRIC @ oracles.centring(4) / (4 * e) for e in epsilons]
    )
    matrices = [project(ASYMMETRIC, e).matrix for e in epsilons]
    left = np.linalg.norm(matrices - first_order, axis=(1, 2))
    np.testing.assert_allclose(left[:-1] / left[1:], 4, rtol=0.05)
    predicted = oracles.sigma2(ASYMMETRIC) / (4 * epsilons)
    np.testing.assert_allclose(oracles.sigma2(np.array(matrices)), predicted, rtol=0.02)


def test_cold_projections_are_the_optimal_assignment_where_it_is_unique(rng):
    logits = rng.normal(size=(10, 16, 16))
    optimal = np.array([np.eye(16)[linear_sum_assignment(s, maximize=True)[1]] for s in logits])
    np.testing.assert_allclose(
        project_all(logits, np.array([1e-5])).matrix[:, 0], optimal, atol=1e-5
    )


P = (3 - np.sqrt(5)) / 2


@pytest.mark.parametrize(
    ("logits", "limit"),
    [
        ([[1, 1, 0], [1, 1, 0], [0, 0, 1]], [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]),
        ([[1, 1, 0], [0, 1, 1], [1, 0, 1]], [[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]]),
        # three assignments are optimal; M₀₀M₁₁ = M₀₁M₁₀ gives (1 − p)(1 − 2p) = p², so p = 1 − 1/φ
        ([[1, 1, 0], [1, 1, 1], [0, 1, 1]], [[1 - P, P, 0], [P, 1 - 2 * P, P], [0, P, 1 - P]]),
    ],
)
def test_cold_projections_are_the_most_entropic_point_of_the_optimal_face_where_it_is_not(
    logits, limit
):
    np.testing.assert_allclose(project(np.array(logits, float), 0.02).matrix, limit, atol=1e-11)


def test_entropy_never_falls_as_epsilon_rises():
    epsilons = np.geomspace(0.03, 30, 25)
    entropies = jax.vmap(jax.vmap(hj.entropy))(project_all(NORMAL, epsilons).matrix)
    assert (np.diff(entropies, axis=1) > 0).all()


def test_sigma2_can_rise_with_epsilon_while_entropy_rises_too():
    """theory.md 1.4: more entropy does not mean smaller σ₂. Logits found by gradient ascent on
    σ₂(1.5) − σ₂(1).
    """
    logits = np.array(
        [
            [2.7, 2.7, 9.3, -14.7],
            [5.2, 3.2, -11.5, 3.1],
            [2.7, -14.7, 9.3, 2.7],
            [-10.6, 8.9, -7.1, 8.8],
        ]
    )
    matrices = [oracles.project(logits, epsilon) for epsilon in (1.0, 1.5)]
    kept, entropies = (
        oracles.sigma2(np.array(matrices)),
        [-oracles.entropy_deficit(m) for m in matrices],
    )
    assert kept[1] > kept[0] + 0.025 and entropies[1] > entropies[0]
    np.testing.assert_allclose(
        [project(logits, epsilon).matrix for epsilon in (1.0, 1.5)], matrices, atol=1e-12
    )
    slope = jax.grad(lambda e: hj.sigma2(hj.sinkhorn(logits, e).matrix))(1.0)
    assert slope == pytest.approx(0.0727, abs=1e-4)


def test_alternation_shrinks_the_error_by_sigma2_squared_a_step():
    logits, epsilon = np.asarray(NORMAL), 0.5
    kept = np.asarray(sigma2(project_each(logits, epsilon, tol=1e-13).matrix))
    second = oracles.singular_values(np.array([project(s, epsilon).matrix for s in logits]))[:, 1]
    clear = (kept > 0.5) & (
        second / kept < 0.85
    )  # so that the leading direction is alone after 30 steps
    assert clear.sum() >= 3
    for s, rate in zip(logits[clear], kept[clear] ** 2, strict=True):
        start = 30 if rate**45 > 1e-9 else 15
        errors = [truncate(s, epsilon, k).row_error for k in (start, start + 5)]
        assert (errors[1] / errors[0]) ** 0.2 == pytest.approx(rate, rel=2e-2)
        steps = [
            hj.sinkhorn(s, epsilon, method="alternating", tol=tol).num_steps
            for tol in (1e-4, 1e-10)
        ]
        assert steps[1] - steps[0] == pytest.approx(np.log(1e-6) / np.log(rate), abs=1.5)


# ---------------------------------------------------------------- derivatives


def random_weights(rng):
    return (
        rng.normal(size=(4, 4)),
        rng.normal(size=4),
        rng.normal(size=4),
        rng.normal(size=(4, 4)) / 10,
    )


SOLVERS = {
    "sinkhorn": {},
    "sinkhorn newton": {"solver": partial(hj.sinkhorn, method="newton")},
    "truncated columns": {"tol": None, "solver": partial(hj.truncated_sinkhorn, num_iters=3)},
    "truncated rows": {
        "tol": None,
        "solver": partial(hj.truncated_sinkhorn, num_iters=3, last="rows"),
    },
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("epsilon", [0.3, 2.0])
def test_derivatives_in_logits_and_epsilon_match_differences(name, epsilon, rng):
    at = partial(slopes, weights=random_weights(rng), **SOLVERS[name])
    direction, (grad_logits, grad_epsilon) = rng.normal(size=(4, 4)), at(ASYMMETRIC, epsilon)[1]
    along = oracles.difference(lambda s: at(s, epsilon)[0][0], ASYMMETRIC, direction)
    assert (grad_logits * direction).sum() == pytest.approx(along, rel=1e-8)
    by_epsilon = oracles.difference(lambda e: at(ASYMMETRIC, e)[0][0], epsilon, 1.0, 1e-4)
    assert grad_epsilon == pytest.approx(by_epsilon, rel=1e-8)


@pytest.mark.parametrize(
    ("epsilon", "gap"), [(50.0, 0.99), (1.0, 0.5), (0.2, 8e-3), (0.0725, 1e-6)]
)
def test_derivatives_keep_eight_digits_from_near_uniform_to_near_permutations(epsilon, gap, rng):
    """Central differences of the projection in many digits; σ₂ from 0.01 to 1 − 1e-6."""
    logits, direction, weights = NORMAL[3], rng.normal(size=(4, 4)), rng.normal(size=(4, 4))
    assert 1 - oracles.sigma2(oracles.project(logits, epsilon)) == pytest.approx(gap, rel=0.3)
    expected = oracles.derivative_of_projection(logits, epsilon, direction)
    by_logits, by_epsilon = slopes(logits, epsilon, of_matrix(weights), tol=1e-15)[1]
    assert (by_logits * direction).sum() == pytest.approx((weights * expected).sum(), rel=1e-8)
    scaling = (weights * oracles.derivative_of_projection(logits, epsilon, -logits / epsilon)).sum()
    assert by_epsilon == pytest.approx(scaling, rel=1e-8)


def test_second_derivatives_match_differences_of_first(rng):
    weights, direction = random_weights(rng), rng.normal(size=(4, 4))
    gradient = jax.grad(lambda s, e: scalar(s, e, weights, 1e-13, hj.sinkhorn)[0], (0, 1))
    (hessian, _), (_, curvature) = jax.jit(jax.jacfwd(gradient, (0, 1)))(ASYMMETRIC, 0.7)
    along = oracles.difference(lambda s: slopes(s, 0.7, weights)[1][0], ASYMMETRIC, direction)
    np.testing.assert_allclose(
        np.tensordot(hessian, direction, 2), along, atol=1e-8 * abs(along).max()
    )
    np.testing.assert_allclose(hessian, hessian.transpose(2, 3, 0, 1), atol=1e-10)
    expected = oracles.difference(lambda e: slopes(ASYMMETRIC, e, weights)[1][1], 0.7, 1.0)
    assert curvature == pytest.approx(expected, rel=1e-8)


def test_implicit_derivative_is_that_of_fully_unrolled_alternation(rng):
    weights, unrolled = (
        of_matrix(rng.normal(size=(4, 4))),
        partial(hj.truncated_sinkhorn, num_iters=400),
    )
    for logits in NORMAL[:3]:
        _, implicit_slopes = slopes(logits, 0.6, weights)
        (_, result), unrolled_slopes = slopes(logits, 0.6, weights, None, unrolled)
        assert max(true_errors(result.matrix)) < 1e-13
        for a, b in zip(implicit_slopes, unrolled_slopes, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)


def test_derivative_of_a_two_by_two_is_that_of_the_logistic_function():
    """M₀₀ = 1/(1 + e^−x), x = (S₀₀ + S₁₁ − S₀₁ − S₁₀)/2ε: exact down to where 1 − σ₂ is ten
    thousand eps.
    """
    corner = of_matrix(np.array([[1.0, 0], [0, 0]]))
    for x in (0.1, 1.0, 5.0, 20.0):
        p = 1 / (1 + np.exp(-x))
        expected = p * (1 - p) / 2 * np.array([[1, -1], [-1, 1]])
        np.testing.assert_allclose(
            slopes(x * np.eye(2), 1.0, corner, hj.numerics.marginal_tolerance(2, "float64"))[1][0],
            expected,
            rtol=1e-4 if x == 20 else 1e-9,
        )


def test_derivatives_at_near_permutations_are_finite_and_vanish_for_the_matrix(dtype, rng):
    weights, logits = (
        rng.normal(size=(16, 16)).astype(dtype),
        rng.normal(size=(16, 16)).astype(dtype),
    )

    zeros, tol = np.zeros((16, 16), dtype), hj.numerics.marginal_tolerance(16, dtype)
    for epsilon in (1e-2, 1e-3, 1e-5):
        for scalar_weights in ((zeros, zeros[0], weights[0], zeros), of_matrix(weights)):
            (_, result), (by_logits, by_epsilon) = slopes(logits, epsilon, scalar_weights, tol)
            assert (
                result.converged and np.isfinite(by_logits).all() and np.isfinite(by_epsilon).all()
            )
    # by now a permutation to the last bit: the matrix has derivative 0, up to rounding over ε
    assert abs(by_logits).max() * epsilon < 1e4 * np.finfo(dtype).eps


def test_sinkhorn_keeps_no_memory_of_its_steps_for_the_derivative():
    def saved(max_steps):
        _, pullback = jax.vjp(
            lambda s: hj.sinkhorn(s, 0.05, max_steps=max_steps).matrix, ASYMMETRIC
        )
        return sum(np.size(leaf) for leaf in jax.tree.leaves(pullback))

    assert saved(3) == saved(1000) < 50 * ASYMMETRIC.size


# ---------------------------------------------------------------- truncated


@pytest.mark.parametrize("last", ["columns", "rows"])
@pytest.mark.parametrize("num_iters", [1, 2, 10, 20])
def test_truncated_sinkhorn_is_the_plain_loop_and_exact_on_its_last_side(num_iters, last, rng):
    for logits in (*TRAINED_LOGITS, *rng.normal(size=(4, 4, 4))):
        result = truncate(logits, 0.05, num_iters, last=last)
        np.testing.assert_allclose(
            result.matrix, oracles.alternate(logits, 0.05, num_iters, last), atol=1e-12
        )
        errors = [result.row_error, result.col_error]
        np.testing.assert_allclose(errors, true_errors(result.matrix), atol=1e-15)
        assert (
            errors[last == "columns"] <= 1e-12 and result.num_steps == num_iters
        )  # last bits of S/ε ~ 100
        assert result.converged == (max(errors) <= hj.numerics.marginal_tolerance(4, "float64"))


def test_truncated_sinkhorn_leaves_an_error_on_its_first_side():
    logits = NORMAL / 0.05
    rows_last, columns_last = (
        np.array([truncate(s, 1.0, 5, last=last)[4:6] for s in logits])
        for last in ("rows", "columns")
    )
    assert np.median(rows_last[:, 1]) > 1e-3 and np.median(columns_last[:, 0]) > 1e-3


def test_truncated_norm_is_at_most_root_one_plus_row_error_and_comes_near_it():
    for n in (2, 4, 16):
        # one row is spread over all columns but the first, where the other rows have nearly all of
        # their weight
        extreme = np.zeros((n, n))
        extreme[:, 0], extreme[0, 1:], extreme[1:, 1:] = 0, -30, -60
        for logits in (extreme, *np.random.default_rng(n).normal(size=(20, n, n)) * 20):
            for num_iters in (1, 5):
                result = truncate(logits, 1.0, num_iters)
                ratio = np.linalg.norm(result.matrix, 2) / np.sqrt(1 + result.row_error)
                assert ratio <= 1 + 1e-12
        assert (
            np.linalg.norm(truncate(extreme, 1.0, 1).matrix, 2)
            > 0.9 * np.sqrt(1 + truncate(extreme, 1.0, 1).row_error)
            > 0.9
        )
    assert truncate(extreme, 1.0, 1).row_error > 13


def test_tolerances_and_counts_that_are_none_are_told():
    assert hj.sinkhorn(np.eye(3), 1.0, tol=np.nan).status == hj.Status.NOT_FINITE
    with pytest.raises(ValueError, match=r"tol must be a scalar, got shape \[2\]"):
        hj.sinkhorn(np.eye(3), 1.0, tol=[1e-3, 1e-3])
    with pytest.raises(
        ValueError, match=r"num_iters must be a whole number of at least 1, got 2.5"
    ):
        hj.truncated_sinkhorn(np.eye(3), 1.0, 2.5)
