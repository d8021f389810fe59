"""The lab's programs: the same functions, with options that this release of XLA knows."""

import jax
import jax.numpy as jnp
import pytest

from homojax.lab import programs
from homojax.lab.programs import compiler_options, program


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


@pytest.mark.usefixtures("_as_it_was")
def test_an_option_that_this_release_does_not_know_is_left_out(monkeypatch):
    known = compiler_options(False)
    monkeypatch.setattr(programs, "_FUSION", {"xla_no_such_option": 1, **programs._FUSION})
    compiler_options.cache_clear()
    assert compiler_options(False) == known
    if jax.default_backend() == "cpu":
        assert known  # this release knows some: else this module does nothing
