import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

import homojax as hj
import oracles
from homojax import layernorm

FALSE_ALARM = 1e-3  # of each Kolmogorov-Smirnov or mean test, were the seeds not fixed
DIMENSIONS = (2, 3, 15, 64, 1023)
cdf = jax.jit(hj.layernorm.cosine_cdf)
cdf_all = jax.jit(jax.vmap(hj.layernorm.cosine_cdf, (0, None, None)))
critical = jax.jit(lambda d, level, power: hj.layernorm.critical_snr(d, level=level, power=power))


def signal_of(n, snr, seed=0):
    """A random signal whose SNR under unit noise is ``snr``, on top of a mean that layer norm must
    remove.
    """
    x = np.random.default_rng(seed).normal(size=n)
    x -= x.mean()
    return x * np.sqrt(snr * (n - 1)) / np.linalg.norm(x) + 3.0


# ---------------------------------------------------------------- simulation against law


@pytest.mark.parametrize("d", DIMENSIONS)
def test_simulated_cosines_follow_the_exact_law_and_mean(d):
    for i, snr in enumerate((0.0 if d == 3 else 1e-3, 0.1, 2.0)):
        signal = signal_of(d + 1, snr) if snr else np.eye(d + 1)[0]
        noise_std = 1.0 if snr else 1e9  # all but no signal: SNR ~ 1e-18
        cosines = np.asarray(
            hj.layernorm.sample_cosine(jax.random.key(d + i), signal, noise_std, 4000)
        )
        assert (
            stats.kstest(cosines, lambda t, snr=snr: np.asarray(cdf_all(t, snr, d))).pvalue
            > FALSE_ALARM
        )
        error = stats.norm.isf(FALSE_ALARM / 2) * cosines.std() / np.sqrt(4000)
        assert abs(cosines.mean() - hj.layernorm.expected_cosine(snr, d)) < error


def test_simulated_cosines_reject_the_law_of_another_dimension():
    """The test above has the power to tell d from d + 1."""
    cosines = np.asarray(
        hj.layernorm.sample_cosine(jax.random.key(0), signal_of(4, 0.1), 1.0, 4000)
    )
    assert stats.kstest(cosines, lambda t: np.asarray(cdf_all(t, 0.1, 4))).pvalue < 1e-6


def test_a_signal_without_detail_has_no_cosine_and_one_without_noise_keeps_its_direction():
    assert np.isnan(hj.layernorm.sample_cosine(jax.random.key(0), np.ones(4), 0.0, 3)).all()
    np.testing.assert_allclose(
        hj.layernorm.sample_cosine(jax.random.key(0), signal_of(4, 1.0), 0.0, 3), 1, atol=1e-14
    )


def test_signal_to_noise_counts_detail_only_a_degree_of_freedom():
    x = np.array([1.0, 2.0, 6.0])
    assert hj.layernorm.signal_to_noise(x, 0.5) == pytest.approx(
        ((x - 3) ** 2).sum() / (2 * 0.25), rel=1e-14
    )
    assert hj.layernorm.signal_to_noise(x + 100, 0.5) == pytest.approx(
        float(hj.layernorm.signal_to_noise(x, 0.5)), rel=1e-12
    )


# ---------------------------------------------------------------- exact law against many digits


@pytest.mark.parametrize("d", (*DIMENSIONS, 128))
@pytest.mark.parametrize("snr", [0.0, 1e-3, 0.1, 1.0, 10.0])
def test_cosine_cdf_is_the_noncentral_t_distribution(d, snr):
    centre = np.sqrt(snr / (1 + snr))
    points = np.unique(
        [
            -0.999,
            -0.5,
            0.0,
            0.05,
            0.999,
            *np.clip(centre + np.array([-2, -0.5, 0, 0.5]) / np.sqrt(d), -0.99, 0.99),
        ]
    )
    np.testing.assert_allclose(
        [cdf(t, snr, d) for t in points],
        [oracles.cosine_cdf(t, snr, d) for t in points],
        atol=1e-12,
    )


