"""Projections of factors are those of the dense logits, without forming them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import homojax as hj
import oracles
from homojax.projection import factored_solver, factors
from homojax.projection.factors import FactoredLogits, low_rank_logits, point_cloud_logits

METHODS = ("auto", "alternating", "newton")
compiled = jax.jit(hj.sinkhorn, static_argnames=("method", "max_steps"))


def project(logits, epsilon, **options):
    """One program for every ε and tolerance. Most tests have n = 50 and d = 3, to share it."""
    dtype = jax.tree.leaves(logits)[0].dtype
    options = {"tol": hj.numerics.marginal_tolerance(50, dtype), "max_steps": 2_000, **options}
    options["tol"] = np.asarray(options["tol"], dtype)
    return compiled(logits, np.asarray(epsilon, dtype), **options)


def clouds(n, d, dtype="float64", seed=1):
    return np.random.default_rng(seed).normal(size=(2, n, d)).astype(dtype)


def squared_distances(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def matrix_of(logits, epsilon, result):
    """exp(S/ε + f + g) by NumPy, in float64, from the logits as given."""
    f, g = (
        np.asarray(potential, np.float64)
        for potential in (result.row_potential, result.col_potential)
    )
    return np.exp(logits / epsilon + f[:, None] + g)


def true_error(matrix):
    return max(oracles.marginal_errors(matrix))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 64 rows. Programs go by shapes: a test that uses this has an n of its own."""
    monkeypatch.setattr(factors, "_BLOCK", 1)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("d", "epsilon", "kept"),
    [(8, 4.0, (0.3, 0.9)), pytest.param(2, 0.15, (0.95, 0.9999), marks=pytest.mark.slow)],
)
def test_products_and_sigma2_are_those_of_the_projection_to_eight_digits_at_1024(
    d, epsilon, kept, rng
):
    """The form exp(S/ε + f + g) and sums of 1 leave one matrix only; NumPy checks both."""
    x, y = np.pad(clouds(1024, d), ((0, 0), (0, 0), (0, 8 - d)))
    result = project(point_cloud_logits(x, y), epsilon)
    expected = matrix_of(-squared_distances(x, y), epsilon, result)
    assert result.converged and true_error(expected) < 1e-10
    vectors = rng.normal(size=(1024, 3))
    for m, dense in ((result.matrix, expected), (result.matrix.T, expected.T)):
        np.testing.assert_allclose(m @ vectors, dense @ vectors, atol=1e-8)
        np.testing.assert_allclose(m @ vectors[:, 0], dense @ vectors[:, 0], atol=1e-8)
    sigma2 = jax.jit(hj.sigma2)(result.matrix)
    assert (
        sigma2 == pytest.approx(oracles.sigma2(expected), abs=1e-8) and kept[0] < sigma2 < kept[1]
    )


def test_sigma2_of_an_operator_is_differentiable_and_nan_where_the_operator_is(rng):
    (queries, keys), direction = clouds(50, 3), rng.normal(size=(50, 3))
    sigma2_and_gradient = jax.jit(
        jax.value_and_grad(lambda q: hj.sigma2(hj.sinkhorn(low_rank_logits(q, keys), 2.0).matrix))
    )

    def by_numpy(q):
        logits = q @ keys.T
        return oracles.sigma2(
            matrix_of(logits, 2.0, project(low_rank_logits(q, keys), 2.0, tol=1e-13))
        )

    expected = oracles.difference(by_numpy, queries, direction)
    gradient = np.asarray(sigma2_and_gradient(queries)[1])
    assert (gradient * direction).sum() == pytest.approx(float(expected), rel=1e-6)
    queries[3] = np.nan
    assert np.isnan(sigma2_and_gradient(queries)[0])


def test_factors_and_dense_logits_have_one_projection(rng):
    queries, keys = clouds(50, 3)
    by_factors, dense = project(low_rank_logits(queries, keys), 2.0), project(queries @ keys.T, 2.0)
    np.testing.assert_allclose(by_factors.matrix.dense(), dense.matrix, atol=1e-10)
    np.testing.assert_allclose(by_factors.row_potential, dense.row_potential, atol=1e-9)
    np.testing.assert_allclose(by_factors.col_potential, dense.col_potential, atol=1e-9)
    assert by_factors.num_steps < 30


