"""The top eigenvector of an operator, by conjugate gradients on its Rayleigh quotient."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from homojax.loops import repeat_while


class _Climb(NamedTuple):
    """The state of a climb: a unit vector, the last direction, and their images."""

    x: jax.Array  # [n], of norm 1
    image: jax.Array  # [n], ``apply(x)``
    last: jax.Array  # [n], the direction of the last step
    last_image: jax.Array  # [n]
    quotient: jax.Array  # ρ = x·image
    rest: jax.Array  # [n], image − ρx
    missed: jax.Array  # ‖rest‖
    num_steps: jax.Array | int


def largest_rayleigh_quotient(
    apply: Callable[[jax.Array], jax.Array], start: jax.Array, rtol: float, max_steps: int
) -> tuple[jax.Array, jax.Array]:
    """Return (x, r): a unit vector that ``apply`` maps to ρx but for a residual of norm r·ρ.

    Conjugate gradients up the quotient ρ = x·apply(x)/x·x, until r ≤ rtol. Each step takes the best
    vector of the plane of x and the direction, which is conjugate to the last one.

    Args:
        apply: [n] -> [n], symmetric and positive semidefinite.
        start: [n], from where.
        rtol: the relative residual to reach.
        max_steps: most applications but the first.
    """

    def unfinished(state: _Climb) -> jax.Array:
        return (state.missed > rtol * state.quotient) & (state.num_steps < max_steps)

    def climb(state: _Climb) -> _Climb:
        x = state.x
        direction = _conjugate_direction(state)
        direction_image = apply(direction)
        b, half = x @ direction_image, (state.quotient - direction @ direction_image) / 2
        c, s = _top_eigenvector(half, b)
        x, last = c * x + s * direction, c * direction - s * x
        image = c * state.image + s * direction_image
        last_image = c * direction_image - s * state.image
        length = jnp.linalg.norm(x)
        return _arrive(x / length, image / length, last, last_image, state.num_steps + 1)

    x = start / jnp.linalg.norm(start)
    zero = jnp.zeros_like(x)
    end = repeat_while(unfinished, climb, _arrive(x, apply(x), zero, zero, 0))
    return end.x, end.missed / jnp.where(end.quotient > 0, end.quotient, 1)


def _arrive(
    x: jax.Array,
    image: jax.Array,
    last: jax.Array,
    last_image: jax.Array,
    num_steps: jax.Array | int,
) -> _Climb:
    """Return the state at x, with its quotient and residual."""
    quotient = x @ image
    rest = image - quotient * x
    return _Climb(
        x=x,
        image=image,
        last=last,
        last_image=last_image,
        quotient=quotient,
        rest=rest,
        missed=jnp.linalg.norm(rest),
        num_steps=num_steps,
    )


def _conjugate_direction(state: _Climb) -> jax.Array:
    """Return the unit vector from x up the quotient, conjugate to the last direction."""
    x, last, last_image, quotient, rest = (
        state.x,
        state.last,
        state.last_image,
        state.quotient,
        state.rest,
    )
    curvature = last @ last_image - quotient * (last @ last)
    along = rest @ last_image - quotient * (rest @ last)
    share = jnp.where(curvature < 0, along / jnp.where(curvature < 0, curvature, -1), 0)
    direction = rest - share * last
    direction = direction - (x @ direction) * x
    size = jnp.linalg.norm(direction)
    return direction / jnp.where(size > 0, size, 1)


def _top_eigenvector(half: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (c, s), of norm 1, for [[ρ, b], [b, d]] with ``half`` = (ρ − d)/2."""
    root = jnp.hypot(half, b)
    c = jnp.where(half >= 0, half + root, abs(b))
    s = jnp.where(half >= 0, b, jnp.where(b < 0, half - root, root - half))
    norm = jnp.hypot(c, s)
    moves, norm = norm > 0, jnp.where(norm > 0, norm, 1)
    return jnp.where(moves, c / norm, 1), jnp.where(moves, s / norm, 0)
