"""One table of every public core function, and what each must do: keep its dtype, and mean the same
under every transform.
"""

import importlib
import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
from public_functions import (
    KEY,
    LONG,
    SEARCHED,
    TABLE,
    logits,
    matrix,
    share,
    stack,
)

WITHOUT_ARRAYS = {
    "de_bruijn": lambda: hj.birkhoff.de_bruijn(2),
    "detail_basis": lambda: hj.birkhoff.detail_basis(4),
    "lazy_cycle": lambda: hj.birkhoff.lazy_cycle(4),
    "lazy_hypercube": lambda: hj.birkhoff.lazy_hypercube(2),
    "random_birkhoff": lambda: hj.birkhoff.random_birkhoff(KEY, 4),
    "uniform": lambda: hj.uniform(4),
    "marginal_tolerance": lambda: jnp.asarray(hj.numerics.marginal_tolerance(4, "float32")),
    "rounding": lambda: jnp.asarray(hj.numerics.rounding(4, "float32")),
}

# The rooms all of whose functions are public, or that say which of them are.
ROOMS = (
    "birkhoff",
    "bounds",
    "depth",
    "layernorm",
    "residual",
    "calibration",
    "calibration.sensitivity",
    "projection.sinkhorn",
    "projection.truncated",
    "projection.balance",
    "spectrum",
)


def test_the_tables_name_every_public_function():
    public = {name for name in hj.__all__ if name in ("PARAMETRIZATIONS", "PRESETS")}
    for room in ROOMS:
        module = importlib.import_module(f"homojax.{room}")
        for name, thing in vars(module).items():
            ours = getattr(thing, "__module__", "") == module.__name__
            shown = name in getattr(module, "__all__", [name] * ours)
            if shown and callable(thing) and not (name.startswith("_") or isinstance(thing, type)):
                public.add(name)
    named = {name.split()[0] for name in TABLE} | set(WITHOUT_ARRAYS) | set(SEARCHED)
    assert public <= named, public - named


@pytest.mark.parametrize("name", WITHOUT_ARRAYS)
def test_without_arrays_to_follow_a_function_gives_the_default_dtype_and_traces(name):
    eager, traced = WITHOUT_ARRAYS[name](), jax.jit(WITHOUT_ARRAYS[name])()
    assert eager.dtype == np.float64
    np.testing.assert_allclose(eager, traced, rtol=1e-14)


@pytest.mark.parametrize("make", [hj.uniform, hj.birkhoff.detail_basis])
def test_a_dtype_that_is_asked_for_is_given(make, dtype):
    assert make(4, dtype).dtype == dtype


# Each function is compiled in one precision, and in the other where there is time. Cases and claims
# are judged in both by tests/theory, and tests/test_parametrizations.py has the dtype of each map.
def is_fast(name, dtype):
    return dtype == "float32" and name not in LONG


