"""The set 𝔅ₙ of doubly stochastic matrices: coordinates, entropy, distances, known members.

Convention, for the whole library: ``y = M @ x``, so rows are outputs. ``M`` is [n, n], ≥ 0, with
rows and columns that sum to 1. Its *detail subspace* is V⊥ = {x : Σx = 0}, of dimension n − 1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from homojax.arguments import as_float, as_key, as_square, require_count
from homojax.numerics import max_or_nan, norm, wide
from homojax.programs import compiled
from homojax.row_pairs import max_over_row_pairs


@compiled("n", "dtype")
def uniform(n: int, dtype: DTypeLike | None = None) -> jax.Array:
    """Return the barycentre J = 11ᵀ/n, [n, n], which forgets everything but the mean. theory.md §0.

    >>> uniform(2).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    n = require_count("n", n, 1)
    return jnp.full((n, n), 1 / n, dtype)


@compiled()
def center(x: ArrayLike) -> jax.Array:
    """Return P x = x − mean(x), the detail of a vector [n] or of the columns of a matrix [n, m].

    theory.md §0.

    Raises:
        ValueError: it is a number, or it has no rows.

    >>> center([1.0, 3.0]).tolist()
    [-1.0, 1.0]
    """
    x = as_float(x, "x")
    if not x.ndim or not len(x):
        raise ValueError(f"x must be a vector [n] or a matrix [n, m], got shape {list(x.shape)}")
    return x - x.mean(axis=0, keepdims=True)


@compiled()
def detail(matrix: ArrayLike) -> jax.Array:
    """Return P M P, [n, n], which is what M does to detail. theory.md §0.

    It equals M − J exactly when M is doubly stochastic.

    >>> float(abs(detail(uniform(3))).max())
    0.0
    """
    columns = center(as_square(matrix))
    return columns - columns.mean(axis=1, keepdims=True)


@compiled("n", "dtype")
def detail_basis(n: int, dtype: DTypeLike | None = None) -> jax.Array:
    """Return orthonormal columns [n, n − 1] that span V⊥ (Helmert's contrasts).

    >>> basis = detail_basis(3)
    >>> bool(jnp.allclose(basis.T @ basis, jnp.eye(2), atol=1e-6))
    True
    """
    n = require_count("n", n, 1)
    dtype = dtype or jnp.result_type(float)
    k = jnp.arange(1, n, dtype=wide(dtype))[None, :]
    row = jnp.arange(n, dtype=k.dtype)[:, None]
    contrasts = jnp.where(row < k, 1, jnp.where(row == k, -k, 0))
    return (contrasts / jnp.sqrt(k * (k + 1))).astype(dtype)


@compiled()
def entropy(matrix: ArrayLike) -> jax.Array:
    """Return H(M) = −Σ Mᵢⱼ log Mᵢⱼ in nats: 0 for a permutation, n log n for J. theory.md §0.

    NaN if an entry is negative or NaN. Entries that are exactly 0 contribute 0, and derivative 0.

    >>> round(float(entropy(uniform(2))), 4)
    1.3863
    """
    matrix = as_square(matrix)
    positive = matrix > 0
    terms = jnp.where(positive, -matrix * jnp.log(jnp.where(positive, matrix, 1)), 0)
    return jnp.where((matrix >= 0).all(), terms.sum(), jnp.nan)  # of a NaN, too


@compiled()
def entropy_deficit(matrix: ArrayLike) -> jax.Array:
    """Return ΔH = n log n − H(M) ≥ 0 in nats, the relative entropy of M to J. theory.md §0.

    Zero only at J. It is summed as Σ (x log x − x + 1)/n over x = nMᵢⱼ. That equals n log n − H(M)
    where ΣM = n, is non-negative term by term, and is free of the difference's cancellation near J.
    NaN if an entry is negative or NaN.

    >>> round(float(entropy_deficit(jnp.eye(2))), 4)
    1.3863
    """
    matrix = as_square(matrix)
    n = matrix.shape[0]
    return jnp.where((matrix >= 0).all(), excess(n * matrix - 1).sum() / n, jnp.nan)


