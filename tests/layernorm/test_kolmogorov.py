"""The distance to the exact law, from a few draws: against every draw, and against SciPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from homojax import layernorm
from homojax.layernorm.kolmogorov import KS_ERROR, LEAST_KNOTS, distance_to_law

SNRS = np.geomspace(1e-3, 100, 6)
REPEATS = 4
FAST = [(2, 256, "float64"), (15, 9, "float64"), (63, 256, "float32")]
SLOW = [  # each is a program to compile
    *((d, 256, "float64") for d in (3, 15, 63)),
    *((15, count, "float64") for count in (2, 25, 64, 1000)),
    *((2, 256, "float32"), (2, 64, "float64"), (63, 1000, "float32")),
]
CASES = [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]

distance = jax.jit(distance_to_law, static_argnames="d")


@partial(jax.jit, static_argnames=("d", "count"))
def drawn(keys, snrs, *, d, count):
    """Sorted draws [case, count] at each SNR, their exact law, and the distance that is tested."""
    signal = jnp.arange(d + 1.0, dtype=snrs.dtype)
    signal = (signal - d / 2) / jnp.sqrt(jnp.var(signal) * (d + 1))

    def measure(key_and_snr):
        key, snr = key_and_snr
        noise = 1 / jnp.sqrt(d * snr)
        cosines = layernorm.sample_cosine(key, signal, noise_std=noise, num_samples=count)
        cosines = jnp.clip(jnp.sort(cosines), -1, 1)
        law = jax.vmap(lambda t: layernorm.cosine_cdf(t, snr=snr, d=d))(cosines)
        return cosines, law, distance_to_law(jnp.flip(cosines), snr=snr, d=d)

    return jax.lax.map(measure, (keys, snrs), batch_size=len(SNRS))


def every_draw(law):
    """The distance [case] from the law at every sorted draw, by its definition."""
    count = law.shape[1]
    law, ranks = law.astype(float), np.arange(count)
    return np.maximum(law - ranks / count, (ranks + 1) / count - law).max(1)


def cases(d, count, dtype):
    """Draws, their exact law and their distance, at every SNR several times."""
    snrs = np.repeat(SNRS, REPEATS)
    keys = jax.random.split(jax.random.key(100 * count + d), len(snrs))
    return snrs, *map(np.asarray, drawn(keys, jnp.asarray(snrs, dtype), d=d, count=count))


@pytest.mark.parametrize(("d", "count", "dtype"), CASES)
def test_it_is_the_distance_from_every_draw_and_never_above_it(d, count, dtype):
    _, _, law, found = cases(d, count, dtype)
    missed = every_draw(law) - found
    rounding = 1.2e-8 + 10 * np.finfo(dtype).eps
    assert -rounding < missed.min() and missed.max() < KS_ERROR
    assert count > LEAST_KNOTS or missed.max() < rounding
    assert (missed < rounding).mean() > 0.9


@pytest.mark.parametrize("d", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_it_is_what_scipy_says(d):
    for snr, t, _, found in list(zip(*cases(d, 256, "float64"), strict=True))[REPEATS:-REPEATS:8]:
        law = stats.nct(d - 1, np.sqrt(d * snr))
        ratio = np.sqrt(d - 1) * t / np.sqrt(1 - t * t)
        assert abs(stats.kstest(ratio, law.cdf).statistic - found) < KS_ERROR


def test_draws_of_another_law_are_as_far_as_their_knots_say():
    """Without the law there is no small error, but the bound between knots holds."""
    snr, d, count = jnp.asarray(1.0), 15, 256
    law = jax.jit(jax.vmap(lambda t: layernorm.cosine_cdf(t, snr=snr, d=d)))
    rng = np.random.default_rng(0)
    others = (
        rng.uniform(-1, 1, count),
        np.full(count, 0.7),
        np.r_[np.full(count - 1, -1.0), 1.0],
        rng.choice([0.6, 0.8], count),
        1 - 1e-9 * rng.uniform(size=count),
        np.sort(rng.beta(16, 4, count) * 2 - 1),
    )
    for cosines in others:
        cosines = np.sort(cosines)
        missed = every_draw(np.asarray(law(cosines))[None])[0] - distance(cosines, snr=snr, d=d)
        assert -1.2e-8 < missed < 1 / 20


def test_in_one_dimension_the_height_of_the_jump_is_compared():
    cosines = jnp.asarray([-1.0, 1.0, 1.0, 1.0])
    found = distance(cosines, snr=jnp.asarray(0.7), d=1)
    assert float(found) == pytest.approx(abs(0.25 - stats.norm.cdf(-np.sqrt(0.7))), abs=1e-14)


@pytest.mark.parametrize("d", [1, 15])
def test_without_a_direction_there_is_no_distance(d):
    assert np.isnan(distance(np.full(256, np.nan), snr=jnp.asarray(0.0), d=d))
