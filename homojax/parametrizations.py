"""Mixing matrices from parameters: the tables of theory.md §6 and §7, and how public hyper-connection codes fill it in.

One array of parameters, whose shape alone tells n, gives one matrix [n, n] with ``y = M @ x``: rows are outputs. Code that mixes
with the transpose (y_t = Σ_s H_st x_s) keeps its parameters as they are here, and its matrix is turned.
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

from homojax.birkhoff import center, circulant, detail, uniform
from homojax.numerics import as_epsilon, as_float, as_square, matmul, scaled_logits
from homojax.projection.sinkhorn import sinkhorn
from homojax.projection.truncated import truncated_sinkhorn

CORRECTION_RANK = 2  # of "low-rank"
FILTERED_GAIN = 0.25  # σ that "spectral-filter" halves: what passes worse is taken for noise


class Parametrization(NamedTuple):
    """A map from one array of parameters to a mixing matrix, for every n that it has.

    ``matrix`` is pure, differentiable and keeps the parameters' dtype. It raises ValueError on a shape that no n has, as
    ``shape`` does on an n that there is not. Where ε acts, one that is not positive gives NaN, and a parameter of −inf a weight
    of 0.

    >>> kronecker = PARAMETRIZATIONS["kronecker"]
    >>> kronecker.shape(8), kronecker.sizes(6), kronecker.needs
    ((3, 2), False, 'n must be a power of two, at least 2')
    >>> kronecker.matrix(jnp.zeros((1, 2))).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """

    name: str
    statement: str  # one line: the matrix from parameters S and temperature ε
    source: str
    shape: Callable[[int], tuple[int, ...]]  # n -> of the parameters
    sizes: Callable[[int], bool]  # which n exist
    needs: str  # the same in words
    matrix: Callable[..., jax.Array]  # (parameters, epsilon=1.0) -> [n, n]
    exact: Literal[
        "both", "rows", "columns", "none"
    ]  # which sums are 1 for every parameter, up to rounding
    nonnegative: bool = True
    tempered: bool = True  # whether ε acts

    @property
    def doubly_stochastic(self) -> bool:
        """In 𝔅ₙ for every parameter, up to rounding (of a converged projection, up to ``marginal_tolerance``)."""
        return self.nonnegative and self.exact == "both"


# ---------------------------------------------------------------- the matrices


def _sinkhorn(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    return cast(jax.Array, sinkhorn(as_square(logits, "logits"), epsilon).matrix)


def _truncated(
    logits: ArrayLike,
    epsilon: ArrayLike = 1.0,
    *,
    num_iters: int = 20,
    last: Literal["rows", "columns"] = "columns",
) -> jax.Array:
    return cast(jax.Array, truncated_sinkhorn(logits, epsilon, num_iters, last=last).matrix)


def _birkhoff(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    logits = as_float(logits)
    n = next((n for n in _BIRKHOFF_SIZES if logits.shape == (math.factorial(n),)), None)
    if n is None:
        raise ValueError(
            f"weights over all permutations must have shape [n!] with n from 2 to 8, got {list(logits.shape)}"
        )
    weights = softmax(_scaled(logits, epsilon))
    columns = jnp.asarray(_permutations(n))
    return jnp.zeros((n, n), weights.dtype).at[jnp.arange(n), columns].add(weights[:, None])


def _kronecker(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    logits = as_float(logits)
    if logits.ndim != 2 or logits.shape[0] < 1 or logits.shape[1] != 2:
        raise ValueError(
            f"factors must have shape [log2 n, 2], for identity and swap, got {list(logits.shape)}"
        )
    return reduce(jnp.kron, [_birkhoff(factor, epsilon) for factor in logits])


def _circulant(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    logits = as_float(logits)
    if logits.ndim != 1 or logits.shape[0] < 2:
        raise ValueError(
            f"weights of cyclic shifts must have shape [n] with n at least 2, got {list(logits.shape)}"
        )
    return circulant(softmax(_scaled(logits, epsilon)))


def _gossip(log_weights: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    """Metropolis weights Mᵢⱼ = wᵢⱼ/max(dᵢ, dⱼ), w = exp(S/ε), every unit's weight to itself 1 and in its degree d."""
    log_weights = as_float(log_weights)
    n = (1 + math.isqrt(1 + 8 * log_weights.size)) // 2
    if n < 2 or log_weights.shape != (n * (n - 1) // 2,):
        raise ValueError(
            f"edges must have shape [n(n − 1)/2] with n at least 2, got {list(log_weights.shape)}"
        )
    i, j = jnp.triu_indices(n, 1)
    edges = jnp.zeros((n, n), log_weights.dtype).at[i, j].set(_scaled(log_weights, epsilon))
    edges = jnp.where(jnp.arange(n)[:, None] > jnp.arange(n), edges.T, edges)
    log_degree = logsumexp(edges, axis=1)
    given = jnp.exp(edges - jnp.maximum(log_degree[:, None], log_degree))
    kept = (
        jnp.exp(edges - log_degree[:, None]) - given
    )  # ≥ 0 term by term: what the other end cannot take stays
    return given + jnp.diag(kept.sum(1))


def _push_sum(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    return softmax(_scaled(as_square(logits, "logits"), epsilon), axis=0)


def _softmax(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    return softmax(_scaled(as_square(logits, "logits"), epsilon), axis=1)


def _orthogonal(matrix: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    centred = detail(matrix)
    skew, identity = (centred - centred.T) / 2, jnp.eye(len(centred), dtype=centred.dtype)
    return _solve(identity + skew, identity - skew)


def _unconstrained(matrix: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    return as_square(matrix)


def _identity(nothing: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    nothing = as_float(nothing)
    if nothing.ndim != 2 or nothing.shape[0] < 2 or nothing.shape[1] != 0:
        raise ValueError(
            f"no parameters must have shape [n, 0] with n at least 2, got {list(nothing.shape)}"
        )
    return jnp.eye(nothing.shape[0], dtype=nothing.dtype)


def _permutation(scores: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    scores = as_float(scores)
    if scores.ndim != 1 or len(scores) < 2:
        raise ValueError(f"scores must have shape [n] with n at least 2, got {list(scores.shape)}")
    matrix = jnp.eye(len(scores), dtype=scores.dtype)[jnp.argsort(scores, descending=True)]
    return jnp.where(jnp.isfinite(scores).all(), matrix, jnp.nan)


def _blocks(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    logits = as_float(logits)
    if (
        logits.ndim != 3
        or logits.shape[0] != 2
        or logits.shape[1] != logits.shape[2]
        or logits.shape[1] < 2
    ):
        raise ValueError(
            f"blocks must have shape [2, n/2, n/2] with n at least 4, got {list(logits.shape)}"
        )
    matrix = block_diag(*(_sinkhorn(block, epsilon) for block in logits))
    return jnp.where(jnp.isnan(as_epsilon(epsilon, matrix.dtype)), jnp.nan, matrix)


def _low_rank(parameters: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    parameters = as_float(parameters)
    n = parameters.shape[0] if parameters.ndim == 2 else 0
    if n < 2 or parameters.shape[1] != n + 2 * CORRECTION_RANK:
        raise ValueError(
            f"[S A B] must have shape [n, n + {2 * CORRECTION_RANK}], n at least 2, got {list(parameters.shape)}"
        )
    a, b = jnp.split(parameters[:, n:], 2, axis=1)
    return _sinkhorn(parameters[:, :n], epsilon) + matmul(center(a), center(b).T) / n


def _spectral_filter(logits: ArrayLike, epsilon: ArrayLike = 1.0) -> jax.Array:
    m = _sinkhorn(logits, epsilon)
    x, n = detail(m), len(m)
    gram = matmul(x.T, x)
    noise = jnp.asarray(FILTERED_GAIN**2, m.dtype) * jnp.eye(n, dtype=m.dtype)
    return uniform(n, m.dtype) + matmul(x, _solve(gram + noise, gram))


def _solve(a: jax.Array, b: jax.Array) -> jax.Array:
    """a⁻¹b in the dtype of both; in float32 at least, which is the least that LAPACK has."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.linalg.solve(a.astype(wide), b.astype(wide)).astype(a.dtype)


def _scaled(logits: jax.Array, epsilon: ArrayLike) -> jax.Array:
    return scaled_logits(logits, as_epsilon(epsilon, logits.dtype))


_BIRKHOFF_SIZES = range(2, 9)


@cache
def _permutations(n: int) -> tuple[tuple[int, ...], ...]:
    """All of 0 … n − 1 in lexicographic order."""
    if n == 0:
        return ((),)
    return tuple(
        (i, *(j + (j >= i) for j in rest)) for i in range(n) for rest in _permutations(n - 1)
    )


# ---------------------------------------------------------------- the table


def _table() -> dict[str, Parametrization]:
    any_size, square = (lambda n: n >= 2, "n must be at least 2"), lambda n: (n, n)
    rows = [
        Parametrization(
            "sinkhorn",
            "M_ε(S) = argmax over 𝔅ₙ of ⟨S, M⟩ + ε H(M), converged",
            "Sinkhorn and Knopp (1967); theory.md §1",
            square,
            *any_size,
            _sinkhorn,
            exact="both",
        ),
        Parametrization(
            "truncated-sinkhorn",
            "num_iters (20) alternations of row and column sums from exp(S/ε); last (columns) says which side ends exact",
            "mHC, arXiv 2512.24880; theory.md 1.7",
            square,
            *any_size,
            _truncated,
            exact="columns",
        ),
        Parametrization(
            "birkhoff",
            "Σ softmax(S/ε)_π Π_π over all n! permutations in lexicographic order, (Π_π x)ᵢ = x_π(i)",
            "Birkhoff (1946); mHC-lite, arXiv 2601.05732",
            lambda n: (math.factorial(n),),
            lambda n: n in _BIRKHOFF_SIZES,
            "n must be from 2 to 8: there are n! parameters",
            _birkhoff,
            exact="both",
        ),
        Parametrization(
            "kronecker",
            "⊗ₖ [[p, q], [q, p]], (p, q) = softmax(Sₖ/ε)",
            "KromHC, arXiv 2601.21579",
            lambda n: (n.bit_length() - 1, 2),
            lambda n: n >= 2 and n & (n - 1) == 0,
            "n must be a power of two, at least 2",
            _kronecker,
            exact="both",
        ),
        Parametrization(
            "circulant",
            "Σ c_k Cᵏ, c = softmax(S/ε), C the cyclic shift",
            "Davis, Circulant Matrices (1979); theory.md §6",
            lambda n: (n,),
            *any_size,
            _circulant,
            exact="both",
        ),
        Parametrization(
            "gossip",
            "Metropolis weights Mᵢⱼ = wᵢⱼ/max(dᵢ, dⱼ), w = exp(S/ε) ≥ 0 on the edges i < j, dᵢ = 1 + Σⱼ wᵢⱼ; Mᵢᵢ the rest",
            "Xiao, Boyd and Lall (IPSN 2005); theory.md §6",
            lambda n: (n * (n - 1) // 2,),
            *any_size,
            _gossip,
            exact="both",
        ),
        Parametrization(
            "push-sum",
            "softmax(S/ε) over outputs: every unit shares out all that it has, and its estimate is M⋯Mx over M⋯M1",
            "Kempe, Dobra and Gehrke (FOCS 2003); theory.md §6",
            square,
            *any_size,
            _push_sum,
            exact="columns",
        ),
        Parametrization(
            "softmax",
            "softmax(S/ε) over inputs, as attention has it",
            "Vaswani et al., arXiv 1706.03762; theory.md §6",
            square,
            *any_size,
            _softmax,
            exact="rows",
        ),
        Parametrization(
            "orthogonal",
            "(I + A)⁻¹(I − A), A the skew part of PSP: orthogonal, and M1 = 1, so that no detail is lost",
            "Cayley (1846); theory.md §6",
            square,
            *any_size,
            _orthogonal,
            exact="both",
            nonnegative=False,
            tempered=False,
        ),
        Parametrization(
            "unconstrained",
            "S itself",
            "Hyper-connections, arXiv 2409.19606",
            square,
            *any_size,
            _unconstrained,
            exact="none",
            nonnegative=False,
            tempered=False,
        ),
        Parametrization(
            "blocks",
            "M_ε of two halves that do not see each other: σ₂ = 1 however large ε, as 2.2's isolated unit has it",
            "theory.md 2.2, §7",
            lambda n: (2, n // 2, n // 2),
            lambda n: n >= 4 and n % 2 == 0,
            "n must be even, at least 4",
            _blocks,
            exact="both",
        ),
        Parametrization(
            "low-rank",
            f"M_ε(S) + (PA)(PB)ᵀ/n, parameters [S A B], A and B of {CORRECTION_RANK} columns: a correction that leaves all sums",
            "theory.md §7",
            lambda n: (n, n + 2 * CORRECTION_RANK),
            *any_size,
            _low_rank,
            exact="both",
            nonnegative=False,
        ),
        Parametrization(
            "spectral-filter",
            f"M_ε(S) with each σ of its detail made σ³/(σ² + {FILTERED_GAIN:g}²): directions that hardly pass do not pass",
            "Wiener (1949); theory.md §7",
            square,
            *any_size,
            _spectral_filter,
            exact="both",
            nonnegative=False,
        ),
        Parametrization(
            "identity",
            "I: no parameters, an array [n, 0] that knows n",
            "theory.md §6",
            lambda n: (n, 0),
            *any_size,
            _identity,
            exact="both",
            tempered=False,
        ),
        Parametrization(
            "permutation",
            "(Mx)ᵢ = x_π(i), π the order of falling scores S: nothing is mixed, and no gradient reaches S",
            "theory.md §6",
            lambda n: (n,),
            *any_size,
            _permutation,
            exact="both",
            tempered=False,
        ),
    ]
    return {row.name: row._replace(shape=_refusing(row)) for row in rows}


def _refusing(row: Parametrization) -> Callable[[int], tuple[int, ...]]:
    def shape(n: int) -> tuple[int, ...]:
        if not row.sizes(n):
            raise ValueError(f"there is no {row.name} matrix with n = {n}: {row.needs}")
        return row.shape(n)

    return shape


PARAMETRIZATIONS: dict[str, Parametrization] = _table()
