"""Every public function over many cells may be divided over devices, and none waits for another.

JAX checks while it traces that what varies over devices is said to vary: no device is needed.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from programs import with_gradient
from public_functions import CALLED, of_every_room

MESH = jax.sharding.AbstractMesh((4,), ("cells",))
SLOW = pytest.mark.slow
COLLECTIVES = ("psum", "all_gather", "all_to_all", "ppermute", "reduce_scatter")


def divided(function):
    spec = jax.P("cells")
    return jax.shard_map(jax.vmap(function), mesh=MESH, in_specs=spec, out_specs=spec)


@pytest.mark.parametrize("name", of_every_room(CALLED))
def test_a_function_and_its_gradient_may_be_divided_and_need_no_word_from_other_devices(name, rng):
    function, *makers = CALLED[name]
    cells = [np.stack([np.asarray(maker(rng)) for _ in range(8)]) for maker in makers]
    program = jax.make_jaxpr(divided(with_gradient(function)))(*cells)
    assert {x.shape[0] for x in program.out_avals} == {8}
    assert not any(f" {name}[" in str(program) for name in COLLECTIVES)


def test_a_loop_of_jax_itself_is_refused():
    """So the test above would see one."""

    def count(x):
        return jax.lax.fori_loop(0, 3, lambda _, total: total + x, jnp.zeros(()))

    with pytest.raises(TypeError, match="carry"):
        jax.make_jaxpr(divided(count))(np.ones(8))


COMMON = """
import re, sys
import jax, jax.numpy as jnp, numpy as np

AXES = {axis.name: axis for axis in jax.sharding.AxisType}

def across(axis):
    mesh = jax.make_mesh((4,), ("cells",), axis_types=(AXES[axis],))
    return mesh, jax.NamedSharding(mesh, jax.P("cells"))

def collectives(compiled):
    words = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    return re.findall(words, compiled.as_text())
"""
FOUND_ALIKE = """
import homojax as hj

def measure(logits):
    matrix = hj.sinkhorn(logits, 0.3).matrix
    return hj.sigma2(matrix), hj.lambda2(matrix), hj.bounds.dobrushin_bound(matrix)

jax.config.update("jax_enable_x64", True)
cells = np.random.default_rng(0).normal(size=(64, 6, 6))
one_device, way = jax.jit(jax.vmap(measure))(cells), sys.argv[1]
mesh, sharding = across("Auto" if way == "shard_map" else way)
program = jax.vmap(measure)
if way == "shard_map":
    spec = jax.P("cells")
    program = jax.shard_map(program, mesh=mesh, in_specs=spec, out_specs=spec)
else:
    cells = jax.device_put(cells, sharding)
with jax.set_mesh(mesh):
    compiled = jax.jit(program).lower(cells).compile()
    assert not collectives(compiled), collectives(compiled)
    for found, alone in zip(compiled(cells), one_device):
        assert len(found.sharding.device_set) == 4 and not found.is_fully_replicated
        np.testing.assert_allclose(found, alone, rtol=1e-12)
"""
ALL_FUNCTIONS = """
from programs import with_gradient
from public_functions import CALLED

failed, (mesh, sharding) = {}, across(sys.argv[1])
for name, (function, *makers) in CALLED.items():
    rng = np.random.default_rng(0)
    cells = [np.stack([np.asarray(maker(rng)) for _ in range(8)]) for maker in makers]
    cells = [jax.device_put(x, sharding) for x in cells]
    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.vmap(with_gradient(function))).lower(*cells)
    if name in sys.argv[2:] or len(sys.argv) == 2:
        words = collectives(lowered.compile())
        failed |= {name: words} if words else {}
assert not failed, failed
"""


def run_on_four_devices(program, *words):
    flags = "--xla_force_host_platform_device_count=4"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", COMMON + program, *words],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("way", ["Auto", "Explicit", pytest.param("shard_map", marks=SLOW)])
def test_four_devices_find_what_one_does_and_exchange_nothing(way):
    run_on_four_devices(FOUND_ALIKE, way)


@SLOW
def test_explicit_axes_may_divide_every_function_and_its_gradient():
    """Lowered; what is compiled of them, with explicit axes and without, has no collective."""
    run_on_four_devices(ALL_FUNCTIONS, "Explicit", "dobrushin_bound", "sigma2")


@SLOW
def test_the_compiler_may_divide_every_function_and_its_gradient_and_exchanges_nothing():
    run_on_four_devices(ALL_FUNCTIONS, "Auto")
