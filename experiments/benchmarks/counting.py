"""How much arithmetic and memory traffic a program asks for, turn by turn of its loops.

The equations of a function are run again with a count beside them. So a count holds the turns that
each loop really made, and under ``jax.vmap`` every lane has its own.

An elementwise operation is one flop an entry, a product two a term, whatever the dtype. Memory is
counted where it has to be touched: by products, reductions, sorts and gathers, each of which reads
its operands and writes its result once. Elementwise operations count as fused into those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

TOUCHES = ("dot_general", "reduce", "arg", "cum", "sort", "gather", "scatter", "dynamic")
MOVES = {
    *("broadcast_in_dim", "reshape", "transpose", "convert_element_type", "slice", "concatenate"),
    *("dynamic_slice", "dynamic_update_slice", "squeeze", "gather", "scatter", "copy", "rev"),
    *("pad", "iota", "select_n", "split", "stop_gradient", "optimization_barrier", "expand_dims"),
}


class Count(NamedTuple):
    """Of one call: numbers, or arrays where the turns of a loop are in them."""

    flops: Any = 0.0
    bytes: Any = 0.0  # read and written
    turns: Any = 0.0  # of all loops that end by their data

    def plus(self, other: Count) -> Count:
        return Count(*(a + b for a, b in zip(self, other, strict=True)))

    def arrays(self) -> Count:
        return Count(*(jnp.asarray(x, jnp.float32) for x in self))


def counted(function: Callable) -> Callable[..., Count]:
    """Return a function of the same arguments that returns the Count of a call."""

    def count(*args: Any) -> Count:
        traced = jax.make_jaxpr(function)(*args)
        _, spent = _evaluate(traced, jax.tree.leaves(args))
        ends = [*traced.jaxpr.invars, *traced.jaxpr.outvars]
        return spent.plus(Count(bytes=float(sum(_bytes(v.aval) for v in ends)))).arrays()

    return count


def _evaluate(program: Jaxpr | ClosedJaxpr, args: Sequence[Any]) -> tuple[list[Any], Count]:
    """Return the results of a program, and what it spent."""
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    held = program.consts if isinstance(program, ClosedJaxpr) else ()
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*held, *args], strict=True))
    spent = Count()
    for equation in jaxpr.eqns:
        operands = [v.val if isinstance(v, Literal) else values[v] for v in equation.invars]
        if known := _SPECIAL.get(equation.primitive.name, _called(equation)):
            results, more = known(equation, operands)
        else:
            results = equation.primitive.bind(*operands, **equation.params)
            results = results if equation.primitive.multiple_results else [results]
            more = _cost(equation)
        spent = spent.plus(more)
        values.update(zip(equation.outvars, results, strict=True))
    ends = [v.val if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]
    return ends, spent


def _cost(equation: Any) -> Count:
    """Return the flops and bytes of one operation."""
    name = equation.primitive.name
    inputs, outputs = ([v.aval for v in vs] for vs in (equation.invars, equation.outvars))
    touched = float(sum(map(_bytes, [*inputs, *outputs]))) if name.startswith(TOUCHES) else 0.0
    if name in MOVES or not any(jnp.issubdtype(a.dtype, jnp.floating) for a in inputs):
        return Count(bytes=touched)
    if name == "dot_general":
        (over, _), _ = equation.params["dimension_numbers"]
        terms = math.prod(inputs[0].shape[axis] for axis in over)
        return Count(2.0 * outputs[0].size * terms, touched)
    entries = inputs[0].size if name.startswith(("reduce", "arg", "cum")) else outputs[0].size
    return Count(float(entries), touched)


def _bytes(aval: Any) -> int:
    size = math.prod(getattr(aval, "shape", ()))
    return size * getattr(getattr(aval, "dtype", None), "itemsize", 0)


# ---------------------------------------------------------------- programs within programs


def _called(equation: Any) -> Callable | None:
    """Return how to run an operation that holds one program, if it does."""
    inner = [p for p in equation.params.values() if isinstance(p, Jaxpr | ClosedJaxpr)]
    return (lambda _, operands: _evaluate(inner[0], operands)) if inner else None


def _while(equation: Any, operands: list[Any]) -> tuple[list[Any], Count]:
    params, first = equation.params, equation.params["cond_nconsts"]
    last = first + params["body_nconsts"]
    for_end, for_turn, start = operands[:first], operands[first:last], operands[last:]

    def goes_on(values):
        return _evaluate(params["cond_jaxpr"], [*for_end, *values])[0][0]

    def turn(state):
        old, spent = state
        new, more = _evaluate(params["body_jaxpr"], [*for_turn, *old])
        lanes = goes_on(old)  # an array where the loop was made by vmap
        if lanes.ndim:
            new = [jnp.where(_align(lanes, x), x, y) for x, y in zip(new, old, strict=True)]
        return new, spent.plus(more).plus(Count(turns=1.0))

    start = start, Count().arrays()
    return jax.lax.while_loop(lambda state: goes_on(state[0]).any(), turn, start)


def _align(lanes: jax.Array, like: jax.Array) -> jax.Array:
    return lanes.reshape(lanes.shape + (1,) * (like.ndim - lanes.ndim))


def _scan(equation: Any, operands: list[Any]) -> tuple[list[Any], Count]:
    params, first = equation.params, equation.params["num_consts"]
    last = first + params["num_carry"]
    held, start, rows = operands[:first], operands[first:last], operands[last:]

    def step(state, row):
        values, more = _evaluate(params["jaxpr"], [*held, *state[0], *row])
        carried = params["num_carry"]
        return (values[:carried], state[1].plus(more)), values[carried:]

    begin, how = (start, Count().arrays()), {k: params[k] for k in ("length", "reverse")}
    (end, spent), outputs = jax.lax.scan(step, begin, rows, **how)
    return [*end, *outputs], spent


def _cond(equation: Any, operands: list[Any]) -> tuple[list[Any], Count]:
    branches = equation.params["branches"]

    def run(branch, *args):
        results, spent = _evaluate(branch, args)
        return results, spent.arrays()

    return jax.lax.switch(operands[0], [partial(run, b) for b in branches], *operands[1:])


def _linear_solve(equation: Any, operands: list[Any]) -> tuple[list[Any], Count]:
    """The solve alone: what belongs to its check and its transpose is not run."""
    lengths, solve = equation.params["const_lengths"], equation.params["jaxprs"].solve
    before = lengths.matvec + lengths.vecmat
    held, right = operands[before : before + lengths.solve], operands[sum(lengths) :]
    return _evaluate(solve, [*held, *right])


_SPECIAL = {
    "while": _while,
    "scan": _scan,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
    "linear_solve": _linear_solve,
}