@pytest.mark.parametrize("epsilon", [0.3, 2.0])
@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        ("auto", "float64"),
        ("alternating", "float64"),
        ("newton", "float64"),
        ("auto", "float32"),
        pytest.param("alternating", "float32", marks=pytest.mark.slow),
        pytest.param("newton", "float32", marks=pytest.mark.slow),
    ],
    indirect=["dtype"],
)
def test_every_method_meets_the_sums_with_the_right_form(method, epsilon, dtype):
    queries, keys = clouds(50, 3, dtype)
    result = project(low_rank_logits(queries, keys), np.asarray(epsilon, dtype), method=method)
    assert result.converged and all(
        a.dtype == dtype for a in (*jax.tree.leaves(result.matrix), result.row_potential)
    )
    logits = queries.astype(float) @ keys.T.astype(float)
    matrix = matrix_of(logits, epsilon, result)
    tol, rounded = (
        hj.numerics.marginal_tolerance(50, dtype),
        8 * np.finfo(dtype).eps * abs(logits).max() / epsilon,
    )
    assert true_error(matrix) <= tol + rounded
    np.testing.assert_allclose(result.matrix.dense(), matrix, atol=rounded)
    for reported, sums in zip(
        (result.row_error, result.col_error), result.matrix.sums(), strict=True
    ):
        assert abs(abs(sums - 1).max() - reported) <= 8 * np.finfo(dtype).eps


def test_blocks_change_no_result(small_blocks, rng):
    queries, keys = clouds(151, 4)
    result = project(low_rank_logits(queries, keys), 2.0)
    expected = matrix_of(queries @ keys.T, 2.0, result)
    vectors = rng.normal(size=(151, 2))
    assert result.converged and true_error(expected) < 1e-10
    np.testing.assert_allclose(result.matrix.dense(), expected, atol=1e-11)
    np.testing.assert_allclose(result.matrix @ vectors, expected @ vectors, atol=1e-10)
    np.testing.assert_allclose(result.matrix.T @ vectors, expected.T @ vectors, atol=1e-10)
    np.testing.assert_allclose(
        result.matrix.gram(vectors[:, 0]), expected.T @ expected @ vectors[:, 0], atol=1e-10
    )


def test_logits_are_the_inner_products_and_the_negative_squared_distances(dtype):
    x, y = clouds(20, 3, dtype)
    np.testing.assert_allclose(
        point_cloud_logits(x, y).dense(), -squared_distances(x, y), atol=100 * np.finfo(dtype).eps
    )
    np.testing.assert_allclose(
        low_rank_logits(x + 1, y - 2).dense(),
        (x + 1.0) @ (y - 2.0).T,
        atol=200 * np.finfo(dtype).eps,
    )


def test_a_far_off_origin_costs_no_digits():
    x, y = clouds(50, 3)
    x, y = np.round(x, 3) + 1e6, np.round(y, 3) + 1e6  # differences that float64 holds to 1e-10
    expected = matrix_of(
        -squared_distances(x, y), 0.5, result := project(point_cloud_logits(x, y), 0.5)
    )
    assert result.converged and true_error(expected) < 1e-8
    np.testing.assert_allclose(result.matrix.dense(), expected, atol=1e-8)
    x, y = clouds(50, 3, "float32")
    near, far = (
        project(point_cloud_logits(x + shift, y + shift), 0.5).matrix.dense()
        for shift in (np.float32(0), np.float32(64))
    )
    np.testing.assert_allclose(far, near, atol=1e-3)


@pytest.mark.slow
def test_float32_resolves_corrections_of_large_potentials():
    x, y = np.random.default_rng(0).uniform(size=(2, 300, 2))
    exact = project(point_cloud_logits(x, y), 1e-3)
    rounded = project(point_cloud_logits(x.astype("float32"), y.astype("float32")), 1e-3)
    assert exact.converged and rounded.converged and abs(exact.matrix.col_potential).max() > 200
    assert max(
        abs(sums - 1).max() for sums in rounded.matrix.sums()
    ) <= hj.numerics.marginal_tolerance(300, "float32")
    np.testing.assert_allclose(rounded.matrix.dense(), exact.matrix.dense(), atol=2e-3)


