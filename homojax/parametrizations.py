"""Mixing matrices from parameters: the tables of theory.md §6 and §7.

One array of parameters, whose shape alone tells n, gives one matrix [n, n] with ``y = M @ x``: rows
are outputs. Code that mixes with the transpose (y_t = Σ_s H_st x_s) keeps its parameters as they
are here, and transposes its matrix. Every map is declared above the function that makes its matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, reduce
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.nn import logsumexp, softmax
from jax.scipy.linalg import block_diag
from jax.typing import ArrayLike

from homojax.arguments import as_epsilon, as_float, as_square
from homojax.birkhoff import center, circulant, detail, uniform
from homojax.decompositions.cholesky import solve_positive
from homojax.decompositions.qr import solve
from homojax.numerics import gram, matmul, scaled_logits
from homojax.programs import compiled
from homojax.projection.sinkhorn import sinkhorn
from homojax.projection.truncated import truncated_sinkhorn
from homojax.registry import Registry

CORRECTION_RANK = 2  # of "low-rank"
FILTERED_GAIN = 0.25  # the σ that "spectral-filter" halves: smaller ones are taken for noise


class Parametrization(NamedTuple):
    """A map from one array of parameters to a mixing matrix, for every n that it has.

    ``matrix`` is pure, differentiable and keeps the dtype of the parameters. It raises ValueError
    on a shape that no n has, as ``shape`` does on an n that does not exist. Where ε acts, an ε that
    is not positive gives NaN, and a parameter of −inf gives a weight of 0.

    >>> kronecker = PARAMETRIZATIONS["kronecker"]
    >>> kronecker.shape(8), kronecker.sizes(6), kronecker.needs
    ((3, 2), False, 'n must be a power of two, at least 2')
    >>> kronecker.matrix(jnp.zeros((1, 2))).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """

    name: str
    statement: str  # one line: the matrix from parameters S and temperature ε
    source: str
    shape: Callable[[int], tuple[int, ...]]  # n -> the shape of the parameters
    sizes: Callable[[int], bool]  # n -> whether it exists
    needs: str  # the same in words
    matrix: Callable[..., jax.Array]  # (parameters, epsilon=1.0) -> [n, n]
    exact: Literal["both", "rows", "columns", "none"]  # the sums that are always 1, to rounding
    nonnegative: bool
    tempered: bool  # whether ε acts

    @property
    def doubly_stochastic(self) -> bool:
        """Whether M is in 𝔅ₙ for all parameters, to rounding (a projection: to its tolerance)."""
        return self.nonnegative and self.exact == "both"


PARAMETRIZATIONS: Registry[Parametrization] = Registry("parametrization")


def parametrization(
    name: str,
    *,
    statement: str,
    source: str,
    exact: Literal["both", "rows", "columns", "none"],
    shape: Callable[[int], tuple[int, ...]] = lambda n: (n, n),
    sizes: Callable[[int], bool] = lambda n: n >= 2,
    needs: str = "n must be at least 2",
    nonnegative: bool = True,
    tempered: bool = True,
    settings: tuple[str, ...] = (),
) -> Callable[[Callable[..., jax.Array]], Callable[..., jax.Array]]:
    """Return a decorator that declares a function (parameters, epsilon) -> [n, n] as ``name``.

    The arguments are the fields of ``Parametrization``, and the names of further arguments that
    are no arrays (``programs.compiled``).

    >>> @parametrization("lazy", statement="pI + (1 − p)J", source="an example", exact="both",
    ...                  shape=lambda n: (n,), tempered=False)
    ... def lazy(parameters, epsilon=1.0):
    ...     n, p = parameters.size, jax.nn.sigmoid(parameters.mean())
    ...     return p * jnp.eye(n) + (1 - p) / n
    >>> PARAMETRIZATIONS.pop("lazy").matrix(jnp.zeros(2)).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """

    def declare(matrix: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        def checked_shape(n: int) -> tuple[int, ...]:
            if not sizes(n):
                raise ValueError(f"there is no {name} matrix with n = {n}: {needs}")
            return shape(n)

        PARAMETRIZATIONS[name] = Parametrization(
            name=name,
            statement=statement,
            source=source,
            shape=checked_shape,
            sizes=sizes,
            needs=needs,
            matrix=compiled(*settings)(matrix),
            exact=exact,
            nonnegative=nonnegative,
            tempered=tempered,
        )
        return matrix

    return declare


def _refuse_unless(fits: bool, needed: str, parameters: jax.Array) -> None:
    if not fits:
        raise ValueError(f"{needed}, got {list(parameters.shape)}")


def _scaled(logits: jax.Array, epsilon: ArrayLike) -> jax.Array:
    return scaled_logits(logits, as_epsilon(epsilon, logits.dtype))


# ---------------------------------------------------------------- projections


@parametrization(
    "sinkhorn",
    statement="M_ε(S) = argmax over 𝔅ₙ of ⟨S, M⟩ + ε H(M), converged",
    source="Sinkhorn and Knopp (1967); theory.md §1",
    exact="both",
)
def _sinkhorn(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    return cast(jax.Array, sinkhorn(as_square(logits, "logits"), epsilon).matrix)


@parametrization(
    "truncated-sinkhorn",
    statement="num_iters (20) alternations of row and column sums from exp(S/ε); last (columns) "
    "says which side ends exact",
    source="mHC, arXiv 2512.24880; theory.md 1.7",
    exact="columns",
    settings=("num_iters", "last"),
)
def _truncated(
    logits: ArrayLike,
    epsilon: ArrayLike = 1.0,
    *,
    num_iters: int = 20,
    last: Literal["rows", "columns"] = "columns",
) -> jax.Array:
    return cast(jax.Array, truncated_sinkhorn(logits, epsilon, num_iters, last=last).matrix)


# ---------------------------------------------------------------- other weights of 𝔅ₙ, or of a side


@cache
def _permutations(n: int) -> tuple[tuple[int, ...], ...]:
    """Return all permutations of 0 … n − 1 in lexicographic order."""
    if n == 0:
        return ((),)
    rest = _permutations(n - 1)
    return tuple((i, *(j + (j >= i) for j in order)) for i in range(n) for order in rest)


_BIRKHOFF_SIZES = range(2, 9)


@parametrization(
    "birkhoff",
    statement="Σ softmax(S/ε)_π Π_π over all n! permutations in lexicographic order, "
    "(Π_π x)ᵢ = x_π(i)",
    source="Birkhoff (1946); mHC-lite, arXiv 2601.05732",
    shape=lambda n: (math.factorial(n),),
    sizes=lambda n: n in _BIRKHOFF_SIZES,
    needs="n must be from 2 to 8: there are n! parameters",
    exact="both",
)
def _birkhoff(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    logits = as_float(logits)
    n = next((n for n in _BIRKHOFF_SIZES if logits.shape == (math.factorial(n),)), 0)
    needed = "weights over all permutations must have shape [n!] with n from 2 to 8"
    _refuse_unless(n > 0, needed, logits)
    weights = softmax(_scaled(logits, epsilon))
    columns = jnp.asarray(_permutations(n))
    return jnp.zeros((n, n), weights.dtype).at[jnp.arange(n), columns].add(weights[:, None])


@parametrization(
    "kronecker",
    statement="⊗ₖ [[p, q], [q, p]], (p, q) = softmax(Sₖ/ε)",
    source="KromHC, arXiv 2601.21579",
    shape=lambda n: (n.bit_length() - 1, 2),
    sizes=lambda n: n >= 2 and n & (n - 1) == 0,
    needs="n must be a power of two, at least 2",
    exact="both",
)
def _kronecker(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    logits = as_float(logits)
    fits = logits.ndim == 2 and logits.shape[0] >= 1 and logits.shape[1] == 2
    _refuse_unless(fits, "factors must have shape [log2 n, 2], for identity and swap", logits)

    def product(right, left):  # of blocks: the reshape of jnp.kron is refused over explicit axes
        return jnp.block([[left[i, j] * right for j in range(2)] for i in range(2)])

    return reduce(product, [_birkhoff(factor, epsilon) for factor in logits][::-1])


@parametrization(
    "circulant",
    statement="Σ c_k Cᵏ, c = softmax(S/ε), C the cyclic shift",
    source="Davis, Circulant Matrices (1979); theory.md §6",
    shape=lambda n: (n,),
    exact="both",
)
def _circulant(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    logits = as_float(logits)
    needed = "weights of cyclic shifts must have shape [n] with n at least 2"
    _refuse_unless(logits.ndim == 1 and len(logits) >= 2, needed, logits)
    return circulant(softmax(_scaled(logits, epsilon)))


@parametrization(
    "gossip",
    statement="Metropolis weights Mᵢⱼ = wᵢⱼ/max(dᵢ, dⱼ), w = exp(S/ε) ≥ 0 on the edges i < j, "
    "dᵢ = 1 + Σⱼ wᵢⱼ; Mᵢᵢ the rest",
    source="Xiao, Boyd and Lall (IPSN 2005); theory.md §6",
    shape=lambda n: (n * (n - 1) // 2,),
    exact="both",
)
def _gossip(log_weights: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    log_weights = as_float(log_weights)
    n = (1 + math.isqrt(1 + 8 * log_weights.size)) // 2
    fits = n >= 2 and log_weights.shape == (n * (n - 1) // 2,)
    _refuse_unless(fits, "edges must have shape [n(n − 1)/2] with n at least 2", log_weights)
    unit = jnp.arange(n)
    above = unit[:, None] < unit[None, :]
    i, j = jnp.nonzero(above, size=log_weights.size)
    edges = jnp.zeros((n, n), log_weights.dtype).at[i, j].set(_scaled(log_weights, epsilon))
    # On the diagonal stands 0: every unit has weight 1 to itself, which counts in its degree.
    edges = jnp.where(above.T, edges.T, edges)
    log_degree = logsumexp(edges, axis=1)
    given = jnp.exp(edges - jnp.maximum(log_degree[:, None], log_degree[None, :]))
    kept = jnp.exp(edges - log_degree[:, None]) - given  # ≥ 0: the other end cannot take it
    return given + jnp.diag(kept.sum(1))


@parametrization(
    "push-sum",
    statement="softmax(S/ε) over outputs: every unit shares out all that it has, and its estimate "
    "is M⋯Mx over M⋯M1",
    source="Kempe, Dobra and Gehrke (FOCS 2003); theory.md §6",
    exact="columns",
)
def _push_sum(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    return softmax(_scaled(as_square(logits, "logits"), epsilon), axis=0)


@parametrization(
    "softmax",
    statement="softmax(S/ε) over inputs, as attention has it",
    source="Vaswani et al., arXiv 1706.03762; theory.md §6",
    exact="rows",
)
def _softmax(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    return softmax(_scaled(as_square(logits, "logits"), epsilon), axis=1)


# ---------------------------------------------------------------- ways out


@parametrization(
    "orthogonal",
    statement="(I + A)⁻¹(I − A), A the skew part of PSP: orthogonal, and M1 = 1, so that no detail "
    "is lost",
    source="Cayley (1846); theory.md §6",
    exact="both",
    nonnegative=False,
    tempered=False,
)
def _orthogonal(matrix: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    centred = detail(matrix)
    skew, identity = (centred - centred.T) / 2, jnp.eye(len(centred), dtype=centred.dtype)
    return solve(identity + skew, identity - skew)


@parametrization(
    "unconstrained",
    statement="S itself",
    source="Hyper-connections, arXiv 2409.19606",
    exact="none",
    nonnegative=False,
    tempered=False,
)
def _unconstrained(matrix: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    return as_square(matrix)


@parametrization(
    "blocks",
    statement="M_ε of two halves that do not see each other: σ₂ = 1 however large ε, as 2.2's "
    "isolated unit has it",
    source="theory.md 2.2, §7",
    shape=lambda n: (2, n // 2, n // 2),
    sizes=lambda n: n >= 4 and n % 2 == 0,
    needs="n must be even, at least 4",
    exact="both",
)
def _blocks(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    logits = as_float(logits)
    half = logits.shape[-1] if logits.ndim == 3 else 0
    fits = half >= 2 and logits.shape == (2, half, half)
    _refuse_unless(fits, "blocks must have shape [2, n/2, n/2] with n at least 4", logits)
    matrix = block_diag(*(_sinkhorn(block, epsilon) for block in logits))
    return jnp.where(jnp.isnan(as_epsilon(epsilon, matrix.dtype)), jnp.nan, matrix)


@parametrization(
    "low-rank",
    statement=f"M_ε(S) + (PA)(PB)ᵀ/n, parameters [S A B], A and B of {CORRECTION_RANK} columns: a "
    "correction that leaves all sums",
    source="theory.md §7",
    shape=lambda n: (n, n + 2 * CORRECTION_RANK),
    exact="both",
    nonnegative=False,
)
def _low_rank(parameters: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    parameters = as_float(parameters)
    n, added = parameters.shape[0] if parameters.ndim == 2 else 0, 2 * CORRECTION_RANK
    fits = n >= 2 and parameters.shape[1] == n + added
    _refuse_unless(fits, f"[S A B] must have shape [n, n + {added}], n at least 2", parameters)
    a, b = jnp.split(parameters[:, n:], 2, axis=1)
    return _sinkhorn(parameters[:, :n], epsilon) + matmul(center(a), center(b).T) / n


@parametrization(
    "spectral-filter",
    statement=f"M_ε(S) with each σ of its detail made σ³/(σ² + {FILTERED_GAIN:g}²): directions "
    "that hardly pass do not pass",
    source="Wiener (1949); theory.md §7",
    exact="both",
    nonnegative=False,
)
def _spectral_filter(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    m = _sinkhorn(logits, epsilon)
    x, n = detail(m), len(m)
    products = gram(x)
    noise = jnp.asarray(FILTERED_GAIN**2, m.dtype) * jnp.eye(n, dtype=m.dtype)
    return uniform(n, m.dtype) + matmul(x, solve_positive(products + noise, products))


# ---------------------------------------------------------------- nothing mixed


@parametrization(
    "identity",
    statement="I: no parameters, an array [n, 0] that knows n",
    source="theory.md §6",
    shape=lambda n: (n, 0),
    exact="both",
    tempered=False,
)
def _identity(nothing: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    nothing = as_float(nothing)
    fits = nothing.ndim == 2 and nothing.shape[0] >= 2 and nothing.shape[1] == 0
    _refuse_unless(fits, "no parameters must have shape [n, 0] with n at least 2", nothing)
    return jnp.eye(nothing.shape[0], dtype=nothing.dtype)


@parametrization(
    "permutation",
    statement="(Mx)ᵢ = x_π(i), π the order of falling scores S: nothing is mixed, and no gradient "
    "reaches S",
    source="theory.md §6",
    shape=lambda n: (n,),
    exact="both",
    tempered=False,
)
def _permutation(scores: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    scores = as_float(scores)
    fits = scores.ndim == 1 and len(scores) >= 2
    _refuse_unless(fits, "scores must have shape [n] with n at least 2", scores)
    order, unit = jnp.argsort(scores, descending=True), jnp.arange(len(scores))
    matrix = (order[:, None] == unit[None, :]).astype(scores.dtype)
    return jnp.where(jnp.isfinite(scores).all(), matrix, jnp.nan)
