"""How public codes make their matrix of their parameters, rewritten step by step in NumPy.

Every one returns the matrix of y = M x; those that mix with the transpose turn theirs in the end.
Those of square logits take [..., n, n].
"""

import itertools
import math

import numpy as np


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def permutations(n):
    """[n!, n, n], as itertools has them, row i with its 1 in column π(i)."""
    return np.eye(n)[list(itertools.permutations(range(n)))]


def mhc_paper(h):
    """M⁽ᵗ⁾ = T_r(T_c(M⁽ᵗ⁻¹⁾)) from exp(H̃); x ← H x."""
    m = np.exp(h)
    for _ in range(20):
        m = m / m.sum(-2, keepdims=True)
        m = m / m.sum(-1, keepdims=True)
    return m


def maxtext(h):
    """Softmax over the last axis plus 1e-6, then both axes in turn with 1e-6 in every sum.

    out_m = Σ_k H_km x_k.
    """
    m = softmax(h, -1) + 1e-6
    m = m / (m.sum(-2, keepdims=True) + 1e-6)
    for _ in range(20 - 1):
        m = m / (m.sum(-1, keepdims=True) + 1e-6)
        m = m / (m.sum(-2, keepdims=True) + 1e-6)
    return m.swapaxes(-1, -2)


def lucidrains(h):
    """exp less the largest of axis −2, then ℓ₁-normalised along −2 and −1; out_t = Σ_s H_st x_s."""
    m = np.exp(h - h.max(-2, keepdims=True))
    for _ in range(20):
        m = m / np.maximum(abs(m).sum(-2, keepdims=True), 1e-12)
        m = m / np.maximum(abs(m).sum(-1, keepdims=True), 1e-12)
    return m.swapaxes(-1, -2)


def tokenbender(h):
    """Potentials u and v of log marginals −log n, times n in the end; out_t = Σ_s H_st x_s."""
    z, n = h / 0.05, h.shape[-1]
    v = np.zeros(n)
    for _ in range(10):
        u = -np.log(n) - np.logaddexp.reduce(z + v, axis=-1)[..., :, None]
        v = -np.log(n) - np.logaddexp.reduce(z + u, axis=-2)[..., None, :]
    return np.exp(z + u + v).swapaxes(-1, -2) * n


def kromhc(h):
    m = np.ones((1, 1))
    for identity, swap in h:
        p = 1 / (1 + np.exp(swap - identity))
        m = np.einsum("ac,bd->abcd", m, [[p, 1 - p], [1 - p, p]]).reshape(2 * len(m), 2 * len(m))
    return m.T


def mhc_lite(h):
    n = next(n for n in range(9) if math.factorial(n) == len(h))
    return np.einsum("r,rij->ij", softmax(h), permutations(n)).T


def magi_2(h):
    """Exp less the largest of the matrix, then ε in every sum, the first ones too; x ← H x."""
    m = np.exp(h - h.max((-2, -1), keepdims=True))
    for _ in range(20):
        m = m / (m.sum(-2, keepdims=True) + 1e-12)
        m = m / (m.sum(-1, keepdims=True) + 1e-12)
    return m


CODES = {
    "mhc-paper": mhc_paper,
    "maxtext": maxtext,
    "megatron": maxtext,
    "deepseek-v4": maxtext,
    "openpangu": maxtext,
    "magi-2": magi_2,
    "none": lambda h: np.eye(len(h)),
    "lucidrains": lucidrains,
    "tokenbender": tokenbender,
    "kromhc": kromhc,
    "mhc-lite": mhc_lite,
}