def test_the_oracle_itself_agrees_with_scipy():
    for t, snr, d in [(0.3, 0.1, 10), (-0.2, 0.5, 3), (0.8, 1.0, 64)]:
        scipy = stats.nct.cdf(np.sqrt(d - 1) * t / np.sqrt(1 - t * t), d - 1, np.sqrt(d * snr))
        assert oracles.cosine_cdf(t, snr, d) == pytest.approx(scipy, abs=1e-9)


@pytest.mark.parametrize(
    ("t", "snr", "d", "value"),
    [
        (1.0, 0.3, 5, 1.0),
        (-1.0, 0.3, 5, 0.0),
        (0.0, 0.0, 9, 0.5),
        (0.5, 0.7, 1, stats.norm.cdf(-np.sqrt(0.7))),  # one dimension: the cosine is a sign
        (-1.0, 0.7, 1, stats.norm.cdf(-np.sqrt(0.7))),
        (1.0, 0.7, 1, 1.0),
        (0.6, 0.0, 2, 1 - np.arccos(0.6) / np.pi),  # a uniform angle
        (0.6, 0.0, 3, 0.8),  # Archimedes: uniform height
        (1.1, 0.3, 5, np.nan),
        (-1.1, 0.3, 5, np.nan),
        (0.5, -0.1, 5, np.nan),
        (0.5, 0.3, 0.5, np.nan),
        (np.nan, 0.3, 5, np.nan),
    ],
)
def test_cosine_cdf_at_its_edges(t, snr, d, value):
    np.testing.assert_allclose(cdf(t, snr, float(d)), value, atol=1e-13)


@pytest.mark.parametrize("d", (1, *DIMENSIONS))
def test_expected_cosine_is_the_confluent_hypergeometric_formula(d):
    snrs = np.array([1e-12, 1e-3, 0.1, 1.0, 10.0, 1e4])
    expected = [oracles.expected_cosine(snr, d) for snr in snrs]
    np.testing.assert_allclose(
        jax.vmap(hj.layernorm.expected_cosine, (0, None))(snrs, d), expected, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("snr", "d", "value"),
    [(0.0, 5, 0.0), (-0.1, 5, np.nan), (0.1, 0.5, np.nan), (np.nan, 5, np.nan)],
)
def test_expected_cosine_at_its_edges(snr, d, value):
    np.testing.assert_allclose(hj.layernorm.expected_cosine(snr, d), value)


LAWS = {
    "cosine_cdf": (hj.layernorm.cosine_cdf, [0.3, 0.4]),
    "expected_cosine": (lambda _, snr, d: hj.layernorm.expected_cosine(snr, d), [0.3, 0.4]),
    "critical_snr": (
        lambda level, power, d: hj.layernorm.critical_snr(d, level=level, power=power),
        [0.05, 0.9],
    ),
}


@pytest.mark.parametrize("d", [3.0, 40.0, 100.0])
@pytest.mark.parametrize("name", LAWS)
def test_gradients_of_the_exact_laws_match_differences(name, d, rng):
    law, x = LAWS[name]
    f, direction = jax.jit(lambda x: law(*x, d)), rng.normal(size=2)
    assert jax.jit(jax.grad(f))(np.array(x)) @ direction == pytest.approx(
        oracles.difference(f, np.array(x), direction, 3e-4), rel=1e-7
    )


@pytest.mark.parametrize("d", [3.0, 40.0, 100.0])
@pytest.mark.parametrize("name", LAWS)
def test_derivatives_in_the_dimension_match_differences(name, d):
    law, x = LAWS[name]
    f = jax.jit(lambda d: law(*x, d))
    assert d * jax.jit(jax.grad(f))(d) == pytest.approx(
        oracles.difference(f, d, d, 0.003), rel=1e-6
    )


