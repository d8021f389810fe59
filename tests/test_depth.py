"""Stacks: products, effective and measured depths, Lyapunov exponents, transients and gains."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import homojax as hj
import oracles
from homojax.depth import lyapunov_spectrum, transient_gain

RNG = np.random.default_rng(11)
STACKS = np.array([[oracles.permutation_mixture(RNG, 5, 4) for _ in range(8)] for _ in range(10)])
SIDES = ("columns", "rows") * 4  # rows let the mean into detail, columns detail into the mean
TRUNCATED = np.array(
    [
        [oracles.alternate(RNG.normal(size=(5, 5)), 0.05, 2, side) for side in SIDES]
        for _ in range(10)
    ]
)
TWO = np.array([[0.75, 0.25], [0.25, 0.75]])  # σ₂ = ½ exactly
composites = jax.jit(jax.vmap(hj.composite))
detail_composite = jax.jit(hj.depth.detail_composite)
detail_composites = jax.jit(jax.vmap(hj.depth.detail_composite))
transient = jax.jit(transient_gain, static_argnums=1)
exponents_of = jax.jit(hj.lyapunov_exponents)
spectrum_of = jax.jit(lyapunov_spectrum, static_argnames="num_blocks")
effective = jax.jit(hj.effective_depth)
slope = jax.jit(jax.grad(hj.effective_depth))
measured = jax.jit(hj.depth.measured_depth)
amax_gain = jax.jit(hj.depth.amax_gain)
amax_gains = jax.jit(jax.vmap(hj.depth.amax_gain))


def running_products(stack):
    return np.array(
        [np.linalg.multi_dot([np.eye(5), *stack[: depth + 1][::-1]]) for depth in range(len(stack))]
    )


def test_composite_puts_later_layers_on_the_left():
    for stacks in (STACKS, TRUNCATED):
        expected = [running_products(stack) for stack in stacks]
        np.testing.assert_allclose(composites(stacks), expected, atol=1e-13)


def test_composites_of_doubly_stochastic_layers_are_doubly_stochastic():
    products = np.asarray(composites(STACKS))
    np.testing.assert_allclose([products.sum(2), products.sum(3)], 1, atol=1e-14)


@pytest.mark.parametrize("stacks", [STACKS, TRUNCATED], ids=["doubly stochastic", "truncated"])
def test_detail_composite_is_the_centred_product_whatever_leaks_through_the_mean(stacks):
    p = oracles.centring(5)
    expected = np.array([p @ running_products(stack) @ p for stack in stacks])
    np.testing.assert_allclose(detail_composites(stacks), expected, atol=1e-13)
    if (
        stacks is TRUNCATED
    ):  # the leak is not negligible here: the product of the blocks alone is something else
        blocks = np.array([p @ np.linalg.multi_dot(p @ stack[::-1] @ p) @ p for stack in stacks])
        assert abs(blocks - expected[:, -1]).max() > 1e-3


def test_detail_composite_keeps_relative_accuracy_far_below_eps():
    halves = np.asarray(detail_composite(np.array([TWO] * 1000)))
    np.testing.assert_array_equal(halves[:, 0, 0], 0.5 ** np.arange(2, 1002))


@functools.cache
def deep_composite():
    """σ₂ of 400 running products, and the same from their detail blocks, which cannot leak."""
    logits = np.random.default_rng(0).normal(size=(400, 4, 4))
    stack = np.array([oracles.alternate(s, 1.0, 300) for s in logits])
    p, block, expected = oracles.centring(4), oracles.centring(4), []
    for m in stack:
        block = p @ m @ p @ block
        expected.append(np.linalg.norm(block, 2))
    return oracles.sigma2(np.asarray(detail_composite(stack))), np.array(expected)


def test_detail_composite_keeps_digits_that_the_product_minus_uniform_has_lost():
    kept, expected = deep_composite()
    below_eps = (expected < 1e-17) & (expected > 1e-20)
    assert below_eps.any()
    np.testing.assert_allclose(kept[below_eps], expected[below_eps], rtol=1e-8)


def test_detail_composite_keeps_its_relative_accuracy_down_to_the_product_of_the_marginal_errors():
    kept, expected = deep_composite()
    above = expected > 1e-22
    assert expected[-1] < 1e-200 and above.sum() > 20
    np.testing.assert_allclose(kept[above], expected[above], rtol=1e-8)
    assert kept[~above].max() < 1e-21 and kept[-1] < 1e-30


@pytest.mark.parametrize("retention", [-1.0, 0.0, 1.0, 2.0, np.nan])
def test_measured_depth_is_nan_for_a_retention_outside_0_and_1(retention):
    assert np.isnan(measured(np.array([0.5, 0.25]), retention=retention))


def test_composite_sigma2_is_at_most_the_product_and_equal_for_powers_of_a_symmetric_matrix():
    kept = oracles.sigma2(np.asarray(detail_composites(STACKS)))
    bound = np.cumprod(oracles.sigma2(STACKS), axis=1)
    assert (kept <= bound + 1e-14).all() and (kept[:, -1] < 0.9 * bound[:, -1]).any()
    symmetric = oracles.symmetric_psd(np.random.default_rng(1), 5)
    powers = oracles.sigma2(np.asarray(detail_composite(np.array([symmetric] * 6))))
    np.testing.assert_allclose(powers, oracles.sigma2(symmetric) ** np.arange(1, 7), rtol=1e-12)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_effective_depth_layers_of_sigma2_keep_the_retention(sigma2, retention):
    assert sigma2 ** float(effective(sigma2, retention=retention)) == pytest.approx(
        retention, rel=1e-12
    )


@pytest.mark.parametrize(
    ("sigma2", "retention", "depth"),
    [
        (1.0, 0.5, np.inf),
        (1.1, 0.5, np.inf),
        (0.0, 0.5, 0.0),
        (-0.1, 0.5, np.nan),
        (np.nan, 0.5, np.nan),
        (0.5, 0.0, np.nan),
        (0.5, 1.0, np.nan),
        (1.0, 1.5, np.nan),
        (0.0, np.nan, np.nan),
    ],
)
def test_effective_depth_at_its_edges(sigma2, retention, depth):
    np.testing.assert_array_equal(effective(sigma2, retention=retention), depth)


@pytest.mark.parametrize("log_gap", [-200, -60, -20, -3, -0.8])
def test_effective_depth_from_the_gap_has_the_digits_that_sigma2_has_lost(log_gap, dtype):
    with oracles.mp.workdps(120):
        gap = oracles.mp.exp(max(log_gap, -80) if dtype == np.float32 else log_gap)
        expected = float(oracles.mp.log(0.5) / oracles.mp.log(1 - gap))
    depth = effective(dtype.type(float(1 - gap)), retention=0.5, gap=dtype.type(float(gap)))
    assert depth.dtype == dtype and depth == pytest.approx(
        expected, rel=float(8 * np.finfo(dtype).eps)
    )


@pytest.mark.parametrize(
    ("sigma2", "gap", "depth"),
    [
        (1.0, 0.0, np.inf),
        (1.1, -0.1, np.inf),
        (1.0, np.nan, np.nan),
        (np.nan, 0.9, np.nan),
        (0.0, 1.0, 0.0),
        (1e-30, 1.0, np.log(0.5) / np.log(1e-30)),
    ],
)
def test_effective_depth_from_the_gap_at_its_edges(sigma2, gap, depth):
    np.testing.assert_allclose(effective(sigma2, retention=0.5, gap=gap), depth, rtol=1e-14)
    assert np.isfinite(slope(sigma2, retention=0.5, gap=gap)) or np.isnan(depth)


@pytest.mark.parametrize(
    ("curve", "retention", "depth"),
    [
        ([0.5, 0.25, 0.125], 0.25, 2.0),
        ([0.5, 0.25, 0.125], 0.5**1.5, 1.5),
        ([0.5, 0.25, 0.125], 0.8, np.log(0.8) / np.log(0.5)),  # depth 0 counts as 1
        ([0.5, 0.25, 0.125], 0.1, np.inf),
        ([0.9, 0.1, 0.9, 0.05], 0.3, 1 + np.log(3) / np.log(9)),  # the first fall counts
        ([0.9, 0.0], 0.5, 2.0),
        ([0.9, np.nan], 0.95, np.nan),
    ],
)
def test_measured_depth_is_where_the_curve_first_falls_to_the_retention(curve, retention, depth):
    np.testing.assert_allclose(measured(np.array(curve), retention=retention), depth, rtol=1e-12)


def test_measured_depth_of_a_shared_symmetric_layer_is_its_effective_depth():
    curve = 0.83 ** np.arange(1, 20)
    assert measured(curve, retention=0.1) == pytest.approx(
        float(hj.effective_depth(0.83, retention=0.1)), rel=1e-12
    )


def test_no_measured_depth_lies_beyond_that_of_the_product_bound():
    """Also where the first layer forgets most, and a mean over all layers would be smaller."""
    shares = np.linspace(0.02, 0.98, 25)
    for stack in STACKS:
        stack = [oracles.round_to_birkhoff(np.full((len(m), len(m)), 0.0) + m) for m in stack]
        sigma2 = np.array([oracles.sigma2(m) for m in stack])
        kept = oracles.sigma2(np.asarray(detail_composite(np.array(stack))))
        for share in shares:
            bound = float(hj.depth.product_depth(sigma2, retention=share))
            found = float(measured(kept, retention=share))
            assert found <= bound + 1e-9 or (np.isinf(found) and bound >= len(stack) - 1e-9)


def test_product_depth_is_the_effective_depth_of_like_layers_within_a_stack_and_beyond():
    for share in (0.9, 0.3, 1e-3):
        expected = np.log(share) / np.log(0.8)
        found = hj.depth.product_depth(np.full(5, 0.8), retention=share)
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_lyapunov_exponents_are_log_eigenvalues_of_a_shared_matrix():
    matrix = hj.birkhoff.lazy_cycle(5, 0.6)
    eigenvalues = 0.6 + 0.4 * np.cos(2 * np.pi * np.array([1, 1, 2, 2]) / 5)
    exponents = exponents_of(np.array([matrix] * 3000))
    np.testing.assert_allclose(exponents, np.log(eigenvalues), atol=2e-3)


def test_first_lyapunov_exponent_is_at_most_the_mean_log_sigma2_at_every_depth():
    for stacks in (STACKS, TRUNCATED[:, :1]):
        for length in {1, stacks.shape[1]}:
            first = jax.jit(jax.vmap(hj.lyapunov_exponents))(stacks[:, :length])[:, 0]
            assert (first <= np.log(oracles.sigma2(stacks[:, :length])).mean(1) + 1e-13).all()


def test_lyapunov_exponents_agree_with_another_frame_when_long_and_sum_to_the_log_volume_always(
    rng,
):
    stack = np.array([oracles.alternate(m, 1.0, 100) for m in rng.normal(size=(4000, 4, 4))])
    exponents = exponents_of(stack)
    np.testing.assert_allclose(exponents, oracles.lyapunov(stack), atol=3e-3)
    volume = np.log(oracles.singular_values(stack)).sum(1).mean()
    assert exponents.sum() == pytest.approx(volume, rel=1e-9)
    assert (np.diff(exponents) < 0).all() and exponents[0] < np.log(oracles.sigma2(stack)).mean()


def test_lyapunov_exponents_are_minus_infinity_where_detail_is_lost():
    assert np.isneginf(exponents_of(np.array([TWO, np.full((2, 2), 0.5), TWO, TWO]))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_lyapunov_exponents_are_nan_where_a_layer_is_not_finite(bad):
    stack = STACKS[0].copy()
    stack[3, 1, 2] = bad
    assert np.isnan(exponents_of(stack)).all()


# ---------------------------------------------------------------- standard errors of exponents


def test_standard_errors_are_those_of_block_means_and_go_with_their_exponents(rng):
    """A circulant of 3 units scales the plane of detail, so both growths are log |ĉ|."""
    weights = rng.dirichlet(np.ones(3), 83)
    stack = weights[:, np.subtract.outer(range(3), range(3)) % 3]
    exponents, errors = spectrum_of(stack)
    growth = np.log(abs(np.fft.fft(weights)[:, 1]))
    np.testing.assert_allclose(exponents, growth.mean(), rtol=1e-12)
    np.testing.assert_allclose(
        errors, growth[3:].reshape(8, 10).mean(1).std(ddof=1) / 8**0.5, rtol=1e-12
    )


def test_exponents_with_errors_are_the_exponents(rng):
    stack = np.array([oracles.alternate(m, 0.5, 200) for m in rng.normal(size=(60, 4, 4))])
    exponents, errors = spectrum_of(stack, num_blocks=6)
    np.testing.assert_array_equal(exponents, exponents_of(stack))
    assert (np.asarray(errors) > 0).all()


def test_the_exponent_of_independent_two_by_twos_is_within_its_error_as_often_as_student_says():
    """|2p − 1| uniform on [0, 1]: the exponent is −1 and its variance 1/L."""
    seeds, layers = 4000, 256
    p = np.random.default_rng(8).uniform(size=(seeds, layers))
    stacks = np.stack([np.stack([p, 1 - p], -1), np.stack([1 - p, p], -1)], -2)
    exponents, errors = jax.jit(jax.vmap(lyapunov_spectrum))(stacks)
    assert np.mean(np.square(errors)) * layers == pytest.approx(1, rel=0.05)
    for quantile, share in [
        (1.0, 0.6494),
        (2.3646, 0.95),
    ]:  # of Student's t with 7 degrees of freedom
        covered = (abs(exponents + 1) <= quantile * errors).mean()
        assert abs(covered - share) < 4 * (share * (1 - share) / seeds) ** 0.5 + 0.005


def test_exponents_of_a_shared_matrix_are_certain_of_the_log_eigenvalues():
    matrix = oracles.symmetric_psd(np.random.default_rng(3), 5)
    eigenvalues = np.sort(np.linalg.eigvalsh(matrix))[-2::-1]
    exponents, errors = spectrum_of(np.array([matrix] * 2000))
    np.testing.assert_allclose(exponents, np.log(eigenvalues), atol=3e-3)
    assert np.max(errors) < 3e-3


def test_errors_are_nan_beside_minus_infinity_and_refused_of_fewer_layers_than_blocks():
    exponents, errors = spectrum_of(np.array([TWO, np.full((2, 2), 0.5), TWO, TWO]), num_blocks=2)
    assert np.isneginf(exponents).all() and np.isnan(errors).all()
    for num_blocks in (1, 9):
        with pytest.raises(ValueError, match="num_blocks"):
            lyapunov_spectrum(STACKS[0], num_blocks=num_blocks)


# ---------------------------------------------------------------- transients


@pytest.mark.parametrize(
    "dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)], indirect=True
)
def test_the_transient_of_a_shared_normal_layer_is_one(dtype, rng):
    for matrix in (
        oracles.symmetric_psd(rng, 8),
        rng.dirichlet(np.ones(8))[np.subtract.outer(range(8), range(8)) % 8],
    ):
        gain = transient(matrix.astype(dtype), 40)
        assert gain.dtype == dtype
        np.testing.assert_allclose(gain, 1, atol=2e-3 if dtype == np.float32 else 1e-11)


def test_the_transient_is_the_ratio_of_powers_far_below_what_a_float_can_hold():
    """Entries near J, so that 2000 layers leave about 1e-2693 of the detail."""
    matrix = 1 / 3 + 0.05 * (np.array([[0.4, -0.1, -0.3], [0.2, 0.1, -0.3], [-0.6, 0.0, 0.6]]))
    with oracles.mp.workdps(60):
        a = oracles.mp.matrix(oracles.centring(3) @ matrix @ oracles.centring(3))
        rate = max(abs(x) for x in oracles.mp.eig(a, left=False, right=False))
        depths = (1, 2, 3, 10, 500, 2000)
        expected = [
            float(max(oracles.mp.svd_r(a**depth, compute_uv=False)) / rate**depth)
            for depth in depths
        ]
        assert rate ** depths[-1] < oracles.mp.mpf("1e-2600")
    gain = np.asarray(transient(matrix, 2000))
    assert expected[-1] > 1.001
    np.testing.assert_allclose(gain[np.array(depths) - 1], expected, rtol=1e-9)


def test_the_transient_is_long_near_a_de_bruijn_walk(rng):
    """The walk forgets nothing for two layers; with a tenth of it stopped, λ₂ = 0.1."""
    walk = 0.9 * np.asarray(hj.birkhoff.de_bruijn(3)) + 0.1 * np.eye(8)
    gain = np.asarray(transient(walk, 40))
    power = [oracles.sigma2(np.linalg.matrix_power(walk, depth)) for depth in (1, 2)]
    assert power[1] > 0.8 and gain.max() > 100
    np.testing.assert_allclose(
        gain[:2], power / np.array([0.1, 0.01]), rtol=1e-3
    )  # λ₂ is defective: right to about eps^(1/3)
    ordinary = oracles.permutation_mixture(rng, 8, 6)
    assert 1 < transient(ordinary, 40).max() < 10


def test_a_transient_is_refused_for_no_layers_and_nan_where_nothing_is_kept():
    with pytest.raises(ValueError, match="depth"):
        transient_gain(TWO, 0)
    assert np.isnan(transient(np.full((8, 8), 1 / 8), 40)).all()
    assert np.isnan(transient(np.full((8, 8), np.nan), 40)).all()


def test_amax_gain_is_rows_forward_and_columns_backward(rng):
    m = rng.normal(size=(5, 5))
    assert np.allclose(amax_gain(m), (abs(m).sum(1).max(), abs(m).sum(0).max()), rtol=1e-14)
    assert amax_gain(np.outer([1, 0], [1, 1])) == (2, 1)


def test_amax_gain_is_blind_to_collapse_and_sees_lost_feasibility():
    gains = np.array(amax_gains(np.asarray(composites(STACKS))[:, -1]))
    np.testing.assert_allclose(gains, 1, atol=1e-13)
    assert oracles.sigma2(running_products(STACKS[0])[-1]) < 0.3
    assert np.array(amax_gains(TRUNCATED[:, 0])).max() > 1.01


def test_suppression_ratios_are_the_energies_of_singular_directions(rng):
    composite = running_products(STACKS[0])[-1]
    _, _, directions = np.linalg.svd(composite - 0.2)
    kept = np.array([np.linalg.norm(composite @ x) ** 2 for x in directions[:-1]])
    np.testing.assert_allclose(hj.depth.suppression_ratios(composite), kept, atol=1e-14)


def test_composite_doeblin_bound_holds_and_is_attained_by_two_by_twos(rng):
    dense = 0.5 * STACKS + 0.1
    bound = jax.vmap(hj.depth.composite_doeblin_bound)(dense)
    distance = np.linalg.norm([running_products(stack) - 0.2 for stack in dense], 2, axis=(2, 3))
    assert (distance <= bound + 1e-14).all() and (bound < 0.6).all()
    stack = np.array([[[p, 1 - p], [1 - p, p]] for p in rng.uniform(0.5, 1, 6)])
    np.testing.assert_allclose(
        hj.depth.composite_doeblin_bound(stack),
        oracles.sigma2(
            np.array([np.linalg.multi_dot([np.eye(2), *stack[: k + 1]]) for k in range(6)])
        ),
        atol=1e-15,
    )


def test_of_an_infinite_layer_there_are_no_exponents():
    assert np.isnan(exponents_of(np.array([[[np.inf, 0.5], [0.5, 0.5]], TWO, TWO, TWO]))).all()


def test_a_retention_is_never_taken_for_a_sigma2():
    for wrong in (
        lambda: hj.effective_depth(0.1, 0.9),  # pyright: ignore
        lambda: hj.depth.measured_depth([0.5, 0.25], 0.9),  # pyright: ignore
    ):
        with pytest.raises(TypeError, match="positional"):
            wrong()


def test_a_layer_that_keeps_nothing_leaves_the_derivatives_of_the_others_finite(rng):
    stack = np.stack([np.full((4, 4), 0.25), oracles.alternate(rng.normal(size=(4, 4)), 1.0, 50)])
    slopes = jax.jit(jax.jacobian(hj.lyapunov_exponents))(stack)
    exponents = np.asarray(exponents_of(stack))
    assert (exponents < -15).all() and np.isfinite(slopes).all()
