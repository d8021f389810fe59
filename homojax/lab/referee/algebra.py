"""Scaling to a doubly stochastic matrix, norms and spectra, in as many digits as mpmath holds."""

from __future__ import annotations

import mpmath as mp
import numpy as np


def scaled(kernel: mp.matrix, support: np.ndarray, places: int) -> mp.matrix | None:
    """Return diag(e^f) exp(kernel) diag(e^g) in 𝔅ₙ on a total support; None if there is no end.

    By Newton's method on the semi-dual, while the kernel cools.
    """
    n, entries = len(support), np.argwhere(support).tolist()
    linked = np.linalg.matrix_power(support.T @ support, n)  # columns of one block
    free = [j for j in range(n) if linked[j].argmax() < j]  # in each block one potential is held
    values = [kernel[i, j] for i, j in entries]
    heat, g = max(max(values) - min(values), mp.mpf(1)), mp.matrix(n, 1)

    def scale(g):
        m = mp.matrix(n)
        for i, j in entries:
            m[i, j] = mp.exp(kernel[i, j] / heat + g[j])
        for i in range(n):
            m[i, :] /= mp.fsum(m[i, :])
        return m, mp.matrix([mp.fsum(m[:, j]) - 1 for j in range(n)])

    m, missing = scale(g)
    for _ in range(500):
        worst = max(map(abs, missing))
        if heat == 1 and worst <= mp.mpf(10) ** -places:
            return m
        if heat > 1 and worst < 0.01:
            g, heat = g * min(2, heat), max(heat / 2, mp.mpf(1))
            m, missing = scale(g)
            continue
        gram, step = m.T * m, mp.matrix(n, 1)
        curvature = mp.matrix(
            [[(j == k) * (1 + missing[j]) - gram[j, k] for k in free] for j in free]
        )
        for j, move in zip(
            free, mp.lu_solve(curvature, mp.matrix([-missing[j] for j in free])), strict=True
        ):
            step[j] = move
        slope, length = mp.fdot(step, missing), mp.mpf(1)
        m, missing = scale(g + step)
        # Halve a step that goes too far, by its slope: values would not tell, for rounding.
        while mp.fdot(step, missing) > -slope / 10 and length > mp.eps:
            length /= 2
            m, missing = scale(g + length * step)
        g += length * step
    return None


def singular_values(a: mp.matrix) -> list[mp.mpf]:
    """Return the singular values, descending."""
    return sorted(
        (mp.sqrt(max(x, mp.mpf(0))) for x in mp.eigsy(a.T * a, eigvals_only=True)), reverse=True
    )


def norm(a: mp.matrix) -> mp.mpf:
    """Return the largest singular value."""
    return singular_values(a)[0]


def sigma2(m: mp.matrix) -> mp.mpf:
    """Return the largest singular value of P M P."""
    return norm(detail(m))


def lambda2(m: mp.matrix) -> mp.mpf:
    """Return the largest eigenvalue modulus of P M P."""
    return mp.mpf(max(map(abs, mp.eig(detail(m), left=False, right=False))))


def detail(m: mp.matrix) -> mp.matrix:
    """Return P M P."""
    centring = mp.eye(m.rows) - mp.ones(m.rows) / m.rows
    return centring * m * centring


def schatten(a: mp.matrix, k: int) -> mp.mpf:
    """Return the 2k-th root of the sum of the 2k-th powers of the singular values."""
    power = (a.T * a) ** k
    return mp.root(mp.fsum(power[i, i] for i in range(a.rows)), 2 * k)


def row_differences(x: mp.matrix) -> list[list[mp.mpf]]:
    """Return every row less every other."""
    return [[p - q for p, q in zip(a, b, strict=True)] for a in x.tolist() for b in x.tolist()]
