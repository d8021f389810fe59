"""Many matrices at once: lanes of like work side by side, so that none waits long for another.

Nor does a device wait for another one. A loop over a batch ends when all of its lanes have ended.
If the batch lies on several devices, they would have to tell each other after every turn. So here
each device solves the lanes that lie on it, whichever way the batch was divided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.core import ShapedArray
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import mlir

from homojax.loops import advance_if, repeat_while
from homojax.numerics import as_ordered_integers

# The entries of all matrices of a bucket on a CPU, of which a core's cache holds a few copies.
_BUCKET = 2**14
_LEAST = 8  # lanes of a bucket: fewer take as long side by side as one by one


def in_lanes(solve: Callable) -> Callable:
    """Return ``solve`` for one lane, whose ``jax.vmap`` solves all lanes at once.

    Under ``vmap``, however deeply nested, the lanes are flattened. Each device solves its own.

    Args:
        solve: function of a batch, lane by lane: pytrees of arrays [B, ...] -> a pytree of arrays
            [B, ...]. What a lane gets does not depend on the others.

    Returns:
        A function of the arrays of one lane. It has no derivative of its own.

    >>> total = in_lanes(lambda rows: rows.sum(1))
    >>> jax.vmap(total)(jnp.ones((2, 3))).tolist()
    [3.0, 3.0]
    """

    @custom_vmap
    def solve_batch(*args):
        lanes = jax.tree.leaves(args)[0].shape[0]
        alone = export.is_symbolic_dim(lanes) or lanes == 1
        return solve(*args) if alone else _divided(solve)(*args)

    @solve_batch.def_vmap
    def _flatten(_, in_batched, *args):
        in_batched = tuple(in_batched)

        def solve_flat(*args):
            pairs = zip(*map(jax.tree.leaves, (args, in_batched)), strict=True)
            size = next(a.shape[0] for a, batched in pairs if batched)

            def flatten(a, batched):
                a = a if batched else jnp.broadcast_to(a, (size, *a.shape))
                return a.reshape(-1, *a.shape[2:])

            out = solve_batch(*jax.tree.map(flatten, args, in_batched))
            return jax.tree.map(lambda a: a.reshape(size, -1, *a.shape[1:]), out)

        axis = _axis_of_devices(args)
        if axis is not None:
            specs = jax.tree.map(lambda batched: jax.P(axis) if batched else jax.P(), in_batched)
            solve_flat = jax.shard_map(solve_flat, in_specs=specs, out_specs=jax.P(axis))
        out = solve_flat(*args)
        return out, jax.tree.map(lambda _: True, out)

    def solve_one(*args):
        return jax.tree.map(lambda a: a[0], solve_batch(*jax.tree.map(lambda a: a[None], args)))

    return solve_one


def in_buckets(solve: Callable, work: Callable, most: int = 512) -> Callable:
    """Return ``solve`` for one lane, whose ``jax.vmap`` goes through buckets of like ``work``.

    A loop over a batch runs until its slowest lane ends. So the lanes are ordered by ``work``, and
    solved a bucket at a time. On accelerators, whose width is worth more, the bucket is the whole
    batch. So it is where the size of the batch is a symbol, as ``jax.export`` allows.

    Args:
        solve: as ``in_lanes`` takes it. The first array is [B, n, n].
        work: function of the same arrays -> [B], which grows with what ``solve`` will have to do.
        most: lanes of a bucket at most, on a CPU.

    Returns:
        A function of the arrays of one lane. It has no derivative of its own.

    >>> invert = in_buckets(jnp.linalg.inv, lambda matrices: matrices[:, 0, 0])
    >>> jax.vmap(invert)(jnp.array([[[2.0]], [[4.0]]])).ravel().tolist()
    [0.5, 0.25]
    """

    of_one: dict[Any, Any] = {}  # types of what a lane gets, by those of what it is given

    def solve_batch(*arrays):
        lanes, width = arrays[0].shape[0], _width(arrays[0], most)
        given = tuple((a.shape[1:], a.dtype) for a in arrays)
        if export.is_symbolic_dim(lanes) or lanes <= width:
            out = solve(*arrays)  # also of one lane, before any batch: custom_vmap traces it first
            of_one[given] = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), out)
            return out
        by_buckets = partial(_by_buckets, solve, work, width)
        return _by_platform(arrays, of_one[given], cpu=by_buckets, default=solve)

    return in_lanes(solve_batch)


def where_unknown(find: Callable, most: int) -> Callable:
    """Return ``value`` or, where that is NaN, ``find(array)``: a function of both, of one lane.

    Its ``jax.vmap`` does not find what is known, where few lanes are unknown among many.

    Args:
        find: function of the array of one lane, [n, n] -> a scalar of its dtype.
        most: lanes that are found side by side, on a CPU. On accelerators it is all or none.

    Returns:
        A function (array, value) of one lane. It has no derivative of its own.

    >>> trace = where_unknown(jnp.trace, most=2)
    >>> jax.vmap(trace)(jnp.ones((3, 2, 2)), jnp.array([jnp.nan, 5.0, jnp.nan])).tolist()
    [2.0, 5.0, 2.0]
    """

    def fill(arrays, values):
        return jnp.where(jnp.isnan(values), each_lane(find)(arrays), values)

    def fill_all(arrays, values):
        return advance_if(jnp.isnan(values).any(), partial(fill, arrays), values)

    def fill_few(arrays, values):
        unknown, width = jnp.isnan(values), _width(arrays, most)
        slots = _slots(unknown, width)

        def unfinished(state):
            return state[0] * width < unknown.sum()

        def advance(state):
            turn, values = state
            slot = slots[turn]
            return turn + 1, values.at[slot].set(fill(arrays[slot], values[slot]))

        return repeat_while(unfinished, advance, (0, values))[1]

    def solve_batch(arrays, values):
        lanes = values.shape[0]
        if export.is_symbolic_dim(lanes) or lanes <= _width(arrays, most):
            return fill_all(arrays, values)
        of_one = jax.ShapeDtypeStruct((), values.dtype)
        return _by_platform((arrays, values), of_one, cpu=fill_few, default=fill_all)

    return in_lanes(solve_batch)


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


def _axis_of_devices(args: Any) -> Any:
    """Return what divides the leading axis, if the types of the arrays say it ("explicit")."""
    specs = (jax.typeof(a).sharding.spec for a in jax.tree.leaves(args))
    return next((spec[0] for spec in specs if spec and spec[0] is not None), None)


def _divided(solve: Callable) -> Callable:
    """Return ``solve`` of a batch, of which each device solves the lanes that lie on it.

    Where the batch lies, only the compiler knows, unless the program is divided by hand. It asks.
    """

    solve_share = jax.jit(lambda *args: solve(*args))  # its constants stay inside

    def divide(mesh, args, results):
        axes = [a.sharding.spec[0] for a in jax.tree.leaves(args) if a.sharding.spec]
        by_lanes = jax.NamedSharding(mesh, jax.P(next((axis for axis in axes if axis), None)))
        return mesh, solve_share, *jax.tree.map(lambda _: by_lanes, (results, args))

    divided = custom_partitioning(solve_share)
    divided.def_partition(divide, sharding_rule=lambda _, *kinds: _only_lanes_divide(*kinds))
    return divided


def _only_lanes_divide(args: Sequence[Any], results: Sequence[Any]) -> tuple[str, dict]:
    """Return the rule that leading axes may be divided alike, and others not, as JAX writes it."""
    inner = [
        [f"whole{k}x{axis}" for axis in range(1, len(array.shape))]
        for k, array in enumerate((*args, *results))
    ]
    terms = [" ".join(["lanes", *names]) for names in inner]
    rule = f"{', '.join(terms[: len(args)])} -> {', '.join(terms[len(args) :])}"
    return rule, {"need_replication_factors": tuple(name for names in inner for name in names)}


def _by_platform(
    arrays: Sequence[jax.Array], of_one: Any, *, cpu: Callable, default: Callable
) -> Any:
    """Return ``cpu(*arrays)`` on a CPU, and ``default(*arrays)`` elsewhere.

    As ``jax.lax.platform_dependent``, but what another platform would do is not even traced.

    Args:
        arrays: [B, ...].
        of_one: the types of what one lane gets, a pytree.
        cpu: function of the arrays -> such a pytree of arrays [B, ...].
        default: alike.
    """
    if not jax.sharding.get_abstract_mesh().empty:  # the types of arrays say where they lie
        return jax.lax.platform_dependent(*arrays, cpu=cpu, default=default)
    leaves, tree = jax.tree.flatten(of_one)
    lanes = arrays[0].shape[0]
    types = tuple(ShapedArray((lanes, *one.shape), one.dtype) for one in leaves)
    return tree.unflatten(_choice.bind(*arrays, cpu=cpu, default=default, types=types))


_choice = Primitive("choice_of_platform")
_choice.multiple_results = True
_choice.def_impl(jax.jit(_choice.bind, static_argnames=("cpu", "default", "types")))
_choice.def_abstract_eval(lambda *_, cpu, default, types: types)


def _lower(branch: str) -> Callable:
    """Return the rule that lowers a choice to one of its branches."""
    return mlir.lower_fun(
        lambda *arrays, types, **branches: jax.tree.leaves(branches[branch](*arrays))
    )


mlir.register_lowering(_choice, _lower("default"))
mlir.register_lowering(_choice, _lower("cpu"), platform="cpu")


def _by_buckets(solve: Callable, work: Callable, width: int, *arrays: jax.Array) -> Any:
    """Return ``solve`` of a batch, in order of work and ``width`` lanes at a time."""
    if width == 1:  # the order does not matter
        alone = jax.lax.map(lambda lane: solve(*(a[None] for a in lane)), arrays)
        return jax.tree.map(lambda a: a[:, 0], alone)
    slots = _slots(work(*arrays), width)
    out = jax.lax.map(lambda slot: solve(*(a[slot] for a in arrays)), slots)
    lanes = arrays[0].shape[0]
    place = (
        jnp.zeros(lanes, slots.dtype)
        .at[slots.ravel()[:lanes]]
        .set(jnp.arange(lanes, dtype=slots.dtype))
    )
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[place], out)


def _width(matrices: jax.Array, most: int) -> int:
    """Return how many of the matrices [B, n, n] are a bucket, but at most ``most``."""
    width = min(most, _BUCKET // matrices.shape[1] ** 2)
    return width if width >= _LEAST else 1


def _slots(work: jax.Array, width: int) -> jax.Array:
    """Return the lanes in order of work, the most first, as the rows of a table [.., width]."""
    # One number holds the work, in some bits less, and the lane: XLA for CPUs sorts integers alone
    # ten times as quickly as pairs.
    lane_bits = (len(work) - 1).bit_length()
    falling = ~as_ordered_integers(work.astype(jnp.float32))  # NaN first
    both = (falling >> lane_bits << lane_bits) | jnp.arange(len(work), dtype=falling.dtype)
    order = jnp.sort(both) & (2**lane_bits - 1)
    rows = -(-len(order) // width)
    fill = jnp.broadcast_to(order[-1], (rows * width - len(order),))  # the last lane, again
    return jnp.concatenate([order, fill]).reshape(rows, width)
