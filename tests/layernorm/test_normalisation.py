"""Layer and RMS norm as practised, and the bound on the detail that they leave of mixed tokens."""

import jax
import numpy as np
import pytest

import oracles
from homojax import layernorm

normalise = jax.jit(layernorm.normalise, static_argnames=("axis", "kind"))
token_bound = jax.jit(layernorm.token_detail_bound, static_argnames="kind")


def reference(x, axis, kind, eps=0.0):
    """As torch.nn.LayerNorm and RMSNorm without parameters have it."""
    x = x - x.mean(axis, keepdims=True) if kind == "layer" else x
    return x / np.sqrt((x**2).mean(axis, keepdims=True) + eps)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize(("axis", "index"), [("units", 0), ("features", 1)])
def test_normalise_is_layer_or_rms_norm_along_its_axis(axis, index, kind, rng, dtype):
    x = rng.normal(size=(5, 3)).astype(dtype) + 2
    gain, shift = rng.normal(size=(2, x.shape[index])).astype(dtype)
    out = normalise(x, axis=axis, kind=kind)
    assert out.dtype == dtype
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(out, reference(x, index, kind), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(np.sqrt((out**2).sum(index)), np.sqrt(x.shape[index]), rtol=1e-6)
    along = (slice(None), None) if index == 0 else (None, slice(None))
    expected = reference(x, index, kind, 0.1) * gain[along] + shift[along]
    out = normalise(x, axis=axis, kind=kind, gain=gain, shift=shift, eps=0.1)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    vector = x[:, 0] if index == 0 else x[0]
    one = normalise(vector, axis=axis, kind=kind, gain=2.0, shift=1.0)
    expected = np.take(2 * reference(x, index, kind) + 1, 0, 1 - index)
    np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-5)


def test_normalise_has_nothing_to_say_of_a_row_without_detail():
    x = np.array([[2.0, 2.0], [0.0, 0.0], [1.0, 3.0]])
    np.testing.assert_array_equal(normalise(x), [[np.nan] * 2, [np.nan] * 2, [-1, 1]])
    np.testing.assert_array_equal(normalise(x, kind="rms")[:2], [[1, 1], [np.nan] * 2])
    np.testing.assert_array_equal(normalise(x, eps=1.0)[:2], 0)
    slope = jax.jit(jax.grad(lambda x: normalise(x, eps=1e-5)[2, 0]))
    assert np.isfinite(slope(x)).all()


@pytest.mark.parametrize(
    "wrong", [{"axis": "rows"}, {"kind": "batch"}, {"x": np.ones((2, 2, 2))}, {"x": 1.0}]
)
def test_normalise_refuses_what_it_does_not_know(wrong):
    with pytest.raises(ValueError, match="must"):
        normalise(**{"x": np.ones((2, 2)), **wrong})


@pytest.mark.parametrize("size", [1e-25, 1e20])
def test_normalise_has_the_range_of_its_numbers(size):
    x = np.array([1.0, -1.0, 0.0], "float32")
    scaled = np.float32(size) * x
    np.testing.assert_allclose(normalise(scaled), 1.5**0.5 * x, rtol=1e-6)
    smoothed = np.float64(size) * x / np.sqrt(2 / 3 * np.float64(size) ** 2 + 1e-5)
    np.testing.assert_allclose(normalise(scaled, eps=1e-5), smoothed, rtol=1e-5)


# ---------------------------------------------------------------- tokens


def mixed_share(tokens, matrix, kind, gain=None, shift=None):
    out = reference(matrix @ tokens, 1, kind)
    out = out * (1 if gain is None else gain) + (0 if shift is None else shift)
    return np.linalg.norm(out - out.mean(0)) / np.sqrt(out.size)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_detail_of_normalised_tokens_is_within_its_bound_whatever_the_matrix(kind, rng):
    for matrix in oracles.birkhoff_family(rng, 5, 4):
        tokens = rng.normal(size=(5, 8)) * rng.choice([0.05, 1.0, 5.0]) + 2 * rng.normal(size=8)
        gain, shift = rng.normal(size=(2, 8))
        sigma2 = oracles.sigma2(matrix) + 1e-12
        assert mixed_share(tokens, matrix, kind) <= token_bound(tokens, sigma2, kind=kind)
        bound = token_bound(tokens, sigma2, kind=kind, gain=gain)
        assert mixed_share(tokens, matrix, kind, gain, shift) <= bound


@pytest.mark.parametrize("n", [3, 100])
def test_a_token_that_all_but_cancels_the_mean_comes_near_the_bound(n, rng):
    """One token just beyond zero, the others alike: 1 − 1/n of 2σ₂‖PX‖_F/(√n‖m‖)."""
    mean = rng.normal(size=6)
    pattern = np.where(np.arange(n) == 0, -1 - 1e-9, (1 + 1e-9) / (n - 1))
    matrix = oracles.lazy_permutation(rng, n, 0.4)
    tokens = mean + np.outer(pattern, mean) / 0.4
    share = mixed_share(tokens, matrix, "rms") / token_bound(tokens, 0.4, kind="rms")
    assert share == pytest.approx(1 - 1 / n, rel=1e-6)


def test_the_bound_of_tokens_without_a_mean_is_none():
    tokens = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert np.isposinf(token_bound(tokens, 0.5, kind="rms"))
    assert token_bound(tokens + 1, 0.0, kind="rms") == 0
