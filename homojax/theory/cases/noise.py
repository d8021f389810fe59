"""Samples of normalised outputs, as the claims of theory.md §4 need them."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_float
from homojax.layernorm import critical_cosine, critical_snr, expected_cosine, normalise
from homojax.numerics import rounding
from homojax.programs import compiled

LEVEL, POWER = 0.05, 0.95  # of the test of law 4.5 (critical SNR)
FEATURES = 16  # of the tokens
_LAYERS = 2  # of law 4.6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseCase:
    """N samples of each kind of normalised output at one SNR, and tokens of as many units."""

    snr: jax.Array
    cosines: jax.Array  # [N], cos θ of signal + noise, normalised
    input_overlap: jax.Array  # the cosine of a second signal to the first
    overlaps: jax.Array  # [N], cosines of the two normalised outputs, of independent noise
    critical_snr: jax.Array  # of the test of level LEVEL and power POWER
    threshold: jax.Array  # that test's: the cosine above which it detects
    critical_cosines: jax.Array  # [N], cos θ at the critical SNR
    kept: jax.Array  # [L], σ₂ of each layer; the first has SNR ``snr``, and the noise stays
    layer_cosines: jax.Array  # [N], after L layers that mix, add noise and normalise
    expected: jax.Array  # [L], E cos θ at each layer's SNR by law 4.2; several claims need it
    tokens: jax.Array  # [n, F], a mean token, detail that all but cancels it in token 0, and noise
    gain: jax.Array  # [F]
    shift: jax.Array  # [F]
    unit_gain: jax.Array  # [n]

    @property
    def dimension(self) -> int:
        """The dimension of detail, d = n − 1."""
        return self.tokens.shape[0] - 1

    @property
    def rounding(self) -> jax.Array:
        """The absolute error of a sum over units."""
        dtype = self.tokens.dtype
        return jnp.asarray(rounding(self.tokens.shape[0], dtype), dtype)


class _Draws(NamedTuple):
    """The randomness of a case."""

    noise: jax.Array  # [L, N, n], normal
    signals: jax.Array  # [2, n], normal
    scatter: jax.Array  # [F, n], normal
    kept: jax.Array  # [L], uniform in ±1, as are the others
    gain: jax.Array  # [F]
    shift: jax.Array  # [F]
    unit_gain: jax.Array  # [n]


@compiled("n", "num_samples")
def noise_case(key: jax.Array, n: int, snr: ArrayLike, *, num_samples: int = 4096) -> NoiseCase:
    """Return a case: signals of n ≥ 3 units at this SNR, simulated.

    The simulation adds noise, centres, normalises and compares; it knows nothing of the laws. Two
    arrays [num_samples, n] of noise serve every sample. Samples are NaN, so that there is no
    verdict, where the SNR is negative or not finite.

    Args:
        key: a JAX random key.
        n: the number of mixed units.
        snr: ‖signal‖²/(dν²).
        num_samples: outputs of each kind.

    >>> noise_case(jax.random.key(0), 8, 0.5, num_samples=10).cosines.shape
    (10,)
    """
    snr = as_float(snr)
    dtype, d = snr.dtype, n - 1
    draws = _draw(key, n, num_samples, dtype)
    kept = 0.75 + 0.25 * draws.kept

    # Two signals that overlap, and one output of each.
    first, other = _unit(draws.signals)
    second = _unit(0.8 * first + 0.6 * _unit(other - (other * first).sum() * first))
    length = jnp.sqrt(d * snr)
    one, two = _unit(length * first + draws.noise[0]), _unit(length * second + draws.noise[1])
    with jax.ensure_compile_time_eval():  # they depend on n alone
        least, threshold = _critical(jnp.asarray(d, dtype))

    # Layers that mix, add the same noise and normalise.
    state, target = first, first
    for sigma2, layer_noise in zip(kept, draws.noise, strict=True):
        mixed = length * sigma2 / kept[0] * mix(state, 1.0)
        state, target = _unit(mixed + layer_noise), mix(target, 1.0)

    # Detail is designed as it shall be after mixing: token 0 at −0.1 of the mean, the others just
    # beyond it, and noise on all.
    pattern = jnp.where(jnp.arange(n) == 0, -1.1, 1.1 / d).astype(dtype)
    mean = math.sqrt(FEATURES) * jnp.eye(FEATURES, dtype=dtype)[0]
    detail = pattern[:, None] * mean + draws.scatter.T / jnp.sqrt(snr)
    return NoiseCase(
        snr=snr,
        cosines=_cosine(one, first),
        input_overlap=(first * second).sum(),
        overlaps=(one * two).sum(-1),
        critical_snr=least,
        threshold=threshold,
        critical_cosines=_cosine(_unit(jnp.sqrt(d * least) * first + draws.noise[0]), first),
        kept=kept,
        layer_cosines=_cosine(state, target),
        expected=jax.vmap(partial(expected_cosine, d=d))(snr * (kept / kept[0]) ** 2),
        tokens=mean + detail / kept[0],
        gain=draws.gain.at[0].set(1.5),
        shift=draws.shift,
        unit_gain=jnp.sign(draws.unit_gain) * (1 + 0.3 * draws.unit_gain),
    )


def _draw(key: jax.Array, n: int, num_samples: int, dtype) -> _Draws:
    normal_key, uniform_key = jax.random.split(key)
    rows = _LAYERS * num_samples
    normal = jax.random.normal(normal_key, (rows + 2 + FEATURES, n), dtype)
    noise, signals, scatter = jnp.split(normal, (rows, rows + 2))
    length = _LAYERS + 2 * FEATURES + n
    uniform = jax.random.uniform(uniform_key, (length,), dtype, -1, 1)
    ends = (_LAYERS, _LAYERS + FEATURES, _LAYERS + 2 * FEATURES)
    kept, gain, shift, unit_gain = jnp.split(uniform, ends)
    return _Draws(
        noise=noise.reshape(_LAYERS, num_samples, n),
        signals=signals,
        scatter=scatter,
        kept=kept,
        gain=gain,
        shift=shift,
        unit_gain=unit_gain,
    )


@jax.jit
def _critical(d: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the critical SNR and cosine of the test of law 4.5."""
    level = jnp.asarray(LEVEL, d.dtype)
    return critical_snr(d, level=level, power=POWER), critical_cosine(d, level=level)


def mix(x: jax.Array, sigma2: ArrayLike, axis: int = -1) -> jax.Array:
    """Return M x with M = σ₂Π + (1 − σ₂)J, Π cyclic: ‖PMx‖ = σ₂‖Px‖ for every x.

    >>> mix(jnp.array([1.0, -1.0]), 0.5).tolist()
    [-0.5, 0.5]
    """
    mean = x.mean(axis, keepdims=True)
    return mean + jnp.asarray(sigma2, x.dtype) * (jnp.roll(x, 1, axis) - mean)


def _unit(x: jax.Array) -> jax.Array:
    """Return the layer norm of each row over its units, scaled to norm 1."""
    return normalise(x) / math.sqrt(x.shape[-1])


def _cosine(u: jax.Array, v: jax.Array) -> jax.Array:
    """Return ⟨u, v⟩ of unit vectors, from their chord: as accurate as a number near 1 can be."""
    return jnp.clip(1 - ((u - v) ** 2).sum(-1) / 2, -1, 1)
