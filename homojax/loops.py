"""Loops and branches that end under ``vmap``, and that a program divided by hand can hold.

Inside ``jax.shard_map`` a value is the same on all devices, or it varies. JAX asks that what a loop
carries is as varying at its start as later on, and that two branches are alike. A start such as
``jnp.zeros(n)`` is not, so it is cast here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def repeat(count: int, advance: Callable[[Any, Any], Any], start: Any) -> Any:
    """Return the state after ``count`` turns of ``advance``, (turn, state) -> state.

    As ``jax.lax.fori_loop`` from 0, with a number of turns that is known: it has both derivatives.

    >>> int(repeat(3, lambda k, x: x + k, jnp.asarray(0)))
    3
    """
    start = _cast(partial(advance, jnp.asarray(0)), start)
    return jax.lax.fori_loop(0, count, lambda k, state: _vary_as(advance(k, state), state), start)


def repeat_while(
    unfinished: Callable[[Any], jax.Array], advance: Callable[[Any], Any], start: Any
) -> Any:
    """Return where ``advance`` from ``start`` ends: at the first state that is not ``unfinished``.

    As ``jax.lax.while_loop``, but its condition is computed once a turn. Under ``vmap`` JAX
    computes a condition twice, to go on and to say which lanes do. Two compiled copies of a
    comparison of floats can round differently. A lane that only one of them calls finished then
    stays as it is, and the loop never ends.

    >>> int(repeat_while(lambda x: x < 100, lambda x: 2 * x, jnp.asarray(3)))
    192
    """

    def turn(state):
        new = advance(state[0])
        return new, unfinished(new)

    begin = _cast(turn, (start, unfinished(start)))
    return jax.lax.while_loop(
        lambda state: state[1], lambda state: _vary_as(turn(state), state), begin
    )[0]


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    start: Any,
    rows: Any = None,
    length: int | None = None,
) -> tuple[Any, Any]:
    """Return ``jax.lax.scan`` of ``step``, (carry, row) -> (carry, output).

    >>> scan(lambda total, x: (total + x, total), jnp.asarray(0), jnp.arange(3))[1].tolist()
    [0, 0, 1]
    """
    first = jax.tree.map(lambda a: a[0], rows)
    start = _cast(lambda carry: step(carry, first)[0], start)

    def alike(carry, row):
        new, out = step(carry, row)
        return _vary_as(new, carry), out

    return jax.lax.scan(alike, start, rows, length)


def advance_if(wanted: jax.Array, advance: Callable[[Any], Any], state: Any) -> Any:
    """Return ``advance(state)`` where it is wanted, else ``state``: a loop of one turn at most.

    Under ``vmap``, where lanes differ in what is wanted, both are computed.

    >>> advance_if(jnp.asarray(True), jnp.negative, jnp.asarray(2)).tolist()
    -2
    """
    state = _cast(advance, state)
    return jax.lax.cond(wanted, lambda s: _vary_as(advance(s), s), lambda s: s, state)


def _cast(advance: Callable[[Any], Any], start: Any) -> Any:
    """Return ``start``, varying over the axes of the mesh over which ``advance`` makes it vary."""
    if jax.sharding.get_abstract_mesh().explicit_axes:
        return jax.tree.map(_put_on_mesh, start)
    if not _divided():
        return start
    while True:
        wider = _vary_as(start, jax.eval_shape(advance, start))
        pairs = zip(jax.tree.leaves(wider), jax.tree.leaves(start), strict=True)
        if all(new is old for new, old in pairs):
            return start
        start = wider


def _put_on_mesh(x: Any) -> Any:
    """Return ``x`` as an array of the mesh, which ``vmap`` over explicit axes asks of constants."""
    return jax.sharding.reshard(x, jax.P()) if jax.typeof(x).sharding.mesh.empty else x


def _vary_as(values: Any, like: Any) -> Any:
    """Return ``values``, each varying over the axes over which its ``like`` varies, too."""

    def vary(value, like):
        axes = [jax.typeof(x).manual_axis_type.varying for x in (like, value)]
        missing = tuple(axes[0] - axes[1])
        return jax.lax.pcast(value, missing, to="varying") if missing else value

    return jax.tree.map(vary, values, like) if _divided() else values


def _divided() -> bool:
    """Return whether this is traced inside of ``jax.shard_map``."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)
