"""Layer and RMS normalisation as networks use them, and what they leave of detail."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from homojax.arguments import as_float
from homojax.birkhoff import center
from homojax.numerics import max_or_nan, norm, power_of_two, sqrt
from homojax.programs import compiled

Kind = Literal["layer", "rms"]


@compiled("axis", "kind")
def normalise(
    x: ArrayLike,
    *,
    axis: Literal["features", "units"] = "features",
    kind: Kind = "layer",
    gain: ArrayLike | None = None,
    shift: ArrayLike | None = None,
    eps: ArrayLike = 0.0,
) -> jax.Array:
    """Return the layer or RMS normalisation of n units with D features each; the shape stays.

    Args:
        x: [n, D], or one vector.
        axis: "features" normalises each unit by itself, as networks do. "units" normalises each
            feature over the mixed axis, as the paper has it.
        kind: "layer" subtracts the mean and divides by √(variance + eps). "rms" divides by
            √(mean square + eps). With eps = 0 the norms become √D or √n.
        gain: multiplies the result; a scalar, or a vector along the normalised axis.
        shift: is added then; alike.
        eps: a scalar ≥ 0.

    Returns:
        An array like x; NaN where there is nothing to divide by.

    Raises:
        ValueError: the axis or the kind does not exist, x is neither a matrix nor a vector, or the
            gain or the shift does not fit it.

    Source: law 4.7, unit_layer_norm and unit_rms_norm.

    >>> normalise([[3.0, 1.0], [5.0, 5.5]]).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    >>> vector = normalise([1.0, -7.0], kind="rms", gain=5.0, shift=[0.0, 1.0])
    >>> [round(x, 5) for x in vector.tolist()]
    [1.0, -6.0]
    """
    x = as_float(x)
    if axis not in ("features", "units") or kind not in ("layer", "rms"):
        raise ValueError(
            'axis must be "features" or "units" and kind "layer" or "rms", '
            f"got {axis!r} and {kind!r}"
        )
    if x.ndim not in (1, 2) or not x.size:
        raise ValueError(
            f"x must have shape [n, D] or be one vector, got {list(x.shape)}; batch with jax.vmap"
        )
    along_first = x.T if axis == "features" else x
    eps = as_float(eps, "eps").astype(x.dtype)
    size = abs(along_first).max(0, keepdims=True)
    unit = power_of_two(jnp.maximum(size, jnp.sqrt(eps)))
    along_first = along_first / unit
    along_first = center(along_first) if kind == "layer" else along_first
    # Without the barrier XLA divides eps by unit², which underflows.
    eps = jax.lax.optimization_barrier(eps / unit) / unit
    scale = sqrt((along_first**2).mean(0, keepdims=True) + eps)
    along_last = (along_first / jnp.where(scale > 0, scale, jnp.nan)).T
    along_last = along_last if gain is None else along_last * _beside(gain, "gain", along_last)
    along_last = along_last if shift is None else along_last + _beside(shift, "shift", along_last)
    return along_last if axis == "features" else along_last.T


def _beside(one: ArrayLike, name: str, units: jax.Array) -> jax.Array:
    """Return a scalar, or a vector along the last axis of ``units``, in the precision of those.

    Raises:
        ValueError: it is of another shape.
    """
    one = as_float(one, name).astype(units.dtype)
    length = units.shape[-1]
    if one.shape not in ((), (length,)):
        raise ValueError(f"{name} must be a scalar or have shape [{length}], got {list(one.shape)}")
    return one if one.ndim == 0 else one.reshape((1,) * (units.ndim - 1) + one.shape)


@compiled("kind")
def token_detail_bound(
    tokens: ArrayLike, sigma2: ArrayLike, *, kind: Kind = "layer", gain: ArrayLike | None = None
) -> jax.Array:
    """Return 2σ₂‖PX‖_F max|gain|/(√n ‖m‖) ≥ ‖PN(MX)‖_F/√(nD), what is left of normalised detail.

    M ∈ 𝔅ₙ mixes the tokens X first, then N normalises each; m is the mean token.

    Args:
        tokens: X, [n, D].
        sigma2: σ₂(M), a scalar.
        kind: which ``normalise`` along "features" N is. For "layer" X and m are centred over
            features. P removes the shift of N.
        gain: the gain of N, a scalar or [D].

    Returns:
        A share, without unit; ∞ at m = 0. Without gain it says nothing above 1.

    Raises:
        ValueError: ``tokens`` is not [n, D], or the gain does not fit it.

    Notes:
        For a row a of MX, ‖a/‖a‖ − m/‖m‖‖ ≤ 2‖a − m‖/(‖a‖ + ‖m‖). M keeps m, and no constant rows
        are nearer to the normalised ones than their mean, which P takes away. A token that all
        but cancels m reaches 1 − 1/n of the bound.

    Source: law 4.7, token_layer_norm and token_rms_norm; Dunkl and Williams (1964).

    >>> float(token_detail_bound([[1.0, 0.0], [3.0, 0.0]], 0.5, kind="rms"))  # 2 · ½ · √2/(√2 · 2)
    0.5
    """
    tokens = as_float(tokens)
    if tokens.ndim != 2 or not tokens.size:
        raise ValueError(f"tokens must have shape [n, D], got {list(tokens.shape)}")
    gain = jnp.ones((), tokens.dtype) if gain is None else _beside(gain, "gain", tokens)
    tokens = tokens / power_of_two(abs(tokens).max())  # the share has no scale
    tokens = center(tokens.T).T if kind == "layer" else tokens
    mean, spread = norm(tokens.mean(0)), norm(center(tokens)) / math.sqrt(len(tokens))
    sigma2 = as_float(sigma2, "sigma2").astype(tokens.dtype)
    share = 2 * sigma2 * spread * max_or_nan(abs(gain)) / jnp.where(mean > 0, mean, 1)
    return jnp.where(mean == 0, jnp.inf, share)