IN_BOTH = list(itertools.product(TABLE, ("float64", "float32")))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [pytest.param(*cell, marks=() if is_fast(*cell) else pytest.mark.slow) for cell in IN_BOTH],
    indirect=["dtype"],
)
def test_public_function_keeps_its_dtype_and_means_the_same_under_every_transform(name, dtype):
    function, *makers = TABLE[name]
    rng = np.random.default_rng(len(name))
    batch = [np.array([maker(rng) for _ in range(3)]).astype(dtype) for maker in makers]
    lanes = [[jnp.asarray(x[i]) for x in batch] for i in range(3)]
    close = (
        10 * float(np.finfo(dtype).eps) ** 0.75
    )  # what two runs of an iteration to ``marginal_tolerance`` can differ by

    def floats(*args):
        return [
            leaf
            for leaf in jax.tree.leaves(function(*args))
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]

    @chex.assert_max_traces(n=1)
    def derivatives(args, tangents, cotangents):
        values, forward = jax.linearize(
            floats, *args
        )  # forward mode, and its transpose, around one evaluation
        return values, forward(*tangents), jax.linear_transpose(forward, *args)(cotangents)

    # Compiled once a dtype, vmapped with its derivatives. That is held against one call after
    # another of the same numbers in float64. Only random draws differ with the dtype.
    chex.clear_trace_counter()  # it goes by the name of the function, here always the same
    batched = jax.jit(jax.vmap(derivatives))
    shapes = [x.shape for x in jax.eval_shape(jax.vmap(floats), *batch)]
    directions = [rng.normal(size=x.shape).astype(dtype) for x in batch]
    weights = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    values, forward, gradients = batched(batch, directions, weights)
    for i, args in enumerate(lanes):
        alone = floats(*args if name == "sample_cosine" else [x.astype(np.float64) for x in args])
        for value, lane in zip(alone, values, strict=True):
            assert lane.dtype == dtype and np.isfinite(value).all()
            np.testing.assert_allclose(lane[i], value, rtol=close, atol=close)
        if values:  # a verdict has none
            assert all(x.dtype == dtype for x in [*forward, *gradients])
            assert all(np.isfinite(g[i]).all() for g in gradients)
            assert any(np.any(g[i]) for g in gradients)
            pushed, pulled = (
                [np.asarray(x[i], float) * y[i] for x, y in zip(one, other, strict=True)]
                for one, other in ((forward, weights), (gradients, directions))
            )
            error = abs(sum(x.sum() for x in pushed) - sum(x.sum() for x in pulled))
            assert error <= close * sum(abs(x).sum() for x in pulled)
    batched(
        [x[::-1] for x in batch], directions, weights
    )  # other values, same shapes: no second trace


@pytest.mark.parametrize(
    ("name", "dtype"),
    [pytest.param(*cell, marks=pytest.mark.slow if is_fast(*cell) else ()) for cell in IN_BOTH],
    indirect=["dtype"],
)
def test_public_function_keeps_its_dtype_and_so_do_its_derivatives(name, dtype):
    """Where the test above is slow."""
    function, *makers = TABLE[name]
    args = [jnp.asarray(maker(np.random.default_rng(0)), dtype) for maker in makers]
    results, tangents = jax.eval_shape(partial(jax.jvp, function), args, args)
    leaves = [x for x in jax.tree.leaves((results, tangents)) if x.dtype.kind == "f"]
    assert {x.dtype for x in leaves} <= {dtype}


OF_ONE_MATRIX = {
    name: function
    for name, (function, maker, *_) in TABLE.items()
    if maker in (matrix, logits) or name == "composite_doeblin_bound"
}
CLAIMS = "matrix_case and CLAIMS of §2"
OF_ONE_MATRIX[CLAIMS] = lambda *args: TABLE[CLAIMS][0](*args)[1]  # a case carries its ε, too
# The tests of their rooms give these a NaN, at other sizes or in the other precision.
NAN_ELSEWHERE = LONG | {"distance_to_uniform", "sinkhorn"}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(
            name,
            dtype,
            marks=pytest.mark.slow if dtype == "float64" or name in NAN_ELSEWHERE else (),
        )
        for name, dtype in itertools.product(OF_ONE_MATRIX, ("float64", "float32"))
    ],
    indirect=["dtype"],
)
def test_a_nan_among_the_entries_is_in_every_number_that_is_returned(name, dtype, rng):
    """At a size at which XLA loses one in a maximum (``numerics.max_or_nan``)."""
    makers = TABLE[name][1:]
    lanes, n = 64, 16

    def make(maker):
        if maker is share:
            return np.full(lanes, 0.5)
        cells = np.array([maker(rng, n) for _ in range(lanes)])
        at = np.arange(lanes), rng.integers(n, size=lanes), rng.integers(n, size=lanes)
        cells[at] = np.nan
        return cells

    args = [make(matrix if maker is stack else maker).astype(dtype) for maker in makers]
    args = [x[:, None] for x in args] if name == "composite_doeblin_bound" else args
    for number in jax.tree.leaves(jax.jit(jax.vmap(OF_ONE_MATRIX[name]))(*args)):
        if number.ndim == 1 and jnp.issubdtype(number.dtype, jnp.floating):
            assert np.isnan(number).all()
