"""What functions take, and the sentences that refuse the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import homojax as hj
from homojax import arguments


@pytest.mark.parametrize("coerce", [arguments.as_float, arguments.as_square])
def test_floats_keep_their_dtype_and_the_rest_gets_the_default(coerce, dtype):
    assert coerce(np.eye(2, dtype=dtype)).dtype == dtype
    assert coerce(np.eye(2, dtype=int)).dtype == coerce(np.eye(2, dtype=bool)).dtype == np.float64


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2), (1, 1), (0, 0)])
def test_what_is_not_square_or_has_no_detail_is_refused_by_name_and_shape(shape):
    with pytest.raises(ValueError, match="logits must .*" + repr(list(shape)).replace("[", r"\[")):
        arguments.as_square(np.zeros(shape), "logits")


@pytest.mark.parametrize("shape", [(2, 2), (0, 2, 2), (3, 1, 2), (3, 1, 1)])
def test_what_is_not_a_stack_of_layers_is_refused_by_name(shape):
    with pytest.raises(ValueError, match="layers must "):
        arguments.as_stack(np.zeros(shape), "layers")


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match="real, got complex"):
        arguments.as_float([[1 + 2j, 0], [0, 1]])


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("dtype", ["int64", "uint64", ">i8"])
def test_whole_numbers_never_wrap_around(x64, dtype):
    large = 2**63 if dtype == "uint64" and x64 else 2**40
    matrix = np.array([[large, 0], [0, 1]], dtype)
    with jax.enable_x64(x64):
        got, right = hj.birkhoff.detail(matrix), hj.birkhoff.detail(matrix.astype(float))
        assert float(got[0, 0]) == float(right[0, 0]) > 2**37
        for epsilon in (large, np.asarray(large, dtype)[()]):
            entropy = jax.eval_shape(lambda e=epsilon: hj.sinkhorn(EYE, e).matrix)
            assert entropy.dtype == hj.birkhoff.detail(EYE).dtype


EYE = np.eye(3)
REFUSED = {  # what is called -> a word of the sentence
    "an array of objects": (lambda: hj.sigma2(EYE.astype(object)), "matrix must be an array"),
    "a masked array": (lambda: hj.sigma2(np.ma.masked_array(EYE)), "masked array: fill it first"),
    "text": (lambda: hj.sigma2("abc"), "matrix must be an array of numbers, got str"),
    "nothing": (lambda: hj.sigma2(None), "matrix must be an array of numbers, got NoneType"),
    "a result": (
        lambda: jax.eval_shape(lambda: hj.sigma2(hj.sinkhorn(EYE, 1.0))),
        "pass result.matrix",
    ),
    "complex numbers": (lambda: hj.lambda2(EYE * 1j), "real, got complex"),
    "rows of other lengths": (lambda: hj.sigma2([[1, 2], [3]]), "rows are not equally long"),
    "shapes that do not fit": (
        lambda: hj.effective_depth([0.1, 0.9], retention=[0.1, 0.2, 0.3]),
        "effective_depth was given arrays of shapes [2], [3]",
    ),
    "ε in words": (lambda: hj.sinkhorn(EYE, "hot"), "epsilon must be an array of numbers"),
    "a start in words": (lambda: hj.sinkhorn(EYE, 1.0, init="there"), "init must be an array"),
    "a number beyond floats": (lambda: hj.sigma2(10**400), "matrix is a whole number too large"),
    "half a step": (lambda: hj.sinkhorn(EYE, 1.0, max_steps=2.5), "max_steps must be a whole"),
    "steps below 0": (lambda: hj.sinkhorn(EYE, 1.0, max_steps=-1), "max_steps must be a whole"),
    "no method": (lambda: hj.sinkhorn(EYE, 1.0, method=3), "method must be"),
    "a factor in words": (lambda: hj.low_rank_logits("q", "k"), "queries must be an array"),
    "no units": (lambda: hj.uniform(0), "n must be a whole number of at least 1, got 0"),
    "half a unit": (lambda: hj.uniform(2.5), "n must be a whole number of at least 1"),
    "units in words": (lambda: hj.uniform("four"), "n must be a whole number"),
    "one isolated unit": (lambda: hj.birkhoff.isolated_unit(1), "n must be a whole number of at"),
    "a cycle of 2": (lambda: hj.birkhoff.lazy_cycle(2), "n must be a whole number of at least 3"),
    "a walk that stays too much": (lambda: hj.birkhoff.lazy_cycle(5, 1.5), "stay must be between"),
    "a cube of no dimension": (lambda: hj.birkhoff.lazy_hypercube(0), "dimension must be a whole"),
    "words of no bit": (lambda: hj.birkhoff.de_bruijn(0), "bits must be a whole number"),
    "a mean of nothing": (
        lambda: hj.birkhoff.random_birkhoff(jax.random.key(0), 4, 0),
        "num_permutations must be a whole number of at least 1",
    ),
    "weights of two cycles": (lambda: hj.birkhoff.circulant(EYE), "weights must have shape"),
    "a key that is none": (lambda: hj.birkhoff.random_birkhoff(0, 4), "key must be a JAX random"),
    "an order that is traced": (
        lambda: jax.jit(lambda k: hj.bounds.schatten_bounds(EYE, k))(3),
        "k must be a plain Python value",
    ),
    "half an order": (lambda: hj.bounds.schatten_bounds(EYE, 0.5), "k must be a whole number"),
    "half a layer": (lambda: hj.depth.transient_gain(EYE, 2.5), "depth must be a whole number"),
    "half a block": (
        lambda: hj.depth.lyapunov_spectrum(np.stack([EYE] * 4), num_blocks=2.5),
        "num_blocks must be a whole number",
    ),
    "draws below 0": (
        lambda: hj.layernorm.sample_cosine(
            jax.random.key(0), [1.0, 2.0], noise_std=1.0, num_samples=-1
        ),
        "num_samples must be a whole number",
    ),
    "half a shared layer": (
        lambda: hj.calibrate_depth(EYE, 0.5, depth=2.5),
        "depth must be a whole number",
    ),
    "half a projection": (
        lambda: hj.calibrate_epsilon(EYE, 0.5, max_projections=8.5),
        "max_projections must be a whole number",
    ),
    "half a step in an array": (
        lambda: hj.truncated_sinkhorn(EYE, 0.5, np.array(2.5)),
        "num_iters must be a plain Python value, got an array",
    ),
    "a depth that was computed": (
        lambda: hj.calibrate_depth(EYE, 0.5, depth=hj.effective_depth(0.9, retention=0.5)),
        "depth must be a plain Python value, got an array",
    ),
    "half a unit of a bound": (
        lambda: hj.bounds.isolated_unit_frontier(0.5, n=2.5),
        "n must be a whole number of at least 2",
    ),
    "no unit of a path": (
        lambda: hj.bounds.path_length_bound(0.5, log_ratio=0.2, n=0),
        "n must be a whole number of at least 2",
    ),
    "a result for its logarithm": (
        lambda: jax.eval_shape(lambda: hj.contraction_gap(hj.sinkhorn(EYE, 1.0))),
        "pass result.log_matrix",
    ),
    "a balance for its matrix": (
        lambda: jax.eval_shape(lambda: hj.sigma2(hj.balance(EYE))),
        "pass jnp.exp(result.log_matrix)",
    ),
    "no target": (lambda: hj.calibrate_epsilon(EYE, None), "target must be an array of numbers"),
    "no residual weight": (
        lambda: hj.residual.residual_bound(0.5, alpha=None),
        "alpha must be an array of numbers, got NoneType",
    ),
    "a complex weight": (lambda: hj.residual.residual_bound(0.5, alpha=1j), "real, got complex"),
    "two retentions": (
        lambda: hj.sensitivity(EYE, 0.5, retention=[0.1, 0.2]),
        "retention must be a scalar, got shape [2]",
    ),
    "the mean of a number": (lambda: hj.center(5.0), "x must be a vector [n] or a matrix"),
    "vectors of two lengths": (
        lambda: hj.residual.turn_angle([1.0, 2.0], [1.0, 2.0, 3.0]),
        "before and after must be vectors of one length, got shapes [2] and [3]",
    ),
    "norms at no ε": (
        lambda: hj.calibration.sensitivity.trainable_band([1.0, 2.0], gradient_norms=[1.0]),
        "must be vectors of one length",
    ),
    "spectra in half precision": (
        lambda: hj.lyapunov_exponents(jnp.ones((1, 2, 2), "bfloat16")),
        "no spectra in bfloat16",
    ),
    "a calibration in half precision": (
        lambda: hj.calibrate_epsilon(jnp.eye(2, dtype="bfloat16"), 0.5),
        "no spectra in bfloat16",
    ),
    "a gain of another length": (
        lambda: hj.layernorm.normalise(EYE, gain=[1.0, 2.0]),
        "gain must be a scalar or have shape [3], got [2]",
    ),
    "a shift of another length": (
        lambda: hj.layernorm.normalise(EYE, shift=[[1.0, 2.0]]),
        "shift must be a scalar or have shape [3], got [1, 2]",
    ),
    "a curve with two axes": (
        lambda: hj.depth.measured_depth(EYE, retention=0.5),
        "kept must have shape [n], n >= 1, got [3, 3]",
    ),
    "an empty signal": (
        lambda: hj.layernorm.sample_cosine(jax.random.key(0), [], noise_std=1.0, num_samples=2),
        "signal must have shape [n], n >= 1, got [0]",
    ),
    "no features": (lambda: hj.layernorm.normalise(EYE[:0]), "x must have shape [n, D]"),
    "no tokens": (lambda: hj.layernorm.token_detail_bound([], 0.5), "tokens must have shape"),
    "a depth beyond all": (
        lambda: hj.depth.transient_gain(EYE, 10**400),
        "depth must be a whole number of less than 2^31",
    ),
    "a gain that fits no token": (
        lambda: hj.layernorm.token_detail_bound(EYE, 0.5, gain=[1.0]),
        "gain must be a scalar or have shape [3], got [1]",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_there_cannot_be_is_refused_by_one_sentence_of_ours(what):
    call, words = REFUSED[what]
    with pytest.raises((TypeError, ValueError)) as refused:
        call()
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert refused.value.__cause__ is None  # no traceback from inside JAX


@pytest.mark.parametrize(
    "matrix",
    [EYE.astype(">f8"), EYE.tolist(), xr.DataArray(EYE), np.eye(3, dtype=bool), jnp.eye(3)],
    ids=["big-endian", "a list", "xarray", "bool", "jax"],
)
def test_arrays_of_every_library_and_byte_order_are_taken(matrix):
    assert hj.sigma2(matrix) == pytest.approx(1)
    for function in (hj.lambda2, lambda matrix: hj.sinkhorn(matrix, 0.5).matrix):
        assert jax.eval_shape(lambda f=function: f(matrix)).dtype == np.float64
    assert arguments.as_array(matrix, "m").shape == (3, 3)


def test_a_share_that_there_cannot_be_makes_no_matrix():
    for t in (-0.1, 1.1, np.nan):
        assert np.isnan(hj.birkhoff.isolated_unit(3, t)).all()
    assert np.isfinite(hj.birkhoff.isolated_unit(3, 1.0)).all()
