"""The projection converges where detail survives: cold, heavy-tailed, masked and grouped logits."""

from functools import partial

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

import homojax as hj
import oracles
from homojax.projection import masks
from homojax.projection import sinkhorn as solver


@pytest.mark.parametrize(
    ("n", "dtype"),
    [
        (16, np.dtype("float64")),
        pytest.param(16, np.dtype("float32"), marks=pytest.mark.slow),
        *(pytest.param(64, np.dtype(f), marks=pytest.mark.slow) for f in ("float64", "float32")),
    ],
)
def test_hard_cases_converge_with_true_errors_and_a_matrix_of_the_right_form(
    n, dtype, rng, project_all
):
    draws = rng.normal(size=(6, n, n)), rng.standard_t(3, size=(6, n, n))
    logits, epsilons = np.concatenate(draws).astype(dtype), np.array([0.005, 0.02, 0.1, 1.0], dtype)
    result = project_all(logits, epsilons)
    tol, eps = hj.numerics.marginal_tolerance(n, dtype), np.finfo(dtype).eps
    assert result.converged.all() and (result.num_steps <= 100).all()  # tens of steps
    assert max(result.row_error.max(), result.col_error.max()) <= tol
    reported, true = (result.row_error, result.col_error), oracles.marginal_errors(result.matrix)
    np.testing.assert_allclose(reported, true, atol=n * eps)
    # The matrix is diag(e^f) exp(S/ε) diag(e^g).
    scaled = logits[:, None].astype(float) / epsilons[:, None, None].astype(float)
    f, g = (np.asarray(x, float) for x in (result.row_potential, result.col_potential))
    largest = abs(scaled).max((2, 3), keepdims=True)
    missed = abs(result.log_matrix - scaled - (f[..., None] + g[..., None, :]))
    assert (missed <= 64 * eps * largest).all()
    np.testing.assert_allclose(g.mean(-1) / largest[..., 0, 0], 0, atol=8 * eps)
    np.testing.assert_allclose(result.matrix, np.exp(result.log_matrix), atol=4 * eps)


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        ("auto", "float64"),
        pytest.param("newton", "float64", marks=pytest.mark.slow),
        pytest.param("auto", "float32", marks=pytest.mark.slow),
        pytest.param("newton", "float32", marks=pytest.mark.slow),
    ],
    indirect=["dtype"],
)
def test_a_large_negative_number_forbids_an_entry_as_a_mask_does(method, dtype, rng, project_each):
    logits = rng.normal(size=(6, 16, 16))
    allowed = (rng.uniform(size=logits.shape) < 0.5) | np.eye(16, dtype=bool)[rng.permutation(16)]

    def project(value):
        return project_each(np.where(allowed, logits, value).astype(dtype), 0.05, method=method)

    masked, tol = project(-np.inf), hj.numerics.marginal_tolerance(16, dtype)
    assert masked.converged.all()
    for result in (project(-1e5), project(-1e9)):
        assert result.converged.all()
        np.testing.assert_allclose(result.matrix, masked.matrix, atol=300 * tol)


@pytest.fixture(scope="module")
def sparse():
    """Normal logits [64, 8, 8], masks of four permutations, and a projection of them at ε = 0.05.

    Often a row and a column have only each other, and a free potential.
    """
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(64, 8, 8))
    orders = [[rng.permutation(8) for _ in range(4)] for _ in range(64)]
    allowed = np.eye(8)[orders].sum(1) > 0
    solve = jax.jit(
        jax.vmap(lambda s, most: hj.sinkhorn(s, 0.05, max_steps=most), (0, None)), static_argnums=1
    )
    return lambda value, dtype, most=1_000: solve(
        np.where(allowed, logits, value).astype(dtype), most
    )


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize("value", [-1e5, -1e9, -1e30])
def test_units_with_none_but_each_other_lose_no_digit_to_a_large_negative_number(
    value, dtype, sparse
):
    result, masked = sparse(value, dtype), sparse(-np.inf, dtype)
    assert result.converged.all() and masked.converged.all()
    tol = hj.numerics.marginal_tolerance(8, dtype)
    np.testing.assert_allclose(result.matrix, masked.matrix, atol=100 * tol)


