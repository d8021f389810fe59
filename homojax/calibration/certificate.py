"""What is proved of the detail kept between two ε, and below one."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from homojax import spectrum
from homojax.birkhoff import detail, entropy
from homojax.bounds import path_length_bound
from homojax.depth import detail_composite, lyapunov_exponents
from homojax.numerics import rounding
from homojax.projection.sinkhorn import sinkhorn
from homojax.spectrum.singular_value import top_singular_pair

# ---------------------------------------------------------------- one ε: what is kept, and the errors of that


class _Point(NamedTuple):
    """A stack projected at ε = eˣ."""

    x: jax.Array
    kept: jax.Array
    kept_error: jax.Array  # of a composite
    sigma2: jax.Array  # [L]
    sigma2_error: jax.Array  # [L]
    entropy: jax.Array  # [L], in nats
    entropy_error: jax.Array  # [L]
    colder: jax.Array  # what is kept at every smaller ε, at least
    potential: jax.Array  # [L, n]
    converged: jax.Array


def _share_kept(matrices: jax.Array, kept: str, power: int) -> jax.Array:
    """[L, n, n], the layers in turn ``power`` times -> what is kept of the detail; differentiable."""
    if kept == "composite":
        product = detail(matrices[0]) if len(matrices) == 1 else detail_composite(matrices)[-1]
        with jax.default_matmul_precision("highest"):
            return spectrum.sigma2(jnp.linalg.matrix_power(product, power))
    if kept == "bound":
        return jnp.prod(jax.vmap(spectrum.sigma2)(matrices)) ** power
    if len(matrices) == 1:
        return spectrum.lambda2(matrices[0]) ** power
    return jnp.exp(power * len(matrices) * lyapunov_exponents(matrices)[0])


def _project(logits: jax.Array, x: jax.Array, start: jax.Array, kept: str, power: int) -> _Point:
    """Every layer at ε = eˣ, from column potentials [L, n], with what separates it from the exact projection M.

    Two bounds, the smaller of which counts. (1) An entry's relative error is that of e^(df + dg), where [[I, M], [Mᵀ, I]](df, dg)
    = (missed sums) and the least singular value off the kernel is 1 − σ₂; as much again for what is not linear; logits
    rounded by a relative eps change no potential by more than 2n times that, for potentials are means over trees of sums along
    paths. In σ₂ and H the missed sums come in themselves, and else that relative error of what is not 0: 1 − σ₂, and H.
    (2) Near a permutation that says nothing, but M has the least relative entropy to its scaling M̂ in the polytope: at most τ,
    that of M̂ rounded to it, with the missed mass where M̂ is least. So their roots are within √τ of each other, and √(1 − σ₂)
    changes by √(2τ) at most; for H see ``_cross_entropy``.
    """
    n, dtype = logits.shape[-1], logits.dtype
    eps = float(jnp.finfo(dtype).eps)
    results = jax.vmap(lambda s, g: sinkhorn(s, jnp.exp(x), init=g))(logits, start)
    matrices, log_matrices = cast(jax.Array, results.matrix), cast(jax.Array, results.log_matrix)
    sigma2, u, v = jax.vmap(lambda m: top_singular_pair(detail(m)))(matrices)
    entropies = jax.vmap(entropy)(matrices)

    gap = jnp.maximum(1 - sigma2, 0) + rounding(n, dtype)
    missed = math.sqrt(n) * jnp.hypot(results.row_error, results.col_error) + rounding(n, dtype) / 4
    logit_rounding = 8 * eps * (1 + abs(logits).max((1, 2)) / jnp.exp(x))
    relative = 4 * missed / gap + 2 * n * logit_rounding
    relative = jnp.where(relative < 0.5, relative, jnp.inf)
    divergence = 2 * n * missed * (2 - log_matrices.min((1, 2))) + n * logit_rounding
    sigma2_error = jnp.minimum(
        2 * gap * relative, 2 * jnp.sqrt(2 * divergence * gap) + 2 * divergence
    )
    sigma2_error = jnp.minimum(2 * missed + sigma2_error + rounding(n, dtype), 1)
    least, most = jax.vmap(_cross_entropy)(log_matrices, divergence)
    most = most + divergence
    apart = jnp.maximum(most - entropies, entropies - least + 2 * divergence)
    entropy_error = jnp.minimum(2 * (relative * (entropies + eps) + n * missed), apart)

    if kept == "bound":
        share = jnp.prod(sigma2) ** power
        colder = jax.vmap(_least_sigma2_colder)(log_matrices, most, u, v)
    else:
        # Decompositions in a row: independent ones, batched, can wait for each other's threads for ever (jaxlib 0.10 on CPUs).
        matrices, sigma2 = jax.lax.optimization_barrier((matrices, sigma2))
        share = _share_kept(matrices, kept, power)
        colder = jax.vmap(_least_singular_value_colder)(log_matrices, most)
    kept_error = power * (sigma2_error + rounding(n, dtype)).sum()
    colder = jnp.prod(colder) ** power
    converged = results.converged.all() & jnp.isfinite(share)
    return _Point(
        x,
        share,
        kept_error,
        sigma2,
        sigma2_error,
        entropies,
        entropy_error,
        jnp.where(jnp.isnan(colder), 0, colder),
        results.col_potential,
        converged,
    )


def _cross_entropy(log_matrix: jax.Array, divergence: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(least, most) of ⟨M, C⟩, C = −log M̂ ≥ 0, for any M whose relative entropy to M̂ is at most ``divergence`` τ.

    By Donsker and Varadhan: ±λ⟨M, C⟩ ≤ τ + ΣM̂(e^{±λC} − 1), for any λ > 0. H(M) is
    between that less 2τ and that and τ, where the sums of M̂ that are missed are in τ too.
    """
    cost = jnp.maximum(-log_matrix, 0)
    matrix = jnp.exp(-cost)
    rates = 0.25 ** jnp.arange(1, 9, dtype=log_matrix.dtype)
    scaled = rates[:, None, None] * cost
    growth = jnp.where(
        scaled > 1, jnp.exp(scaled - cost) - matrix, matrix * jnp.expm1(jnp.minimum(scaled, 1))
    )
    fall = -matrix * jnp.expm1(-scaled)
    return ((fall.sum((1, 2)) - divergence) / rates).max(), (
        (growth.sum((1, 2)) + divergence) / rates
    ).min()


