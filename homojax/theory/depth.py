"""Claims about stacks: how fast detail falls with depth. theory.md 3.1 to 3.3."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.nn import logsumexp
from jax.scipy.special import xlogy

from homojax.birkhoff import detail
from homojax.numerics import matmul, sqrt
from homojax.theory.cases.stack import RETENTION, StackCase, layers_to_half
from homojax.theory.claim import Assumption, Comparison, claim, lambda_for_sigma, predicting

# ---------------------------------------------------------------- assumptions


def _are_members(case: StackCase) -> jax.Array:
    """Return whether the first 1 … L layers are in 𝔅ₙ, near enough for a margin, [L]."""
    least = case.matrices.min((1, 2))
    return _so_far((case.distances < 0.5) & (least >= -case.rounding))


def _so_far(layers: jax.Array) -> jax.Array:
    """Return whether something is true of the first 1 … L layers, [L]."""
    return jnp.cumprod(layers.astype(jnp.int8)) > 0


def in_polytope(last: Callable[[StackCase], jax.Array]) -> Assumption:
    """Return the assumption that all layers up to those of index ``last`` are in 𝔅ₙ."""

    def predicate(case: StackCase) -> jax.Array:
        return _are_members(case)[last(case)]

    return "every M_l ∈ 𝔅ₙ, but for its marginal errors", predicate


IN_POLYTOPE = in_polytope(lambda case: case.last)  # at every depth, its own layers
NON_NEGATIVE = (
    "no entry is negative",
    lambda case: _so_far(case.matrices.min((1, 2)) >= 0)[case.last],
)
OF_DETAIL = ("none: a fact about PMP", lambda case: True)

# ---------------------------------------------------------------- 3.1, 3.2


@claim(
    "3.1",
    name="product",
    scope="stack",
    direction="≤",
    statement="σ₂(M_l⋯M_1) ≤ Π σ₂(M_k)",
    latex=r"\sigma_2(M_l \cdots M_1) \le \prod_k \sigma_2(M_k)",
    source="submultiplicativity; theory.md 3.1",
    attained_by="two-by-two",
    assumptions=(IN_POLYTOPE,),
    mutants={"λ₂ for σ₂": lambda_for_sigma},
)
def product(case: StackCase) -> Comparison:
    """Return law 3.1 (product bound) at every depth, [D]. After one layer it says nothing."""
    return Comparison(
        lesser=case.require("composite_sigma2"),
        greater=jnp.cumprod(case.sigma2)[case.last],
        margin=case.require("margin")[case.last],
        applies=case.last > 0,
    )


def _half(case: StackCase, which: int) -> Comparison:
    """Return law 3.2 after one of the numbers of layers that ``layers_to_half`` has."""
    layers, reached = layers_to_half(case.sigma2, case.require("lambda2"))
    kept = case.require("half_sigma2")[which]
    margin = case.require("margin")[jnp.maximum(layers[which], 1) - 1]
    return Comparison(kept, jnp.full_like(kept, RETENTION), margin, reached[which])


def _last_to_half(case: StackCase) -> jax.Array:
    layers, _ = layers_to_half(case.sigma2, case.require("lambda2"))
    return layers[0] - 1


@claim(
    "3.2",
    name="effective_depth",
    scope="stack",
    direction="≤",
    statement="at the first l ≥ log ρ/log σ̄, σ̄ the geometric mean of σ₂, at most ρ = ½ is kept",
    latex=r"l \ge \frac{\log\rho}{\log\bar\sigma_2} \implies \sigma_2(M_l \cdots M_1) \le \rho",
    source="theory.md 3.2, from 3.1",
    attained_by="two-by-two",
    assumptions=(in_polytope(_last_to_half),),
    mutants={
        "one layer fewer": lambda _, case: _half(case, 1),
        "λ₂ for σ₂": lambda _, case: _half(case, 2),
    },
)
def effective_depth(case: StackCase) -> Comparison:
    """Return law 3.2 (effective depth), at the depth where half is left by the bound."""
    return _half(case, 0)


# ---------------------------------------------------------------- 3.3


def _one_layer_fewer(case: StackCase, comparison: Comparison) -> jax.Array:
    layers = len(case.matrices)
    return comparison.greater ** (layers / max(layers - 1, 1))


@claim(
    "3.3",
    name="lyapunov",
    scope="stack",
    direction="≤",
    statement="exp of the top Lyapunov exponent ≤ the geometric mean of σ₂, at every L",
    latex=r"e^{\lambda_1} \le \Bigl(\prod_l \sigma_2(M_l)\Bigr)^{1/L}",
    source="Furstenberg and Kesten (1960), Benettin et al. (1980); theory.md 3.3",
    attained_by="two-by-two",
    assumptions=(OF_DETAIL,),
    mutants={"λ₂ for σ₂": lambda_for_sigma, "L − 1 for L": predicting(_one_layer_fewer)},
)
def lyapunov(case: StackCase) -> Comparison:
    """Return law 3.3 (Lyapunov exponent), of all L layers.

    It is about the blocks of detail alone: a computed QR is exact for blocks within rounding, and
    no growth exceeds their norms.
    """
    errors = (0, 2 * case.rounding)
    bound, most = (jnp.exp(jnp.log(case.sigma2 + off).mean()) for off in errors)
    return Comparison(jnp.exp(case.require("exponent")), bound, most - bound + case.rounding)


def _relative_rounding(case: StackCase) -> jax.Array:
    sigma2 = case.sigma2[0]
    return case.rounding / jnp.where(sigma2 > 0, sigma2, 1)


def _shared_rate(case: StackCase) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return l, σ₂(Mˡ)^{1/l} and its error, [D] each, M the first layer.

    It is about PMP, whose powers those are on 𝔅ₙ. Both the power and λ₂ are exact for some matrix
    within rounding of A = PMP/σ₂, of norm 1. The lth power of that is within (1 + e)ˡ − 1 of A's, e
    the rounding in units of σ₂.
    """
    kept, sigma2 = case.require("power_sigma2"), case.sigma2[0]
    depth = jnp.asarray(case.depths, kept.dtype)
    error = jnp.expm1(depth * jnp.log1p(_relative_rounding(case)))
    most, least = (kept + error) ** (1 / depth), jnp.maximum(kept - error, 0) ** (1 / depth)
    return depth, sigma2 * kept ** (1 / depth), sigma2 * (most - least) + case.rounding


