"""Programs are their functions, with options that this release of XLA knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
from homojax import programs
from homojax.programs import Effort, compiled, compiler_options, program


def test_a_program_is_its_function_alone_and_within_another():
    double = program(lambda x, times: times * x, static_argnums=1)
    assert float(double(jnp.asarray(1.5), 2)) == 3
    # options may not be given within another program
    assert float(jax.jit(lambda x: double(x, 2))(1.5)) == 3
    assert float(jax.grad(lambda x: double(x, 2))(1.5)) == 2
    assert jax.vmap(lambda x: double(x, 2))(jnp.ones(3)).tolist() == [2, 2, 2]


@pytest.fixture
def _as_it_was():
    yield
    compiler_options.cache_clear()
    programs._is_known.cache_clear()


@pytest.mark.usefixtures("_as_it_was")
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there are options for CPUs alone")
def test_an_option_that_this_release_does_not_know_is_left_out(monkeypatch):
    assert len(compiler_options(Effort.LEAST)) == 2  # else this module does nothing
    known = programs._is_known
    monkeypatch.setattr(
        programs, "_is_known", lambda name, value: known(name + "_of_old" * ("fus" in name), value)
    )
    compiler_options.cache_clear()
    assert compiler_options(Effort.LEAST) == {"xla_backend_optimization_level": 0}


@pytest.mark.parametrize(
    ("n", "effort"), [(32, Effort.LEAST), (33, Effort.LESS), (128, Effort.LESS), (129, Effort.MOST)]
)
def test_a_single_call_is_compiled_with_the_effort_that_its_size_is_worth(n, effort, monkeypatch):
    asked = []
    monkeypatch.setattr(programs, "compiler_options", asked.append)
    total = compiled()(lambda matrix: matrix.sum())
    assert float(total(np.ones((n, n)))) == n * n and asked == [effort]
    assert float(total(np.zeros((n, n)))) == 0 and asked == [effort]  # and once
    assert float(jax.jit(total)(np.ones((n, n)))) == n * n
    assert jax.grad(total)(np.ones((n, n))).sum() == n * n
    constant = np.ones((n, n))
    assert float(jax.jit(lambda: total(constant))()) == n * n
    assert asked == [effort]  # within other programs there are no options


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [4, 48])
def test_the_effort_changes_a_projection_by_rounding_alone(n, dtype):
    logits = np.random.default_rng(n).standard_normal((n, n)).astype(dtype)
    alone = hj.sinkhorn(logits, 0.1)
    within = jax.jit(lambda logits: hj.sinkhorn(logits, 0.1))(logits)
    assert alone.matrix.dtype == within.matrix.dtype == dtype
    assert alone.converged and within.converged
    off = 1e2 * np.finfo(dtype).eps
    np.testing.assert_allclose(alone.matrix, within.matrix, rtol=off, atol=off)
