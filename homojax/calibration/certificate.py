"""What is proved of the detail that a stack keeps: at one ε, between two ε, and at every colder ε.

σ₂(M_ε) is not monotone in ε (law 1.4, sigma2_falls). So its values at two ε say nothing by
themselves about the ε between them. The path law (law 1.6, sigma2_path) does.

Notes:
    Let R be the M-weighted residual of S after row and column shifts. Then dM/d log ε = −M∘R/ε
    and dH/d log ε = ΣMR²/ε² (theory.md 1.6). The top singular pair (u, v) of PMP has dσ₂ = uᵀdM v
    = ΣdMᵢⱼ uᵢ(vⱼ − σ₂uᵢ), because the rows of dM sum to 0. And ΣM u²(v − σ₂u)² ≤ max u²
    ΣM (v − σ₂u)² = max u² (1 − σ₂²) ≤ (1 − 1/n)(1 − σ₂²). Cauchy and Schwarz, twice, give

        |arcsin σ₂(ε₁) − arcsin σ₂(ε₀)| ≤ √((1 − 1/n) D ℓ),
        D = H(ε₁) − H(ε₀) ≥ 0,   ℓ = log(ε₁/ε₀) ≥ 0.

    The angle arcsin σ₂ moves no farther than a path whose length two entropies bound.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp

from homojax import spectrum
from homojax.birkhoff import detail, entropy
from homojax.bounds import path_length_bound
from homojax.calibration.misfit import (
    entropy_error,
    entropy_range,
    measure_misfit,
    sigma2_error,
)
from homojax.depth import detail_composite, lyapunov_exponents
from homojax.numerics import rounding
from homojax.projection.result import Status
from homojax.projection.sinkhorn import sinkhorn
from homojax.spectrum.singular_value import top_singular_pair

Kept = Literal["bound", "lyapunov", "composite"]


class Point(NamedTuple):
    """A stack of L layers, gone through ``power`` times, at one ε; and what is proved of it."""

    log_epsilon: jax.Array  # scalar
    kept: jax.Array  # scalar: the share of detail that the stack keeps
    kept_error: jax.Array  # scalar: the error of ``kept`` as a composite
    sigma2: jax.Array  # [L]
    sigma2_error: jax.Array  # [L]
    entropy: jax.Array  # [L], in nats
    entropy_error: jax.Array  # [L], in nats
    kept_colder: jax.Array  # scalar: the stack keeps at least this share at every smaller ε
    potential: jax.Array  # [L, n]: column potentials, from which a neighbouring ε can start
    converged: jax.Array  # bool
    feasible: jax.Array  # bool: every mask carries a doubly stochastic matrix


def share_kept(matrices: jax.Array, kept: Kept, power: int) -> jax.Array:
    """Return the share of detail that layers [L, n, n] keep, gone through ``power`` times.

    ``kept`` says which share: see ``calibrate_depth``. Differentiable.
    """
    if kept == "composite":
        product = detail(matrices[0]) if len(matrices) == 1 else detail_composite(matrices)[-1]
        with jax.default_matmul_precision("highest"):
            return spectrum.sigma2(jnp.linalg.matrix_power(product, power))
    if kept == "bound":
        return jnp.prod(jax.vmap(spectrum.sigma2)(matrices)) ** power
    if len(matrices) == 1:
        return spectrum.lambda2(matrices[0]) ** power
    return jnp.exp(power * len(matrices) * lyapunov_exponents(matrices)[0])


def project_stack(
    logits: jax.Array, log_epsilon: jax.Array, start: jax.Array, *, kept: Kept, power: int
) -> Point:
    """Return every layer's projection at one ε, with the errors of its σ₂ and its entropy.

    Args:
        logits: [L, n, n], finite or −inf.
        log_epsilon: scalar, the logarithm of the common ε.
        start: column potentials [L, n] to start from.
        kept: which share of detail counts, as in ``calibrate_depth``.
        power: how often the L layers are gone through.
    """
    n, dtype = logits.shape[-1], logits.dtype
    results = jax.vmap(lambda s, g: sinkhorn(s, jnp.exp(log_epsilon), init=g))(logits, start)
    matrices, log_matrices = cast(jax.Array, results.matrix), cast(jax.Array, results.log_matrix)
    sigma2, u, v = jax.vmap(top_singular_pair)(jax.vmap(detail)(matrices))
    entropies = jax.vmap(entropy)(matrices)

    # The projections are right to a tolerance only: σ₂ and the entropy of the exact ones.
    allowed = jnp.where(logits == -jnp.inf, 0, logits)
    largest = abs(allowed).max((1, 2)) / jnp.exp(log_epsilon)
    misfits = jax.vmap(lambda *x: measure_misfit(*x[:3], sigma2=x[3], largest_logit=x[4]))(
        log_matrices, results.row_error, results.col_error, sigma2, largest
    )
    between = jax.vmap(entropy_range)(log_matrices, misfits.divergence)
    entropy_errors = entropy_error(misfits, entropies, between, n)
    most_entropy = jnp.minimum(between[1], entropies + entropy_errors)
    sigma2_errors = sigma2_error(misfits, n)

    if kept == "bound":
        share = jnp.prod(sigma2) ** power
        colder = jax.vmap(_least_sigma2_colder)(log_matrices, most_entropy, u, v)
    else:
        share = share_kept(matrices, kept, power)
        colder = jax.vmap(_least_singular_value_colder)(log_matrices, most_entropy)
    colder = jnp.prod(colder) ** power
    return Point(
        log_epsilon=log_epsilon,
        kept=share,
        kept_error=power * (sigma2_errors + rounding(n, dtype)).sum(),
        sigma2=sigma2,
        sigma2_error=sigma2_errors,
        entropy=entropies,
        entropy_error=entropy_errors,
        kept_colder=jnp.where(jnp.isnan(colder), 0, colder),
        potential=results.col_potential,
        converged=results.converged.all() & jnp.isfinite(share),
        feasible=(results.status != Status.INFEASIBLE).all(),
    )


def range_between(a: Point, b: Point, *, kept: Kept, power: int) -> tuple[jax.Array, jax.Array]:
    """Return (least, most) of what the stack can keep at any ε between those of ``a`` and ``b``.

    By the path law (law 1.6, sigma2_path). Nothing is proved of Lyapunov exponents: (−∞, ∞).
    """
    n = a.potential.shape[-1]
    rise = abs(b.entropy - a.entropy) + a.entropy_error + b.entropy_error
    paths = path_length_bound(rise, log_ratio=b.log_epsilon - a.log_epsilon, n=n)
    if kept == "bound":

        def angles(sign):
            return sum(jnp.arcsin(jnp.clip(p.sigma2 + sign * p.sigma2_error, 0, 1)) for p in (a, b))

        least = jnp.sin(jnp.maximum(angles(-1) - paths, 0) / 2)
        most = jnp.sin(jnp.minimum((angles(1) + paths) / 2, math.pi / 2))
        return jnp.prod(least) ** power, jnp.prod(most) ** power
    if kept == "composite":
        path = power * paths.sum() + a.kept_error + b.kept_error
        return (a.kept + b.kept - path) / 2, (a.kept + b.kept + path) / 2
    return jnp.full_like(a.kept, -jnp.inf), jnp.full_like(a.kept, jnp.inf)


# ---------------------------------------------------------------- at every colder ε


def _least_sigma2_colder(
    log_matrix: jax.Array, most_entropy: jax.Array, u: jax.Array, v: jax.Array
) -> jax.Array:
    """Return a share that σ₂(M_ε) reaches at every ε colder than that of M = exp(log_matrix).

    Args:
        log_matrix: log M, [n, n].
        most_entropy: at least H(M), in nats.
        u: a unit vector [n] that sums to 0; best M's top left singular vector.
        v: a unit vector [n] that sums to 0; best M's top right singular vector.

    Notes:
        A colder M_ε has ⟨S, M_ε⟩ ≥ ⟨S, M⟩ (law 1.3, entropy_rises), so ⟨M_ε, −log M⟩ ≤ H(M). And
        1 − σ₂(M_ε) ≤ ½⟨M_ε, W⟩ with W = (uᵢ − vⱼ)². Where M > ½ the cost −log M is next to
        nothing, and M_ε ≤ 1 is used instead.
    """
    weights = (u[:, None] - v[None, :]) ** 2
    large = log_matrix > -math.log(2)
    ratio = jnp.where(large, 0, weights / jnp.where(large, 1, -log_matrix)).max()
    free = jnp.where(large, weights, 0).sum()
    return jnp.maximum(1 - rounding(len(u), u.dtype) - (free + most_entropy * ratio) / 2, 0)


def _least_singular_value_colder(log_matrix: jax.Array, most_entropy: jax.Array) -> jax.Array:
    """Return what every singular value of M_ε reaches, at every ε colder than M = exp(log_matrix).

    0 where the largest entries of the rows of M do not form a permutation. ``most_entropy`` is at
    least H(M), in nats.

    Notes:
        Let Π be that permutation and K the least −log M off it. ⟨M_ε, −log M⟩ ≤ H(M), as in
        ``_least_sigma2_colder``, so the mass of M_ε off Π is at most H(M)/K. A row's part of that
        mass and its column's are both counted in it, so ‖M_ε − Π‖ ≤ H(M)/K.
    """
    n = len(log_matrix)
    column = log_matrix.argmax(1)
    chosen = jnp.arange(n)[None, :] == column[:, None]
    least_cost = -jnp.where(chosen, -jnp.inf, log_matrix).max()
    least = jnp.maximum(1 - rounding(n, log_matrix.dtype) - most_entropy / least_cost, 0)
    return jnp.where(chosen.any(0).all(), least, 0)