@compiled()
def excess(y: ArrayLike) -> jax.Array:
    """Return (1 + y) log(1 + y) − y ≥ 0, elementwise for y ≥ −1, to relative accuracy.

    An entry (1 + y)/n of a matrix adds this to n times ΔH.

    >>> round(float(excess(1e-12)) * 1e25, 3)
    5.0
    """
    y = as_float(y)
    small, positive = abs(y) < 0.03, y > -1
    series = jnp.zeros_like(y)
    for k in range(12, 1, -1):  # Σ (−1)ᵏ yᵏ/(k(k − 1)) from k = 2
        series = 1 / (k * (k - 1)) - y * series
    safe = jnp.where(small | ~positive, 1, y)
    direct = (1 + safe) * jnp.log1p(safe) - safe
    direct = jnp.where(positive, direct, jnp.where(jnp.isnan(y), y, 1))
    return jnp.where(small, y * y * series, direct)


@compiled(shared=True)
def projective_diameter(logits: ArrayLike) -> jax.Array:
    """Return Δ(S) = max Sᵢₖ + Sⱼₗ − Sᵢₗ − Sⱼₖ ≥ 0, the logits' diameter in Hilbert's metric.

    In the logits' units. Constants added to rows or columns do not change it, nor the projection.
    ∞ where a logit is −inf. O(n³) time, O(n²) memory. theory.md §0; Birkhoff (1957).

    >>> float(projective_diameter([[1.0, 0.0], [0.0, 1.0]]))
    2.0
    """
    logits = as_square(logits, "logits")
    forbidden = logits == -jnp.inf
    diameter = max_over_row_pairs(jnp.maximum, lambda x: x, jnp.where(forbidden, 0, logits))
    return jnp.where(forbidden.any() & ~jnp.isnan(diameter), jnp.inf, diameter)


@compiled()
def logit_spread(logits: ArrayLike) -> jax.Array:
    """Return ‖PSP‖_F/(n − 1), the root-mean-square logit without row and column shifts.

    The shifts change no projection. For independent entries of variance s² its mean square is s².
    ε divided by it is the relative entropy weight, comparable between sources of logits. ∞ where a
    logit is −inf.

    >>> float(logit_spread([[1.0, 0.0], [0.0, 1.0]]))
    1.0
    """
    logits = as_square(logits, "logits")
    forbidden = logits == -jnp.inf
    spread = norm(detail(jnp.where(forbidden, 0, logits))) / (logits.shape[0] - 1)
    return jnp.where(forbidden.any() & ~jnp.isnan(spread), jnp.inf, spread)