def test_asymptotic_cosine_is_the_limit_for_large_dimension():
    snrs = np.array([0.1, 0.3, 4.0])
    gaps = [
        abs(
            jax.vmap(hj.layernorm.expected_cosine, (0, None))(snrs, d)
            - hj.layernorm.asymptotic_cosine(snrs)
        )
        for d in (1e3, 1e4)
    ]
    np.testing.assert_allclose(gaps[0] / gaps[1], 10, rtol=0.1)  # an O(1/d) correction
    assert gaps[1].max() < 1e-3 and hj.layernorm.asymptotic_cosine(0.0) == 0


# ---------------------------------------------------------------- bound, overlap, depth


@pytest.mark.parametrize("d", [30, 1023])
def test_cosine_bound_holds_with_the_probability_it_states(d):
    informative = 0
    for snr in (0.0, 1e-3, 0.05, 0.5):
        cosines = np.asarray(
            hj.layernorm.sample_cosine(
                jax.random.key(d), signal_of(d + 1, snr) if snr else np.eye(d + 1)[0], 1.0, 4000
            )
        )
        for u in (0.1, 1.0, 3.0):
            bound, allowed = float(hj.layernorm.cosine_bound(snr, d, u)), 2 * np.exp(-u)
            assert bound == pytest.approx(
                (np.sqrt(d * snr) + np.sqrt(2 * u)) / np.sqrt(d - 1 - 2 * np.sqrt((d - 1) * u)),
                rel=1e-12,
            )
            if bound < 1:
                informative += 1
                assert 1 - oracles.cosine_cdf(bound, snr, d) <= allowed
                if snr:
                    assert (cosines > bound).sum() <= stats.binom.isf(
                        FALSE_ALARM, 4000, min(allowed, 1)
                    )
    assert informative >= 8


@pytest.mark.parametrize(("d", "u"), [(9, 2.0), (5, 1.0), (1, 0.5)])
def test_cosine_bound_is_infinite_where_it_is_not_defined(d, u):
    assert np.isposinf(hj.layernorm.cosine_bound(0.1, d, u))


def test_overlap_of_two_noisy_inputs_falls_with_the_snr_to_orthogonal_collapse(rng):
    n, samples = 1024, 300
    basis = np.linalg.qr(oracles.centring(n) @ rng.normal(size=(n, 2)))[0]
    for snr, input_overlap in [(1.0, 0.8), (0.1, 0.8), (1e-3, 1.0)]:
        pair = (
            basis[:, :1],
            input_overlap * basis[:, :1] + np.sqrt(1 - input_overlap**2) * basis[:, 1:2],
        )
        outputs = []
        for x in pair:
            y = x * np.sqrt(snr * (n - 1)) + rng.normal(size=(n, samples))
            y -= y.mean(0)
            outputs.append(y / np.linalg.norm(y, axis=0))
        found = (outputs[0] * outputs[1]).sum(0)
        error = (
            stats.norm.isf(FALSE_ALARM / 2) * found.std() / np.sqrt(samples) + 4 / n
        )  # large d: the law is off by O(1/d)
        assert abs(found.mean() - hj.layernorm.overlap(input_overlap, snr)) < error
    assert hj.layernorm.overlap(1.0, 1e-3) < 1e-3


def test_retained_cosine_follows_noise_and_layer_norm_at_every_layer(rng):
    n, sigma, noise_std, samples = 1024, 0.7, 0.02, 200
    start = rng.normal(size=(n, 1))
    start -= start.mean()
    start /= np.linalg.norm(start)
    x = np.repeat(start, samples, 1)
    for depth in range(1, 4):
        x = sigma * x + noise_std * rng.normal(size=x.shape)  # (1 − σ)J + σI, on detail
        x -= x.mean(0)
        x /= np.linalg.norm(x, axis=0)
        cosines = (start * x).sum(0)
        error = stats.norm.isf(FALSE_ALARM / 2) * cosines.std() / np.sqrt(samples) + 4 / n
        assert (
            abs(cosines.mean() - hj.layernorm.retained_cosine(sigma, noise_std, n - 1, depth))
            < error
        )


# ---------------------------------------------------------------- critical SNR


