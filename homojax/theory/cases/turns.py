"""How far layers turn a vector: residual layers, with or without a normalised branch.

theory.md 5.2, 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from homojax.birkhoff import center
from homojax.loops import scan
from homojax.numerics import matmul
from homojax.residual import turn_angle

Layer = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # (x, matrix, α) -> x


def turned_angles(
    layer: Layer, matrices: jax.Array, alpha: jax.Array, probe: jax.Array, last: jax.Array
) -> jax.Array:
    """Return the angles between the details of ``probe`` and of its images, [D], in radians.

    Args:
        layer: one layer, from x to its image.
        matrices: [L, n, n], layer 1 first.
        alpha: the residual weights, [L].
        probe: [n]; its detail is re-centred at every layer.
        last: the indices of the layers after which angles are taken, [D].

    >>> stack, probe = (jnp.eye(2)[None, ::-1], jnp.array([0.75])), jnp.array([1.0, -1.0])
    >>> [round(x, 4) for x in turned_angles(residual_layer, *stack, probe, jnp.array([0])).tolist()]
    [3.1416]
    """
    start = center(probe)

    def step(x, matrix_and_alpha):
        x = center(layer(x, *matrix_and_alpha))
        x = x / jnp.maximum(abs(x).max(), jnp.finfo(x.dtype).tiny)  # only its direction counts
        return x, x

    images = scan(step, start, (matrices, alpha))[1]
    return jax.vmap(turn_angle, (None, 0))(start, images[last])


def residual_layer(x: jax.Array, matrix: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return R_α x = (1 − α)x + αMx."""
    return (1 - alpha) * x + alpha * matmul(matrix, x)


def prenorm_layer(x: jax.Array, matrix: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return (1 − α)x + αF(Mx), with F the rescaling to the norm of x.

    It is NaN where the branch is less than √eps of x: next to nothing, it has no direction but that
    of rounding.
    """
    least = math.sqrt(float(jnp.finfo(x.dtype).eps))
    branch = center(matmul(matrix, x))
    ratio = jnp.linalg.norm(branch) / jnp.linalg.norm(x)
    return (1 - alpha) * x + alpha * branch / jnp.where(ratio > least, ratio, jnp.nan)
