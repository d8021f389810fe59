import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import homojax as hj
import oracles

FAMILIES = {n: oracles.birkhoff_family(np.random.default_rng(n), n) for n in (2, 6)}
RNG = np.random.default_rng(5)

UPPER = {
    "dobrushin": hj.bounds.dobrushin_bound,
    "doeblin": hj.bounds.doeblin_bound,
    "frobenius": lambda m: hj.bounds.frobenius_bounds(m)[1],
    "schatten-2": lambda m: hj.bounds.schatten_bounds(m, 2)[1],
    "schatten-5": lambda m: hj.bounds.schatten_bounds(m, 5)[1],
    "pinsker": hj.bounds.pinsker_bound,
}
LOWER = {
    "frobenius": lambda m: hj.bounds.frobenius_bounds(m)[0],
    "schatten-2": lambda m: hj.bounds.schatten_bounds(m, 2)[0],
    "schatten-5": lambda m: hj.bounds.schatten_bounds(m, 5)[0],
    "eigenvalue": hj.lambda2,
}
UNIFORM = np.full((1, 6, 6), 1 / 6)
PERMUTATIONS = np.array([oracles.permutation(RNG, 6) for _ in range(5)])
TWO_BY_TWO = np.array([[[p, 1 - p], [1 - p, p]] for p in (0.5, 0.6, 0.9, 1.0)])
LAZY_PERMUTATIONS = np.array([oracles.lazy_permutation(RNG, 6, t) for t in (0.0, 1e-6, 0.3, 1.0)])
RANK_ONE = np.array([oracles.isolated(6, t) for t in (0.0, 1e-6, 0.3, 1.0)])
NORMAL = np.array(
    [hj.birkhoff.circulant(RNG.dirichlet(np.ones(6))) for _ in range(4)]
    + [oracles.symmetric_psd(RNG, 6)]
)


@pytest.mark.parametrize("n", FAMILIES)
@pytest.mark.parametrize("name", UPPER)
def test_upper_bound_holds(name, n):
    assert (
        jax.jit(jax.vmap(UPPER[name]))(FAMILIES[n]) >= oracles.sigma2(FAMILIES[n]) - 1e-13
    ).all()


@pytest.mark.parametrize("n", FAMILIES)
@pytest.mark.parametrize("name", LOWER)
def test_lower_bound_holds(name, n):
    assert (
        jax.jit(jax.vmap(LOWER[name]))(FAMILIES[n]) <= oracles.sigma2(FAMILIES[n]) + 1e-13
    ).all()


@pytest.mark.parametrize(
    ("bound", "family"),
    [
        (UPPER["dobrushin"], np.concatenate([PERMUTATIONS, UNIFORM])),
        (UPPER["doeblin"], TWO_BY_TWO),
        (UPPER["doeblin"], UNIFORM),
        (UPPER["frobenius"], RANK_ONE),
        (UPPER["schatten-2"], RANK_ONE),
        (UPPER["pinsker"], UNIFORM),
        (LOWER["frobenius"], LAZY_PERMUTATIONS),
        (LOWER["schatten-5"], LAZY_PERMUTATIONS),
        (LOWER["eigenvalue"], NORMAL),
    ],
)
def test_bound_is_attained_by_the_family_it_names(bound, family):
    np.testing.assert_allclose(jax.vmap(bound)(family), oracles.sigma2(family), atol=1e-13)


@pytest.mark.parametrize("n", [2, 6])
def test_hilbert_bound_holds_a_priori_and_is_attained_by_every_two_by_two(n, rng):
    logits, epsilons = 3 * rng.normal(size=(20, n, n)), np.geomspace(0.3, 30, 8)
    project = jax.jit(
        jax.vmap(jax.vmap(lambda s, e: hj.sinkhorn(s, e, tol=1e-13), (None, 0)), (0, None))
    )
    result = project(logits, epsilons)
    bound = jax.vmap(jax.vmap(hj.bounds.hilbert_bound, (None, 0)), (0, None))(logits, epsilons)
    slack = bound - oracles.sigma2(np.asarray(result.matrix))
    assert result.converged.all() and (slack >= -1e-12).all()
    assert abs(slack).max() < 1e-12 if n == 2 else np.median(slack) > 0.01


@given(oracles.squares(6), st.floats(0.5, 5))
def test_hilbert_bound_is_tanh_of_the_diameter_over_four_epsilon(logits, epsilon):
    expected = np.tanh(oracles.projective_diameter(logits) / (4 * epsilon))
    assert jax.jit(hj.bounds.hilbert_bound)(logits, epsilon) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan])
def test_hilbert_bound_says_nothing_without_a_positive_epsilon(epsilon):
    assert np.isnan(hj.bounds.hilbert_bound(np.eye(2), epsilon))


@given(oracles.squares(6))
def test_dobrushin_coefficient_is_half_the_largest_distance_between_rows(matrix):
    rows, cols = oracles.dobrushin(matrix), oracles.dobrushin(matrix.T)
    assert jax.jit(hj.bounds.dobrushin_coefficient)(matrix) == pytest.approx(rows, abs=1e-12)
    assert jax.jit(hj.bounds.dobrushin_bound)(matrix) == pytest.approx(
        np.sqrt(rows * cols), abs=1e-12
    )


def test_doeblin_bound_is_one_minus_n_times_the_least_entry():
    np.testing.assert_allclose(
        jax.vmap(hj.bounds.doeblin_bound)(FAMILIES[6]), 1 - 6 * FAMILIES[6].min((1, 2)), atol=1e-15
    )


