"""Parameters to matrices: what each map promises, against NumPy; public codes, step by step."""

import functools
import importlib.util
import itertools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from homojax import PARAMETRIZATIONS, PRESETS, truncated_sinkhorn
from homojax.lab.audit.layouts import LAYOUTS
from homojax.lab.page import markdown_table
from homojax.lab.probe.sensitivity import initialisations
from recipes import CODES, kromhc, magi_2, maxtext, mhc_paper, permutations, softmax

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "parametrizations.md").read_text("utf-8")
SQUARE = [name for name, row in PARAMETRIZATIONS.items() if row.shape(8) == (8, 8)]
TEMPERED = [name for name, row in PARAMETRIZATIONS.items() if row.tempered]
SINKHORN = [name for name, preset in PRESETS.items() if preset.num_iters]
SHIFTABLE = [
    name for name in SINKHORN if PRESETS[name].epsilon == 1 and PRESETS[name].largest_of == "side"
]
ROUNDING = 1e-13
FIRST_NEGATIVE = {"orthogonal": 3, "spectral-filter": 7}  # the least n drawn here that has one
PROJECTED = ("sinkhorn", "blocks", "low-rank", "spectral-filter")
LANES = 64


@functools.cache
def compiled(name, **settings):
    return jax.jit(functools.partial(PARAMETRIZATIONS[name].matrix, **settings))


@functools.cache
def batched(name):
    """Of each lane: (⟨C, M⟩, M), and derivatives of the first by parameters and ε."""

    def weighed(s, epsilon, cotangent):
        matrix = PARAMETRIZATIONS[name].matrix(s, epsilon)
        return (cotangent * matrix).sum(), matrix

    return jax.jit(jax.vmap(jax.value_and_grad(weighed, (0, 1), has_aux=True)))


def weigh(name, parameters, epsilons, cotangents):
    """``batched`` of B ≤ 64 lanes: one program for all at one n."""
    count = len(parameters)
    index = np.arange(LANES) % count
    found = batched(name)(parameters[index], epsilons[index], cotangents[index])
    return jax.tree.map(lambda x: np.asarray(x)[:count], found)


def size_of(name, shape):
    row = PARAMETRIZATIONS[name]
    return next(n for n in range(2, 10) if row.sizes(n) and row.shape(n) == shape)


def make(name, parameters, epsilon=1.0):
    """Matrices of parameters [B, ...]."""
    parameters = np.asarray(parameters)
    count, n = len(parameters), size_of(name, parameters.shape[1:])
    epsilons = np.broadcast_to(np.asarray(epsilon, float), count)
    return weigh(name, parameters, epsilons, np.zeros((count, n, n)))[0][1]


def slopes(name, parameters, epsilon, cotangent):
    """(⟨C, M⟩, its derivatives with respect to parameters and ε)."""
    (value, _), derivatives = weigh(
        name, parameters[None], np.array([epsilon]), np.asarray(cotangent)[None]
    )
    return value[0], tuple(x[0] for x in derivatives)


def make_one(name, parameters, epsilon=1.0):
    return make(name, np.asarray(parameters)[None], epsilon)[0]


# ---------------------------------------------------------------- parametrizations


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 7, 9])
def test_a_map_has_a_shape_for_the_sizes_that_exist_and_refuses_the_others(name, n):
    row = PARAMETRIZATIONS[name]
    exists = {"birkhoff": 2 <= n <= 8, "kronecker": n in (2, 4), "blocks": n == 4}.get(name, n >= 2)
    assert row.sizes(n) == exists
    if exists:
        assert jax.eval_shape(row.matrix, jnp.zeros(row.shape(n))).shape == (n, n)
    else:
        with pytest.raises(ValueError, match=f"no {name} matrix with n = {n}: {row.needs}"):
            row.shape(n)


