"""Many matrices at once: lanes of like work side by side, so that none waits long for another."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

_BUCKET = (
    2**14,
    512,
)  # on a CPU: entries of all its matrices, which a core's cache holds a few copies of, and lanes


def in_buckets(solve: Callable, work: Callable) -> Callable:
    """``solve``, for one lane, such that ``jax.vmap`` of it goes through its lanes in buckets of like ``work``.

    A loop over a batch runs until its slowest lane ends. Under ``vmap``, however deeply nested, the lanes are flattened,
    ordered by ``work``, and solved a bucket at a time; what a lane gets does not depend on the others. On accelerators,
    whose width is worth more, the bucket is the whole batch.

    Args:
        solve: function of a batch: arrays [B, ...] -> a pytree of arrays [B, ...], lane by lane. The first is [B, n, n].
        work: function of the same arrays -> [B], anything that grows with what ``solve`` will have to do.

    Returns:
        A function of the arrays of one lane. It has no derivative of its own.
    """

    @custom_vmap
    def solve_batch(*arrays):
        lanes, n = arrays[0].shape[:2]
        entries, most = _BUCKET
        width = max(1, min(most, entries // n**2))
        if lanes <= width:
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


def _by_buckets(solve: Callable, work: Callable, width: int, arrays: tuple[jax.Array, ...]):
    lanes = arrays[0].shape[0]
    order = jnp.argsort(work(*arrays), descending=True)  # NaN first
    buckets = -(-lanes // width)
    slots = jnp.concatenate(
        [order, jnp.broadcast_to(order[-1], (buckets * width - lanes,))]
    )  # the last, again, to fill up
    out = jax.lax.map(lambda slot: solve(*(a[slot] for a in arrays)), slots.reshape(buckets, width))
    place = jnp.argsort(order)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[place], out)