@pytest.mark.parametrize("k", [1, 2, 4])
def test_schatten_bounds_are_traces_of_powers_on_the_polytope_and_close_in_as_k_grows(k):
    family = FAMILIES[6][1:]  # 1/2k-th powers of rounding errors at J itself
    trace = (
        np.trace(np.linalg.matrix_power(family.transpose(0, 2, 1) @ family, k), axis1=1, axis2=2)
        - 1
    )
    lower, upper = jax.vmap(lambda m: hj.bounds.schatten_bounds(m, k))(family)
    large = trace > 1e-6
    assert large.sum() > 50
    np.testing.assert_allclose(upper[large], trace[large] ** (1 / (2 * k)), rtol=1e-8)
    np.testing.assert_allclose(upper / lower, 5 ** (1 / (2 * k)), rtol=1e-12)


def test_schatten_bounds_neither_underflow_nor_lose_digits_for_small_details(rng):
    for scale in (1.0, 1e-30, 1e-100):
        a = scale * rng.normal(size=(6, 6))
        lower, upper = hj.bounds.schatten_bounds(a, 5)
        singular_values = oracles.singular_values(a) / scale
        assert upper / scale == pytest.approx((singular_values**10).sum() ** 0.1, rel=1e-12)
        assert lower <= oracles.sigma2(a) <= upper


def test_schatten_bounds_are_smooth_at_ties_where_sigma2_is_not(rng, dtype):
    m, direction = hj.birkhoff.lazy_cycle(6, 0.5), rng.normal(size=(6, 6))
    upper = jax.jit(lambda m: hj.bounds.schatten_bounds(m, 3)[1])
    slope = (jax.grad(upper)(m) * direction).sum()
    assert slope == pytest.approx(oracles.difference(upper, m, direction), rel=1e-8)
    for k in (1, 3):
        sides = jax.jit(jax.jacrev(lambda m, k=k: jnp.stack(hj.bounds.schatten_bounds(m, k))))(
            jnp.full((6, 6), 1 / 6, dtype)
        )
        assert np.isfinite(sides).all() and sides.dtype == dtype


@pytest.mark.parametrize("k", [0, -1])
def test_schatten_order_below_one_is_refused(k):
    with pytest.raises(ValueError, match=f"at least 1, got {k}"):
        hj.bounds.schatten_bounds(np.eye(2), k)


def test_pinsker_bound_is_loose_by_root_n_near_uniform_and_empty_from_half_a_nat():
    near = oracles.isolated(6, 1e-4)
    assert hj.bounds.pinsker_bound(near) / 1e-4 == pytest.approx(np.sqrt(6), rel=1e-3)
    deficits = jax.vmap(hj.entropy_deficit)(FAMILIES[6])
    np.testing.assert_array_equal(
        jax.vmap(hj.bounds.pinsker_bound)(FAMILIES[6]) > 1, deficits > 0.5
    )


@pytest.mark.parametrize(
    ("retention", "depth"), [(0.5, 1), (0.9, 12), (0.01, 100), (1 - 1e-6, 1e6), (0.5, 1e12)]
)
def test_logit_budget_is_artanh_of_the_retention_a_layer(retention, depth):
    with mp.workdps(40):
        expected = float(mp.atanh(mp.mpf(retention) ** (1 / mp.mpf(depth))))
    assert hj.bounds.logit_budget(retention, depth) == pytest.approx(expected, rel=1e-12)


def test_logit_budget_is_just_enough_for_a_two_by_two():
    budget = hj.bounds.logit_budget(0.3, 7)
    logits = budget * np.array([[1, -1], [-1, 1]])
    assert oracles.sigma2(oracles.alternate(logits, 1.0, 3)) ** 7 == pytest.approx(0.3, rel=1e-12)
    assert hj.bounds.hilbert_bound(0.99 * logits, 1.0) ** 7 < 0.3


@pytest.mark.parametrize(
    ("retention", "depth"),
    [(0, 1), (1, 1), (1.5, 1), (-0.5, 1), (np.nan, 1), (0.5, 0), (0.5, -2), (0.5, np.nan)],
)
def test_logit_budget_is_nan_outside_its_ranges(retention, depth):
    assert np.isnan(hj.bounds.logit_budget(retention, depth))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "k"), [(64, 32), (64, 401), (4, 1000)])
def test_high_schatten_orders_neither_underflow_nor_lose_their_derivative(n, k, dtype):
    bounds = jax.jit(hj.bounds.schatten_bounds, static_argnums=1)
    lower, upper = bounds(jnp.eye(n, dtype=dtype), k)  # every singular value is 1
    tol = 40 * float(jnp.finfo(dtype).eps)
    assert abs(lower - 1) < tol and abs(upper / (n - 1) ** (1 / (2 * k)) - 1) < tol
    slope = jax.grad(lambda m: hj.bounds.schatten_bounds(m, k)[1])(jnp.eye(n, dtype=dtype))
    expected = (n - 1.0) ** (1 / (2 * k) - 1) * (np.eye(n) - 1 / n)  # all of them share it
    np.testing.assert_allclose(slope, expected, atol=100 * k * tol)


def test_a_frontier_at_several_deficits_is_for_vmap():
    with pytest.raises(ValueError, match=r"deficit must be a scalar, got shape \[2\]"):
        hj.bounds.isolated_unit_frontier([0.5, 1.0], 4)
