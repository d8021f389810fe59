"""The law of the cosine: against simulation, against many digits, its bounds, limits and edges."""

import jax
import numpy as np
import pytest
from scipy import stats

import oracles
from homojax import layernorm

FALSE_ALARM = 1e-3  # of each Kolmogorov-Smirnov or mean test, were the seeds not fixed
SAMPLES = 4000
DIMENSIONS = (2.0, 3.0, 15.0, 64.0, 1023.0)

cdf = jax.jit(lambda t, snr, d: layernorm.cosine_cdf(t, snr=snr, d=d))
cdf_each = jax.jit(jax.vmap(lambda t, snr, d: layernorm.cosine_cdf(t, snr=snr, d=d)))
coarse_each = jax.jit(
    jax.vmap(lambda t, snr, d: layernorm.cosine_cdf(t, snr=snr, d=d, num_nodes=22))
)
mean = jax.jit(lambda snr, d: layernorm.expected_cosine(snr, d=d))
mean_each = jax.jit(jax.vmap(lambda snr, d: layernorm.expected_cosine(snr, d=d), (0, None)))
sample = jax.jit(layernorm.sample_cosine, static_argnames="num_samples")
draw = jax.jit(
    lambda key, s, noise: layernorm.sample_cosine(key, s, noise_std=noise, num_samples=SAMPLES)
)
bound = jax.jit(lambda snr, d, u: layernorm.cosine_bound(snr, d=d, u=u))


def signal_of(n, snr, seed=0):
    """A signal whose SNR under unit noise is ``snr``, on top of a mean that layer norm removes."""
    x = np.random.default_rng(seed).normal(size=n)
    x -= x.mean()
    return x * np.sqrt(snr * (n - 1)) / np.linalg.norm(x) + 3.0


def draws_of(d, snr, seed):
    """SAMPLES cosines in dimension d; SNR 0 stands for a signal of 1 under noise of 1e9."""
    signal, noise = (signal_of(d + 1, snr), 1.0) if snr else (np.eye(d + 1)[0], 1e9)
    return np.asarray(draw(jax.random.key(seed), signal, noise))


def law_at(points, snr, d):
    """The exact distribution function at SAMPLES points, by one program for all d."""
    return np.asarray(cdf_each(points, np.full(SAMPLES, snr), np.full(SAMPLES, float(d))))


def distance(cosines, snr, d):
    """The p-value of Kolmogorov and Smirnov's test of the exact law."""
    return stats.kstest(cosines, lambda t: law_at(t, snr, d)).pvalue


# ---------------------------------------------------------------- simulation against law


@pytest.mark.parametrize("d", [3, 64])
def test_simulated_cosines_follow_the_exact_law_and_mean(d):
    for seed, snr in enumerate((0.0 if d == 3 else 1e-3, 0.1, 2.0)):
        cosines = draws_of(d, snr, d + seed)
        assert distance(cosines, snr, d) > FALSE_ALARM
        error = stats.norm.isf(FALSE_ALARM / 2) * cosines.std() / np.sqrt(SAMPLES)
        assert abs(cosines.mean() - mean(snr, float(d))) < error


def test_simulated_cosines_reject_the_law_of_another_dimension():
    """The test above has the power to tell d from d + 1."""
    assert distance(draws_of(3, 0.1, 0), 0.1, 4) < 1e-6


def test_a_signal_without_detail_has_no_cosine_and_one_without_noise_keeps_its_direction():
    key = jax.random.key(0)
    assert np.isnan(sample(key, np.ones(4), noise_std=0.0, num_samples=3)).all()
    still = sample(key, signal_of(4, 1.0), noise_std=0.0, num_samples=3)
    np.testing.assert_allclose(still, 1, atol=1e-14)


def test_signal_to_noise_counts_detail_only_a_degree_of_freedom():
    x = np.array([1.0, 2.0, 6.0])
    expected = ((x - 3) ** 2).sum() / (2 * 0.25)
    assert layernorm.signal_to_noise(x, 0.5) == pytest.approx(expected, rel=1e-14)
    assert layernorm.signal_to_noise(x + 100, 0.5) == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------- exact law against many digits


@pytest.mark.parametrize("d", (*DIMENSIONS, 128.0))
def test_cosine_cdf_is_the_noncentral_t_distribution(d):
    points = []
    for snr in (0.0, 1e-3, 0.1, 1.0, 10.0):
        near = np.sqrt(snr / (1 + snr)) + np.array([-2, -0.5, 0, 0.5]) / np.sqrt(d)
        fixed = [-0.999, -0.5, 0.0, 0.05, 0.999]
        points += [(t, snr, d) for t in (*fixed, *np.clip(near, -0.99, 0.99))]
    exact = [oracles.cosine_cdf(t, snr, int(d)) for t, snr, _ in points]
    np.testing.assert_allclose(cdf_each(*np.transpose(points)), exact, atol=1e-12)
    np.testing.assert_allclose(coarse_each(*np.transpose(points)), exact, atol=1.2e-8)