@pytest.mark.slow
def test_a_batch_of_epsilons_is_each_of_them():
    logits, epsilons = low_rank_logits(*clouds(30, 3)), np.array([0.2, 1.0, 5.0])
    together = jax.jit(jax.vmap(hj.sinkhorn, (None, 0)))(logits, epsilons)
    assert together.converged.all()
    for i, epsilon in enumerate(epsilons):
        one = jax.tree.map(lambda a, i=i: a[i], together.matrix)
        np.testing.assert_allclose(one.dense(), project(logits, epsilon).matrix.dense(), atol=1e-11)


def test_the_accelerated_steps_are_far_fewer():
    logits = low_rank_logits(*clouds(50, 3))
    steps = {method: int(project(logits, 0.5, method=method).num_steps) for method in METHODS}
    assert 3 * steps["auto"] < steps["alternating"], steps
    again = project(logits, 0.5, init=project(logits, 0.5).col_potential)
    assert again.converged and again.num_steps <= 2


# ---------------------------------------------------------------- honesty


@pytest.mark.slow
def test_a_derivative_that_is_not_reached_is_nan(monkeypatch):
    def slope(n):  # each n is traced once: the limit that holds then holds for good
        logits, x = low_rank_logits(*clouds(n, 3)), np.arange(float(n))

        def scalar(epsilon, logits):
            return (hj.sinkhorn(logits, epsilon).matrix @ x) @ x

        return jax.jit(jax.grad(scalar))(1.0, logits)

    assert np.isfinite(slope(50))
    monkeypatch.setattr(factored_solver, "_DERIVATIVE_PASSES", 3)
    assert np.isnan(slope(51))