def _shared_of_fewer(_, case: StackCase) -> Comparison:
    depth, rate, error = _shared_rate(case)
    return Comparison(case.require("lambda2")[0] ** (1 - 1 / depth), rate, error)


@claim(
    "3.3",
    name="shared",
    scope="stack",
    direction="≥",
    statement="λ₂ ≤ σ₂(Mˡ)^{1/l}, one M in every layer",
    latex=r"\lambda_2^{\,l} \le \sigma_2(M^l)",
    source="Gelfand (1941); theory.md 3.3",
    attained_by="circulant",
    assumptions=(OF_DETAIL,),
    mutants={
        "σ₂ for λ₂": lambda compare, case: compare(replace(case, lambda2=case.sigma2)),
        "l − 1 for l": _shared_of_fewer,
    },
)
def shared(case: StackCase) -> Comparison:
    """Return law 3.3 (shared layer) at every depth, [D]."""
    _, rate, error = _shared_rate(case)
    return Comparison(jnp.full_like(rate, case.require("lambda2")[0]), rate, error)


@claim(
    "3.3",
    name="shared_limit",
    scope="stack",
    direction="→",
    statement="σ₂(Mˡ)^{1/l} − λ₂ → 0, as fast as (Σ_{k<n−1} C(l,k) λ₂^{l−k} Δᵏ)^{1/l} − λ₂, Δ the "
    "departure from normality",
    latex=r"\sigma_2(M^l) \le \sum_{k<n-1} \binom{l}{k} \lambda_2^{\,l-k} \Delta^k,\quad "
    r"\Delta^4 = \tfrac{(n-1)^3-(n-1)}{12} \lVert A^\top A - A A^\top\rVert_F^2,\ A = PMP",
    source="Henrici (Numer. Math. 4, 1962); Gelfand (1941)",
    assumptions=(OF_DETAIL,),
)
def shared_limit(case: StackCase) -> Comparison:
    """Return law 3.3 (limit of a shared layer) at every depth, [D].

    In A = Q(Λ + N)Qᴴ (Schur) the lth power is the sum of all words in Λ and N. Those with n − 1 or
    more N vanish, the others are at most λ₂^{l−k}‖N‖ᵏ. Henrici bounds ‖N‖ by the commutator of A
    and Aᵀ, which an error of e in A moves by 6e√n.
    """
    n, sigma2, lambda2 = case.matrices.shape[1], case.sigma2[0], case.require("lambda2")[0]
    size = jnp.where(sigma2 > 0, sigma2, 1)
    a = detail(case.matrices[0]) / size
    norm = sqrt(((matmul(a.T, a) - matmul(a, a.T)) ** 2).sum())
    _, rate, error = _shared_rate(case)

    def bound(norm):
        departure = ((n - 1) * ((n - 1) ** 2 - 1) / 12) ** 0.25 * sqrt(norm)
        return sigma2 * _henrici_roots(lambda2 / size, departure, case.depths, n - 1)

    most, greater = bound(norm + 6 * math.sqrt(n) * _relative_rounding(case)), bound(norm)
    return Comparison(rate - lambda2, greater - lambda2, most - greater + error)


def _henrici_roots(
    radius: jax.Array, departure: jax.Array, depths: tuple[int, ...], dimension: int
) -> jax.Array:
    """Return (Σ_{k<d} C(l, k) r^{l−k} Δᵏ)^{1/l} at every depth l, [D], by way of logarithms."""
    ks = range(min(max(depths), dimension - 1) + 1)
    log_words = [
        [math.log(math.comb(depth, k)) if k <= depth else -math.inf for k in ks] for depth in depths
    ]
    depth, k = jnp.asarray(depths, radius.dtype), jnp.arange(len(ks), dtype=radius.dtype)
    terms = (
        jnp.asarray(log_words, radius.dtype)
        + xlogy(jnp.maximum(depth[:, None] - k[None, :], 0), radius)
        + xlogy(k, departure)[None, :]
    )
    return jnp.exp(logsumexp(terms, axis=1) / depth)
