"""Both sides of the claims about a stack of layers, in many digits."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import mpmath as mp
import numpy as np

from homojax.lab.referee.algebra import (
    detail,
    lambda2,
    scaled,
    schatten,
    sigma2,
    singular_values,
)
from homojax.projection.masks import total_support


def _product(layers: list[mp.matrix]) -> mp.matrix:
    product = mp.eye(layers[0].rows)
    for layer in layers:
        product = layer * product
    return product


def _least_shared(layers: list[mp.matrix]) -> mp.mpf:
    return mp.fprod(1 - m.rows * min(m) for m in layers)


def _gaps(layers: list[mp.matrix]) -> mp.mpf:
    return mp.mpf(mp.fsum(1 - sigma2(m) for m in layers))


def _turned(
    layers: list[mp.matrix], x: mp.matrix, layer: Callable[[mp.matrix, mp.matrix], mp.matrix]
) -> mp.mpf:
    x = x - mp.ones(x.rows, 1) * mp.fsum(x) / x.rows
    start = x / mp.norm(x)
    for m in layers:
        x = layer(m, x)
    x = x / mp.norm(x)
    return 2 * mp.atan2(mp.norm(start - x), mp.norm(start + x))


def _most_turned(
    layers: list[mp.matrix], alpha: mp.mpf, sigma2: Callable[[mp.matrix], mp.mpf]
) -> mp.mpf:
    """Return the sum of the bounds; a layer whose branch outweighs the rest may turn by π."""
    moved = [alpha * sigma2(m) for m in layers]
    return mp.mpf(mp.fsum(mp.asin(x / (1 - alpha)) if x < 1 - alpha else mp.pi for x in moved))


def _half(layers: list[mp.matrix]) -> tuple[mp.mpf, mp.mpf] | None:
    """Return what the first layers with Π σ₂ ≤ ½ keep, and ½; None if there are none."""
    kept = mp.mpf(1)
    for count, layer in enumerate(layers, 1):
        kept *= sigma2(layer)
        if kept <= 0.5:
            return sigma2(_product(layers[:count])), mp.mpf("0.5")
    return None


def _growth(layers: list[mp.matrix]) -> mp.mpf:
    """Return exp of the top Lyapunov exponent, by Gram and Schmidt from Helmert's contrasts."""
    n = layers[0].rows
    frame = [[1] * k + [-k] + [0] * (n - k - 1) for k in range(1, n)]
    frame = [mp.matrix(c) / mp.norm(c) for c in frame]
    growths = [mp.mpf(1)] * (n - 1)
    for layer in map(detail, layers):
        next_frame: list[mp.matrix] = []
        for k, column in enumerate(frame):
            x = layer * column
            for q in next_frame:
                x -= q * mp.fdot(q, x)
            growths[k] *= mp.norm(x)
            next_frame.append(x / (mp.norm(x) or 1))
        frame = next_frame
    return mp.mpf(max(mp.root(growth, len(layers)) for growth in growths))


def _shared_rate(layers: list[mp.matrix]) -> mp.mpf:
    return mp.root(sigma2(_product([layers[0]] * len(layers))), len(layers))


def _henrici(layers: list[mp.matrix]) -> mp.mpf:
    a, depth, radius = detail(layers[0]), len(layers), lambda2(layers[0])
    d = a.rows - 1
    departure = mp.root(mp.mpf(d**3 - d) / 12, 4) * mp.sqrt(mp.norm(a.T * a - a * a.T))
    words = (
        math.comb(depth, k) * radius ** (depth - k) * departure**k
        for k in range(min(depth, d - 1) + 1)
    )
    return mp.root(mp.fsum(words), depth)


def _gain(product: mp.matrix) -> mp.mpf:
    """Return the largest absolute row or column sum, whichever is farther from 1."""
    sums = (max(mp.mpf(mp.fsum(map(abs, x))) for x in y.tolist()) for y in (product, product.T))
    return max(sums, key=lambda gain: abs(gain - 1))


def _row_gain(product: mp.matrix) -> mp.mpf:
    return max(mp.mpf(mp.fsum(map(abs, row))) for row in product.tolist())


def _horn(layers: list[mp.matrix]) -> tuple[mp.mpf, mp.mpf]:
    """Return geometric means of the first k singular values on V⊥, k with the least slack."""
    d = layers[0].rows - 1
    curves = [singular_values(detail(m))[:d] for m in (_product(layers), *layers)]
    means = [[mp.root(mp.fprod(curve[:k]), k) for k in range(1, d + 1)] for curve in curves]
    pairs = ((kept, mp.fprod(bounds)) for kept, *bounds in zip(*means, strict=True))
    return min(pairs, key=lambda pair: pair[1] - pair[0])


def _narrowest(layers: list[mp.matrix]) -> tuple[mp.mpf, mp.mpf]:
    """Return σ_k of the product and the least σ_k(M_m) Π σ₂ of the others, k of least slack."""
    d = layers[0].rows - 1
    kept, *curves = [singular_values(detail(m))[:d] for m in (_product(layers), *layers)]
    rest = [mp.fprod(c[0] for j, c in enumerate(curves) if j != m) for m in range(len(curves))]
    pairs = [
        (kept[k], min(c[k] * other for c, other in zip(curves, rest, strict=True)))
        for k in range(d)
    ]
    return min(pairs, key=lambda pair: pair[1] - pair[0])


def _along(n: int, factor: mp.mpf | int) -> mp.matrix:
    """Return I + (factor − 1) qqᵀ, q the unit wave that homojax.theory has."""
    wave = mp.matrix([mp.cos(1 + k) for k in range(n)])
    wave -= mp.ones(n, 1) * mp.fsum(wave) / n
    wave /= mp.norm(wave)
    return mp.eye(n) + (factor - 1) * wave * wave.T


