"""Bounds on σ₂: valid on matrices of 𝔅ₙ of many kinds, and attained by the family each names."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import homojax as hj
import oracles

RNG = np.random.default_rng(5)
FAMILIES = {n: oracles.birkhoff_family(np.random.default_rng(n), n) for n in (2, 6)}
TIGHT = {  # n = 6
    "uniform": np.full((1, 6, 6), 1 / 6),
    "permutations": np.array([oracles.permutation(RNG, 6) for _ in range(5)]),
    "lazy": np.array([oracles.lazy_permutation(RNG, 6, t) for t in (0.0, 1e-6, 0.3, 1.0)]),
    "rank one": np.array([oracles.isolated(6, t) for t in (0.0, 1e-6, 0.3, 1.0)]),
    "normal": np.array(
        [hj.birkhoff.circulant(RNG.dirichlet(np.ones(6))) for _ in range(4)]
        + [oracles.symmetric_psd(RNG, 6)]
    ),
    "two by two": np.array([[[p, 1 - p], [1 - p, p]] for p in (0.5, 0.6, 0.9, 1.0)]),
}
BOTH = ["float32", pytest.param("float64", marks=pytest.mark.slow)]
UPPER = ("dobrushin", "doeblin", "frobenius", "schatten-2", "schatten-5", "pinsker")
LOWER = ("frobenius", "schatten-2", "schatten-5", "eigenvalue")


@jax.jit
@jax.vmap
def all_bounds(matrix):
    """(upper, lower) bounds on σ₂ by name: one program for each n."""
    lower, upper = {"eigenvalue": hj.lambda2(matrix)}, {}
    for name, k in (("schatten-2", 2), ("schatten-5", 5)):
        lower[name], upper[name] = hj.bounds.schatten_bounds(matrix, k)
    lower["frobenius"], upper["frobenius"] = hj.bounds.frobenius_bounds(matrix)
    upper["dobrushin"] = hj.bounds.dobrushin_bound(matrix)
    upper["doeblin"] = hj.bounds.doeblin_bound(matrix)
    upper["pinsker"] = hj.bounds.pinsker_bound(matrix)
    return upper, lower


@pytest.fixture(scope="module")
def bounds():
    """(upper, lower) on each family: those of 6 units go through one program."""
    groups = {6: FAMILIES[6]} | {name: m for name, m in TIGHT.items() if m.shape[1] == 6}
    ends = np.cumsum([len(m) for m in groups.values()])
    upper, lower = jax.tree.map(np.asarray, all_bounds(np.concatenate([*groups.values()])))
    return {
        name: jax.tree.map(lambda x, end=end, m=m: x[end - len(m) : end], (upper, lower))
        for (name, m), end in zip(groups.items(), ends, strict=True)
    }


@pytest.mark.parametrize("n", [pytest.param(2, marks=pytest.mark.slow), 6])
def test_bounds_hold(bounds, n):
    sigma2 = oracles.sigma2(FAMILIES[n])
    upper, lower = bounds[n] if n == 6 else jax.tree.map(np.asarray, all_bounds(FAMILIES[n]))
    assert set(upper) == set(UPPER) and set(lower) == set(LOWER)
    for name, bound in upper.items():
        assert (bound >= sigma2 - 1e-13).all(), name
    for name, bound in lower.items():
        assert (bound <= sigma2 + 1e-13).all(), name


@pytest.mark.parametrize(
    ("side", "name", "family"),
    [
        ("upper", "dobrushin", "permutations"),
        ("upper", "dobrushin", "uniform"),
        ("upper", "doeblin", "uniform"),
        ("upper", "frobenius", "rank one"),
        ("upper", "schatten-2", "rank one"),
        ("upper", "pinsker", "uniform"),
        ("lower", "frobenius", "lazy"),
        ("lower", "schatten-5", "lazy"),
        ("lower", "eigenvalue", "normal"),
    ],
)
def test_bound_is_attained_by_the_family_it_names(bounds, side, name, family):
    bound = bounds[family][("upper", "lower").index(side)][name]
    np.testing.assert_allclose(bound, oracles.sigma2(TIGHT[family]), atol=1e-13)


@pytest.mark.parametrize("n", [2, 6])
def test_hilbert_bound_holds_a_priori_and_is_attained_by_every_two_by_two(n, rng):
    logits, epsilons = 3 * rng.normal(size=(20, n, n)), np.geomspace(30, 0.3, 12)
    kept = np.array([oracles.sigma2(oracles.project_down(s, epsilons)) for s in logits])
    hilbert = jax.jit(jax.vmap(jax.vmap(hj.bounds.hilbert_bound, (None, 0)), (0, None)))
    slack = hilbert(logits, epsilons) - kept
    assert (slack >= -1e-12).all()
    assert abs(slack).max() < 1e-11 if n == 2 else np.median(slack) > 0.01


@given(oracles.squares(6), st.floats(0.5, 5))
def test_hilbert_bound_is_tanh_of_the_diameter_over_four_epsilon(logits, epsilon):
    expected = np.tanh(oracles.projective_diameter(logits) / (4 * epsilon))
    assert jax.jit(hj.bounds.hilbert_bound)(logits, epsilon) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan])
def test_hilbert_bound_says_nothing_without_a_positive_epsilon(epsilon):
    assert np.isnan(jax.jit(hj.bounds.hilbert_bound)(np.eye(6), epsilon))


@given(oracles.squares(6))
def test_dobrushin_coefficient_is_half_the_largest_distance_between_rows(matrix):
    rows, cols = oracles.dobrushin(matrix), oracles.dobrushin(matrix.T)
    assert jax.jit(hj.bounds.dobrushin_coefficient)(matrix) == pytest.approx(rows, abs=1e-12)
    assert jax.jit(hj.bounds.dobrushin_bound)(matrix) == pytest.approx(
        np.sqrt(rows * cols), abs=1e-12
    )


def test_doeblin_bound_is_attained_by_two_by_two_matrices():
    bound = jax.jit(jax.vmap(hj.bounds.doeblin_bound))(TIGHT["two by two"])
    np.testing.assert_allclose(bound, oracles.sigma2(TIGHT["two by two"]), atol=1e-13)


def test_doeblin_bound_is_one_minus_n_times_the_least_entry(bounds):
    expected = 1 - 6 * FAMILIES[6].min((1, 2))
    np.testing.assert_allclose(bounds[6][0]["doeblin"], expected, atol=1e-15)


@pytest.mark.parametrize(("name", "k"), [("frobenius", 1), ("schatten-2", 2), ("schatten-5", 5)])
def test_schatten_bounds_are_traces_of_powers_on_the_polytope_and_close_in_as_k_grows(
    bounds, name, k
):
    family = FAMILIES[6][1:]  # 1/2k-th powers of rounding errors at J itself
    powers = np.linalg.matrix_power(family.transpose(0, 2, 1) @ family, k)
    trace = np.trace(powers, axis1=1, axis2=2) - 1
    upper, lower = (side[name][1:] for side in bounds[6])
    large = trace > 1e-6
    assert large.sum() > 50
    np.testing.assert_allclose(upper[large], trace[large] ** (1 / (2 * k)), rtol=1e-8)
    np.testing.assert_allclose(upper / lower, 5 ** (1 / (2 * k)), rtol=1e-12)


def test_schatten_bounds_neither_underflow_nor_lose_digits_for_small_details(rng):
    schatten = jax.jit(hj.bounds.schatten_bounds, static_argnums=1)
    for scale in (1.0, 1e-30, 1e-100):
        a = scale * rng.normal(size=(6, 6))
        lower, upper = schatten(a, 5)
        singular_values = oracles.singular_values(a) / scale
        assert upper / scale == pytest.approx((singular_values**10).sum() ** 0.1, rel=1e-12)
        assert lower <= oracles.sigma2(a) <= upper


def test_schatten_bounds_are_smooth_at_ties_where_sigma2_is_not(rng):
    m, direction = np.asarray(hj.birkhoff.lazy_cycle(6, 0.5)), rng.normal(size=(6, 6))
    upper = jax.jit(jax.value_and_grad(lambda m: hj.bounds.schatten_bounds(m, 3)[1]))
    slope = (np.asarray(upper(m)[1]) * direction).sum()
    expected = oracles.difference(lambda m: upper(m)[0], m, direction)
    assert slope == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("dtype", BOTH, indirect=True)
@pytest.mark.parametrize("k", [1, 3])
def test_schatten_bounds_have_finite_derivatives_at_the_barycentre(k, dtype):
    both = jax.jit(jax.jacrev(lambda m: jnp.stack(hj.bounds.schatten_bounds(m, k))))
    sides = both(np.full((6, 6), 1 / 6, dtype))
    assert np.isfinite(sides).all() and sides.dtype == dtype


@pytest.mark.parametrize("k", [0, -1])
def test_schatten_order_below_one_is_refused(k):
    with pytest.raises(ValueError, match=f"at least 1, got {k}"):
        hj.bounds.schatten_bounds(np.eye(2), k)


def test_pinsker_bound_is_loose_by_root_n_near_uniform_and_empty_from_half_a_nat(bounds):
    near = jax.jit(hj.bounds.pinsker_bound)(oracles.isolated(6, 1e-4))
    assert near / 1e-4 == pytest.approx(np.sqrt(6), rel=1e-3)
    deficits = np.array([oracles.entropy_deficit(m) for m in FAMILIES[6]])
    np.testing.assert_array_equal(bounds[6][0]["pinsker"] > 1, deficits > 0.5)


@pytest.mark.parametrize(
    ("retention", "depth"), [(0.5, 1), (0.9, 12), (0.01, 100), (1 - 1e-6, 1e6), (0.5, 1e12)]
)
def test_logit_budget_is_artanh_of_the_retention_a_layer(retention, depth):
    with mp.workdps(40):
        expected = float(mp.atanh(mp.mpf(retention) ** (1 / mp.mpf(depth))))
    budget = hj.bounds.logit_budget(retention=retention, depth=depth)
    assert budget == pytest.approx(expected, rel=1e-12)


def test_logit_budget_is_just_enough_for_a_two_by_two():
    budget = float(hj.bounds.logit_budget(retention=0.3, depth=7))
    logits = budget * np.array([[1, -1], [-1, 1]])
    assert oracles.sigma2(oracles.alternate(logits, 1.0, 3)) ** 7 == pytest.approx(0.3, rel=1e-12)
    assert np.tanh(oracles.projective_diameter(0.99 * logits) / 4) ** 7 < 0.3


@pytest.mark.parametrize(
    ("retention", "depth"),
    [(0, 1), (1, 1), (1.5, 1), (-0.5, 1), (np.nan, 1), (0.5, 0), (0.5, -2), (0.5, np.nan)],
)
def test_logit_budget_is_nan_outside_its_ranges(retention, depth):
    assert np.isnan(hj.bounds.logit_budget(retention=retention, depth=depth))


def test_scalars_that_could_be_swapped_go_by_name():
    for wrong in (
        lambda: hj.bounds.logit_budget(0.5, 1),  # pyright: ignore
        lambda: hj.bounds.isolated_unit_frontier(0.5, 4),  # pyright: ignore
        lambda: hj.bounds.path_length_bound(0.5, 0.25, 2),  # pyright: ignore
    ):
        with pytest.raises(TypeError, match="positional"):
            wrong()


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize(("n", "k"), [(64, 32), (64, 401), (4, 1000)])
def test_high_schatten_orders_neither_underflow_nor_lose_their_derivative(n, k, dtype):
    def both(m):
        lower, upper = hj.bounds.schatten_bounds(m, k)
        return upper, lower

    (upper, lower), slope = jax.tree.map(
        np.asarray, jax.jit(jax.value_and_grad(both, has_aux=True))(np.eye(n, dtype=dtype))
    )
    tol = 40 * float(jnp.finfo(dtype).eps)  # every singular value is 1
    assert abs(lower - 1) < tol and abs(upper / (n - 1) ** (1 / (2 * k)) - 1) < tol
    expected = (n - 1.0) ** (1 / (2 * k) - 1) * (np.eye(n) - 1 / n)  # all of them share it
    np.testing.assert_allclose(slope, expected, atol=100 * k * tol)


def test_a_frontier_at_several_deficits_is_for_vmap():
    with pytest.raises(ValueError, match=r"deficit must be a scalar, got shape \[2\]"):
        hj.bounds.isolated_unit_frontier([0.5, 1.0], n=4)


# ---------------------------------------------------------------- the path of arcsin σ₂


@pytest.mark.parametrize("n", [2, 3, 8])
def test_neither_the_matrix_nor_the_angle_goes_farther_than_the_path_bound(n, rng):
    epsilons = np.geomspace(30, 0.03, 60)
    for scale in (0.3, 3.0):
        matrices = oracles.project_down(scale * rng.standard_t(2, size=(n, n)), epsilons)
        entropies = -(matrices * np.log(np.maximum(matrices, 1e-300))).sum((1, 2))
        angles = np.arcsin(np.minimum(oracles.sigma2(matrices), 1))
        for gap in (1, 5, 40):
            bound = hj.bounds.path_length_bound(
                entropies[:-gap] - entropies[gap:],
                log_ratio=np.log(epsilons[gap:] / epsilons[:-gap]),
                n=n,
            )
            bound = np.asarray(bound)
            distance = np.linalg.norm(matrices[gap:] - matrices[:-gap], 2, axis=(1, 2))
            assert (distance <= bound + 1e-5).all()
            assert (abs(angles[gap:] - angles[:-gap]) <= bound + 1e-5).all()
            least = np.array([angles[i : i + gap + 1].min() for i in range(len(bound))])
            # arcsin near 1: √eps
            assert (least >= (angles[gap:] + angles[:-gap] - bound) / 2 - 1e-5).all()


def test_path_bound_is_attained_by_two_by_two_matrices_on_short_ways():
    for epsilon in (0.2, 1.0, 5.0):
        sigma2 = np.tanh(0.5 / (epsilon * np.array([1, 1.001])))
        shares = (1 + sigma2) / 2, (1 - sigma2) / 2
        entropy = -2 * sum(x * np.log(x) for x in shares)
        bound = hj.bounds.path_length_bound(np.diff(entropy)[0], log_ratio=np.log(1.001), n=2)
        assert bound == pytest.approx(abs(np.diff(np.arcsin(sigma2)))[0], rel=1e-4)


def test_a_forbidden_entry_makes_the_diameter_infinite_and_the_bound_1(rng):
    logits = np.where(np.eye(5, k=1, dtype=bool), -np.inf, rng.normal(size=(5, 5)))
    assert hj.birkhoff.projective_diameter(logits) == np.inf
    assert hj.bounds.hilbert_bound(logits, 0.3) == 1
    logits[0, 0] = np.nan
    assert np.isnan(hj.birkhoff.projective_diameter(logits))


def test_an_epsilon_that_is_not_positive_has_no_derivative_either():
    for bound in (hj.bounds.hilbert_bound, lambda s, e: hj.sinkhorn(s, e).matrix[0, 0]):
        value_and_slope = jax.jit(jax.value_and_grad(bound, 1))
        for epsilon in (0.0, -1.0):
            assert np.isnan(value_and_slope(np.eye(4), epsilon)).all()
