"""Every public function is a program for CPUs, GPUs and TPUs, and calls no library there.

In float32 it computes nothing in float64, whatever JAX's default precision is.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import homojax as hj
import oracles
from homojax.lab.sources import load_source
from homojax.lab.sweep import measure
from homojax.lab.sweep.config import Sweep
from homojax.lab.sweep.plan import blocks_of, chunks_of, lanes_of
from homojax.networks.architecture import Architecture
from homojax.networks.tasks.made import copying
from homojax.networks.trainer import trainer
from homojax.networks.training import Training
from programs import equations, with_gradient
from public_functions import CALLED, of_every_room

PLATFORMS = ("cpu", "cuda", "tpu")
OWN = {"Sharding", "cu_threefry2x32_ffi", "annotate_device_placement"}  # of JAX itself


def called(function, args):
    """The targets of the custom calls of a function's programs for all platforms."""
    text = export.export(jax.jit(function), platforms=PLATFORMS)(*args).mlir_module()
    assert "callback" not in text
    return set(re.findall(r"custom_call @(\w+)", text))


def computed_in_float64(function, args):
    """The arrays of float64 that a function's program holds, and the equations that make one.

    A Python number is neither: it is a constant, which is cast.
    """
    traced = jax.make_jaxpr(function)(*args)
    held = [x for x in traced.consts if jnp.result_type(x) == jnp.float64]
    made = [
        equation
        for equation in equations(traced.jaxpr)
        if any(getattr(v.aval, "dtype", None) == jnp.float64 for v in equation.outvars)
    ]
    return held + made


def operands(name, dtype):
    function, *makers = CALLED[name]
    rng = np.random.default_rng(0)
    return function, [jnp.asarray(maker(rng), dtype) for maker in makers]


@pytest.mark.parametrize("name", of_every_room(CALLED))
def test_a_function_and_its_gradient_lower_for_every_platform_and_call_no_library(name):
    function, args = operands(name, "float32")
    assert called(with_gradient(function), args) <= OWN


@pytest.mark.parametrize("name", CALLED)
def test_a_function_of_float32_and_its_gradient_compute_nothing_in_float64(name):
    function, args = operands(name, "float32")
    assert not computed_in_float64(with_gradient(function), args)


def test_a_library_call_and_a_number_in_float64_are_seen():
    assert called(jnp.linalg.cholesky, [jnp.eye(3)]) - OWN
    x = jnp.ones(3, "float32")
    assert computed_in_float64(lambda x: x * jnp.where(x > 0, 1, jnp.nan), [x])
    assert computed_in_float64(lambda x: x * np.ones(3), [x])
    assert not computed_in_float64(lambda x: jnp.where(x > 0, 1.5 * x, jnp.nan), [x])


@pytest.mark.parametrize(
    ("dtype", "x64"),
    [
        ("float32", False),
        pytest.param("float32", True, marks=pytest.mark.slow),
        pytest.param("float64", True, marks=pytest.mark.slow),
    ],
)
def test_the_projection_is_exported_for_batches_of_any_size(dtype, x64):
    jax.config.update("jax_enable_x64", x64)
    project = jax.jit(jax.vmap(lambda x: hj.sinkhorn(x, 0.5).matrix))
    operand = jax.ShapeDtypeStruct(export.symbolic_shape("b, 4, 4"), dtype)
    exported = export.export(project, platforms=PLATFORMS)(operand)
    for batch in (1, 600):  # a bucket holds 512
        logits = np.random.default_rng(batch).normal(size=(batch, 4, 4)).astype(dtype)
        matrices = np.asarray(exported.call(logits))
        tol = hj.numerics.marginal_tolerance(4, dtype)
        assert np.max(oracles.marginal_errors(matrices)) <= tol
        expected = [oracles.project(x, 0.5) for x in logits[:2].astype(float)]
        np.testing.assert_allclose(matrices[:2], expected, atol=8 * tol)


@pytest.mark.parametrize("function", [lambda x: hj.sinkhorn(x, 0.5), hj.balance])
def test_a_program_that_returns_a_result_is_written_and_read_again(function):
    logits = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")
    written = export.export(jax.jit(function))(logits).serialize()
    result, expected = export.deserialize(written).call(logits), jax.jit(function)(logits)
    assert type(result) is type(expected)
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def every_stage():
    """(name, program, its arguments) of each stage of a small sweep in float32."""
    config = Sweep(epsilon=(0.5,), depth=(1, 2), n=4, seeds=1, samples=8, dtype="float32")
    source, stages = load_source(config), []
    program_of = measure.program_of

    def noted(stage, *rest):
        def call(*args):
            program = program_of(stage, *rest)
            stages.append((stage.__name__, program.__wrapped__, args))
            return program(*args)

        return call

    measure.program_of = noted
    try:
        lanes = lanes_of(config, source)
        (block,) = blocks_of(config, source, chunks_of(config, source, lanes), lanes)
        measure.measure_block(config, source, block)
    finally:
        measure.program_of = program_of
    return stages


@pytest.mark.parametrize("x64", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_stage_of_a_sweep_lowers_for_every_platform_and_stays_in_float32(x64):
    """Without float64 a command runs it on GPUs and TPUs."""
    jax.config.update("jax_enable_x64", x64)
    seen = set()
    for name, program, args in every_stage():
        seen.add(name)
        assert called(program, args) <= OWN and not computed_in_float64(program, args), name
    assert {"_project", "_norms", "lambda2", "_measure_residual"} < seen


TRAINED = {
    "tokens": {"noisy": True, "learned_alpha": True},
    "attention": {"over": "attention"},
    "streams": {"over": "streams", "depth": 3, "dynamic": True, "mixer": "mhc-paper"},
}


def three_runs(**architecture):
    """A trainer, and the shapes of three runs of it."""
    task = copying(units=4, vocabulary=5, tests=8)
    made = trainer(Architecture(**{"depth": 2, "width": 8} | architecture), task, Training(steps=4))
    return made, jax.eval_shape(jax.vmap(made.begin), jax.random.split(jax.random.key(0), 3))


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("over", TRAINED)
def test_training_lowers_for_every_platform_and_stays_in_float32(over, x64):
    """As a command runs it: with float64 for the laws."""
    jax.config.update("jax_enable_x64", x64)
    made, runs = three_runs(**TRAINED[over])
    advance = jax.vmap(partial(made.advance, steps=2))
    assert called(advance, [runs]) <= OWN
    after, losses = jax.eval_shape(advance, runs)
    assert after == runs and losses.dtype == jnp.float32
    # Adam's correction of its first steps is optax's, and is computed in JAX's default precision.
    assert not computed_in_float64(jax.vmap(made.slope), [runs])