@pytest.mark.parametrize(
    ("name", "n"),
    [
        pytest.param(name, n, marks=pytest.mark.slow if n == 7 else ())
        for name, row in PARAMETRIZATIONS.items()
        for n in (4, 7)
        if row.sizes(n)
    ],
)
def test_sums_are_1_and_entries_nonnegative_where_the_table_says_so_and_nowhere_else(name, n, rng):
    row = PARAMETRIZATIONS[name]
    scales = np.geomspace(0.1, 30, LANES).reshape(-1, *(1 for _ in row.shape(n)))
    m = make(name, scales * rng.normal(size=(LANES, *row.shape(n))))
    assert m.shape == (LANES, n, n)
    wrong = {"rows": abs(m.sum(2) - 1).max(), "columns": abs(m.sum(1) - 1).max()}
    kept = {"both": {"rows", "columns"}, "none": set()}.get(row.exact, {row.exact})
    tolerance = 2e-12 if name in PROJECTED else 1e-11 if name == "truncated-sinkhorn" else ROUNDING
    assert all(wrong[side] < tolerance if side in kept else wrong[side] > 1e-3 for side in wrong)
    assert (m.min() > -ROUNDING) == (row.nonnegative or n < FIRST_NEGATIVE.get(name, 2))
    assert row.doubly_stochastic == (row.nonnegative and row.exact == "both")


def test_a_permutation_puts_units_in_the_order_of_falling_scores_and_of_no_numbers_there_is_none(
    rng,
):
    scores, x = rng.normal(size=(2, 6))
    matrix = compiled("permutation")
    np.testing.assert_array_equal(matrix(scores) @ x, x[np.argsort(-scores)])
    assert np.isnan(matrix(np.where(np.arange(6) == 2, np.nan, scores))).all()


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_a_map_keeps_the_dtype_of_its_parameters(name, dtype):
    row = PARAMETRIZATIONS[name]
    made = jax.eval_shape(row.matrix, jax.ShapeDtypeStruct(row.shape(4), dtype), 1.0)
    assert made.dtype == dtype and made.shape == (4, 4)


def test_converged_and_truncated_projections_are_those_of_the_references(rng):
    logits = rng.normal(size=(4, 4))
    np.testing.assert_allclose(
        make_one("sinkhorn", logits, 0.3), oracles.project(logits, 0.3), atol=1e-11
    )
    for last, count in (("columns", 5), ("rows", 3)):
        m = compiled("truncated-sinkhorn", num_iters=count, last=last)(logits, 0.3)
        np.testing.assert_allclose(m, oracles.alternate(logits, 0.3, count, last), atol=1e-14)
        np.testing.assert_array_equal(
            m,
            jax.jit(lambda s, k=count, e=last: truncated_sinkhorn(s, 0.3, k, last=e).matrix)(
                logits
            ),
        )
    np.testing.assert_allclose(
        compiled("truncated-sinkhorn")(logits, 0.3), oracles.alternate(logits, 0.3, 20), atol=1e-14
    )


@pytest.mark.parametrize("n", [2, 3, 5])
def test_birkhoff_weighs_every_permutation_in_the_order_of_itertools(n, rng):
    logits = rng.normal(size=math.factorial(n))
    expected = np.tensordot(softmax(logits / 0.7), permutations(n), 1)
    np.testing.assert_allclose(compiled("birkhoff")(logits, 0.7), expected, atol=1e-15)
    only = np.full(math.factorial(n), -np.inf)
    for index, permuted in enumerate(itertools.permutations(range(n))):
        matrix = compiled("birkhoff")(np.where(np.arange(len(only)) == index, 0, only), 1.0)
        np.testing.assert_array_equal(matrix @ np.arange(n), permuted)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_singular_values_of_a_kronecker_matrix_are_products_of_its_factors(n, rng):
    logits = rng.normal(size=(n.bit_length() - 1, 2))
    m = np.asarray(compiled("kronecker")(logits, 0.5))
    factors = [np.array([[p, q], [q, p]]) for p, q in softmax(logits / 0.5)]
    np.testing.assert_allclose(m, functools.reduce(np.kron, factors), atol=1e-15)
    tanhs = np.tanh(abs(logits[:, 1] - logits[:, 0]) / (2 * 0.5))
    products = [math.prod(chosen) for chosen in itertools.product(*((1, t) for t in tanhs))]
    np.testing.assert_allclose(
        np.linalg.svd(m, compute_uv=False), sorted(products, reverse=True), atol=1e-14
    )
    assert oracles.sigma2(m) == pytest.approx(tanhs.max(), abs=1e-14)


