"""What a training logs of its mixing, against NumPy."""

import jax
import numpy as np
import pytest

import homojax as hj
import oracles

measured = jax.jit(hj.mixing_metrics)


def test_metrics_of_a_stack_are_those_of_numpy(rng):
    stack = np.array([oracles.alternate(rng.normal(size=(4, 4)), 0.5, 2) for _ in range(6)])
    product = np.linalg.multi_dot(stack[::-1])
    each = np.array([oracles.sigma2(m) for m in stack])
    expected = {
        "sigma2": each.mean(),
        "sigma2_min": each.min(),
        "spectral_gap": 1 - each.mean(),
        "dist_to_uniform": np.mean([np.linalg.norm(m - 1 / 4) for m in stack]),
        "dist_to_identity": np.mean([np.linalg.norm(m - np.eye(4)) for m in stack]),
        "saturation": np.mean([((m**2).sum() - 1) / 3 for m in stack]),
        "row_error": abs(stack.sum(2) - 1).max(),
        "col_error": abs(stack.sum(1) - 1).max(),
        "composite_sigma2": oracles.sigma2(product),
        "composite_amax_gain_fwd": product.sum(1).max(),
        "composite_amax_gain_bwd": product.sum(0).max(),
    }
    found = measured(stack)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == ()
        np.testing.assert_allclose(found[name], value, atol=1e-12, err_msg=name)


def test_a_matrix_is_a_stack_of_one_and_logits_are_projected(rng):
    logits = rng.normal(size=(4, 4))
    matrix = hj.sinkhorn(logits, 0.7).matrix
    alone, stacked = hj.mixing_metrics(matrix), hj.mixing_metrics(np.asarray(matrix)[None])
    projected = hj.mixing_metrics(logits, epsilon=0.7)
    for name, value in alone.items():
        np.testing.assert_allclose(stacked[name], value, rtol=1e-14, err_msg=name)
        np.testing.assert_allclose(projected[name], value, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("end", ["uniform", "permutation"])
def test_saturation_is_0_at_uniform_and_1_at_permutations(rng, end):
    matrix = hj.uniform(5) if end == "uniform" else np.eye(5)[rng.permutation(5)]
    expected = 0 if end == "uniform" else 1
    assert float(measured(matrix)["saturation"]) == pytest.approx(expected, abs=1e-12)


def test_a_nan_is_not_lost():
    stack = np.stack([np.eye(4), np.full((4, 4), np.nan)])
    assert all(np.isnan(value) for value in measured(stack).values())


def test_what_is_no_stack_is_refused():
    with pytest.raises(ValueError, match="matrices"):
        hj.mixing_metrics(np.ones((2, 3)))
