"""One table of every public core function, and what each must do: keep its dtype, and mean the same
under every transform.
"""

import importlib
import itertools
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles


def logits(rng, n=4):
    return rng.normal(size=(n, n))


def matrix(rng, n=4):
    return oracles.alternate(logits(rng, n), 0.7, 2)  # not quite doubly stochastic, no ties


def stack(rng):
    return np.array([matrix(rng) for _ in range(3)])


def vector(rng):
    return rng.normal(size=4)


def share(rng):
    return rng.uniform(0.2, 0.8)


KEY = jax.random.key(0)
BOUNDS = [name for name, claim in hj.CLAIMS.items() if claim.number == "2"]


def sides_of(names, case):
    """Lesser and greater sides of claims, as they are judged."""
    return [hj.CLAIMS[name].judge(case)[0][:2] for name in names]


def case_of_stack(matrices, alpha, probe):
    return hj.theory.cases.stack.stack_case(
        matrices,
        sigma2=jax.vmap(hj.sigma2)(matrices),
        alpha=alpha / 4,
        probe=probe,
        depths=(1, 3),
        measured=("composite_sigma2", "residual_sigma2", "turned"),
    )


# name -> (function of arrays alone, one maker for each of them). Every argument is differentiated.
TABLE = {
    "balance": (hj.balance, logits),
    "birkhoff_distance": (hj.birkhoff.birkhoff_distance, share, share),
    "center": (hj.center, vector),
    "circulant": (hj.birkhoff.circulant, vector),
    "detail": (hj.birkhoff.detail, matrix),
    "entropy": (hj.entropy, matrix),
    "entropy_deficit": (hj.entropy_deficit, matrix),
    "excess": (hj.birkhoff.excess, share),
    "isolated_unit": (lambda t: hj.birkhoff.isolated_unit(4, t), share),
    "logit_spread": (hj.birkhoff.logit_spread, logits),
    "marginal_errors": (hj.marginal_errors, matrix),
    "projective_diameter": (hj.birkhoff.projective_diameter, logits),
    "dobrushin_bound": (hj.bounds.dobrushin_bound, matrix),
    "dobrushin_coefficient": (hj.bounds.dobrushin_coefficient, matrix),
    "doeblin_bound": (hj.bounds.doeblin_bound, matrix),
    "frobenius_bounds": (hj.bounds.frobenius_bounds, matrix),
    "hilbert_bound": (hj.bounds.hilbert_bound, logits, share),
    "isolated_unit_frontier": (lambda x: hj.bounds.isolated_unit_frontier(x, n=4), share),
    "logit_budget": (
        lambda r, depth: hj.bounds.logit_budget(retention=r, depth=9 * depth),
        share,
        share,
    ),
    "pinsker_bound": (hj.bounds.pinsker_bound, matrix),
    "schatten_bounds": (lambda m: hj.bounds.schatten_bounds(m, 3), matrix),
    "matrix_case": (hj.theory.cases.matrix.matrix_case, logits, share, matrix),
    "CLAIMS of §2": (
        lambda s, e, m: sides_of(BOUNDS, hj.theory.cases.matrix.matrix_case(s, e, m)),
        logits,
        share,
        matrix,
    ),
    "stack_case": (  # its margins are of the precision
        lambda m, a, x: replace(case_of_stack(m, a, x), margin=None, residual_margin=None),
        stack,
        share,
        vector,
    ),
    "CLAIMS of §3 and §5": (
        lambda m, a, x: sides_of(("product", "residual", "turn"), case_of_stack(m, a, x)),
        stack,
        share,
        vector,
    ),
    "amax_gain": (hj.depth.amax_gain, matrix),
    "composite": (hj.composite, stack),
    "composite_doeblin_bound": (hj.depth.composite_doeblin_bound, stack),
    "detail_composite": (hj.depth.detail_composite, stack),
    "effective_depth": (lambda s, r: hj.effective_depth(s, retention=r), share, share),
    "lyapunov_exponents": (hj.lyapunov_exponents, stack),
    "lyapunov_spectrum": (lambda m: hj.depth.lyapunov_spectrum(m, num_blocks=2), stack),
    "transient_gain": (lambda m: hj.depth.transient_gain(m, 3), matrix),
    "measured_depth": (
        lambda x, r: hj.depth.measured_depth(jnp.array([0.9, 0.3, 0.01], x.dtype) * x, retention=r),
        share,
        share,
    ),
    "suppression_ratios": (hj.depth.suppression_ratios, matrix),
    "asymptotic_cosine": (hj.layernorm.asymptotic_cosine, share),
    "cosine_bound": (
        lambda snr, d, u: hj.layernorm.cosine_bound(snr, d=50 * d, u=u),
        share,
        share,
        share,
    ),
    "cosine_cdf": (lambda t, snr: hj.layernorm.cosine_cdf(t, snr=snr, d=9), share, share),
    "cosine_range": (lambda snr, d: hj.layernorm.cosine_range(snr, d=9 * d), share, share),
    "critical_cosine": (lambda level: hj.layernorm.critical_cosine(9, level=level / 3), share),
    "critical_depth": (
        lambda snr, s, p: hj.layernorm.critical_depth(
            100 * snr, sigma2=s, d=50, level=0.1, power=p
        ),
        share,
        share,
        share,
    ),
    "critical_snr": (
        lambda level, power: hj.layernorm.critical_snr(9, level=level / 9, power=power),
        share,
        share,
    ),
    "expected_cosine": (lambda snr, d: hj.layernorm.expected_cosine(snr, d=9 * d), share, share),
    "normalise": (hj.layernorm.normalise, matrix),
    "token_detail_bound": (hj.layernorm.token_detail_bound, logits, share),
    "overlap": (lambda rho, snr: hj.layernorm.overlap(rho, snr=snr), share, share),
    "retained_cosine": (
        lambda s, nu, depth: hj.layernorm.retained_cosine(s, noise_std=nu, d=9, depth=depth),
        share,
        share,
        share,
    ),
    "sample_cosine": (
        lambda x, nu: hj.layernorm.sample_cosine(KEY, x, noise_std=nu, num_samples=5),
        vector,
        share,
    ),
    "signal_to_noise": (hj.layernorm.signal_to_noise, vector, share),
    "PARAMETRIZATIONS": (
        lambda epsilon, *parameters: [
            p.matrix(x, epsilon)
            for p, x in zip(hj.PARAMETRIZATIONS.values(), parameters, strict=True)
        ],
        share,
        *(lambda rng, p=p: rng.normal(size=p.shape(4)) for p in hj.PARAMETRIZATIONS.values()),
    ),
    "PRESETS": (
        lambda *parameters: [
            preset.matrix(x) for preset, x in zip(hj.PRESETS.values(), parameters, strict=True)
        ],
        *(lambda rng, p=p: rng.normal(size=p.initial(4).shape) for p in hj.PRESETS.values()),
    ),
    "path_length_bound": (
        lambda rise, ratio: hj.bounds.path_length_bound(rise, log_ratio=ratio, n=4),
        share,
        share,
    ),
    "residual_bound": (lambda s, a: hj.residual.residual_bound(s, alpha=a), share, share),
    "residual_matrix": (hj.residual.residual_matrix, matrix, share),
    "turn_angle": (hj.residual.turn_angle, vector, vector),
    "turn_bound": (lambda s, a: hj.residual.turn_bound(s, alpha=a / 2), share, share),
    "sinkhorn": (hj.sinkhorn, logits, share),
    "sinkhorn alternating": (
        lambda s, e: hj.sinkhorn(s, 1 + e, method="alternating"),
        logits,
        share,
    ),
    "sinkhorn newton": (lambda s, e: hj.sinkhorn(s, 0.3 + e / 9, method="newton"), logits, share),
    "truncated_sinkhorn": (lambda s, e: hj.truncated_sinkhorn(s, e, 3), logits, share),
    "low_rank_logits": (hj.low_rank_logits, matrix, matrix),
    "point_cloud_logits": (hj.point_cloud_logits, matrix, matrix),
    "sinkhorn of factors": (
        lambda q, k, e: hj.sinkhorn(hj.low_rank_logits(q, k), e),
        matrix,
        matrix,
        share,
    ),
    "contraction_gap": (lambda m: hj.contraction_gap(jnp.log(m)), matrix),
    "log_contraction_gap": (lambda m: hj.spectrum.gap.log_contraction_gap(jnp.log(m)), matrix),
    "detail_singular_values": (hj.detail_singular_values, matrix),
    "distance_to_uniform": (hj.spectrum.distance_to_uniform, matrix),
    "lambda2": (hj.lambda2, matrix),
    "sigma2": (hj.sigma2, matrix),
}
WITHOUT_ARRAYS = {
    "de_bruijn": lambda: hj.birkhoff.de_bruijn(2),
    "detail_basis": lambda: hj.birkhoff.detail_basis(4),
    "lazy_cycle": lambda: hj.birkhoff.lazy_cycle(4),
    "lazy_hypercube": lambda: hj.birkhoff.lazy_hypercube(2),
    "random_birkhoff": lambda: hj.birkhoff.random_birkhoff(KEY, 4),
    "uniform": lambda: hj.uniform(4),
    "marginal_tolerance": lambda: jnp.asarray(hj.numerics.marginal_tolerance(4, "float32")),
    "rounding": lambda: jnp.asarray(hj.numerics.rounding(4, "float32")),
}

