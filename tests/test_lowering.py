"""Every public function is a program for CPUs, GPUs and TPUs, and calls no library there."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from homojax.lab.sources import load_source
from homojax.lab.sweep import measure
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.plan import blocks_of, chunks_of, lanes_of
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


def every_stage():
    """(name, program, its arguments) of each stage of a small sweep in float32."""
    config = Sweep(epsilon=(0.5,), depth=(1, 2), n=4, seeds=1, samples=8, dtype="float32")
    source, stages = load_source(config), []
    program_of = measure.program_of

    def noted(stage, *rest):
        def call(*args):
            stages.append((stage.__name__, program_of(stage, *rest), args))
            return stages[-1][1](*args)

        return call

    measure.program_of = noted
    try:
        lanes = lanes_of(config, source)
        (block,) = blocks_of(config, source, chunks_of(config, source, lanes), lanes)
        measure.measure_block(config, source, block)
    finally:
        measure.program_of = program_of
    return stages


def test_every_stage_of_a_sweep_lowers_for_every_platform_and_stays_in_float32():
    """As a command runs it on GPUs and TPUs."""
    jax.config.update("jax_enable_x64", False)
    seen = set()
    for name, program, args in every_stage():
        seen.add(name)
        text = export.export(program, platforms=PLATFORMS)(*args).mlir_module()
        assert set(re.findall(r"custom_call @(\w+)", text)) <= OWN and "callback" not in text
        assert not re.search(r"tensor<(?:\d+x)*f64>", text), name
    assert {"_project", "_norms", "lambda2", "_measure_residual"} < seen
