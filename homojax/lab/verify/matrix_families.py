"""Families of matrices of known spectrum. Each function is (rng, n, count) -> [count, n, n]."""

from __future__ import annotations

import numpy as np

from homojax.lab.verify.draws import (
    draw_groups,
    draw_mixture,
    draw_orders,
    draw_permutations,
    draw_simplex,
    draw_weights,
    relabel,
)
from homojax.lab.verify.family import (
    BITS,
    DESIGNS,
    TWO_BITS,
    is_prime,
    matrix_family,
    plane_order,
)


@matrix_family(
    "permutations",
    "convex combinations of 1 to n random permutations, weights flat Dirichlet (mHC-lite)",
)
def _of_permutations(rng, n, count):
    alike = np.zeros((count, n))
    return draw_mixture(rng, alike, alike)


@matrix_family(
    "isolated-unit",
    "(1 − t)J + t(1 ⊕ J) with the unit at a random place: σ₂ = t at the most entropy (law 2.2)",
)
def _isolated_unit(rng, n, count):
    row, col = np.arange(n) == rng.integers(n, size=(2, count, 1))
    row, col, t = row[:, :, None], col[:, None, :], draw_weights(rng, count)
    return (1 - t) / n + t * np.where(row & col, 1, np.where(row | col, 0, 1 / (n - 1)))


@matrix_family("lazy-permutation", "tΠ + (1 − t)J: every detail singular value is t")
def _lazy_permutation(rng, n, count):
    t = draw_weights(rng, count)
    return t * draw_permutations(rng, n, count) + (1 - t) / n


@matrix_family(
    "mostly-kept",
    "tΠ + (1 − t)J with t = (n − 2)/(n − 1): each row has 1 − 1/n once, the rest evenly (law 8.1)",
)
def _mostly_kept(rng, n, count):
    t = (n - 2) / (n - 1)
    return t * draw_permutations(rng, n, count) + (1 - t) / n


@matrix_family(
    "cyclic", "permutation matrices that are one n-cycle: periodic, eigenvalues the n-th roots of 1"
)
def _cyclic(rng, n, count):
    return relabel(rng, np.roll(np.eye(n), 1, 0), count)


@matrix_family(
    "circulant",
    "Σ cₖCᵏ with dense to sparse weights: normal, eigenvalues the discrete Fourier transform of c",
)
def _circulant(rng, n, count):
    weights = rng.permuted(draw_simplex(rng, n, count), axis=1)
    return weights[:, (np.arange(n)[:, None] - np.arange(n)) % n]


@matrix_family(
    "blocks",
    "reducible: ⊕ of random doubly stochastic blocks, rows and columns shuffled apart: σ₂ = 1",
)
def _blocks(rng, n, count):
    groups, t = draw_groups(rng, n, count), draw_weights(rng, count)
    rows, cols = rng.permuted(groups, axis=1), rng.permuted(groups, axis=1)
    same = (rows[:, :, None] == cols[:, None, :]).astype(float)
    return (1 - t) * same / same.sum(-1, keepdims=True) + t * draw_mixture(rng, rows, cols)


@matrix_family(
    "kronecker",
    "⊗ of [[p, q], [q, p]], p, q = softmax(0, b): singular values are products of tanh(|b|/2)",
    TWO_BITS,
)
def _kronecker(rng, n, count):
    matrix = np.ones((count, 1, 1))
    for _ in range(n.bit_length() - 1):
        b = rng.standard_normal(count) * rng.choice([0.3, 1, 3, 10], count)
        p, q = 1 / (1 + np.exp(b)), 1 / (1 + np.exp(-b))
        factor = np.stack([p, q, q, p], -1).reshape(count, 2, 2)
        matrix = np.einsum("cij,ckl->cikjl", matrix, factor).reshape(count, 2 * matrix.shape[1], -1)
    return matrix


