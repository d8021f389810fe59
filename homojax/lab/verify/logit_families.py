"""Families of logits to be projected. Each function is (rng, n, count) -> (logits, ε)."""

from __future__ import annotations

from functools import cache

import numpy as np

from homojax.lab.datasets import standardised_digits, trained_mhc
from homojax.lab.verify.draws import (
    draw_epsilons,
    draw_groups,
    draw_log_uniform,
    draw_permutations,
)
from homojax.lab.verify.family import (
    FOUR,
    FOURS,
    IMAGES,
    TWO,
    logit_family,
)


@logit_family("gaussian", "standard normal logits, ε from 0.05 to 20")
def _gaussian(rng, n, count):
    return rng.standard_normal((count, n, n)), draw_epsilons(rng, count)


@logit_family("student", "logits of Student's t with 3 degrees of freedom, ε from 0.05 to 20")
def _student(rng, n, count):
    return rng.standard_t(3, (count, n, n)), draw_epsilons(rng, count)


@logit_family(
    "two-by-two", "normal logits times 0.1, 1 or 10: every 2 × 2 matrix attains hilbert", TWO
)
def _two_by_two(rng, n, count):
    return rng.standard_normal((count, n, n)) * rng.choice([0.1, 1, 10], (count, 1, 1)), 1


@logit_family(
    "symmetric-pair",
    "logits [[R, −R], [−R, R]], R/ε of either sign and 1e-4 to 40: the least for their σ₂",
    TWO,
)
def _symmetric_pair(rng, n, count):
    epsilon = draw_epsilons(rng, count)
    size = epsilon * draw_log_uniform(rng, 1e-4, 40, count) * rng.choice([-1, 1], count)
    return size[:, None, None] * np.array([[1, -1], [-1, 1]]), epsilon


@logit_family(
    "gamma", "logarithms of Gamma(a) variates, a = 0.1, 1 or 10: matrices like Dirichlet draws"
)
def _gamma(rng, n, count):
    variates = rng.standard_gamma(rng.choice([0.1, 1, 10], (count, 1, 1)), (count, n, n))
    return np.log(np.maximum(variates, np.finfo(float).tiny)), 1


@logit_family("near-permutation", "a random permutation raised by 2 to 40 above normal noise")
def _near_permutation(rng, n, count):
    return rng.standard_normal((count, n, n)) + rng.uniform(
        2, 40, (count, 1, 1)
    ) * draw_permutations(rng, n, count), 1


@logit_family(
    "identity-start",
    "logits cI + rows' and columns' shifts, c/ε of either sign and 1e-3 to 40 (law 8.4)",
)
def _identity_start(rng, n, count):
    epsilon = draw_epsilons(rng, count)
    size = draw_log_uniform(rng, 1e-3, 40, count) * rng.choice([-1, 1], count)
    shifts = rng.standard_normal((count, n, 1)) + rng.standard_normal((count, 1, n))
    return epsilon[:, None, None] * (size[:, None, None] * np.eye(n) + shifts), epsilon


@logit_family("weak-links", "random groups, with the logits between groups lowered by up to 60")
def _weak_links(rng, n, count):
    groups = rng.permuted(draw_groups(rng, n, count), axis=1)
    apart = groups[:, :, None] != groups[:, None, :]
    return rng.standard_normal((count, n, n)) - rng.uniform(0, 60, (count, 1, 1)) * apart, 1


@logit_family(
    "rank-one",
    "logits β u vᵀ of centred unit u and v, half of them equal, β from 0.01 to 1000 (law 2.3)",
)
def _rank_one(rng, n, count):
    u, v = rng.standard_t(
        3, (2, count, n)
    )  # heavy tails, so that some come near the isolated direction
    v = np.where(rng.random((count, 1)) < 0.5, u, v)
    u, v = (x - x.mean(-1, keepdims=True) for x in (u, v))
    u, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (u, v))
    return draw_log_uniform(rng, 0.01, 1000, count)[:, None, None] * u[:, :, None] * v[
        :, None, :
    ], 1


@logit_family(
    "digits", "scaled dot products XXᵀ/√64 of n handwritten digits, ε from 0.05 to 20", IMAGES
)
def _digits(rng, n, count):
    products = _digit_products()
    chosen = np.empty((count, n), int)
    for k, last in enumerate(
        range(len(products) - n, len(products))
    ):  # distinct: Floyd's sampling (Bentley and Floyd, 1987)
        drawn = rng.integers(last + 1, size=count)
        chosen[:, k] = np.where((chosen[:, :k] == drawn[:, None]).any(-1), last, drawn)
    return products[chosen[:, :, None], chosen[:, None, :]], draw_epsilons(rng, count)


@cache
def _digit_products() -> np.ndarray:
    images = standardised_digits()
    return images @ images.T / np.sqrt(images.shape[1])


@logit_family(
    "trained-mhc", "the twelve trained logits that ship with the package, ε from 0.02 to 20", FOUR
)
def _trained_mhc(rng, n, count):
    logits = np.array([layer["logits"] for layer in trained_mhc()["layers"]], float)
    return logits[rng.integers(len(logits), size=count)], draw_log_uniform(rng, 0.02, 20, count)


@logit_family(
    "rising",
    "logits whose σ₂ rises with ε although entropy rises, a little perturbed (theory.md 1.4)",
    FOURS,
)
def _rising(rng, n, count):
    """Return every unit of a 4 × 4 example n/4 times over: M ⊗ J has the σ₂ of M."""
    found = np.array(
        [
            [2.7, 2.7, 9.3, -14.7],
            [5.2, 3.2, -11.5, 3.1],
            [2.7, -14.7, 9.3, 2.7],
            [-10.6, 8.9, -7.1, 8.8],
        ]
    )
    copies = np.kron(found, np.ones((n // 4, n // 4)))
    return copies + 0.1 * rng.standard_normal((count, n, n)), rng.uniform(1.2, 2, count)