# The rooms all of whose functions are public, or that say which of them are.
ROOMS = (
    "birkhoff",
    "bounds",
    "depth",
    "layernorm",
    "residual",
    "calibration",
    "calibration.sensitivity",
    "projection.sinkhorn",
    "projection.truncated",
    "projection.entrywise",
    "spectrum",
)

# Whole searches, to a tolerance of their own: the tests of calibration have their dtypes, batches
# and derivatives.
SEARCHES = {
    "calibrate_depth",
    "calibrate_epsilon",
    "epsilon_schedule",
    "sensitivity",
    "trainable_band",
}


def test_the_tables_name_every_public_function():
    public = {name for name in hj.__all__ if name in ("PARAMETRIZATIONS", "PRESETS")}
    for room in ROOMS:
        module = importlib.import_module(f"homojax.{room}")
        for name, thing in vars(module).items():
            ours = getattr(thing, "__module__", "") == module.__name__
            shown = name in getattr(module, "__all__", [name] * ours)
            if shown and callable(thing) and not (name.startswith("_") or isinstance(thing, type)):
                public.add(name)
    named = {name.split()[0] for name in TABLE} | set(WITHOUT_ARRAYS) | SEARCHES
    assert public <= named, public - named


@pytest.mark.parametrize("name", WITHOUT_ARRAYS)
def test_without_arrays_to_follow_a_function_gives_the_default_dtype_and_traces(name):
    eager, traced = WITHOUT_ARRAYS[name](), jax.jit(WITHOUT_ARRAYS[name])()
    assert eager.dtype == np.float64
    np.testing.assert_allclose(eager, traced, rtol=1e-14)


