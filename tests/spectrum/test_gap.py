"""1 − σ₂ to relative accuracy, however small."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import homojax as hj
import oracles
from homojax.spectrum.gap import contraction_gap, log_contraction_gap


class Measures(NamedTuple):
    gap: jax.Array
    log_gap: jax.Array
    gradient: jax.Array  # [n, n], of the gap
    log_gradient: jax.Array  # [n, n], of its logarithm


def measures(log_matrix):
    gap, gradient = jax.value_and_grad(contraction_gap)(log_matrix)
    log_gap, log_gradient = jax.value_and_grad(log_contraction_gap)(log_matrix)
    return Measures(gap, log_gap, gradient, log_gradient)


# Programs of the gap are among the longest to compile: nearly all tests share this one, at n = 4,
# where σ₂ comes from Jacobi's rotations, and at n = 8, where it is climbed to.
measured = jax.jit(measures)
measured_each = jax.jit(jax.vmap(measures))
projected = jax.jit(lambda logits, epsilon: hj.sinkhorn(logits, epsilon).log_matrix)
log_slope_of = jax.jit(
    lambda log_matrix, direction: jax.jvp(log_contraction_gap, (log_matrix,), (direction,))[1]
)
RTOL = {np.dtype("float64"): 1e-10, np.dtype("float32"): 1e-4}
SLOPE_ATOL = {np.dtype("float64"): 1e-12, np.dtype("float32"): 1e-4}


def log_of(matrix):
    """Elementwise log of nested lists of mpf, to float64."""
    return np.array([[float(mp.log(x)) if x > 0 else -np.inf for x in row] for row in matrix])


def shuffled(rng, matrix):
    """Rows and columns each in a random order: singular values stay."""
    rows, cols = rng.permutation(len(matrix)), rng.permutation(len(matrix))
    return [[matrix[i][j] for j in cols] for i in rows]


def exact_log_gap(matrix, digits):
    """log(1 − σ₂) of an exactly doubly stochastic matrix of mpf, from the eigenvalues of MᵀM."""
    with mp.workdps(digits):
        m = mp.matrix(matrix)
        sigma2 = mp.sqrt(mp.eigsy(m.T * m, eigvals_only=True)[len(matrix) - 2])
        return float(mp.log(1 - sigma2))


# ---------------------------------------------------------------- matrices with a gap that is known


def lazy_permutation(n, gap):
    return [[(i == j) * (1 - gap) + gap / n for j in range(n)] for i in range(n)]


def lazy_rotation(n, gap):
    """(1 − p)I + pC, C a cyclic shift: normal, with σ₂² = 1 − 2p(1 − p)(1 − cos 2π/n)."""
    q = gap * (2 - gap) / (2 * (1 - mp.cos(2 * mp.pi / n)))
    p = 2 * q / (1 + mp.sqrt(1 - 4 * q)) if q < 0.25 else None
    return p and [[(i == j) * (1 - p) + ((i + 1) % n == j) * p for j in range(n)] for i in range(n)]


def nested_blocks(n, gap):
    """gap·J + (√gap − gap)·(J on two blocks) + (1 − √gap)·(J on four): commuting projections."""
    halves, quarters = [2 * i // n for i in range(n)], [4 * i // n for i in range(n)]
    root = mp.sqrt(gap)

    def entry(i, j):
        same_half, same_quarter = halves[i] == halves[j], quarters[i] == quarters[j]
        return gap / n + (root - gap) * same_half * 2 / n + (1 - root) * same_quarter * 4 / n

    return [[entry(i, j) for j in range(n)] for i in range(n)]


def isolated_unit(n, gap):
    """One unit joined weakly to a well mixed rest."""
    return [
        [gap / n + (1 - gap) * ((i == j) if i * j == 0 else mp.mpf(1) / (n - 1)) for j in range(n)]
        for i in range(n)
    ]


@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def dtype(request):
    """The path of weak links alone is in float32, too, where there is little time."""
    return np.dtype(request.param)


KNOWN = {
    "two by two": (lambda n, gap: lazy_permutation(2, gap), (2,)),
    "lazy permutation": (lazy_permutation, (4, 8)),
    "lazy rotation": (lazy_rotation, (4, 8)),
    "nested blocks": (nested_blocks, (4, 8)),
    "isolated unit": (isolated_unit, (4, 8)),
}


@pytest.mark.parametrize(
    ("name", "n"), [(name, n) for name, (_, sizes) in KNOWN.items() for n in sizes]
)
def test_gap_has_relative_accuracy_from_1_to_1e_minus_30(name, n, rng, dtype):
    for exponent in (0, -0.3, -1, -4, -9, -17, -24, -30):
        with mp.workdps(100):
            gap = mp.mpf(10) ** exponent
            matrix = KNOWN[name][0](n, gap)
            if matrix is None:
                continue
            log_matrix = log_of(shuffled(rng, matrix)).astype(dtype)
        for computed in (measured(log_matrix).gap, measured(log_matrix.T).gap):
            assert computed.dtype == dtype
            assert computed == pytest.approx(float(gap), rel=RTOL[dtype])


@pytest.mark.parametrize("name", KNOWN)
def test_log_gap_goes_on_where_the_gap_underflows(name, rng, dtype):
    for exponent in (-40, -100, -300, -1000):
        with mp.workdps(-exponent + 30):
            gap = mp.mpf(10) ** exponent
            matrix, sizes = KNOWN[name]
            log_matrix = log_of(shuffled(rng, matrix(sizes[0], gap)))
        expected = exponent * np.log(10)
        assert measured(log_matrix.astype(dtype)).log_gap == pytest.approx(
            expected, abs=4 * abs(expected) * np.finfo(dtype).eps
        )


def near_permutation(rng, n, lowest, count):
    """A permutation and ``count`` others of weights that are log-uniform down to 10^lowest."""
    weights = [
        mp.mpf(10) ** mp.mpf(float(x)) for x in rng.uniform(lowest, min(-1, lowest / 4), count)
    ]
    matrix = [[mp.mpf(0)] * n for _ in range(n)]
    for weight in [1 - mp.fsum(weights), *weights]:
        for i, j in enumerate(rng.permutation(n)):
            matrix[i][j] += weight
    return matrix


@pytest.mark.parametrize(
    ("n", "lowest", "count"), [(4, -8, 6), (4, -30, 5), (8, -30, 12), (8, -40, 40)]
)
def test_gap_of_random_near_permutations_has_relative_accuracy(n, lowest, count, rng, dtype):
    for _ in range(8):
        with mp.workdps(120):
            matrix = near_permutation(rng, n, lowest, count)
            log_matrix = log_of(matrix)
        expected = exact_log_gap(matrix, 120)
        assert expected < -2 and (expected > np.log(1e-30) or dtype == np.float64)
        found = measured(log_matrix.astype(dtype))
        assert found.log_gap == pytest.approx(expected, abs=RTOL[dtype])
        assert found.gap == pytest.approx(np.exp(expected), rel=RTOL[dtype])


def weak_path(rng, n):
    """Symmetric and tridiagonal in random order, with links of any size from 1e-30 to 0.1."""
    weights = [mp.mpf(10) ** mp.mpf(float(x)) for x in rng.uniform(-30, -1, n - 1)]
    matrix = [[mp.mpf(0)] * n for _ in range(n)]
    for k, weight in enumerate(weights):
        matrix[k][k + 1] = matrix[k + 1][k] = weight / 2
    for i in range(n):
        matrix[i][i] = 1 - mp.fsum(matrix[i])
    return shuffled(rng, matrix)


@pytest.mark.parametrize(
    ("n", "dtype"),
    [
        (4, "float64"),
        (8, "float64"),
        (4, "float32"),
        pytest.param(8, "float32", marks=pytest.mark.slow),
        pytest.param(32, "float64", marks=pytest.mark.slow),
        pytest.param(32, "float32", marks=pytest.mark.slow),
    ],
    indirect=["dtype"],
)
def test_gap_of_a_path_of_weak_links_has_relative_accuracy_wherever_its_ends_are(n, rng, dtype):
    with mp.workdps(100):
        matrix = weak_path(rng, n)
        log_matrix = log_of(matrix)
    expected = np.exp(exact_log_gap(matrix, 100))
    for _ in range(10):  # the last unit is the one grounded: let it be any
        order = rng.permutation(n)
        found = measured(log_matrix[np.ix_(order, order)].astype(dtype)).gap
        assert found == pytest.approx(expected, rel=RTOL[dtype])


@given(oracles.squares(4, bound=30.0), st.permutations(range(4)), st.permutations(range(4)))
def test_gap_does_not_depend_on_the_order_of_units(logits, rows, cols):
    log_matrix = np.asarray(projected(logits, 1.0))
    log_gap = float(measured(log_matrix).log_gap)
    reordered = measured(log_matrix[np.ix_(rows, cols)]).log_gap
    assert reordered == pytest.approx(log_gap, abs=1e-12, nan_ok=True)


def test_gap_of_each_of_a_batch_is_1_minus_sigma2_where_that_has_digits(rng):
    family = oracles.birkhoff_family(rng, 8)
    with np.errstate(divide="ignore"):
        gaps = np.asarray(measured_each(np.log(family)).gap)
    np.testing.assert_allclose(gaps, 1 - oracles.sigma2(family), atol=1e-13)
    assert (gaps > 0.1).sum() > 20


@pytest.mark.slow
def test_gap_of_a_large_matrix(rng, dtype):
    gap_of = jax.jit(contraction_gap)
    for gap in (1, 1e-8, 1e-30):
        log_matrix = np.log(gap / 256) + np.zeros((256, 256))
        log_matrix[range(256), rng.permutation(256)] = np.log1p(-gap * (1 - 1 / 256))
        assert gap_of(log_matrix.astype(dtype)) == pytest.approx(gap, rel=RTOL[dtype])


REDUCIBLE = {
    "identity": np.eye(4),
    "permutation": np.eye(8)[::-1],
    "two blocks": scipy.linalg.block_diag(np.full((3, 3), 1 / 3), np.full((5, 5), 1 / 5)),
    "a first unit alone": oracles.isolated(8, 1.0),
    "a last unit alone": oracles.isolated(8, 1.0)[::-1, ::-1],
}


@pytest.mark.parametrize("name", REDUCIBLE)
def test_gap_of_a_reducible_matrix_is_0_with_derivative_0(name, dtype):
    with np.errstate(divide="ignore"):
        found = measured(np.log(REDUCIBLE[name]).astype(dtype))
    assert found.gap == 0 and np.isneginf(found.log_gap)
    np.testing.assert_array_equal(found.gradient, 0)
    np.testing.assert_array_equal(found.log_gradient, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 2), (3, 3)])
def test_gap_of_a_broken_matrix_is_nan(bad, place):
    log_matrix = np.full((4, 4), np.log(0.25))
    log_matrix[place] = bad
    found = measured(log_matrix)
    assert np.isnan(found.gap) and np.isnan(found.log_gap)


# ---------------------------------------------------------------- derivatives


def least_eigenvalues(log_matrix):
    """The two least of the Laplacian of the weights (MᵀM)ⱼₖ on V⊥, also off the polytope."""
    n = len(log_matrix)
    m = mp.matrix([[mp.exp(x) for x in row] for row in log_matrix])
    laplacian = -m.T * m
    for j in range(n):
        laplacian[j, j] = -mp.fsum(laplacian[j, k] for k in range(n) if k != j)
    return mp.eigsy(laplacian, eigvals_only=True)[1:3]


def exact_slope(log_matrix, direction):
    """Derivative of log(1 − σ₂), by central differences in 150 digits."""
    with mp.workdps(150):
        step, values = mp.mpf(10) ** -45, []
        for sign in (1, -1):
            moved = [
                [mp.mpf(float(x)) + sign * step * float(d) for x, d in zip(*rows, strict=True)]
                for rows in zip(log_matrix, direction, strict=True)
            ]
            least = least_eigenvalues(moved)[0]
            values.append(mp.log(least) - mp.log(1 + mp.sqrt(1 - least)))
        return float((values[0] - values[1]) / (2 * step))


def without_ties(draw):
    """The first log-matrix drawn whose least eigenvalue is small and well below the second."""
    while True:
        with mp.workdps(150):
            log_matrix = draw()
            least, second = least_eigenvalues(
                [[mp.mpf(float(x)) for x in row] for row in log_matrix]
            )
            if 0 < least < min(0.4, second / 1.2):
                return log_matrix


@pytest.mark.parametrize("lowest", [-2, -8, -30, -60])
def test_gradient_of_the_log_gap_is_right_at_every_size_of_gap(lowest, rng, dtype):
    log_matrix = without_ties(lambda: log_of(near_permutation(rng, 8, lowest, 12)).astype(dtype))
    gradient = measured(log_matrix).log_gradient
    assert gradient.dtype == dtype
    for direction in rng.normal(size=(3, 8, 8)).astype(dtype):
        assert (gradient * direction).sum() == pytest.approx(
            exact_slope(log_matrix, direction), abs=SLOPE_ATOL[dtype]
        )


@pytest.mark.parametrize("lowest", [-2, -8, -30, -60])
def test_so_is_the_slope_in_forward_mode(lowest, rng, dtype):
    log_matrix = without_ties(lambda: log_of(near_permutation(rng, 4, lowest, 12)).astype(dtype))
    for direction in rng.normal(size=(3, 4, 4)).astype(dtype):
        assert log_slope_of(log_matrix, direction) == pytest.approx(
            exact_slope(log_matrix, direction), abs=SLOPE_ATOL[dtype]
        )


def test_gradient_keeps_its_accuracy_where_some_links_are_stronger_by_more_than_1_over_eps(rng):
    def draw():
        return (
            log_of(shuffled(rng, nested_blocks(8, mp.mpf(10) ** -60)))
            + rng.normal(size=(8, 8)) / 10
        )

    log_matrix = without_ties(draw)
    gradient = np.asarray(measured(log_matrix).log_gradient)
    for direction in rng.normal(size=(3, 8, 8)):
        assert (gradient * direction).sum() == pytest.approx(
            exact_slope(log_matrix, direction), abs=1e-12
        )


@pytest.mark.slow
def test_gradient_through_the_projection_is_that_of_sigma2(rng):
    logits, direction = rng.normal(size=(2, 4, 4))

    @jax.jit
    def gradients(logits, epsilon):
        """Of −(1 − σ₂) and of σ₂, [2, 4, 4], through one projection."""

        def both(logits):
            result = hj.sinkhorn(logits, epsilon, tol=1e-13)
            return jnp.stack([-contraction_gap(result.log_matrix), hj.sigma2(result.matrix)])

        return jax.jacrev(both)(logits)

    for epsilon in (0.3, 1.0, 10.0):
        computed, expected = (np.asarray(gradients(logits, epsilon)) * direction).sum((1, 2))
        assert computed == pytest.approx(expected, rel=1e-7)


TIES = {
    "uniform": np.full((8, 8), 1 / 8),
    "lazy": 0.9 * np.eye(8) + 0.1 / 8,
    "cycle": np.array(hj.birkhoff.lazy_cycle(8)) * 0.9 + 0.1 / 8,
}


@pytest.mark.parametrize("name", TIES)
def test_gradient_at_a_tie_is_a_supergradient_along_the_polytope(name, rng):
    """The gap is concave on the polytope: a tangent lies above it."""
    m = TIES[name]
    gradient = np.asarray(measured(np.log(m)).gradient) / m
    assert np.isfinite(gradient).all()
    for share, other in itertools.product(
        (1e-3, 0.1, 1), oracles.birkhoff_family(rng, len(m), count=3)
    ):
        nearby = (1 - share) * m + share * other
        tangent = 1 - oracles.sigma2(m) + (gradient * (nearby - m)).sum()
        assert 1 - oracles.sigma2(nearby) <= tangent + 1e-12


@pytest.mark.slow
def test_second_derivatives_match_differences_where_sigma2_is_simple(rng):
    log_matrix, direction, other = rng.normal(size=(3, 4, 4))
    log_matrix -= np.logaddexp.reduce(log_matrix, axis=1, keepdims=True)

    def slope(x):
        return (jax.grad(log_contraction_gap)(x) * direction).sum()

    @jax.jit
    def second_derivatives(x):
        return (jax.grad(slope)(x) * other).sum(), jax.jvp(slope, (x,), (other,))[1]

    expected = oracles.difference(
        lambda x: (measured(x).log_gradient * direction).sum(), log_matrix, other
    )
    for computed in second_derivatives(log_matrix):
        assert computed == pytest.approx(float(expected), rel=1e-7)


def test_gap_and_gradient_are_the_same_under_vmap(rng):
    batch = np.log(oracles.birkhoff_family(rng, 8) * 0.99 + 0.01 / 8)
    in_batch = jax.tree.map(lambda x: x[1::7], measured_each(batch))
    for i, log_matrix in enumerate(batch[1::7]):
        alone = measured(log_matrix)
        assert alone.log_gap == pytest.approx(float(in_batch.log_gap[i]), abs=1e-13)
        assert np.isfinite(in_batch.log_gradient[i]).all()


def test_a_matrix_that_is_given_for_its_logarithm_has_no_gap(rng):
    for matrix in oracles.birkhoff_family(rng, 4):
        assert np.isnan(contraction_gap(matrix))


def test_gap_refuses_what_is_not_a_square():
    with pytest.raises(ValueError, match="log_matrix must have shape"):
        contraction_gap(np.zeros((2, 3)))
