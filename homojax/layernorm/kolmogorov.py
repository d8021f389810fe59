"""The Kolmogorov-Smirnov distance of simulated cosines to their exact law, at a few draws' cost."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from homojax.layernorm.cosine import cosine_cdf

KS_ERROR = 1e-3  # what ``distance_to_law`` may miss, where cosines are drawn from the law
STRIDE = 8  # draws from one knot to the next, at most
LEAST_KNOTS = 32  # knots, at least; fewer draws are all knots


def distance_to_law(cosines: jax.Array, *, snr: jax.Array, d: int) -> jax.Array:
    """Return sup |F_N − F|, of the empirical and the exact distribution function of cosines.

    Args:
        cosines: [N], draws in any order; rounding may put them outside [−1, 1].
        snr: SNR ≥ 0 of the law, a scalar.
        d: the dimension of the detail, at least 1, a Python int.

    Returns:
        A scalar, never above the exact distance. It falls short by less than 1/32, whatever the
        draws, and by at most ``KS_ERROR`` where they follow the law; below 64 draws, by nothing.
        NaN where a cosine is NaN.

    Notes:
        F is the costly part. It is computed at every eighth sorted draw, the knots, and linear in
        the angle between them. This finds the eight draws that lie farthest from the law. There F
        is computed, too, and the distance is the largest one where F was computed.

        Between knots s draws apart F grows from one knot's value to the next one's. So no draw
        between them exceeds the distance at both knots by more than (s − 1)/N. The second figure
        was measured (tests/layernorm/test_kolmogorov.py).

        At d = 1 the cosine is ±1 and the law has one jump inside, whose height is compared.

    Source: law 4.1, cosine_law.

    >>> cosines = jnp.asarray([-0.5, 0.0, 0.5])  # on a sphere in three dimensions: uniform
    >>> round(float(distance_to_law(cosines, snr=jnp.asarray(0.0), d=3)), 6)
    0.25
    """
    if d == 1:
        below = cosine_cdf(jnp.zeros((), cosines.dtype), snr=snr, d=d)
        return abs(jnp.where(jnp.isnan(cosines), jnp.nan, cosines < 0).mean() - below)
    draws = jnp.clip(jnp.sort(cosines), -1, 1)
    count = len(draws)
    ranks = jnp.arange(count, dtype=draws.dtype)
    exact = jax.vmap(lambda t: cosine_cdf(t, snr=snr, d=d))

    def distances(cdf: jax.Array, ranks: jax.Array) -> jax.Array:
        """Return how far the empirical function is from F, below or above its step."""
        return jnp.maximum(cdf - ranks / count, (ranks + 1) / count - cdf)

    # the exact law at the knots
    stride = max(1, min(STRIDE, count // LEAST_KNOTS))
    knots = jnp.asarray(sorted({*range(0, count, stride), count - 1}))
    at_knots = exact(draws[knots])
    largest = distances(at_knots, ranks[knots]).max()
    if stride == 1:
        return largest
    # between them, where the distance may be larger
    angle = jnp.arcsin(draws)
    between = distances(jnp.interp(angle, angle[knots], at_knots), ranks)
    farthest = jax.lax.top_k(between, STRIDE)[1]
    return jnp.maximum(largest, distances(exact(draws[farthest]), ranks[farthest]).max())