@pytest.mark.parametrize("make", [hj.uniform, hj.birkhoff.detail_basis])
def test_a_dtype_that_is_asked_for_is_given(make, dtype):
    assert make(4, dtype).dtype == dtype


# To compile. That each map keeps its dtype is told by tests/test_parametrizations.py, too.
LONG = {
    ("CLAIMS of §2", "float32"),
    ("PRESETS", "float32"),
    ("PARAMETRIZATIONS", "float32"),
    ("PARAMETRIZATIONS", "float64"),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=pytest.mark.slow if (name, dtype) in LONG else ())
        for name, dtype in itertools.product(TABLE, ("float64", "float32"))
    ],
    indirect=["dtype"],
)
def test_public_function_keeps_its_dtype_and_means_the_same_under_every_transform(name, dtype):
    function, *makers = TABLE[name]
    rng = np.random.default_rng(len(name))
    batch = [np.array([maker(rng) for _ in range(3)]).astype(dtype) for maker in makers]
    lanes = [[jnp.asarray(x[i]) for x in batch] for i in range(3)]
    close = (
        10 * float(np.finfo(dtype).eps) ** 0.75
    )  # what two runs of an iteration to ``marginal_tolerance`` can differ by

    def floats(*args):
        return [
            leaf
            for leaf in jax.tree.leaves(function(*args))
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]

    shapes = jax.tree.leaves(jax.eval_shape(function, *lanes[0]))
    assert all(leaf.dtype == dtype for leaf in shapes if jnp.issubdtype(leaf.dtype, jnp.floating))

    @chex.assert_max_traces(n=1)
    def derivatives(args, tangents, key):
        values, forward = jax.linearize(
            floats, *args
        )  # forward mode, and its transpose, around one evaluation
        cotangents = [
            jax.random.normal(jax.random.fold_in(key, i), v.shape, v.dtype)
            for i, v in enumerate(values)
        ]
        pushed = sum((c * p).sum() for c, p in zip(cotangents, forward(*tangents), strict=True))
        return values, pushed, jax.linear_transpose(forward, *args)(cotangents)

    # Compiled once a dtype, vmapped with its derivatives. That is held against one call after
    # another of the same numbers in float64. Only random draws differ with the dtype.
    chex.clear_trace_counter()  # it goes by the name of the function, here always the same
    batched = jax.jit(jax.vmap(derivatives))
    directions = [jnp.asarray(rng.normal(size=x.shape), dtype) for x in batch]
    values, forward, gradients = batched(batch, directions, jax.random.split(KEY, 3))
    for i, args in enumerate(lanes):
        alone = floats(*args if name == "sample_cosine" else [x.astype(np.float64) for x in args])
        for value, lane in zip(alone, values, strict=True):
            assert lane.dtype == dtype and np.isfinite(value).all()
            np.testing.assert_allclose(lane[i], value, rtol=close, atol=close)
        if values:  # a verdict has none
            terms = [
                np.asarray(g[i], float) * t[i] for g, t in zip(gradients, directions, strict=True)
            ]
            assert all(np.isfinite(g[i]).all() and g.dtype == dtype for g in gradients)
            assert any(np.any(g[i]) for g in gradients)
            error = abs(forward[i] - sum(x.sum() for x in terms))
            assert error <= close * sum(abs(x).sum() for x in terms)
    batched(
        [x[::-1] for x in batch], directions, jax.random.split(KEY, 3)
    )  # other values, same shapes: no second trace