def test_the_oracle_itself_agrees_with_scipy():
    for t, snr, d in [(0.3, 0.1, 10), (-0.2, 0.5, 3), (0.8, 1.0, 64)]:
        scipy = stats.nct.cdf(np.sqrt(d - 1) * t / np.sqrt(1 - t * t), d - 1, np.sqrt(d * snr))
        assert oracles.cosine_cdf(t, snr, d) == pytest.approx(scipy, abs=1e-9)


@pytest.mark.parametrize(
    ("t", "snr", "d", "value"),
    [
        (1.0, 0.3, 5.0, 1.0),
        (-1.0, 0.3, 5.0, 0.0),
        (0.0, 0.0, 9.0, 0.5),
        (0.5, 0.7, 1.0, stats.norm.cdf(-np.sqrt(0.7))),  # one dimension: the cosine is a sign
        (-1.0, 0.7, 1.0, stats.norm.cdf(-np.sqrt(0.7))),
        (1.0, 0.7, 1.0, 1.0),
        (0.6, 0.0, 2.0, 1 - np.arccos(0.6) / np.pi),  # a uniform angle
        (0.6, 0.0, 3.0, 0.8),  # Archimedes: uniform height
        (1.1, 0.3, 5.0, np.nan),
        (-1.1, 0.3, 5.0, np.nan),
        (0.5, -0.1, 5.0, np.nan),
        (0.5, 0.3, 0.5, np.nan),
        (np.nan, 0.3, 5.0, np.nan),
    ],
)
def test_cosine_cdf_at_its_edges(t, snr, d, value):
    np.testing.assert_allclose(cdf(t, snr, d), value, atol=1e-13)


@pytest.mark.parametrize("d", (1.0, *DIMENSIONS))
def test_expected_cosine_is_the_confluent_hypergeometric_formula(d):
    snrs = np.array([1e-12, 1e-3, 0.1, 1.0, 10.0, 1e4])
    expected = [oracles.expected_cosine(snr, d) for snr in snrs]
    np.testing.assert_allclose(mean_each(snrs, d), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("snr", "d", "value"),
    [(0.0, 5.0, 0.0), (-0.1, 5.0, np.nan), (0.1, 0.5, np.nan), (np.nan, 5.0, np.nan)],
)
def test_expected_cosine_at_its_edges(snr, d, value):
    np.testing.assert_allclose(mean(snr, d), value)


LAWS = {  # of three numbers, the last one the dimension
    "cosine_cdf": (lambda t, snr, d: layernorm.cosine_cdf(t, snr=snr, d=d), [0.3, 0.4]),
    "expected_cosine": (lambda _, snr, d: layernorm.expected_cosine(snr, d=d), [0.3, 0.4]),
    "critical_snr": (
        lambda level, power, d: layernorm.critical_snr(d, level=level, power=power),
        [0.05, 0.9],
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "critical_snr" else ()) for name in LAWS],
)
def test_gradients_of_the_exact_laws_match_differences_in_the_dimension_too(name, rng):
    law, x = LAWS[name]
    x, direction = np.array(x), rng.normal(size=2)
    value = jax.jit(lambda x, d: law(*x, d))
    gradient = jax.jit(jax.grad(value, (0, 1)))
    for d in (3.0, 40.0, 100.0):
        by_x, by_d = gradient(x, d)
        along = oracles.difference(lambda x, d=d: value(x, d), x, direction, 3e-4)
        assert by_x @ direction == pytest.approx(along, rel=1e-7)
        across = oracles.difference(lambda d: value(x, d), d, d, 0.003)
        assert d * by_d == pytest.approx(across, rel=1e-6)


# ---------------------------------------------------------------- range, limit, bound


@pytest.mark.parametrize("d", [2, 3, 16, 64, 1000])
def test_the_mean_cosine_lies_in_its_range_and_reaches_it_for_large_signals(d):
    snrs = np.logspace(-6, 6, 25)
    low, high = layernorm.cosine_range(snrs, d=d)
    exact = np.array([oracles.expected_cosine(snr, d) for snr in snrs])
    assert (low < exact).all() and (exact <= high * (1 + 1e-15)).all()
    assert low[-1] / high[-1] > 1 - 1e-5
    limit = np.sqrt(snrs / (1 + snrs))
    assert (d * np.maximum(high - limit, limit - low)).max() <= 2 / (3 * np.sqrt(3)) + 1e-9