@matrix_family(
    "de-bruijn",
    "t times the walk that shifts in a fair bit, + (1 − t)J, relabelled: σ₂ = t but λ₂ = 0",
    TWO_BITS,
)
def _de_bruijn(rng, n, count):
    word = np.arange(n)
    walk = 0.5 * (word // 2 == word[:, None] % (n // 2))
    t = draw_weights(rng, count)
    return t * relabel(rng, walk, count) + (1 - t) / n


@matrix_family(
    "design",
    "incidence of a Paley design, a projective plane or a complement, shuffled: all detail σ equal",
    DESIGNS,
)
def _design(rng, n, count):
    """Return symmetric (n, k, λ) designs over k: MMᵀ = (k − λ)/k² I + λ/k² 11ᵀ.

    Source: Beth, Jungnickel and Lenz, Design Theory (1999).
    """
    designs, q = [], plane_order(n)
    if n % 4 == 3 and is_prime(n):
        squares = np.unique(np.arange(1, n) ** 2 % n)
        designs.append(np.isin((np.arange(n)[:, None] - np.arange(n)) % n, squares))
    if q is not None:
        points = np.array(
            [(1, a, b) for a in range(q) for b in range(q)]
            + [(0, 1, a) for a in range(q)]
            + [(0, 0, 1)]
        )
        designs.append(points @ points.T % q == 0)
    kinds = np.array([x / x.sum(0) for design in designs for x in (design, ~design)])
    rows, cols = draw_orders(rng, n, count), draw_orders(rng, n, count)
    return kinds[
        rng.integers(len(kinds), size=count)[:, None, None], rows[:, :, None], cols[:, None, :]
    ]


@matrix_family(
    "periodic",
    "blocks of J shifted round, of a random period p that divides n, relabelled: p eigenvalues of "
    "modulus 1",
)
def _periodic(rng, n, count):
    period = rng.choice([p for p in range(2, n + 1) if n % p == 0], (count, 1))
    block = rng.permuted(np.arange(n) // (n // period), axis=1)
    follows = (block[:, :, None] + 1) % period[:, :, None] == block[:, None, :]
    return follows * (period / n)[:, :, None]


@matrix_family(
    "pivot",
    "couplings glued through 1 to n atoms, soft or one for each unit: the rank is that (law 8.7)",
)
def _pivot(rng, n, count):
    """Return Γ diag(1/w) Γᵀ B, Γ [n, r] with unit row sums and column sums w, and B ∈ 𝔅ₙ.

    BᵀΓ has the sums of Γ, too, so that both are couplings with the pivot w.
    """
    scores = rng.standard_normal((count, n, n)) * rng.choice([0.3, 1, 3], (count, 1, 1))
    scores = np.where(np.arange(n) < rng.integers(1, n + 1, (count, 1, 1)), scores, -np.inf)
    best = scores.max(-1, keepdims=True)
    chosen = np.where(rng.random((count, 1, 1)) < 0.25, scores == best, np.exp(scores - best))
    coupling = chosen / chosen.sum(-1, keepdims=True)
    masses = coupling.sum(1, keepdims=True)
    glued = (coupling / np.where(masses > 0, masses, 1)) @ coupling.swapaxes(1, 2)
    alike = np.zeros((count, n))
    return glued @ draw_mixture(rng, alike, alike)


@matrix_family("uniform", "J, the barycentre")
def _uniform(rng, n, count):
    return np.full((count, n, n), 1 / n)


@matrix_family("identity", "I: nothing is mixed")
def _identity(rng, n, count):
    return np.tile(np.eye(n), (count, 1, 1))


@matrix_family(
    "gossip",
    "Metropolis weights on a random connected graph, tree to complete: symmetric (Xiao and Boyd, "
    "2004)",
)
def _gossip(rng, n, count):
    edge = np.triu(rng.random((count, n, n)) < rng.random((count, 1, 1)) ** 2, 1)
    earlier = (rng.random((count, n - 1)) * np.arange(1, n)).astype(
        int
    )  # each later unit has an edge to an earlier one
    edge[np.arange(count)[:, None], earlier, np.arange(1, n)] = True
    edge |= edge.swapaxes(1, 2)
    degree = edge.sum(-1)
    matrix = edge / (1.0 + np.maximum(degree[:, :, None], degree[:, None, :]))
    matrix[:, np.arange(n), np.arange(n)] = 1 - matrix.sum(-1)
    return matrix


@matrix_family(
    "hypercube", "walk on {0, 1}ᵐ that stays with probability t: eigenvalues 1 − 2(1 − t)j/m", BITS
)
def _hypercube(rng, n, count):
    apart, stay = np.bitwise_count(np.arange(n)[:, None] ^ np.arange(n)), draw_weights(rng, count)
    return np.where(apart == 0, stay, np.where(apart == 1, (1 - stay) / (n.bit_length() - 1), 0))


@matrix_family(
    "truncated",
    "20 alternations, columns last, from normal logits times 1, 3 or 6: rows not exact (mHC)",
)
def _truncated(rng, n, count):
    logits = rng.standard_normal((count, n, n)) * rng.choice([1, 3, 6], (count, 1, 1))
    kernel = np.exp(logits - logits.max((1, 2), keepdims=True))
    row, col = np.ones((2, count, n))
    for _ in range(20):
        row = 1 / np.einsum("cij,cj->ci", kernel, col)
        col = 1 / np.einsum("ci,cij->cj", row, kernel)
    return row[:, :, None] * kernel * col[:, None, :]