@pytest.mark.parametrize("n", [2, 5])
def test_spectrum_of_a_circulant_is_the_fourier_transform_of_its_weights(n, rng):
    logits = rng.normal(size=n)
    m, spectrum = np.asarray(compiled("circulant")(logits, 2.0)), np.fft.fft(softmax(logits / 2.0))
    waves = np.exp(2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
    np.testing.assert_allclose(m @ waves, waves * spectrum, atol=1e-14)
    assert oracles.sigma2(m) == pytest.approx(abs(spectrum[1:]).max(), abs=1e-14)


def test_gossip_is_symmetric_and_on_0_1_edges_has_the_classical_metropolis_weights(rng):
    adjacency = np.triu(rng.uniform(size=(6, 6)) < 0.5, 1)
    adjacency[:, 5] = False  # a unit alone
    logits = np.where(adjacency, 0, -np.inf)[np.triu_indices(6, 1)]
    edges = adjacency | adjacency.T
    degree = edges.sum(1)
    expected = edges / (1 + np.maximum.outer(degree, degree))
    expected += np.diag(1 - expected.sum(1))
    np.testing.assert_allclose(compiled("gossip")(logits, 1.0), expected, atol=1e-15)

    weights = rng.exponential(size=10)
    full = np.zeros((5, 5))
    full[np.triu_indices(5, 1)] = weights
    full += full.T
    full = full / (1 + np.maximum.outer(full.sum(1), full.sum(1)))
    m = np.asarray(compiled("gossip")(np.log(weights), 1.0))
    np.testing.assert_allclose(m, full + np.diag(1 - full.sum(1)), atol=1e-15)
    np.testing.assert_array_equal(m, m.T)
    rate = np.sort(abs(np.linalg.eigvalsh(m)))[-2]  # σ₂ is the consensus rate
    decay = np.linalg.matrix_power(oracles.centring(5) @ m, 200) @ rng.normal(size=5)
    reached = np.linalg.norm(oracles.centring(5) @ m @ decay) / np.linalg.norm(decay)
    assert oracles.sigma2(m) == pytest.approx(rate, abs=1e-13) == pytest.approx(reached, rel=1e-6)


def test_push_sum_finds_the_mean_by_its_weights_and_softmax_is_its_transpose(rng):
    logits, x = rng.normal(size=(5, 5)), rng.normal(size=5)
    m = np.asarray(compiled("push-sum")(logits, 0.8))
    np.testing.assert_allclose(m, softmax(logits / 0.8, 0), atol=1e-15)
    power = np.linalg.matrix_power(m, 400)
    assert np.ptp(power @ x) > 1e-2  # not the mean, but over what 1 comes to it is
    np.testing.assert_allclose(power @ x / (power @ np.ones(5)), x.mean(), atol=1e-12)
    np.testing.assert_allclose(compiled("softmax")(logits.T, 0.8), m.T, atol=1e-15)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_orthogonal_loses_no_detail_and_keeps_the_mean(n, rng):
    s = 3 * rng.normal(size=(n, n))
    m = np.asarray(compiled("orthogonal")(s))
    np.testing.assert_allclose(m.T @ m, np.eye(n), atol=1e-13)
    np.testing.assert_allclose(m @ np.ones(n), 1, atol=1e-13)
    np.testing.assert_allclose(oracles.singular_values(m), 1, atol=1e-13)
    centred = oracles.centring(n) @ s @ oracles.centring(n)
    a = (centred - centred.T) / 2
    np.testing.assert_allclose(m, (np.eye(n) - a) @ np.linalg.inv(np.eye(n) + a), atol=1e-12)
    assert np.linalg.det(m) == pytest.approx(1)


def test_blocks_keep_what_tells_them_apart_however_hot(rng):
    logits = rng.normal(size=(2, 2, 2))
    m = make_one("blocks", logits, 50.0)
    expected = np.zeros((4, 4))
    for half, block in zip((slice(2), slice(2, 4)), logits, strict=True):
        expected[half, half] = oracles.project(block, 50.0)
    np.testing.assert_allclose(m, expected, atol=1e-11)
    np.testing.assert_allclose(oracles.singular_values(m)[0], 1, atol=1e-12)
    assert oracles.singular_values(m)[1] < 0.05


def test_a_low_rank_correction_is_what_it_says_and_leaves_the_sums(rng):
    s, a, b = rng.normal(size=(4, 4)), rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
    p = oracles.centring(4)
    m = make_one("low-rank", np.hstack([s, a, b]), 0.5)
    np.testing.assert_allclose(m, oracles.project(s, 0.5) + (p @ a) @ (p @ b).T / 4, atol=1e-11)
    assert np.linalg.matrix_rank(m - oracles.project(s, 0.5), tol=1e-9) == 2


def test_a_spectral_filter_damps_each_direction_by_its_own_gain_and_ties_have_gradients(rng):
    logits, p = 3 * rng.normal(size=(4, 4)), oracles.centring(4)
    u, gains, vt = np.linalg.svd(p @ oracles.project(logits, 1.0) @ p)
    expected = 1 / 4 + (u * gains**3 / (gains**2 + 0.25**2)) @ vt
    np.testing.assert_allclose(make_one("spectral-filter", logits), expected, atol=1e-11)
    for tied in (np.zeros((4, 4)), 9 * np.eye(4)):
        for cotangent in rng.normal(size=(3, 4, 4)):
            _, (gradient, _) = slopes("spectral-filter", tied, 1.0, cotangent)
            assert np.isfinite(gradient).all()


def test_unconstrained_and_identity_are_what_they_are_called(dtype, rng):
    s = rng.normal(size=(3, 3)).astype(dtype)
    np.testing.assert_array_equal(compiled("unconstrained")(s, 0.1), s)
    identity = jax.jit(jax.vmap(PARAMETRIZATIONS["identity"].matrix))(jnp.zeros((2, 3, 0), dtype))
    assert identity.dtype == dtype
    np.testing.assert_array_equal(identity, np.broadcast_to(np.eye(3), (2, 3, 3)))
    gradient = jax.grad(lambda x: PARAMETRIZATIONS["identity"].matrix(x).sum())(jnp.zeros((3, 0)))
    assert gradient.shape == (3, 0)


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_epsilon_divides_the_parameters_where_it_acts_and_does_nothing_elsewhere(name, rng):
    row = PARAMETRIZATIONS[name]
    s = rng.normal(size=row.shape(4))
    divided = np.full(s.shape, 0.4 if row.tempered else 1.0)
    if name == "low-rank":
        divided[:, 4:] = 1  # the correction is not of the logits
    matrices = make(name, [s, s / divided, s, s, s], [0.4, 1.0, 0.0, -1.0, np.nan])
    np.testing.assert_allclose(matrices[0], matrices[1], atol=1e-12)
    for bad in matrices[2:]:
        assert np.isnan(bad).all() == row.tempered == np.isnan(bad).any()


@pytest.mark.parametrize("name", [name for name in PARAMETRIZATIONS if name != "identity"])
def test_gradients_are_those_of_differences(name, rng):
    shape = PARAMETRIZATIONS[name].shape(4)
    s, direction, cotangent = (rng.normal(size=size) for size in (shape, shape, (4, 4)))
    _, (gradient, slope) = slopes(name, s, 0.7, cotangent)

    def value(s, epsilon):
        return (cotangent * make_one(name, s, epsilon)).sum()

    along = oracles.difference(lambda x: value(x, 0.7), s, direction)
    assert (gradient * direction).sum() == pytest.approx(along, rel=1e-7, abs=1e-9)
    across = oracles.difference(lambda epsilon: value(s, epsilon), 0.7, 1.0)
    assert slope == pytest.approx(across, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in TEMPERED if name != "truncated-sinkhorn"])
