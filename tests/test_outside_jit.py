"""Every public function called by itself: compiled once, and in the modes of careful people."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from public_functions import CALLED


@pytest.mark.parametrize("name", CALLED)
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


MODES = {
    "debug_nans": lambda: jax.debug_nans(True),
    "rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "leaks": jax.checking_leaks,
    "disable_jit": jax.disable_jit,
}


LONG = ("PARAMETRIZATIONS", "disable_jit")  # 15 maps, operation by operation


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param(*cell, marks=pytest.mark.slow if cell == LONG else ())
        for cell in itertools.product(CALLED, MODES)
    ],
)
def test_every_function_works_in_the_modes_that_careful_people_run_in(name, mode, rng):
    function, *makers = CALLED[name]
    args = [np.asarray(maker(rng)) for maker in makers]
    expected = jax.tree.leaves(function(*args))
    with MODES[mode]():
        for value, other in zip(jax.tree.leaves(function(*args)), expected, strict=True):
            if jnp.issubdtype(value.dtype, jnp.floating):
                np.testing.assert_allclose(value, other, rtol=1e-9, atol=1e-9)