def scipy_critical_snr(d, level, power):
    threshold = stats.t.isf(level, d - 1)
    return (
        brentq(
            lambda k: stats.nct.sf(threshold, d - 1, k) - power, 1e-9, 1e3, xtol=1e-14, rtol=1e-14
        )
        ** 2
        / d
    )


@pytest.mark.parametrize("d", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize(("level", "power"), [(0.05, 0.95), (0.01, 0.5), (0.2, 0.99)])
def test_critical_snr_is_that_of_the_t_test(d, level, power):
    assert critical(d, level, power) == pytest.approx(scipy_critical_snr(d, level, power), rel=1e-8)


@pytest.mark.parametrize("d", [2.0, 7.0, 200.0])
def test_critical_snr_has_the_level_and_the_power_it_promises(d):
    level, power = 0.03, 0.9
    snr = critical(d, level, power)
    threshold = brentq(
        lambda t: oracles.cosine_cdf(t, 0.0, int(d)) - (1 - level), -0.999999, 0.999999, xtol=1e-15
    )
    assert 1 - oracles.cosine_cdf(threshold, snr, int(d)) == pytest.approx(power, abs=1e-11)


def test_critical_snr_tends_to_the_gaussian_rule():
    rule = (stats.norm.isf(0.05) + stats.norm.ppf(0.95)) ** 2
    assert critical(1e6, 0.05, 0.95) * 1e6 == pytest.approx(rule, rel=1e-4)


@pytest.mark.parametrize(
    ("d", "level", "power", "snr"),
    [
        (1, 0.05, 0.95, np.inf),
        (10, 0.3, 0.3, 0.0),
        (10, 0.3, 0.2, 0.0),
        (10, 0.0, 0.95, np.nan),
        (10, 1.0, 0.95, np.nan),
        (10, 0.05, 0.0, np.nan),
        (10, 0.05, 1.0, np.nan),
        (0.5, 0.05, 0.95, np.nan),
        (np.nan, 0.05, 0.95, np.nan),
    ],
)
def test_critical_snr_at_its_edges(d, level, power, snr):
    np.testing.assert_array_equal(critical(float(d), level, power), snr)


@pytest.mark.parametrize(("snr", "sigma2", "d"), [(1.0, 0.5, 1000), (10.0, 0.9, 20)])
def test_at_the_critical_depth_the_snr_has_fallen_to_the_critical_one(snr, sigma2, d):
    depth = float(hj.layernorm.critical_depth(snr, sigma2, d, level=0.1, power=0.8))
    assert depth > 1
    assert snr * sigma2 ** (2 * depth) == pytest.approx(float(critical(d, 0.1, 0.8)), rel=1e-12)


@pytest.mark.parametrize(
    ("snr", "sigma2", "d", "depth"),
    [
        (1e-6, 0.5, 100, 0.0),  # already below
        (1e-6, 1.0, 100, 0.0),
        (1.0, 1.0, 100, np.inf),
        (1.0, 0.0, 100, 0.0),
        (1.0, 0.5, 1, 0.0),  # no test exists
        (1.0, -0.5, 100, np.nan),
        (np.nan, 0.5, 100, np.nan),
        (1.0, np.nan, 100, np.nan),
    ],
)
def test_critical_depth_at_its_edges(snr, sigma2, d, depth):
    np.testing.assert_array_equal(hj.layernorm.critical_depth(snr, sigma2, d), depth)


# ---------------------------------------------------------------- normalisation


def reference(x, axis, kind, eps=0.0):
    """As torch.nn.LayerNorm and RMSNorm without parameters have it."""
    x = x - x.mean(axis, keepdims=True) if kind == "layer" else x
    return x / np.sqrt((x**2).mean(axis, keepdims=True) + eps)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize(("axis", "index"), [("units", 0), ("features", 1)])
def test_normalise_is_layer_or_rms_norm_along_its_axis(axis, index, kind, rng, dtype):
    x = rng.normal(size=(5, 3)).astype(dtype) + 2
    gain, shift = rng.normal(size=(2, x.shape[index])).astype(dtype)
    out = layernorm.normalise(x, axis=axis, kind=kind)
    assert out.dtype == dtype
    np.testing.assert_allclose(
        out, reference(x, index, kind), rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps
    )
    np.testing.assert_allclose(np.sqrt((out**2).sum(index)), np.sqrt(x.shape[index]), rtol=1e-6)
    along = (slice(None), None) if index == 0 else (None, slice(None))
    expected = reference(x, index, kind, 0.1) * gain[along] + shift[along]
    out = layernorm.normalise(x, axis=axis, kind=kind, gain=gain, shift=shift, eps=0.1)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    one = layernorm.normalise(
        x[:, 0] if index == 0 else x[0], axis=axis, kind=kind, gain=2.0, shift=1.0
    )
    np.testing.assert_allclose(
        one, np.take(2 * reference(x, index, kind) + 1, 0, 1 - index), rtol=1e-5, atol=1e-5
    )


def test_normalise_has_nothing_to_say_of_a_row_without_detail():
    x = np.array([[2.0, 2.0], [0.0, 0.0], [1.0, 3.0]])
    np.testing.assert_array_equal(layernorm.normalise(x), [[np.nan] * 2, [np.nan] * 2, [-1, 1]])
    np.testing.assert_array_equal(layernorm.normalise(x, kind="rms")[:2], [[1, 1], [np.nan] * 2])
    np.testing.assert_array_equal(layernorm.normalise(x, eps=1.0)[:2], 0)
    assert np.isfinite(jax.grad(lambda x: layernorm.normalise(x, eps=1e-5)[2, 0])(x)).all()


@pytest.mark.parametrize(
    "wrong", [{"axis": "rows"}, {"kind": "batch"}, {"x": np.ones((2, 2, 2))}, {"x": 1.0}]
)
def test_normalise_refuses_what_it_does_not_know(wrong):
    with pytest.raises(ValueError, match="must"):
        layernorm.normalise(**{"x": np.ones((2, 2)), **wrong})


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
        assert mixed_share(tokens, matrix, kind) <= layernorm.token_detail_bound(
            tokens, sigma2, kind=kind
        )
        bound = layernorm.token_detail_bound(tokens, sigma2, kind=kind, gain=gain)
        assert mixed_share(tokens, matrix, kind, gain, shift) <= bound


@pytest.mark.parametrize("n", [3, 10, 100])
def test_a_token_that_all_but_cancels_the_mean_comes_near_the_bound(n, rng):
    """One token just beyond zero, the others alike: 1 − 1/n of 2σ₂‖PX‖_F/(√n‖m‖)."""
    mean = rng.normal(size=6)
    pattern = np.where(np.arange(n) == 0, -1 - 1e-9, (1 + 1e-9) / (n - 1))
    matrix = oracles.lazy_permutation(rng, n, 0.4)
    tokens = mean + np.outer(pattern, mean) / 0.4
    share = mixed_share(tokens, matrix, "rms") / layernorm.token_detail_bound(
        tokens, 0.4, kind="rms"
    )
    assert share == pytest.approx(1 - 1 / n, rel=1e-6)


def test_the_bound_of_tokens_without_a_mean_is_none():
    tokens = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert np.isposinf(layernorm.token_detail_bound(tokens, 0.5, kind="rms"))
    assert layernorm.token_detail_bound(tokens + 1, 0.0, kind="rms") == 0


# ------------- mean cosine between two roots, critical cosine


@pytest.mark.parametrize("d", [2, 3, 16, 64, 1000])
def test_the_mean_cosine_lies_in_its_range_and_reaches_it_for_large_signals(d):
    snrs = np.logspace(-6, 6, 25)
    low, high = layernorm.cosine_range(snrs, d)
    exact = np.array([oracles.expected_cosine(snr, d) for snr in snrs])
    assert (low < exact).all() and (exact <= high * (1 + 1e-15)).all()
    assert low[-1] / high[-1] > 1 - 1e-5
    limit = np.sqrt(snrs / (1 + snrs))
    assert (d * np.maximum(high - limit, limit - low)).max() <= 2 / (3 * np.sqrt(3)) + 1e-9


@pytest.mark.parametrize("level", [0.2, 0.05, 1e-4])
@pytest.mark.parametrize("d", [2, 3, 15, 1000])
def test_critical_cosine_is_the_quantile_of_the_t_distribution(d, level):
    quantile = stats.t.isf(level, d - 1) / np.sqrt(d - 1)
    found = jax.jit(lambda d: layernorm.critical_cosine(d, level=level))(float(d))
    assert found == pytest.approx(quantile / np.sqrt(1 + quantile**2), rel=1e-9)


@pytest.mark.parametrize(
    ("d", "level"), [(1, 0.05), (5, 0.0), (5, 1.0), (np.nan, 0.05), (5, np.nan)]
)
def test_critical_cosine_at_its_edges(d, level):
    assert np.isnan(
        jax.jit(lambda d, level: layernorm.critical_cosine(d, level=level))(
            jnp.asarray(d, float), level
        )
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("level", [1e-12, 1e-9, 1e-7])
@pytest.mark.parametrize("d", [2, 3, 10, 100, 1000])
def test_rare_false_alarms_have_their_own_threshold_in_either_precision(d, level, dtype):
    ratio = stats.t.isf(level, d - 1) / np.sqrt(d - 1)  # of the cosine to the sine
    found = jax.jit(layernorm._critical_ratio)(jnp.asarray(level, dtype), jnp.asarray(d, dtype))
    assert abs(found / ratio - 1) < (1e-9 if dtype == "float64" else 1e-5)


def test_thresholds_next_to_a_pole_are_not_cut_off():
    """In the plane √κ + z > τ|y| with √κ = 1.96 τ has the power 0.95, and τ = cot(πα) the level α."""
    level = 1e-12
    expected = (stats.norm.isf(0.025) / np.tan(np.pi * level)) ** 2 / 2
    assert abs(critical(2.0, level, 0.95) / expected - 1) < 1e-6


@pytest.mark.parametrize("size", [1e-25, 1e20])
def test_normalise_has_the_range_of_its_numbers(size):
    x = np.array([1.0, -1.0, 0.0], "float32")
    np.testing.assert_allclose(
        hj.layernorm.normalise(np.float32(size) * x), 1.5**0.5 * x, rtol=1e-6
    )
    smoothed = np.float64(size) * x / np.sqrt(2 / 3 * np.float64(size) ** 2 + 1e-5)
    np.testing.assert_allclose(
        hj.layernorm.normalise(np.float32(size) * x, eps=1e-5), smoothed, rtol=1e-5
    )


def test_infinite_and_negative_signals_at_their_limits():
    for snr, limit in ((np.inf, 1.0), (-2.0, np.nan)):
        found = [
            *hj.layernorm.cosine_range(snr, 10),
            hj.layernorm.asymptotic_cosine(snr),
            2 * hj.layernorm.overlap(0.5, snr),
            hj.layernorm.expected_cosine(snr, 10),
        ]
        np.testing.assert_allclose(found, limit)


def test_what_is_one_number_is_refused_as_several_by_name():
    for name, call in {
        "snr": lambda: hj.layernorm.expected_cosine(
            np.linspace(0.1, 1, 64), 4
        ),  # as many as there are nodes
        "t": lambda: hj.layernorm.cosine_cdf([0.1, 0.2], 1.0, 4),
        "d": lambda: hj.layernorm.critical_snr([3, 4]),
        "level": lambda: hj.layernorm.critical_cosine(3, level=[0.1, 0.2]),
        "noise_std": lambda: hj.layernorm.signal_to_noise([1.0, -1.0], [1.0, 2.0]),
    }.items():
        with pytest.raises(ValueError, match=rf"^{name} must be a scalar"):
            call()
    for signal in (1.0, np.eye(3)):
        with pytest.raises(ValueError, match="signal must be a vector"):
            hj.layernorm.signal_to_noise(signal, 1.0)