@compiled()
def marginal_errors(matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return (max |row sum − 1|, max |column sum − 1|) of M, [n, n]. theory.md 1.7.

    >>> row, col = marginal_errors([[0.5, 0.5], [0.25, 0.25]])
    >>> float(row), float(col)
    (0.5, 0.25)
    """
    matrix = as_square(matrix)
    return max_or_nan(abs(matrix.sum(1) - 1)), max_or_nan(abs(matrix.sum(0) - 1))


@compiled()
def birkhoff_distance(row_error: ArrayLike, col_error: ArrayLike) -> jax.Array:
    """Return a bound on ‖M − M'‖ for the nearest M' ∈ 𝔅ₙ, from M's marginal errors alone.

    2(r + c) + rc for M ≥ 0, in the 2-norm and in the induced 1- and ∞-norms alike, for any n. Every
    law that assumes M ∈ 𝔅ₙ takes its margin from here (theory.md 1.7).

    Source: Altschuler, Weed and Rigollet (arXiv 1705.09634, algorithm 2). It is the cost of their
    rounding: scale rows down, then columns, then add one rank-one matrix.

    >>> float(birkhoff_distance(0.5, 0.0))
    1.0
    """
    r, c = as_float(row_error), as_float(col_error)
    return 2 * (r + c) + r * c


@compiled("n")
def isolated_unit(n: int, weight: ArrayLike = 1.0) -> jax.Array:
    """Return (1 − t)J + t(1 ⊕ J_{n−1}), [n, n], with σ₂ = t at nearly maximal entropy.

    t = ``weight`` is in [0, 1]; NaN for any other. n ≥ 2. theory.md 2.2.

    >>> isolated_unit(3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]
    """
    n, weight = require_count("n", n, 2), as_float(weight)
    weight = jnp.where((weight >= 0) & (weight <= 1), weight, jnp.nan)
    rest = jnp.full((n, n), 1 / (n - 1), weight.dtype)
    block = rest.at[0, :].set(0).at[:, 0].set(0).at[0, 0].set(1)
    return (1 - weight) * uniform(n, weight.dtype) + weight * block


@compiled()
def circulant(weights: ArrayLike) -> jax.Array:
    """Return Σ c_k Cᵏ, [n, n], with C the cyclic shift (C x)ᵢ = x_{i−1}. theory.md §6.

    c = ``weights`` [n] is on the simplex. The matrix is normal. Its eigenvalues are the discrete
    Fourier transform of c.

    >>> circulant([0.0, 1.0, 0.0]).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    weights = as_float(weights)
    if weights.ndim != 1:
        raise ValueError(f"weights must have shape [n], got {list(weights.shape)}")
    n = weights.shape[0]
    return weights[(jnp.arange(n)[:, None] - jnp.arange(n)[None, :]) % n]


def lazy_cycle(n: int, stay: float = 0.5) -> jax.Array:
    """Return the random walk on the n-cycle that stays with probability ``stay``, [n, n].

    Its eigenvalues are stay + (1 − stay) cos(2πk/n), k = 0 … n − 1 (Levin and Peres, Markov Chains
    and Mixing Times, 12.3.1).

    Raises:
        ValueError: n < 3, or ``stay`` is not between 0 and 1.

    >>> lazy_cycle(3, 0.5).tolist()
    [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    """
    n, stay = require_count("n", n, 3), _share("stay", stay)
    step = (1 - stay) / 2
    return circulant(jnp.zeros(n).at[0].set(stay).at[1].add(step).at[-1].add(step))


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")
    return value


def lazy_hypercube(dimension: int, stay: float = 0.5) -> jax.Array:
    """Return the random walk on {0, 1}^dimension that stays with probability ``stay``.

    [n, n], n = 2^dimension. Its eigenvalues are 1 − 2(1 − stay) j/dimension with multiplicity
    C(dimension, j) (Levin and Peres, 12.4).

    Raises:
        ValueError: ``dimension`` < 1, or ``stay`` is not between 0 and 1.

    >>> lazy_hypercube(1, 0.75).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    dimension, stay = require_count("dimension", dimension, 1), _share("stay", stay)
    states = jnp.arange(2**dimension)
    distance = jax.lax.population_count(states[:, None] ^ states)  # bits that differ
    return jnp.where(distance == 0, stay, jnp.where(distance == 1, (1 - stay) / dimension, 0.0))


@compiled("bits")
def de_bruijn(bits: int) -> jax.Array:
    """Return the walk that shifts a fair random bit into a word of ``bits`` bits, [n, n].

    n = 2^bits. σ₂ = 1 but λ₂ = 0 for bits ≥ 2: its power ``bits`` is exactly J. No matrix has σ₂
    and λ₂ farther apart. theory.md §2.

    >>> (de_bruijn(2) @ de_bruijn(2) == uniform(4)).all().item()
    True
    """
    n = 2 ** require_count("bits", bits, 1)
    moves = jnp.arange(n) // 2 == jnp.arange(n)[:, None] % (n // 2)
    return 0.5 * moves.astype(jnp.result_type(float))


@compiled("n", "num_permutations")
def random_birkhoff(key: jax.Array, n: int, num_permutations: int = 4) -> jax.Array:
    """Return a random convex combination of ``num_permutations`` random permutations, [n, n].

    The weights are flat Dirichlet. Doubly stochastic by construction (Birkhoff, von Neumann), and
    sparse when few permutations are taken.

    >>> row, col = marginal_errors(random_birkhoff(jax.random.key(0), 5))
    >>> bool(row < 1e-6) and bool(col < 1e-6)
    True
    """
    n = require_count("n", n, 1)
    num_permutations = require_count("num_permutations", num_permutations, 1)
    weight_key, order_key = jax.random.split(as_key(key))
    weights = jax.random.dirichlet(weight_key, jnp.ones(num_permutations))
    keys = jax.random.split(order_key, num_permutations)
    orders = jax.vmap(lambda k: jax.random.permutation(k, n))(keys)
    return jnp.einsum("p,pij->ij", weights, jax.nn.one_hot(orders, n, dtype=weights.dtype))
