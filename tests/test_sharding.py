"""Every public function over many cells may be divided over devices by hand, by ``jax.shard_map``.

JAX checks while it traces that what varies over devices is said to vary: no device is needed.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from public_functions import CALLED, of_every_room

MESH = jax.sharding.AbstractMesh((4,), ("cells",))
COLLECTIVES = ("psum", "all_gather", "all_to_all", "ppermute", "reduce_scatter")


def divided(function):
    spec = jax.P("cells")
    return jax.shard_map(jax.vmap(function), mesh=MESH, in_specs=spec, out_specs=spec)


@pytest.mark.parametrize("name", of_every_room(CALLED))
def test_a_function_and_its_gradient_may_be_divided_and_need_no_word_from_other_devices(name, rng):
    function, *makers = CALLED[name]

    def numbers(*args):
        found = jax.tree.leaves(function(*args))
        return [x for x in found if jnp.issubdtype(x.dtype, jnp.floating)]

    def gradient(*args):
        values, pull_back = jax.vjp(numbers, *args)
        return values, pull_back([jnp.ones_like(x) for x in values])

    cells = [np.stack([np.asarray(maker(rng)) for _ in range(8)]) for maker in makers]
    program = jax.make_jaxpr(divided(gradient))(*cells)
    assert {x.shape[0] for x in program.out_avals} == {8}
    assert not any(f" {name}[" in str(program) for name in COLLECTIVES)


def test_a_loop_of_jax_itself_is_refused():
    """So the test above would see one."""

    def count(x):
        return jax.lax.fori_loop(0, 3, lambda _, total: total + x, jnp.zeros(()))

    with pytest.raises(TypeError, match="carry"):
        jax.make_jaxpr(divided(count))(np.ones(8))


PROGRAM = """
import jax, numpy as np, homojax as hj

def measure(logits):
    matrix = hj.sinkhorn(logits, 0.3).matrix
    return hj.sigma2(matrix), hj.lambda2(matrix), hj.bounds.dobrushin_bound(matrix)

jax.config.update("jax_enable_x64", True)
logits = np.random.default_rng(0).normal(size=(64, 4, 4))
auto, cells = (jax.sharding.AxisType.Auto,), jax.P("cells")
mesh = jax.make_mesh((4,), ("cells",), axis_types=auto)
program = jax.shard_map(jax.vmap(measure), mesh=mesh, in_specs=cells, out_specs=cells)
compiled = jax.jit(program).lower(logits).compile()
assert not any(word in compiled.as_text() for word in ("all-gather", "all-reduce", "permute"))
for found, alone in zip(compiled(logits), jax.jit(jax.vmap(measure))(logits)):
    assert len(found.sharding.device_set) == 4
    np.testing.assert_allclose(found, alone, rtol=1e-12)
"""


def test_four_devices_find_what_one_does():
    flags = "--xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
