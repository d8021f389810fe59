"""What to log of a model's mixing while it trains: one flat dict of scalars."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_float, as_square, as_stack
from homojax.birkhoff import marginal_errors, uniform
from homojax.depth import amax_gain, composite, detail_composite
from homojax.numerics import max_or_nan, min_or_nan, norm
from homojax.programs import compiled
from homojax.projection.sinkhorn import sinkhorn
from homojax.spectrum import sigma2
from homojax.spectrum.singular_value import spectral_norm


@compiled(shared=True)
def mixing_metrics(
    matrices: ArrayLike, *, epsilon: ArrayLike | None = None
) -> dict[str, jax.Array]:
    """Return what a training should watch of its mixing matrices, as scalars by name.

    Args:
        matrices: M_1 … M_L as the model runs them, for y = M x, [L, n, n]; or one, [n, n].
        epsilon: where given, ``matrices`` are logits, and are projected at this ε > 0 first.

    Returns:
        ``sigma2``, ``spectral_gap`` (1 − σ₂), ``dist_to_uniform``, ``dist_to_identity`` (Frobenius
        norms) and ``saturation`` ((‖M‖_F² − 1)/(n − 1): 0 at J, 1 at permutations): means over
        layers. ``sigma2_min``: of the layer that keeps least. ``row_error``, ``col_error``: the
        largest |sum − 1| of all layers. ``composite_sigma2``, ``composite_amax_gain_fwd`` and
        ``…_bwd``: of the product M_L ⋯ M_1. NaN where an entry is.

    Raises:
        ValueError: a shape is neither [n, n] nor [L, n, n], with n ≥ 2.

    Source: the names of mHC's logs (arXiv 2512.24880 for the gain); laws 2 and 3.4, amax gain.

    >>> metrics = mixing_metrics([[0.75, 0.25], [0.25, 0.75]])
    >>> round(float(metrics["sigma2"]), 6), float(metrics["row_error"])
    (0.5, 0.0)
    """
    matrices = as_float(matrices, "matrices")
    if matrices.ndim == 2:
        matrices = as_square(matrices, "matrices")[None]
    matrices = as_stack(matrices, "matrices")
    if epsilon is not None:
        matrices = jax.vmap(lambda logits: jnp.asarray(sinkhorn(logits, epsilon).matrix))(matrices)
    return _metrics(matrices)


def _metrics(matrices: jax.Array) -> dict[str, jax.Array]:
    each = jax.vmap(of_matrix)(matrices)
    kept = each["sigma2"]
    forward, backward = amax_gain(composite(matrices)[-1])
    return {
        "sigma2": kept.mean(),
        "sigma2_min": min_or_nan(kept),
        "spectral_gap": 1 - kept.mean(),
        **{key: each[key].mean() for key in ("dist_to_uniform", "dist_to_identity", "saturation")},
        "row_error": max_or_nan(each["row_error"]),
        "col_error": max_or_nan(each["col_error"]),
        "composite_sigma2": spectral_norm(detail_composite(matrices)[-1]),
        "composite_amax_gain_fwd": forward,
        "composite_amax_gain_bwd": backward,
    }


def of_matrix(matrix: jax.Array) -> dict[str, jax.Array]:
    """Return what is watched of one matrix [n, n], by the names of ``mixing_metrics``.

    >>> float(of_matrix(jnp.eye(2))["saturation"])
    1.0
    """
    n, dtype = matrix.shape[0], matrix.dtype
    row_error, col_error = marginal_errors(matrix)
    return {
        "row_error": row_error,
        "col_error": col_error,
        "sigma2": sigma2(matrix),
        "dist_to_identity": norm(matrix - jnp.eye(n, dtype=dtype)),
        "dist_to_uniform": norm(matrix - uniform(n, dtype)),
        "saturation": ((matrix**2).sum() - 1) / (n - 1),
    }
