"""Every public function called by itself: compiled once, and in the modes of careful people."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from public_functions import CALLED, LONG, SEARCHED

# Dozens of programs each, or a search: one search is fast.
MANY_PROGRAMS = {
    "PARAMETRIZATIONS",
    "matrix_case and CLAIMS of §2",
    "stack_case and CLAIMS of §3 and §5",
    *(set(SEARCHED) - {"calibrate_epsilon"}),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in MANY_PROGRAMS else ())
        for name in CALLED
    ],
)
def test_a_second_call_compiles_nothing(name, rng):
    """A program that is compiled anew costs seconds, and memory that is never given back."""
    function, *makers = CALLED[name]
    programs = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            programs.append(event)

    calls = [[np.asarray(maker(rng)) for maker in makers] for _ in range(2)]
    jax.block_until_ready(function(*calls[0]))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.block_until_ready(function(*calls[1]))
        seen = list(programs)
        jax.jit(lambda x: x + len(name))(1.0)
        assert len(programs) > len(seen) == 0  # the listener hears
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


# What is traced goes by the mode of promotion, but not by whether leaks are looked for. So leaks
# are looked for in a mode in which nothing has been traced yet.
REFUSALS = {
    "promotion": (
        lambda: jax.numpy_rank_promotion("raise"),
        lambda: jax.numpy_dtype_promotion("strict"),
    ),
    "leaks": (lambda: jax.numpy_rank_promotion("raise"), jax.checking_leaks),
}

# Each trace within a trace is looked at, which takes seconds of most: one of most rooms is fast.
LOOKED_AT = ("entropy", "truncated_sinkhorn", "dobrushin_bound", "amax_gain", "turn_bound")


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        pytest.param(
            name,
            refused,
            marks=pytest.mark.slow if refused == "leaks" and name not in LOOKED_AT else (),
        )
        for name, refused in itertools.product(CALLED, REFUSALS)
    ],
)
def test_a_function_and_its_derivative_are_traced_without_promotion_and_without_leaks(
    name, refused, rng
):
    """Without promotion of ranks or dtypes."""
    function, *makers = CALLED[name]
    args = [np.asarray(maker(rng)) for maker in makers]
    with contextlib.ExitStack() as modes:
        for refuse in REFUSALS[refused]:
            modes.enter_context(refuse())
        gradient = jax.eval_shape(gradient_of(function, len(args)), *args)
    assert [g.shape for g in gradient] == [arg.shape for arg in args]


def gradient_of(function, num_args):
    """The derivative of the sum of all real numbers that a function returns."""

    def total(*args):
        leaves = jax.tree.leaves(function(*args))
        return sum(x.sum() for x in leaves if jnp.issubdtype(x.dtype, jnp.floating))

    return jax.grad(total, range(num_args))


VALUED = {"debug_nans": lambda: jax.debug_nans(True), "disable_jit": jax.disable_jit}

# Operation by operation, each function is dozens of programs: one or two of a room are fast.
WITHOUT_JIT = (
    "center",
    "entropy",
    "dobrushin_bound",
    "frobenius_bounds",
    "amax_gain",
    "effective_depth",
    "overlap",
    "residual_matrix",
    "turn_bound",
    "truncated_sinkhorn",
    "PARAMETRIZATIONS of one map",
    "sigma2",
)


def is_long(name, mode):
    return name in LONG or (mode == "disable_jit" and name not in WITHOUT_JIT)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param(name, mode, marks=pytest.mark.slow if is_long(name, mode) else ())
        for name, mode in itertools.product(CALLED, VALUED)
    ],
)
def test_every_function_gives_the_same_to_those_who_look_for_nans_or_go_without_jit(
    name, mode, rng
):
    function, *makers = CALLED[name]
    args = [np.asarray(maker(rng)) for maker in makers]
    expected = jax.tree.leaves(function(*args))
    with VALUED[mode]():
        for value, other in zip(jax.tree.leaves(function(*args)), expected, strict=True):
            if jnp.issubdtype(value.dtype, jnp.floating):
                np.testing.assert_allclose(value, other, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLED)
def test_a_derivative_meets_no_nan_on_its_way(name, rng):
    function, *makers = CALLED[name]
    args = [np.asarray(maker(rng)) for maker in makers]
    with jax.debug_nans(True):
        gradient = jax.jit(gradient_of(function, len(args)))(*args)
    assert all(np.isfinite(g).all() for g in gradient)