def test_a_parameter_of_minus_infinity_weighs_nothing_and_its_gradient_is_0(name, rng):
    s = rng.normal(size=PARAMETRIZATIONS[name].shape(4))
    index = (0,) * s.ndim
    s[index] = -np.inf
    cotangent = rng.normal(size=(4, 4))
    value, (gradient, slope) = slopes(name, s, 0.7, cotangent)
    assert np.isfinite(value) and np.isfinite(gradient).all() and np.isfinite(slope)
    assert gradient[index] == 0
    s[index] = -1e3
    expected = float((cotangent * make_one(name, s, 0.7)).sum())
    assert value == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in SQUARE for shape in ((3,), (2, 3), (1, 1))]
    + [("birkhoff", shape) for shape in ((4,), (1,), (3, 2), ())]
    + [("kronecker", shape) for shape in ((2, 3), (0, 2), (2,))]
    + [("circulant", shape) for shape in ((1,), (2, 2))]
    + [("gossip", shape) for shape in ((2,), (0,), (3, 1))]
    + [("identity", shape) for shape in ((0,), (1, 0), (3, 1))]
    + [("blocks", shape) for shape in ((4, 4), (2, 1, 1), (3, 2, 2), (2, 2, 3))]
    + [("low-rank", shape) for shape in ((4, 4), (3, 8), (1, 5), (2, 4, 8))],
)
def test_a_shape_that_no_n_has_is_refused(name, shape):
    with pytest.raises(ValueError, match=r"shape|2 x 2"):
        PARAMETRIZATIONS[name].matrix(jnp.zeros(shape))


