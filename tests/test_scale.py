"""Scale comes out first: no size of the inputs costs a digit."""

import jax
import numpy as np
import pytest

import homojax as hj
import oracles
from public_functions import KEY

# name -> (function, degree: a factor 2ᵏ on every input is one of 2^(degree · k) on every output)
HOMOGENEOUS = {
    "sigma2": (hj.sigma2, 1),
    "lambda2": (hj.lambda2, 1),
    "detail_singular_values": (hj.detail_singular_values, 1),
    "frobenius_bounds": (hj.bounds.frobenius_bounds, 1),
    "schatten_bounds": (lambda m: hj.bounds.schatten_bounds(m, 3), 1),
    "amax_gain": (hj.depth.amax_gain, 1),
    "logit_spread": (hj.birkhoff.logit_spread, 1),
    "projective_diameter": (hj.birkhoff.projective_diameter, 1),
    "hilbert_bound": (lambda m: hj.bounds.hilbert_bound(m, abs(m[0, 0])), 0),
    "sinkhorn": (lambda m: hj.sinkhorn(m, abs(m[0]).max()).matrix, 0),
    "truncated_sinkhorn": (lambda m: hj.truncated_sinkhorn(m, abs(m[0]).max(), 3).matrix, 0),
    "transient_gain": (lambda m: hj.depth.transient_gain(m, 3)[1:], 0),
    "turn_angle": (lambda m: hj.residual.turn_angle(m[0], m[1]), 0),
    "signal_to_noise": (lambda m: hj.layernorm.signal_to_noise(m[0], abs(m[0, 0])), 0),
    "sample_cosine": (
        lambda m: hj.layernorm.sample_cosine(KEY, m[0], noise_std=abs(m[0, 0]), num_samples=3),
        0,
    ),
    "normalise": (hj.layernorm.normalise, 0),
    "token_detail_bound": (lambda m: hj.layernorm.token_detail_bound(m, 0.5, kind="rms"), 0),
}
WIDE = ("sigma2", "hilbert_bound", "truncated_sinkhorn", "normalise")  # fast in float64, too


def is_fast(name, dtype):
    return name not in ("transient_gain", "lambda2") and (dtype == "float32" or name in WIDE)


@jax.jit
def measures(kept):
    """(σ₂, λ₂), the lower and upper bounds of two kinds, and the Hessian of σ₂."""
    bounds = hj.bounds.frobenius_bounds(kept), hj.bounds.schatten_bounds(kept, 4)
    return (hj.sigma2(kept), hj.lambda2(kept)), bounds, jax.hessian(hj.sigma2)(kept)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if is_fast(name, dtype) else pytest.mark.slow)
        for name in HOMOGENEOUS
        for dtype in ("float64", "float32")
    ],
    indirect=["dtype"],
)
def test_a_power_of_two_on_every_input_changes_no_digit(name, dtype, rng):
    """1,000 matrices, from 2^±80 in float32 and 2^±600 in float64."""
    function, degree = HOMOGENEOUS[name]
    program = jax.jit(jax.vmap(function))
    matrices = rng.normal(size=(1_000, 4, 4)).astype(dtype)
    expected = jax.tree.leaves(program(matrices))
    within = 10 * float(np.finfo(dtype).eps) ** 0.75 if "sinkhorn" in name else 1e-5
    within = within if dtype == np.float32 or "sinkhorn" in name else 1e-12
    for power in (-1, 1):
        exponent = power * (80 if dtype == np.float32 else 600)
        found = jax.tree.leaves(program(np.ldexp(matrices, exponent)))
        for value, other in zip(found, expected, strict=True):
            back = np.ldexp(np.asarray(value), -degree * exponent)
            np.testing.assert_allclose(back, other, rtol=within, atol=within)


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize("depth", [40, 60])
def test_what_a_deep_stack_keeps_has_its_bounds_and_its_derivatives(depth, dtype):
    """One M in all layers: λ₂ of the composite is λ₂(M)ᴸ, far below the rounding of its entries."""
    matrix = oracles.alternate(np.random.default_rng(3).normal(size=(4, 4)), 1.0, 200)
    kept = np.asarray(hj.depth.detail_composite(np.array([matrix] * depth, dtype)))[-1]
    centring = oracles.centring(4)
    eigenvalue = abs(np.linalg.eigvals(centring @ matrix @ centring)).max()
    (sigma2, lambda2), bounds, hessian = jax.tree.map(np.asarray, measures(kept))
    assert np.log(lambda2) == pytest.approx(depth * np.log(eigenvalue), rel=1e-5)
    assert lambda2 <= sigma2 * (1 + 1e-5)
    for lower, upper in bounds:
        assert 0 < lower <= sigma2 * (1 + 1e-5) and sigma2 <= upper * (1 + 1e-5)
    curvature = hessian * sigma2
    np.testing.assert_allclose(curvature, measures(kept / sigma2)[2], rtol=1e-3, atol=1e-3)
    assert np.isfinite(curvature).all()