# But a case, which carries its ε too.
OF_ONE_MATRIX = [
    name
    for name, (_, maker, *_) in TABLE.items()
    if maker in (matrix, logits) and name != "matrix_case"
]


@pytest.mark.parametrize("name", [*OF_ONE_MATRIX, "composite_doeblin_bound"])
def test_a_nan_among_the_entries_is_in_every_number_that_is_returned(name, dtype, rng):
    """At a size at which XLA loses one in a maximum (``numerics.max_or_nan``)."""
    function, *makers = TABLE[name]
    lanes, n = 64, 16

    def make(maker):
        if maker is share:
            return np.full(lanes, 0.5)
        cells = np.array([maker(rng, n) for _ in range(lanes)])
        at = np.arange(lanes), rng.integers(n, size=lanes), rng.integers(n, size=lanes)
        cells[at] = np.nan
        return cells

    args = [make(matrix if maker is stack else maker).astype(dtype) for maker in makers]
    args = [x[:, None] for x in args] if name == "composite_doeblin_bound" else args
    for number in jax.tree.leaves(jax.jit(jax.vmap(function))(*args)):
        if number.ndim == 1 and jnp.issubdtype(number.dtype, jnp.floating):
            assert np.isnan(number).all()


# ---------------------------------------------------------------- outside of any transform

SEARCHED = {  # the searches, with what they are given
    "calibrate_epsilon": (lambda s: hj.calibrate_epsilon(s, 0.5), logits),
    "calibrate_depth": (lambda s: hj.calibrate_depth(s, 0.5, depth=2), logits),
    "epsilon_schedule": (lambda s: hj.epsilon_schedule(s[None], 0.5), logits),
    "sensitivity": (lambda s: hj.sensitivity(s, 0.5), logits),
    "trainable_band": (
        lambda x: hj.calibration.sensitivity.trainable_band(abs(x) + 1, gradient_norms=abs(x)),
        vector,
    ),
}
CALLED = {**TABLE, **SEARCHED}


@pytest.mark.parametrize("name", CALLED)
def test_a_second_call_compiles_nothing(name, rng):
    """A program that is compiled anew costs seconds, and memory that is never given back."""
    function, *makers = CALLED[name]
    programs = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            programs.append(event)

    calls = [[np.asarray(maker(rng)) for maker in makers] for _ in range(2)]
    jax.block_until_ready(function(*calls[0]))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.block_until_ready(function(*calls[1]))
        seen = list(programs)
        jax.jit(lambda x: x + len(name))(1.0)
        assert len(programs) > len(seen) == 0  # the listener hears
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


MODES = {
    "debug_nans": lambda: jax.debug_nans(True),
    "rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "leaks": jax.checking_leaks,
    "disable_jit": jax.disable_jit,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLED)
