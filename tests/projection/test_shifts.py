"""Constants on rows and columns change no projection, however large they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles

slow = pytest.mark.slow


def shifted(rng, lanes):
    """Whole numbers, which float32 holds exactly, and with shifts up to 10⁶."""
    rest = rng.integers(-3, 4, size=(lanes, 4, 4)).astype(float)
    rows, cols = rng.integers(-(10**6), 10**6, size=(2, lanes, 4)).astype(float)
    return rest, rest + rows[:, :, None] + cols[:, None, :]


@pytest.mark.parametrize(
    "method",
    ["auto", "balance", *(pytest.param(x, marks=slow) for x in ("newton", "alternating"))],
)
def test_entries_do_not_see_shifts_in_float32(method, rng):
    rest, logits = shifted(rng, 64)

    def project(logits):
        if method == "balance":
            result = hj.balance(logits)
            return jnp.exp(result.log_matrix), result.converged
        result = hj.sinkhorn(logits, 1.0, method=method)
        return result.matrix, result.converged

    matrices, converged = jax.jit(jax.vmap(project))(logits.astype("float32"))
    exact = np.array([oracles.project(x, 1.0) for x in rest])
    assert converged.all() and abs(matrices - exact).max() < 1e-5


def test_potentials_are_of_the_logits_that_were_given(rng):
    _, logits = shifted(rng, 1)
    result = hj.sinkhorn(logits[0], 2.0)
    f, g = result.row_potential, result.col_potential
    np.testing.assert_allclose(
        logits[0] / 2 + f[:, None] + g[None, :], result.log_matrix, atol=1e-9
    )
    warm = hj.sinkhorn(logits[0], 2.0, init=g)
    assert warm.num_steps < result.num_steps and abs(warm.matrix - result.matrix).max() < 1e-12


def test_derivatives_are_those_without_shifts(rng):
    rest, logits = shifted(rng, 1)

    def corner(logits, epsilon):
        return hj.sinkhorn(logits, epsilon).matrix[0, 1]

    slopes = jax.jit(jax.grad(corner, (0, 1)))
    for shifted_slope, slope in zip(slopes(logits[0], 0.7), slopes(rest[0], 0.7), strict=True):
        np.testing.assert_allclose(shifted_slope, slope, rtol=1e-7, atol=1e-12)


def test_ordinary_logits_are_left_as_they_are_and_masks_stay(rng):
    logits = rng.normal(size=(4, 4))
    kept, rows, cols = hj.projection.shifts.take_out_shifts(jnp.asarray(logits))
    np.testing.assert_array_equal(kept, logits)
    assert not rows.any() and not cols.any()
    masked = np.where(np.eye(4, k=1, dtype=bool), -np.inf, logits)
    shifts = 1e9 * np.arange(4.0)
    result, plain = hj.sinkhorn(masked + shifts, 1.0), hj.sinkhorn(masked, 1.0)
    assert result.converged and abs(result.matrix - plain.matrix).max() < 1e-6
    np.testing.assert_array_equal(result.matrix == 0, plain.matrix == 0)
