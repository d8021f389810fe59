"""Programs of many of our functions end, on one device and on four. jaxlib's batched LAPACK calls,
several in one program, could wait for each other for ever.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, homojax as hj
jax.config.update("jax_enable_x64", True)
n, lanes, devices = {n}, {lanes}, {devices}

def everything(logits):
    matrix = hj.sinkhorn(logits, 0.5).matrix
    return (
        hj.sigma2(matrix), hj.lambda2(matrix), hj.contraction_gap(jnp.log(matrix)),
        hj.detail_singular_values(matrix).sum(), hj.spectrum.distance_to_uniform(matrix),
        hj.lyapunov_exponents(matrix[None]).sum(),
    )

program = jax.jit(jax.vmap(everything))
logits = jnp.asarray(np.random.default_rng(0).normal(size=(lanes, n, n)))
if devices > 1:
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((devices,), ("cells",), axis_types=auto)
    logits = jax.device_put(logits, jax.NamedSharding(mesh, jax.P("cells")))
for _ in range({calls}):
    found = jax.block_until_ready(program(logits))
assert all(np.isfinite(x).all() for x in found)
"""
CASES = [(16, 256), (48, 128), (64, 64)]


@pytest.mark.parametrize("devices", [1, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("n", "lanes", "calls"),
    [(8, 64, 3), *(pytest.param(*case, 30, marks=pytest.mark.slow) for case in CASES)],
)
def test_a_program_of_all_spectra_ends(n, lanes, calls, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    code = PROGRAM.format(n=n, lanes=lanes, calls=calls, devices=devices)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("devices", [1, 4])
def test_random_programs_of_public_functions_end(devices):
    script = Path(__file__).with_name("random_programs.py")
    done = subprocess.run(
        [sys.executable, str(script), "--programs", "50", "--devices", str(devices)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    assert "50 programs ended" in done.stdout
