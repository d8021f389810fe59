"""Alternation cut off, as models run it."""

import jax
import numpy as np
import pytest

import homojax as hj
import oracles
import trained_oracle

TRAINED = np.array([layer["logits"] for layer in trained_oracle.TRAINED["layers"]])
truncate = jax.jit(hj.truncated_sinkhorn, static_argnums=2, static_argnames="last")


@pytest.mark.parametrize("last", ["columns", "rows"])
@pytest.mark.parametrize("num_iters", [1, 2, 10, 20])
def test_truncated_sinkhorn_is_the_plain_loop_and_exact_on_its_last_side(num_iters, last, rng):
    for logits in (*TRAINED, *rng.normal(size=(4, 4, 4))):
        result = truncate(logits, 0.05, num_iters, last=last)
        plain = oracles.alternate(logits, 0.05, num_iters, last)
        np.testing.assert_allclose(result.matrix, plain, atol=1e-12)
        errors = [result.row_error, result.col_error]
        np.testing.assert_allclose(errors, oracles.marginal_errors(result.matrix), atol=1e-15)
        assert errors[last == "columns"] <= 1e-12  # last bits of S/ε ~ 100
        assert result.num_steps == num_iters
        assert result.converged == (max(errors) <= hj.numerics.marginal_tolerance(4, "float64"))


def test_truncated_sinkhorn_leaves_an_error_on_its_first_side(normal):
    rows_last, columns_last = (
        np.array([truncate(s, 0.05, 10, last=last)[4:6] for s in normal])
        for last in ("rows", "columns")
    )
    assert np.median(rows_last[:, 1]) > 1e-3 and np.median(columns_last[:, 0]) > 1e-3


@pytest.mark.parametrize("n", [2, 4, 16])
def test_truncated_norm_is_at_most_root_one_plus_row_error_and_comes_near_it(n):
    # One row is spread over all columns but the first, where the others have nearly all weight.
    extreme = np.zeros((n, n))
    extreme[:, 0], extreme[0, 1:], extreme[1:, 1:] = 0, -30, -60
    for logits in (extreme, *np.random.default_rng(n).normal(size=(20, n, n)) * 20):
        result = truncate(logits, 1.0, 1)
        assert np.linalg.norm(result.matrix, 2) <= (1 + 1e-12) * np.sqrt(1 + result.row_error)
        five = oracles.alternate(logits, 1.0, 5)
        row_error, _ = oracles.marginal_errors(five)
        assert np.linalg.norm(five, 2) <= (1 + 1e-12) * np.sqrt(1 + row_error)
    result = truncate(extreme, 1.0, 1)
    assert np.linalg.norm(result.matrix, 2) > 0.9 * np.sqrt(1 + result.row_error) > 0.9
    assert result.row_error > n - 2.1


def test_values_without_a_projection_never_raise_and_never_converge():
    logits = np.zeros((4, 4))
    for bad, epsilon in ((np.nan, 1.0), (np.inf, 1.0), (0.0, 0.0), (0.0, -1.0), (0.0, np.nan)):
        logits[1, 2] = bad
        result = truncate(logits, epsilon, 10)
        assert not result.converged and result.status == hj.Status.NOT_FINITE


@pytest.mark.parametrize("axis", [0, 1])
def test_a_row_or_column_without_an_entry_has_no_matrix(axis):
    logits = np.zeros((4, 4))
    logits.swapaxes(0, axis)[2] = -np.inf
    assert truncate(logits, 1.0, 10).status == hj.Status.INFEASIBLE


@pytest.mark.parametrize(
    ("num_iters", "last", "message"),
    [
        (0, "rows", "num_iters must be a whole number of at least 1, got 0"),
        (2.5, "rows", "num_iters must be a whole number of at least 1, got 2.5"),
        (1, "both", "last must be .*'both'"),
    ],
)
def test_counts_and_sides_that_do_not_exist_are_refused(num_iters, last, message):
    with pytest.raises(ValueError, match=message):
        hj.truncated_sinkhorn(np.zeros((2, 2)), 1.0, num_iters, last=last)