def test_what_needs_a_matrix_or_one_at_a_time_says_so():
    result = project(low_rank_logits(*clouds(50, 3)), 1.0)
    with pytest.raises(TypeError, match=r"array, got a FactoredMatrix: .*dense"):
        hj.contraction_gap(result.matrix)
    batch = jax.tree.map(lambda a: jnp.stack([a, a]), result.matrix)
    assert batch.shape == (2, 50, 50) and batch.T.shape == (2, 50, 50) and batch.ndim == 3
    for use in (lambda m: m @ np.ones(50), hj.sigma2):
        with pytest.raises(ValueError, match=r"batch .* \[2, 50, 50\].* jax.vmap"):
            use(batch)
    np.testing.assert_allclose(jax.vmap(lambda m: m @ jnp.ones(50))(batch), 1, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_values_without_a_projection_never_raise_and_never_converge(method):
    queries, keys = clouds(50, 3)
    for bad in (np.nan, np.inf):
        logits = low_rank_logits(np.where(np.arange(50)[:, None] == 3, bad, queries), keys)
        broken = project(logits, 1.0, method=method)
        assert not broken.converged and broken.status == hj.Status.NOT_FINITE
    for epsilon in (0.0, -1.0, np.nan):
        broken = project(low_rank_logits(queries, keys), epsilon, method=method)
        assert not broken.converged and broken.status == hj.Status.NOT_FINITE


def test_status_says_how_a_projection_ended():
    logits = low_rank_logits(*clouds(50, 3))
    assert project(logits, 0.02, method="alternating").status == hj.Status.STEP_LIMIT
    result = project(logits, 0.2, tol=1e-17)
    assert result.status == hj.Status.STALLED and max(result.row_error, result.col_error) < 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: low_rank_logits(np.zeros((3, 2)), np.zeros((4, 2))),
            r"queries and keys .* got \[3, 2\] and \[4, 2\]",
        ),
        (lambda: point_cloud_logits(np.zeros(3), np.zeros(3)), r"x and y .* got \[3\] and \[3\]"),
        (lambda: point_cloud_logits(np.zeros((1, 2)), np.zeros((1, 2))), "n >= 2"),
        (
            lambda: hj.sinkhorn(low_rank_logits(np.zeros((2, 2)), np.zeros((2, 2))), np.ones(2)),
            r"scalar, got shape \[2\]",
        ),
        (
            lambda: hj.sinkhorn(
                low_rank_logits(np.zeros((2, 2)), np.zeros((2, 2))), 1.0, init=np.zeros(3)
            ),
            r"shape \[2\], got \[3\]",
        ),
        (
            lambda: project(low_rank_logits(*clouds(50, 3)), 1.0).matrix @ np.zeros(3),
            r"\[50, m\], got \[3\]",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_what_was_given(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------- derivatives


def scalar_of(rng, n, of_logits):
    """Every output that is differentiable, with random weights, as a function of factors and ε."""
    u, v, w, z, s, t = rng.normal(size=(6, n))

    def scalar(queries, keys, epsilon):
        result = hj.sinkhorn(of_logits(queries, keys), epsilon, tol=1e-13)
        return (
            u @ (result.matrix @ v)
            + w @ (result.matrix.T @ z)
            + s @ result.row_potential
            + t @ result.col_potential
        )

    return scalar


@pytest.mark.slow
def test_derivatives_in_factors_and_epsilon_match_differences_and_dense_ones(small_blocks):
    n, at = 134, (*clouds(134, 2), 0.7)
    by_factors = scalar_of(np.random.default_rng(3), n, low_rank_logits)
    dense = scalar_of(np.random.default_rng(3), n, lambda queries, keys: queries @ keys.T)
    direction = (*np.random.default_rng(4).normal(size=(2, n, 2)), 0.3)

    @jax.jit
    def derivatives(at):
        """The value, its gradient, and its slope along the direction in forward mode."""
        value, gradient = jax.value_and_grad(by_factors, (0, 1, 2))(*at)
        return value, gradient, jax.jvp(by_factors, at, direction)[1]

    _, gradient, forward = jax.tree.map(np.asarray, derivatives(at))
    expected = jax.jit(jax.grad(dense, (0, 1, 2)))(*at)
    for ours, theirs in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-8 * np.max(np.abs(theirs)))
    along = oracles.difference(
        lambda t: derivatives(tuple(a + t * b for a, b in zip(at, direction, strict=True)))[0],
        0.0,
        1.0,
        1e-4,
    )
    assert sum((a * b).sum() for a, b in zip(gradient, direction, strict=True)) == pytest.approx(
        along, rel=1e-7
    )
    assert forward == pytest.approx(along, rel=1e-7)


@pytest.mark.slow
def test_derivatives_of_point_clouds_match_differences(rng):
    scalar, (x, y), direction = (
        scalar_of(rng, 30, point_cloud_logits),
        clouds(30, 2),
        rng.normal(size=(30, 2)),
    )
    by_x, by_y = jax.jit(jax.grad(scalar, (0, 1)))(x, y, 2.0)
    scalar = jax.jit(scalar)
    assert (by_x * direction).sum() == pytest.approx(
        oracles.difference(lambda x: scalar(x, y, 2.0), x, direction), rel=1e-7
    )
    assert (by_y * direction).sum() == pytest.approx(
        oracles.difference(lambda y: scalar(x, y, 2.0), y, direction), rel=1e-7
    )


@pytest.mark.slow
def test_second_derivatives_match_differences_of_first(rng):
    scalar, (queries, keys) = scalar_of(rng, 12, low_rank_logits), clouds(12, 2)
    slope = jax.jit(jax.grad(lambda e: scalar(queries, keys, e)))
    assert jax.jit(jax.grad(slope))(1.5) == pytest.approx(
        oracles.difference(slope, 1.5, 1.0), rel=1e-6
    )


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    "order", ["value", pytest.param("gradient", marks=pytest.mark.slow)]
)  # the second has the first in it
def test_memory_does_not_grow_as_n_squared(order):
    def scalar(queries, keys, epsilon):
        result = hj.sinkhorn(FactoredLogits(queries, keys, queries[:, 0], keys[:, 0]), epsilon)
        return queries[:, 0] @ (result.matrix @ keys[:, 0]), result.converged

    def temporary(n):
        factors = jax.ShapeDtypeStruct((n, 8), jnp.float32)
        compute = scalar if order == "value" else jax.grad(scalar, (0, 1, 2), has_aux=True)
        lowered = jax.jit(compute).lower(factors, factors, jax.ShapeDtypeStruct((), jnp.float32))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    small, large = temporary(8_192), temporary(32_768)
    assert large < 3 * small and large < 4 * 32_768**2 / 8
