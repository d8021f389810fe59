"""Every public function is a program for CPUs, GPUs and TPUs, and calls no library there."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from public_functions import CALLED, of_every_room

PLATFORMS = ("cpu", "cuda", "tpu")
OWN = {"Sharding", "cu_threefry2x32_ffi", "annotate_device_placement"}  # of JAX itself


def called(function, args):
    """The targets of the custom calls of a function's programs for all platforms."""
    lowered = export.export(jax.jit(function), platforms=PLATFORMS)(*args)
    text = lowered.mlir_module()
    assert "callback" not in text
    return set(re.findall(r"custom_call @(\w+)", text))


def operands(name, dtype):
    function, *makers = CALLED[name]
    rng = np.random.default_rng(0)
    return function, [jnp.asarray(maker(rng), dtype) for maker in makers]


def floats(function):
    def leaves(*args):
        found = jax.tree.leaves(function(*args))
        return [x for x in found if jnp.issubdtype(x.dtype, jnp.floating)]

    return leaves


@pytest.mark.parametrize("name", of_every_room(CALLED))
def test_a_function_and_its_gradient_lower_for_every_platform_and_call_no_library(name):
    function, args = operands(name, "float32")

    def both(*args):
        values, pull_back = jax.vjp(floats(function), *args)
        return function(*args), pull_back([jnp.ones_like(x) for x in values])

    targets = called(both, args)
    assert targets <= OWN


def test_a_library_call_is_seen():
    targets = called(jnp.linalg.cholesky, [jnp.eye(3)])
    assert targets - OWN  # the test hears