def test_every_function_works_in_the_modes_that_careful_people_run_in(name, mode, rng):
    function, *makers = CALLED[name]
    args = [np.asarray(maker(rng)) for maker in makers]
    expected = jax.tree.leaves(function(*args))
    with MODES[mode]():
        for value, other in zip(jax.tree.leaves(function(*args)), expected, strict=True):
            if jnp.issubdtype(value.dtype, jnp.floating):
                np.testing.assert_allclose(value, other, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- scale

# name -> (function, degree: a factor 2ᵏ on every input is one of 2^(degree · k) on every output)
HOMOGENEOUS = {
    "sigma2": (hj.sigma2, 1),
    "lambda2": (hj.lambda2, 1),
    "detail_singular_values": (hj.detail_singular_values, 1),
    "frobenius_bounds": (hj.bounds.frobenius_bounds, 1),
    "schatten_bounds": (lambda m: hj.bounds.schatten_bounds(m, 3), 1),
    "amax_gain": (hj.depth.amax_gain, 1),
    "logit_spread": (hj.birkhoff.logit_spread, 1),
    "projective_diameter": (hj.birkhoff.projective_diameter, 1),
    "hilbert_bound": (lambda m: hj.bounds.hilbert_bound(m, abs(m[0, 0])), 0),
    "sinkhorn": (lambda m: hj.sinkhorn(m, abs(m[0]).max()).matrix, 0),
    "truncated_sinkhorn": (lambda m: hj.truncated_sinkhorn(m, abs(m[0]).max(), 3).matrix, 0),
    "transient_gain": (lambda m: hj.depth.transient_gain(m, 3)[1:], 0),
    "turn_angle": (lambda m: hj.residual.turn_angle(m[0], m[1]), 0),
    "signal_to_noise": (lambda m: hj.layernorm.signal_to_noise(m[0], abs(m[0, 0])), 0),
    "sample_cosine": (
        lambda m: hj.layernorm.sample_cosine(KEY, m[0], noise_std=abs(m[0, 0]), num_samples=3),
        0,
    ),
    "normalise": (hj.layernorm.normalise, 0),
    "token_detail_bound": (lambda m: hj.layernorm.token_detail_bound(m, 0.5, kind="rms"), 0),
}


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_a_power_of_two_on_every_input_changes_no_digit(name, dtype, rng):
    """1,000 matrices, from 2^±80 in float32 and 2^±600 in float64."""
    function, degree = HOMOGENEOUS[name]
    program = jax.jit(jax.vmap(function))
    matrices = rng.normal(size=(1_000, 4, 4)).astype(dtype)
    expected = jax.tree.leaves(program(matrices))
    within = 10 * float(np.finfo(dtype).eps) ** 0.75 if "sinkhorn" in name else 1e-5
    within = within if dtype == np.float32 or "sinkhorn" in name else 1e-12
    for power in (-1, 1):
        exponent = power * (80 if dtype == np.float32 else 600)
        found = jax.tree.leaves(program(np.ldexp(matrices, exponent)))
        for value, other in zip(found, expected, strict=True):
            back = np.ldexp(np.asarray(value), -degree * exponent)
            np.testing.assert_allclose(back, other, rtol=within, atol=within)


@pytest.mark.parametrize("depth", [40, 60])
def test_what_a_deep_stack_keeps_has_its_bounds_and_its_derivatives(depth, dtype):
    """One M in all layers: λ₂ of the composite is λ₂(M)ᴸ, far below the rounding of its entries."""
    matrix = oracles.alternate(np.random.default_rng(3).normal(size=(4, 4)), 1.0, 200)
    kept = hj.depth.detail_composite(jnp.asarray([matrix] * depth, dtype))[-1]
    centring = oracles.centring(4)
    eigenvalue = abs(np.linalg.eigvals(centring @ matrix @ centring)).max()
    sigma2, lambda2 = float(hj.sigma2(kept)), float(hj.lambda2(kept))
    assert np.log(lambda2) == pytest.approx(depth * np.log(eigenvalue), rel=1e-5)
    assert lambda2 <= sigma2 * (1 + 1e-5)
    for lower, upper in (hj.bounds.frobenius_bounds(kept), hj.bounds.schatten_bounds(kept, 4)):
        assert 0 < lower <= sigma2 * (1 + 1e-5) and sigma2 <= upper * (1 + 1e-5)
    unit = kept / sigma2
    curvature = jax.hessian(hj.sigma2)(kept) * sigma2
    np.testing.assert_allclose(curvature, jax.hessian(hj.sigma2)(unit), rtol=1e-3, atol=1e-3)
    assert np.isfinite(curvature).all()