def _least_sigma2_colder(
    log_matrix: jax.Array, most_entropy: jax.Array, u: jax.Array, v: jax.Array
) -> jax.Array:
    """≤ σ₂(M_ε) for every ε below that of M, from ≥ H(M) and any unit u, v ⊥ 1 (best M's top pair).

    For there ⟨S, M_ε⟩ ≥ ⟨S, M⟩ (theory.md 1.3), so that ⟨M_ε, −log M⟩ ≤ H(M); and 1 − σ₂(M_ε) ≤ ½⟨M_ε, W⟩, W = (uᵢ − vⱼ)².
    Where M > ½ the cost −log M is next to nothing, and M_ε ≤ 1 does instead.
    """
    weights = (u[:, None] - v) ** 2
    large = log_matrix > -math.log(2)
    ratio = jnp.where(large, 0, weights / jnp.where(large, 1, -log_matrix)).max()
    free = jnp.where(large, weights, 0).sum()
    return jnp.maximum(1 - rounding(len(u), u.dtype) - (free + most_entropy * ratio) / 2, 0)


def _least_singular_value_colder(log_matrix: jax.Array, most_entropy: jax.Array) -> jax.Array:
    """≤ every singular value of M_ε, for every ε below that of M: M_ε is within H(M)/K of the permutation Π that M is near.

    K is the least −log M off Π. ⟨M_ε, −log M⟩ ≤ H(M), as above, so that the mass off Π is at most H(M)/K; a row's and the
    column's that Π gives it are in it both, so ‖M_ε − Π‖ ≤ H(M)/K. 0 where the largest entries are no permutation.
    """
    n = len(log_matrix)
    column = log_matrix.argmax(1)
    on = jnp.arange(n) == column[:, None]
    least_cost = -jnp.where(on, -jnp.inf, log_matrix).max()
    is_permutation = on.any(0).all()
    return jnp.where(
        is_permutation,
        jnp.maximum(1 - rounding(n, log_matrix.dtype) - most_entropy / least_cost, 0),
        0,
    )


def _between(a: _Point, b: _Point, kept: str, power: int) -> tuple[jax.Array, jax.Array]:
    """(least, most) that can be kept at any ε between those of ``a`` and ``b``."""
    n = a.potential.shape[-1]
    rise = abs(b.entropy - a.entropy) + a.entropy_error + b.entropy_error
    paths = path_length_bound(rise, b.x - a.x, n)
    if kept == "bound":

        def angles(sign):
            return sum(jnp.arcsin(jnp.clip(p.sigma2 + sign * p.sigma2_error, 0, 1)) for p in (a, b))

        least = jnp.sin(jnp.maximum(angles(-1) - paths, 0) / 2)
        most = jnp.sin(jnp.minimum((angles(1) + paths) / 2, math.pi / 2))
        return jnp.prod(least) ** power, jnp.prod(most) ** power
    if kept == "composite":
        way = power * paths.sum() + a.kept_error + b.kept_error
        return (a.kept + b.kept - way) / 2, (a.kept + b.kept + way) / 2
    return jnp.full_like(a.kept, -jnp.inf), jnp.full_like(a.kept, jnp.inf)
