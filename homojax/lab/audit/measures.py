"""What is measured of a checkpoint's matrices, as the model runs them and as they converge."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from homojax.birkhoff import entropy, uniform
from homojax.depth import (
    amax_gain,
    composite,
    detail_composite,
    effective_depth,
    lyapunov_exponents,
    measured_depth,
    product_depth,
)
from homojax.lab.audit.layers import Layer
from homojax.metrics import of_matrix
from homojax.programs import program
from homojax.projection.sinkhorn import sinkhorn
from homojax.spectrum import lambda2, sigma2
from homojax.spectrum.gap import log_contraction_gap
from homojax.spectrum.singular_value import spectral_norm

# Programs take one matrix, so that they serve any number of layers: compiling is most of an audit.


class Converged(NamedTuple):
    """A projection with no end to its alternations."""

    matrix: np.ndarray  # [n, n]
    log_matrix: np.ndarray
    error: float  # the largest |sum − 1|


def converged(logits: np.ndarray) -> Converged:
    """Return the projection of logits S/ε, [n, n]."""
    matrix, log_matrix, error = jax.device_get(_project(logits))
    return Converged(matrix, log_matrix, float(error))


@program
def _project(logits: jax.Array) -> tuple[Any, Any, jax.Array]:
    solved = sinkhorn(logits, 1.0)
    return solved.matrix, solved.log_matrix, jnp.maximum(solved.row_error, solved.col_error)


class Matrices(NamedTuple):
    """The matrices of some layers, and how near the converged ones are to the limit."""

    run: np.ndarray  # [L, n, n], as the model computes them, for y = M x
    converged: np.ndarray  # [L, n, n], with no constants and no end to the alternations
    gap: np.ndarray  # [L], 1 − σ₂ of the converged ones, to relative accuracy
    error: np.ndarray  # [L], the largest |sum − 1| of the converged ones


def matrices_of(layers: list[Layer]) -> Matrices:
    """Return the matrices of layers of one n, at the static part."""
    run = [layer.matrix() for layer in layers]
    with np.errstate(divide="ignore"):
        limits = [
            Converged(matrix, np.log(matrix), 0.0)
            if layer.preset.num_iters is None
            else converged(layer.logits())
            for layer, matrix in zip(layers, run, strict=True)
        ]
    return Matrices(
        run=np.stack(run),
        converged=np.stack([limit.matrix for limit in limits]),
        gap=np.array([float(_gap(limit.log_matrix)) for limit in limits]),
        error=np.array([limit.error for limit in limits]),
    )


@program
def _gap(log_matrix: jax.Array) -> jax.Array:
    return jnp.exp(log_contraction_gap(log_matrix))


# ---------------------------------------------------------------- one matrix


def measure_each(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """Return what can be said of each matrix [L, n, n] by itself, [L] each."""
    each = [jax.device_get(_measure(matrix)) for matrix in matrices]
    return {name: np.array([one[name] for one in each]) for name in each[0]}


@program
def _measure(matrix: jax.Array) -> dict[str, jax.Array]:
    n = matrix.shape[0]
    forward, backward = amax_gain(matrix)
    return {
        **of_matrix(matrix),
        "lambda2": lambda2(matrix),
        "entropy_share": entropy(matrix) / (n * math.log(n)),
        "leaving": 1 - jnp.trace(matrix) / n,
        "amax_gain_fwd": forward,
        "amax_gain_bwd": backward,
    }


def responses(least: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of ‖∂M/∂S‖₂, S in units of ε, of projections M between two arrays [L, n, n].

    The derivative is B(Bᵀ diag(1/M) B)⁻¹Bᵀ on matrices B whose sums are 0. Of the rectangle
    e_ik + e_jl − e_il − e_jk it keeps at least 4/Σ 1/M over its corners. And a change with sums 0
    has at most n times the square of its part off any one permutation, so that the norm is at most
    n times the largest entry there.

    >>> half = np.full((1, 2, 2), 0.5)
    >>> responses(half, half)
    (array([0.5]), array([0.5]))
    """
    most = [_most_response(low, high) for low, high in zip(least, largest, strict=True)]
    return least_responses(least), np.array(most)


def least_responses(matrices: np.ndarray) -> np.ndarray:
    """Return 4/Σ 1/M over the corners of the best rectangle, [L, n, n] -> [L]; NaN of a NaN."""
    most = np.zeros(len(matrices))
    with np.errstate(divide="ignore"):
        inverse = 1 / np.maximum(matrices, 0)
    for i in range(matrices.shape[1]):
        pairs = inverse[:, i : i + 1] + np.delete(inverse, i, axis=1)  # [L, k, j]: of rows i and k
        most = np.maximum(most, (4 / np.partition(pairs, 1, axis=2)[..., :2].sum(2)).max(1))
    return most


