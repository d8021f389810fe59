"""Many matrices at once: lanes of like work side by side, so that none waits long for another."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import export
from jax.custom_batching import custom_vmap

# The entries of all matrices of a bucket on a CPU, of which a core's cache holds a few copies.
_BUCKET = 2**14


def in_buckets(solve: Callable, work: Callable, most: int = 512) -> Callable:
    """Return ``solve`` for one lane, whose ``jax.vmap`` goes through buckets of like ``work``.

    A loop over a batch runs until its slowest lane ends. Under ``vmap``, however deeply nested, the
    lanes are flattened, ordered by ``work``, and solved a bucket at a time. What a lane gets does
    not depend on the others. On accelerators, whose width is worth more, the bucket is the whole
    batch. So it is where the size of the batch is a symbol, as ``jax.export`` allows.

    Args:
        solve: function of a batch, lane by lane: arrays [B, ...] -> a pytree of arrays [B, ...].
            The first array is [B, n, n].
        work: function of the same arrays -> [B], which grows with what ``solve`` will have to do.
        most: lanes of a bucket at most, on a CPU: few where few lanes have anything to do.

    Returns:
        A function of the arrays of one lane. It has no derivative of its own.

    >>> invert = in_buckets(jnp.linalg.inv, lambda matrices: matrices[:, 0, 0])
    >>> jax.vmap(invert)(jnp.array([[[2.0]], [[4.0]]])).ravel().tolist()
    [0.5, 0.25]
    """

    @custom_vmap
    def solve_batch(*arrays):
        lanes, n = arrays[0].shape[:2]
        width = max(1, min(most, _BUCKET // n**2))
        if export.is_symbolic_dim(lanes) or lanes <= width:
            return solve(*arrays)
        return jax.lax.platform_dependent(
            *arrays, cpu=lambda *arrays: _by_buckets(solve, work, width, arrays), default=solve_
        )

    def solve_(*arrays):
        return solve(*arrays)

    @solve_batch.def_vmap
    def _flatten(axis_size, in_batched, *arrays):
        arrays = [
            a if batched else jnp.broadcast_to(a, (axis_size, *a.shape))
            for a, batched in zip(arrays, in_batched, strict=True)
        ]
        lanes = arrays[0].shape[1]
        out = solve_batch(*(a.reshape(axis_size * lanes, *a.shape[2:]) for a in arrays))
        out = jax.tree.map(lambda a: a.reshape(axis_size, lanes, *a.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    def solve_one(*arrays):
        return jax.tree.map(lambda a: a[0], solve_batch(*(a[None] for a in arrays)))

    return solve_one


def each_lane(function: Callable) -> Callable:
    """Return ``jax.vmap`` of a function of one lane, but a single lane runs without a batch axis.

    Loops under ``vmap`` choose between the old and the new state of every lane. One lane needs no
    such choice: its program is a third smaller, and so is the time to compile it.

    >>> each_lane(jnp.sum)(jnp.ones((1, 3))).tolist()
    [3.0]
    """

    def call(*arrays):
        if jax.tree.leaves(arrays)[0].shape[0] != 1:  # a symbol is no 1
            return jax.vmap(function)(*arrays)
        one = function(*jax.tree.map(lambda a: a[0], arrays))
        return jax.tree.map(lambda a: a[None], one)

    return call


def _by_buckets(solve: Callable, work: Callable, width: int, arrays: tuple[jax.Array, ...]):
    """Return ``solve`` of a batch, in order of work and ``width`` lanes at a time."""
    lanes = arrays[0].shape[0]
    order = jnp.argsort(work(*arrays), descending=True)  # NaN first
    buckets = -(-lanes // width)
    fill = jnp.broadcast_to(order[-1], (buckets * width - lanes,))  # the last lane, again
    slots = jnp.concatenate([order, fill])
    out = jax.lax.map(lambda slot: solve(*(a[slot] for a in arrays)), slots.reshape(buckets, width))
    place = jnp.argsort(order)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[place], out)
