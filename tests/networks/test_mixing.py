"""Mixers by name: a misspelled one is told the nearest; every one works in low precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from homojax import PARAMETRIZATIONS, PRESETS
from homojax.networks.mixing import mixer, tempered


@pytest.mark.parametrize(
    ("name", "meant"),
    [("sinkhornn", "sinkhorn"), ("kroneker", "kronecker"), ("mhc-papr", "mhc-paper")],
)
def test_a_misspelled_mixer_is_told_the_nearest(name, meant):
    with pytest.raises(ValueError) as caught:
        mixer(name, 4)
    assert str(caught.value) == f'there is no mixer "{name}": did you mean "{meant}"?'


def test_a_mixer_like_no_other_is_told_the_list():
    with pytest.raises(ValueError, match=r'^there is no mixer "zzz": there are: .*circulant'):
        mixer("zzz", 4)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_starts_as_its_code_does_and_keeps_its_own_epsilon(name):
    made = mixer(name, 4)
    start = made.initial(jax.random.key(0), 3.0)
    np.testing.assert_array_equal(start, PRESETS[name].initial(4))
    np.testing.assert_array_equal(made.matrix(start, 0.1), PRESETS[name].matrix(start))
    assert not tempered(name)


@functools.cache
def compiled(name):
    return jax.jit(PARAMETRIZATIONS[name].matrix)


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_every_mixer_has_a_matrix_in_low_precision(name):
    shape = PARAMETRIZATIONS[name].shape(4)
    matrix = jax.eval_shape(compiled(name), jax.ShapeDtypeStruct(shape, jnp.bfloat16), 1.0)
    assert matrix.dtype == jnp.bfloat16 and matrix.shape == (4, 4)


# These two solve a system, and LAPACK has float32 at least.
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    "name", ["orthogonal", pytest.param("spectral-filter", marks=pytest.mark.slow)]
)
def test_a_matrix_in_low_precision_is_near_the_exact_one(name, dtype):
    parameters = np.random.default_rng(5).normal(size=(4, 4)).astype(dtype)
    low, exact = (compiled(name)(x) for x in (parameters, parameters.astype(np.float64)))
    assert low.dtype == dtype
    assert 0 < abs(low.astype(np.float64) - exact).max() < 30 * float(jnp.finfo(dtype).eps)