def test_asymptotic_cosine_is_the_limit_for_large_dimension():
    snrs = np.array([0.1, 0.3, 4.0])
    limit = np.asarray(layernorm.asymptotic_cosine(snrs))
    gaps = [abs(mean_each(np.resize(snrs, 6), d)[:3] - limit) for d in (1e3, 1e4)]
    np.testing.assert_allclose(gaps[0] / gaps[1], 10, rtol=0.1)  # an O(1/d) correction
    assert gaps[1].max() < 1e-3 and layernorm.asymptotic_cosine(0.0) == 0


@pytest.mark.parametrize("d", [30, 1023])
def test_cosine_bound_holds_with_the_probability_it_states(d):
    informative = 0
    for snr in (0.0, 1e-3, 0.05, 0.5):
        cosines = draws_of(d, snr, d)
        for u in (0.1, 1.0, 3.0):
            found, allowed = float(bound(snr, float(d), u)), 2 * np.exp(-u)
            least_radius = np.sqrt(d - 1 - 2 * np.sqrt((d - 1) * u))
            expected = (np.sqrt(d * snr) + np.sqrt(2 * u)) / least_radius
            assert found == pytest.approx(expected, rel=1e-12)
            if found < 1:
                informative += 1
                assert 1 - oracles.cosine_cdf(found, snr, d) <= allowed
                most = stats.binom.isf(FALSE_ALARM, SAMPLES, min(allowed, 1))
                assert not snr or (cosines > found).sum() <= most
    assert informative >= 8


@pytest.mark.parametrize(("d", "u"), [(9.0, 2.0), (5.0, 1.0), (1.0, 0.5)])
def test_cosine_bound_is_infinite_where_it_is_not_defined(d, u):
    assert np.isposinf(bound(0.1, d, u))


def test_infinite_and_negative_signals_at_their_limits():
    for snr, limit in ((np.inf, 1.0), (-2.0, np.nan)):
        found = [
            *layernorm.cosine_range(snr, d=10),
            layernorm.asymptotic_cosine(snr),
            2 * layernorm.overlap(0.5, snr=snr),
            mean(snr, 10.0),
        ]
        np.testing.assert_allclose(found, limit)


# ---------------------------------------------------------------- two inputs, many layers


def test_overlap_of_two_noisy_inputs_falls_with_the_snr_to_orthogonal_collapse(rng):
    n, samples = 1024, 300
    basis = np.linalg.qr(oracles.centring(n) @ rng.normal(size=(n, 2)))[0]
    for snr, rho in [(1.0, 0.8), (0.1, 0.8), (1e-3, 1.0)]:
        pair = basis[:, :1], rho * basis[:, :1] + np.sqrt(1 - rho**2) * basis[:, 1:2]
        outputs = []
        for x in pair:
            y = x * np.sqrt(snr * (n - 1)) + rng.normal(size=(n, samples))
            y -= y.mean(0)
            outputs.append(y / np.linalg.norm(y, axis=0))
        found = (outputs[0] * outputs[1]).sum(0)
        error = stats.norm.isf(FALSE_ALARM / 2) * found.std() / np.sqrt(samples)
        # The law is for large d: it is off by O(1/d).
        assert abs(found.mean() - layernorm.overlap(rho, snr=snr)) < error + 4 / n
    assert layernorm.overlap(1.0, snr=1e-3) < 1e-3


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
        law = layernorm.retained_cosine(sigma, noise_std=noise_std, d=n - 1, depth=depth)
        assert abs(cosines.mean() - law) < error


# ---------------------------------------------------------------- arguments


def test_a_wrong_shape_is_refused_by_name():
    for name, call in {
        "snr": lambda: layernorm.expected_cosine(np.linspace(0.1, 1, 64), d=4),  # 64 nodes, too
        "t": lambda: layernorm.cosine_cdf([0.1, 0.2], snr=1.0, d=4),
        "d": lambda: layernorm.critical_snr([3, 4]),
        "level": lambda: layernorm.critical_cosine(3, level=[0.1, 0.2]),
        "noise_std": lambda: layernorm.signal_to_noise([1.0, -1.0], [1.0, 2.0]),
    }.items():
        with pytest.raises(ValueError, match=rf"^{name} must be a scalar"):
            call()
    for signal in (1.0, np.eye(3)):
        with pytest.raises(ValueError, match="signal must have shape"):
            layernorm.signal_to_noise(signal, 1.0)


@pytest.mark.parametrize(
    "name",
    ["cosine_bound", "cosine_cdf", "cosine_range", "critical_depth", "expected_cosine", "overlap"],
)
def test_scalars_that_could_be_swapped_go_by_name(name):
    with pytest.raises(TypeError, match="positional"):
        getattr(layernorm, name)(0.5, 0.1, 10)