@given(st.sampled_from(SQUARE), st.permutations(range(4)), oracles.squares(4, 3.0))
def test_renaming_units_renames_rows_and_columns(name, order, s):
    p = np.eye(4)[list(order)]
    renamed, matrix = make(name, [p @ s @ p.T, s], 0.5)
    np.testing.assert_allclose(renamed, p @ matrix @ p.T, atol=1e-10)


UNIFORM_AT_0 = [
    row.name
    for row in PARAMETRIZATIONS.values()
    if row.tempered and row.nonnegative and row.name != "blocks"
]


@given(
    st.sampled_from([name for name in UNIFORM_AT_0 if name != "truncated-sinkhorn"]),
    st.integers(0, 2**32 - 1),
)
def test_equal_parameters_mix_most(name, seed):
    shape = PARAMETRIZATIONS[name].shape(4)
    s = np.random.default_rng(seed).normal(size=shape)
    matrix, equal = make(name, [s, np.zeros(shape)], 0.5)
    assert oracles.entropy_deficit(matrix) >= -1e-12  # n log n is the entropy of J
    np.testing.assert_allclose(equal, 0.25, atol=1e-12)


# ---------------------------------------------------------------- presets


@functools.cache
def run(name):
    return jax.jit(jax.vmap(PRESETS[name].matrix))


def draws(name, scale, count=200):
    return scale * np.random.default_rng(scale).normal(
        size=(count, *PRESETS[name].initial(4).shape)
    )


@functools.cache
def public(name, scale):
    """What the code itself makes of the draws."""
    return np.array([CODES[name](h) for h in draws(name, scale)])


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("scale", [1, 3, 6])
def test_a_preset_does_step_for_step_what_its_code_does(name, scale):
    np.testing.assert_allclose(
        run(name)(draws(name, scale)), public(name, scale), rtol=1e-11, atol=1e-14
    )