def _stretched(layers: list[mp.matrix]) -> mp.matrix:
    n = layers[0].rows
    return _along(n, 2) * _product(layers) * _along(n, mp.mpf("0.5"))


def _reflected(layers: list[mp.matrix]) -> mp.matrix:
    return _along(layers[0].rows, -1) * _product(layers)


def _trace(m: mp.matrix) -> mp.mpf:
    return mp.mpf(mp.fsum(m[i, i] for i in range(m.rows)))


def _branch(m: mp.matrix, x: mp.matrix) -> mp.matrix:
    return m * x * (mp.norm(x) / mp.norm(m * x))


# Both sides, from layers in 𝔅ₙ, a residual weight a and a vector x.
_SIDES: dict[str, Callable[[list[mp.matrix], mp.mpf, mp.matrix], tuple[mp.mpf, mp.mpf] | None]] = {
    "product": lambda ms, a, x: (sigma2(_product(ms)), mp.fprod(map(sigma2, ms))),
    "effective_depth": lambda ms, a, x: _half(ms),
    "lyapunov": lambda ms, a, x: (_growth(ms), mp.root(mp.fprod(map(sigma2, ms)), len(ms))),
    "shared": lambda ms, a, x: (lambda2(ms[0]), _shared_rate(ms)),
    "shared_limit": lambda ms, a, x: (
        _shared_rate(ms) - lambda2(ms[0]),
        _henrici(ms) - lambda2(ms[0]),
    ),
    "amax_gain": lambda ms, a, x: (_gain(_product(ms)), mp.mpf(1)),
    "horn": lambda ms, a, x: _horn(ms),
    "gain_retention": lambda ms, a, x: (mp.mpf(1), sigma2(_product(ms))),
    "doeblin_composed": lambda ms, a, x: (sigma2(_product(ms)), _least_shared(ms)),
    "doeblin_frobenius": lambda ms, a, x: (
        schatten(detail(_product(ms)), 1),
        mp.sqrt(x.rows - 1) * _least_shared(ms),
    ),
    "gap_sum": lambda ms, a, x: (
        sigma2(_product(ms)),
        mp.mpf(mp.exp(-_gaps(ms))),
    ),
    "gap_sum_needed": lambda ms, a, x: (
        1 - _gaps(ms),
        sigma2(_product(ms)),
    ),
    "one_marginal": lambda ms, a, x: (mp.mpf(1), mp.mpf(mp.sqrt(x.rows))),
    "rank_composed": lambda ms, a, x: _narrowest(ms),
    "gauge_period": lambda ms, a, x: (_trace(_stretched(ms)), _trace(_product(ms))),
    "gauge_isometry": lambda ms, a, x: (sigma2(_reflected(ms)), sigma2(_product(ms))),
    "gauge_growth": lambda ms, a, x: (sigma2(_stretched(ms)), 2 * sigma2(_product(ms))),
    "gauge_sigma2": lambda ms, a, x: (sigma2(_stretched(ms)), sigma2(_product(ms))),
    "gauge_gain": lambda ms, a, x: (_row_gain(_reflected(ms)), mp.mpf(1)),
    "residual": lambda ms, a, x: (
        sigma2(_product([(1 - a) * mp.eye(x.rows) + a * m for m in ms])),
        mp.fprod(1 - a + a * sigma2(m) for m in ms),
    ),
    "turn": lambda ms, a, x: (
        _turned(ms, x, lambda m, y: (1 - a) * y + a * (m * y)),
        _most_turned(ms, a, sigma2),
    ),
    "turn_prenorm": lambda ms, a, x: (
        _turned(ms, x, lambda m, y: (1 - a) * y + a * _branch(m, y)),
        _most_turned(ms, a, sigma2),
    ),
    "turn_prenorm_bound": lambda ms, a, x: (
        _turned(ms, x, lambda m, y: (1 - a) * y + a * _branch(m, y)),
        _most_turned(ms, a, lambda m: mp.mpf(1)),
    ),
}


def referee_stack(
    claim_name: str, matrices: np.ndarray, alpha: float, probe: np.ndarray, digits: int = 50
) -> tuple[mp.mpf, mp.mpf] | None:
    """Return (lesser, greater) of a claim about a stack at its full depth L, in many digits.

    Each matrix stands for the doubly stochastic one that scaling its rows and columns leads to.

    Args:
        claim_name: of the list.
        matrices: [L, n, n], layer 1 first.
        alpha: the residual weight of all layers.
        probe: [n].
        digits: places of each side.

    Returns:
        None as ``referee`` does, and for ``effective_depth`` where the bound leaves more than half.
    """
    if claim_name not in _SIDES or not all(np.isfinite(x).all() for x in (matrices, alpha, probe)):
        return None
    with mp.workdps(digits + 40):
        layers = []
        for matrix in np.asarray(matrices, float):
            support = np.asarray(jax.jit(total_support)(matrix > 0))
            if matrix.min() < 0 or not support.any():
                return None
            kernel = mp.matrix(np.where(support, matrix, 1).tolist()).apply(mp.log)
            layers.append(scaled(kernel, support, digits + 20))
        if any(layer is None for layer in layers):
            return None
        with mp.workdps(2 * digits + 40):
            try:
                return _SIDES[claim_name](
                    layers, mp.mpf(float(alpha)), mp.matrix(np.asarray(probe, float).tolist())
                )
            except (ZeroDivisionError, RuntimeError):
                return None