def _most_response(least: np.ndarray, largest: np.ndarray) -> float:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-least)
    off = largest.copy()
    off[rows, columns] = 0
    return min(0.5, len(least) * float(off.max()))


# ---------------------------------------------------------------- a stack


def measure_stack(matrices: np.ndarray, retention: float) -> dict[str, np.ndarray]:
    """Return what can be said of a stack [L, n, n] and of its products M_l ⋯ M_1, l ≤ L.

    ``composite_…`` are of each product [L]; ``effective_depth_…`` say after how many layers less
    than ``retention`` of the detail is left: by Π σ₂ (law 3.1, product bound),
    by the Lyapunov exponent, and as measured on the products (∞ where it is not reached).
    """
    return {name: np.asarray(x) for name, x in _measure_stack(matrices, retention).items()}


@program
def _measure_stack(matrices: jax.Array, retention: jax.Array) -> dict[str, jax.Array]:
    products = composite(matrices)
    kept = jax.vmap(spectral_norm)(detail_composite(matrices))
    forward, backward = jax.vmap(amax_gain)(products)
    exponent = lyapunov_exponents(matrices)[0]
    each = jax.vmap(sigma2)(matrices)
    depth = partial(effective_depth, retention=retention)
    distance = products - uniform(matrices.shape[1], matrices.dtype)
    return {
        "composite": products[-1],
        "composite_sigma2": kept,
        "composite_dist_to_uniform": jnp.sqrt((distance**2).sum((1, 2))),
        "composite_amax_gain_fwd": forward,
        "composite_amax_gain_bwd": backward,
        "lyapunov_exponent": exponent,
        "effective_depth_bound": product_depth(each, retention=retention),
        "effective_depth_lyapunov": depth(jnp.minimum(jnp.exp(exponent), 1)),
        "effective_depth_measured": measured_depth(kept, retention=retention),
    }


def constants_share(layers: list[Layer], retention: float) -> float:
    """Return the share of a composite's collapse that vanishes without constants, in [0, 1].

    They are what the layers' code adds to entries and sums; the alternations stay as many.
    """
    bare = [layer.without_constants() for layer in layers]
    if all(layer.preset == one.preset for layer, one in zip(layers, bare, strict=True)):
        return 0.0
    return unconverged_share(kept_as_run(layers, retention), kept_as_run(bare, retention))


def kept_as_run(layers: list[Layer], retention: float) -> float:
    """Return σ₂ of the product of layers of one n, as run, at the static part."""
    matrices = np.stack([layer.matrix() for layer in layers])
    return float(measure_stack(matrices, retention)["composite_sigma2"][-1])


def unconverged_share(run: float, converged: float) -> float:
    """Return the share of a composite's collapse that vanishes on convergence, in [0, 1].

    The collapse is −log σ₂ of the composite. 0 where there is none as run.

    >>> unconverged_share(0.1, 1.0), unconverged_share(0.01, 0.1)
    (1.0, 0.5)
    """
    tiny = np.finfo(float).tiny
    as_run, left = (-np.log(max(tiny, min(1.0, sigma2))) for sigma2 in (run, converged))
    return float(np.clip(1 - left / as_run, 0, 1)) if as_run > 1e-6 else 0.0


# ---------------------------------------------------------------- reach


def reach(matrices: np.ndarray, read: np.ndarray, write: np.ndarray) -> np.ndarray:
    """Return how much of what layer l writes layer m reads, over its mean part, [L, L] by (l, m).

    It is |read_m · M_{m−1} ⋯ M_{l+1} · write_l| over (Σ read_m)(Σ write_l)/n, which is what is read
    once all is mixed evenly: 1 there, below 1 where what was written lies where m hardly reads. NaN
    for m ≤ l. It does not depend on the coordinates of the streams between l and m.

    Args:
        matrices: M₁ … M_L, [L, n, n].
        read: of the streams that a layer reads, [L, n].
        write: of the streams that it writes to, [L, n].
    """
    depth, n, _ = matrices.shape
    found = np.full((depth, depth), np.nan)
    for start in range(depth):
        carried = write[start]
        for end in range(start + 1, depth):
            mean = read[end].sum() * write[start].sum() / n
            with np.errstate(divide="ignore", invalid="ignore"):
                found[start, end] = abs(read[end] @ carried) / abs(mean)
            carried = matrices[end] @ carried
    return found