@pytest.mark.parametrize("name", PRESETS)
def test_it_does_so_at_another_n_and_from_where_training_starts(name, rng):
    preset = PRESETS[name]
    n = 3 if name == "mhc-lite" else 8
    start = np.asarray(preset.initial(n))
    assert start.shape == PARAMETRIZATIONS[preset.parametrization].shape(n)
    parameters = [start, start + rng.normal(size=start.shape)]
    expected = [CODES[name](h) for h in parameters]
    np.testing.assert_allclose(run(name)(np.array(parameters)), expected, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", PRESETS)
def test_the_side_that_is_exact_is_and_the_other_keeps_its_truncation_error(name):
    preset = PRESETS[name]
    off = {}
    for scale in (1, 3, 6):
        m = np.asarray(run(name)(draws(name, scale)))
        off[scale] = {"rows": abs(m.sum(2) - 1).max(1), "columns": abs(m.sum(1) - 1).max(1)}
    kept = {"rows", "columns"} if preset.exact == "both" else {preset.exact}
    bound = 2 * preset.added_to_sums + 1e-12  # a sum s > ½ is brought to s/(s + 1e-6)
    assert all((off[scale][side] <= bound).all() for scale in off for side in kept)
    for side in {"rows", "columns"} - kept:
        means = [off[scale][side].mean() for scale in (1, 3, 6)]
        about = [0.2, 0.4, 0.4] if preset.epsilon < 1 else [1e-6, 4e-3, 2e-2]
        assert (
            means == sorted(means) and means[0] < 2 * about[0]
        )  # at scale 1 the mean is that of the worst few
        np.testing.assert_allclose(means[1:], about[1:], rtol=0.5)


def test_softmax_first_and_exp_first_are_one_but_for_the_constants():
    bare = PRESETS["maxtext"]._replace(
        added_to_entries=0.0, added_to_sums=0.0, least_sum=1e-300
    )  # in plain divisions still
    s = draws("maxtext", 3)[:20]
    matrices = jax.jit(jax.vmap(bare.matrix))(s)
    np.testing.assert_allclose(matrices, [mhc_paper(h.T) for h in s], atol=1e-13)


@pytest.mark.parametrize("name", SINKHORN)
def test_presets_turn_their_matrix_where_the_code_mixes_with_the_transpose(name):
    s = draws(name, 1)[:20]
    preset = PRESETS[name]
    other = {"inputs-first": "outputs-first", "outputs-first": "inputs-first"}
    turned = preset._replace(orientation=other[preset.orientation])
    matrices = np.asarray(jax.jit(jax.vmap(preset.matrix))(s))
    turned_matrices = jax.jit(jax.vmap(turned.matrix))(s.transpose(0, 2, 1))
    np.testing.assert_allclose(turned_matrices, matrices, atol=1e-15)
    assert abs(matrices - matrices.transpose(0, 2, 1)).max() > 0.02


@functools.cache
def at_start(name, dtype):
    """The matrix and its Jacobian at n = 4, where training starts."""
    matrix = PRESETS[name].matrix
    start = PRESETS[name].initial(4).astype(dtype)
    found = jax.jit(lambda s: (matrix(s), jax.jacrev(matrix)(s)))(start)
    return tuple(np.asarray(x) for x in found)


@pytest.mark.parametrize(
    ("name", "sigma2", "gradient"),  # dM = P dS P/n at J
    [
        *((name, 0, 3 / 4) for name in CODES if CODES[name] in (mhc_paper, maxtext, magi_2)),
        ("none", 1, 0),
        ("lucidrains", (math.e - 1) / (math.e + 3), None),
        ("tokenbender", 1, 0),
        ("kromhc", math.tanh(4), None),
        (
            "mhc-lite",
            (1 - math.exp(-8)) / (1 + 23 * math.exp(-8)),
            None,
        ),  # J but for what the identity has over the others
    ],
)
def test_at_the_start_sigma2_and_the_gradient_are_known(name, sigma2, gradient, rng):
    preset = PRESETS[name]
    start = np.asarray(preset.initial(4))
    matrix, jacobian = at_start(name, "float64")
    tolerance = 1e-6 if preset.added_to_sums else 1e-13
    assert oracles.sigma2(matrix) == pytest.approx(sigma2, abs=tolerance)
    if gradient is not None:
        tolerance = 4 * preset.added_to_sums + 1e-12
        assert np.linalg.norm(jacobian) == pytest.approx(gradient, abs=tolerance)
    direction = rng.normal(size=start.shape)
    pushed = np.tensordot(jacobian, direction, start.ndim)
    np.testing.assert_allclose(
        pushed, oracles.difference(CODES[name], start, direction), atol=1e-10
    )


def test_the_gradient_of_tokenbenders_start_is_lost_in_float32_and_next_to_nothing_in_float64():
    (matrix, wide), (_, narrow) = (
        at_start("tokenbender", dtype) for dtype in ("float64", "float32")
    )
    assert not narrow.any()
    small = math.exp(-8 / 0.05)
    np.testing.assert_allclose(matrix[0, 1:], small, rtol=1e-12)
    assert 0 < np.linalg.norm(wide) < 20 * small / 0.05


def test_presets_refuse_what_their_parametrization_has_not():
    with pytest.raises(
        ValueError, match="no kronecker matrix with n = 6: n must be a power of two"
    ):
        PRESETS["kromhc"].initial(6)
    with pytest.raises(ValueError, match="no birkhoff matrix with n = 9: n must be from 2 to 8"):
        PRESETS["mhc-lite"].initial(9)
    with pytest.raises(ValueError, match="n = 1: n must be at least 2"):
        PRESETS["tokenbender"].initial(1)
    with pytest.raises(ValueError, match="logits must have shape"):
        PRESETS["lucidrains"].matrix(jnp.zeros((2, 3)))


@given(
    st.sampled_from(SHIFTABLE),
    oracles.squares(4, 3.0),
    st.integers(0, 3),
)
def test_a_shift_of_what_is_normalised_first_changes_nothing(name, s, unit):
    preset = PRESETS[name]
    shifted = s.copy()
    over_rows = (preset.last == "columns") != (preset.orientation == "inputs-first")
    shifted[(unit,) if over_rows else (slice(None), unit)] += 2.5
    plain, moved = run(name)(np.array([s, shifted]))
    np.testing.assert_allclose(moved, plain, atol=1e-12)


# ---------------------------------------------------------------- what is built on them


@pytest.fixture
def script():
    """The module that makes the tables of the document."""
    spec = importlib.util.spec_from_file_location("presets", ROOT / "experiments" / "presets.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_document_are_those_of_the_code(script):
    assert markdown_table(*script.parametrizations()) in DOCUMENT
    assert markdown_table(*script.presets()) in DOCUMENT


def test_the_document_has_every_layout_of_the_code():
    assert all(f"| {x.code} | {x.statement} |" in DOCUMENT for x in LAYOUTS.values())


@pytest.mark.slow
def test_what_the_document_says_was_measured_is_measured_again(script):
    header, *measured = script.conformance()
    assert markdown_table(header) in DOCUMENT
    written = dict(
        re.findall(r"^\| ([\w-]+) \| ((?:rows|columns|both) .*) \|$", DOCUMENT, re.MULTILINE)
    )
    for name, *cells in measured:
        for cell, text in zip(cells, written[name].split(" | "), strict=True):
            if re.match(r"[\d.]", cell):  # another machine may round another way
                assert float(text) == pytest.approx(float(cell), rel=0.11)
            else:
                assert text == cell


def test_the_example_of_the_document_runs():
    (block,) = re.findall(
        r"```python\n(.*?)```",
        DOCUMENT,
        re.DOTALL,
    )
    names = {}
    exec(compile(block, "parametrizations.md", "exec"), names)
    np.testing.assert_allclose(names["matrix"], 0.25, atol=1e-6)


def test_initialisations_of_the_sensitivity_probe_are_those_of_the_presets():
    cases = initialisations()
    logits, epsilon = cases["tokenbender, −8 off the diagonal, n = 4"]
    assert epsilon == PRESETS["tokenbender"].epsilon == 0.05
    np.testing.assert_array_equal(logits, PRESETS["tokenbender"].initial(4))
    logits, epsilon = cases["KromHC factor, b = -8"]
    np.testing.assert_allclose(
        oracles.project(logits, epsilon),
        kromhc(np.asarray(PRESETS["kromhc"].initial(2))),
        atol=1e-15,
    )
