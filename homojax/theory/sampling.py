"""How far samples can be from what they are samples of.

A law about a distribution can be violated by chance. Every margin of sampling is a proved
inequality at a stated rate: a true law is called violated in at most one case of 10⁹, whatever the
number of samples. With too few of them it is undecidable.
"""

from __future__ import annotations

import math

import jax

from homojax.numerics import sqrt

FALSE_ALARM = 1e-9  # the probability of a violation by chance, for each claim on each case
BERNSTEIN = "empirical Bernstein at a false-alarm rate of 1e-9 (Maurer and Pontil 2009)"


def distribution_margin(num_samples: int, false_alarm: float = FALSE_ALARM) -> float:
    """Return what sup |F_N − F| exceeds with at most this probability: √(log(2/α)/(2N)).

    Source: Dvoretzky, Kiefer and Wolfowitz (1956), Massart (1990).

    >>> round(distribution_margin(4096), 3)
    0.051
    """
    return math.sqrt(math.log(2 / false_alarm) / (2 * num_samples))


def mean_margin(samples: jax.Array, width: float, false_alarm: float = FALSE_ALARM) -> jax.Array:
    """Return what |sample mean − mean| exceeds with at most this probability.

    √(2V log(4/α)/N) + 7w log(4/α)/(3(N − 1)), V the sample variance, both sides.

    Args:
        samples: [N], independent, in an interval of this width.
        width: w.
        false_alarm: α.

    Source: empirical Bernstein (Maurer and Pontil 2009).

    >>> import jax.numpy as jnp
    >>> round(float(mean_margin(jnp.full(1001, 0.5), 1.0)), 3)
    0.052
    """
    count, log_rate = samples.shape[0], math.log(4 / false_alarm)
    spread = sqrt(2 * samples.var(ddof=1) * log_rate / count)
    return spread + 7 * width * log_rate / (3 * max(count - 1, 1))