def test_a_matrix_that_lost_the_logits_beside_a_large_number_is_not_said_to_have_converged(
    monkeypatch, sparse
):
    """Without what keeps the test above: sums are 1, and the rest is rounding."""

    def keep_stand_ins(logits, epsilon):
        feasible, supported, _ = masks.drop_unused(logits, epsilon)
        return feasible, supported, supported

    monkeypatch.setattr(solver, "drop_unused", keep_stand_ins)
    result, masked = (sparse(x, np.float32, 999) for x in (-1e9, -np.inf))  # programs of its own
    wrong = np.asarray(abs(result.matrix - masked.matrix).max((1, 2))) > 0.01
    assert masked.converged.all() and 0 < wrong.sum() < 8
    assert (result.status[wrong] == hj.Status.STALLED).all() and result.converged[~wrong].all()


def test_logits_as_far_apart_as_numbers_can_be_come_to_an_end():
    logits = np.array([[2e38, 1e38], [1e38, -2e38]], np.float32)
    result = hj.sinkhorn(logits, 1.0)
    assert not result.converged or np.array_equal(result.matrix, np.eye(2)[::-1])


def stubborn_logits(name):
    """[B, n, n]: they converge to near-permutations, 1 − σ₂ from 1e-9 down to nothing."""
    if name == "one entry of a two by two":
        return np.linspace(40, 80, 400)[:, None, None] * np.array([[1, 0], [0, 0]])
    return np.clip(np.random.default_rng(5).standard_cauchy((400, 4, 4)), -1e4, 1e4) * 10


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("heavy tails", "auto"),
        pytest.param("heavy tails", "newton", marks=pytest.mark.slow),
        pytest.param("one entry of a two by two", "auto", marks=pytest.mark.slow),
        pytest.param("one entry of a two by two", "newton", marks=pytest.mark.slow),
    ],
)
def test_near_permutations_converge_from_a_cold_start(name, method, project_each):
    result = project_each(stubborn_logits(name), 1.0, method=method)
    assert result.converged.all() and result.num_steps.max() <= 100


def digit_logits(n, count):
    """[count, n, n]: scaled dot products of digits, in groups with links down to e^−60 between."""
    pixels = load_digits().data
    pixels = (pixels - pixels.mean(0)) / (pixels - pixels.mean(0)).std()
    rng = np.random.default_rng(n)
    chosen = pixels[np.stack([rng.choice(len(pixels), n, replace=False) for _ in range(count)])]
    return chosen @ chosen.swapaxes(1, 2) / 8


@pytest.mark.slow
def test_groups_with_links_of_every_strength_converge(project_all):
    """Where conjugate gradients end after n steps, or keep rounding for a descent, some stall."""
    result = project_all(digit_logits(64, 24), np.geomspace(0.02, 1, 8))
    assert result.converged.all() and result.num_steps.max() <= 100


@pytest.mark.slow
def test_alternations_that_end_just_within_the_tolerance_are_gone_on_from(normal):
    """The error that the iteration sees and that of the matrix differ by rounding."""
    alternate = partial(hj.sinkhorn, tol=0.0, max_steps=64, method="alternating")
    logits, epsilon = normal.astype(np.float32), np.geomspace(0.05, 0.6, 60).astype(np.float32)
    stopped = jax.jit(jax.vmap(jax.vmap(alternate, (None, 0)), (0, None)))(logits, epsilon)
    error = np.maximum(stopped.row_error, stopped.col_error)
    i, j = np.nonzero((error > 1e-6) & (error < 1e-3))
    assert len(i) > 40
    to_tolerance = jax.jit(jax.vmap(lambda s, e, tol: hj.sinkhorn(s, e, tol=tol)))
    for above in (-1e-7, 0, 1e-7):
        tol = error[i, j] * np.float32(1 + above)
        assert to_tolerance(logits[i], epsilon[j], tol).converged.all()
