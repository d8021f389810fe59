"""calibrate_epsilon: targets met, roots told apart, what is proved, bad questions, derivatives."""

import functools
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from homojax.calibration import CalibrationStatus, calibrate_epsilon

TARGETS = np.array([0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1 - 1e-4, 1 - 1e-6])
SWAP = np.array([[1.0, 0.0], [0.0, 1.0]])
TWICE = np.ones((2, 2))  # kron(S, TWICE) has every unit of S twice, and the σ₂ of S
LANES = {2: 8, 4: 128}  # each n has one program for each root, precision and number of lanes

alone = jax.jit(calibrate_epsilon, static_argnames=("root", "max_projections"))
epsilon_of = jax.jit(lambda logits, target: calibrate_epsilon(logits, target).epsilon)
slopes_of = jax.jit(jax.grad(lambda s, t: calibrate_epsilon(s, t).epsilon, argnums=(0, 1)))


@functools.cache
def program(root):
    return jax.jit(jax.vmap(partial(calibrate_epsilon, root=root)))


def solve(logits, targets, root="first"):
    """Calibrations of logits [B, n, n], filled up to the number of lanes of their n."""
    logits, targets = np.asarray(logits), np.asarray(targets, np.asarray(logits).dtype)
    count, lanes = len(logits), LANES[logits.shape[1]]
    index = np.arange(lanes) % count
    result = program(root)(logits[index], targets[index])
    return jax.tree.map(lambda x: np.asarray(x)[:count], result)


def status(result):
    return CalibrationStatus(int(result.status)).name


def kept_down(logits, epsilons):
    """σ₂ at descending ε, by NumPy."""
    return oracles.sigma2(oracles.project_down(logits, epsilons))


def kept_at(logits, epsilon):
    """σ₂ at one ε, by NumPy, on the way down from the largest difference of logits."""
    start = max(np.ptp(logits), 2 * epsilon)
    return kept_down(logits, np.geomspace(start, epsilon, 12))[-1]


def meets(result, targets):
    """Every lane found, with the target met and ε below the ceiling."""
    epsilon = np.asarray(result.epsilon)
    assert (np.asarray(result.status) == CalibrationStatus.FOUND).all()
    np.testing.assert_allclose(result.kept, targets, rtol=0, atol=1e-10)
    assert (epsilon <= np.asarray(result.ceiling) * (1 + 1e-9)).all()
    return epsilon


# ---------------------------------------------------------------- the answer


@pytest.mark.parametrize(
    ("root", "dtype", "n"),
    [
        ("first", "float64", 4),
        pytest.param("last", "float32", 2, marks=pytest.mark.slow),
        pytest.param("first", "float64", 2, marks=pytest.mark.slow),
        pytest.param("first", "float32", 2, marks=pytest.mark.slow),
        pytest.param("last", "float64", 2, marks=pytest.mark.slow),
    ],
    indirect=["dtype"],
)
def test_epsilon_of_two_by_two_and_of_each_unit_twice_is_the_closed_form(root, dtype, n):
    wide = dtype == np.float64
    targets = TARGETS if wide else TARGETS[:-3]
    logits = 3 * (SWAP if n == 2 else np.kron(SWAP, TWICE))
    found = solve([logits.astype(dtype)] * len(targets), targets, root)
    assert found.epsilon.dtype == found.shortfall.dtype == dtype
    assert (found.status == CalibrationStatus.FOUND).all()
    # ε is as good as what the last digits of σ₂ near 1 are worth.
    rtol = 1e-9 + 1e-12 / (1 - targets) if wide else 1e-4
    expected = 3 / (2 * np.arctanh(targets))
    assert (abs(found.epsilon / expected - 1) <= rtol).all()
    assert (abs(found.ceiling / expected - 1) <= rtol).all()
    assert not wide or found.certified[targets <= 0.999].all()


def test_random_logits_meet_their_targets_as_one_batch(rng):
    logits, targets = rng.normal(size=(120, 4, 4)), np.resize(TARGETS, 120)
    result = solve(logits, targets)
    epsilon = meets(result, targets)
    solved = [kept_at(s, e) for s, e in zip(logits, epsilon, strict=True)]
    np.testing.assert_allclose(solved, targets, rtol=0, atol=2e-10)
    assert result.certified[targets <= 0.999].all()
    assert (result.shortfall[targets <= 0.999] < 2e-4).all()


@pytest.mark.slow
@pytest.mark.parametrize(("n", "lanes", "most"), [(4, 1000, 256), (16, 1000, 256), (64, 1000, 32)])
def test_a_thousand_random_logits_meet_their_targets(n, lanes, most, rng):
    logits, targets = rng.normal(size=(lanes, n, n)), np.resize(TARGETS, lanes)
    result = jax.jit(jax.vmap(partial(calibrate_epsilon, max_projections=most)))(logits, targets)
    meets(result, targets)
    if n <= 16:
        assert np.asarray(result.certified)[targets <= 0.99].all()


def first_and_last_roots(path, epsilons, solve):
    """Both roots at three targets inside the rise of σ₂, against a dense grid; how many differ."""
    logits = np.load(path)["logits"]
    sigma2 = kept_down(logits, epsilons)
    rises = np.diff(sigma2) < -1e-6  # as ε rises
    low, high = sigma2[1:][rises].min(), sigma2[:-1][rises].max()
    targets = low + np.array([0.1, 0.5, 0.9]) * (high - low)
    reaches = sigma2 >= targets[:, None]
    grid = {
        "last": np.array([epsilons[up].max() for up in reaches]),
        "first": np.array([epsilons[~up].min() for up in reaches]),
    }
    for root, expected in grid.items():
        found = solve(np.array([logits] * 3), targets, root)
        assert (found.status == CalibrationStatus.FOUND).all()
        assert found.certified.all() and (found.shortfall < 2e-4).all()
        spacing = np.log(epsilons[0] / epsilons[1])
        assert (abs(np.log(found.epsilon / expected)) <= 1.01 * spacing).all()
        for epsilon, target in zip(found.epsilon, targets, strict=True):
            assert kept_at(logits, epsilon) == pytest.approx(target, abs=1e-9)
    return int((grid["last"] > 1.1 * grid["first"]).sum())


def test_first_and_last_root_where_sigma2_rises_are_those_of_a_dense_grid(counterexamples):
    path = counterexamples / "sigma2_falls-4.npz"
    assert first_and_last_roots(path, np.geomspace(40, 0.05, 1500), solve) == 3


@pytest.mark.slow
def test_first_and_last_root_are_those_of_a_dense_grid_at_three_units(counterexamples):
    def solve_three(logits, targets, root):
        return jax.tree.map(np.asarray, program(root)(logits, targets))

    path = counterexamples / "sigma2_falls-3.npz"
    assert first_and_last_roots(path, np.geomspace(2, 0.004, 1500), solve_three) == 3


def test_batch_gives_what_a_single_call_gives(rng):
    logits = np.append(rng.normal(size=(2, 4, 4)), np.zeros((1, 4, 4)), axis=0)
    targets = np.array([0.1, 0.99, 0.5])
    together = solve(logits, targets)
    for i in range(3):
        one = calibrate_epsilon(logits[i], targets[i])
        assert status(one) == CalibrationStatus(int(together.status[i])).name
        np.testing.assert_allclose(one.epsilon, together.epsilon[i], rtol=1e-9)
        assert one.certified == together.certified[i]
    assert together.status[2] == CalibrationStatus.NO_DETAIL


@pytest.mark.slow
def test_float32_meets_the_target_to_1e_minus_5(rng):
    logits, targets = rng.normal(size=(24, 4, 4)), np.resize(TARGETS[:5], 24)
    result = solve(logits.astype("float32"), targets)
    assert (result.status == CalibrationStatus.FOUND).all()
    np.testing.assert_allclose(result.kept, targets, atol=1e-5)
    expected, below = solve(logits, targets).epsilon, targets < 0.95
    np.testing.assert_allclose(result.epsilon[below], expected[below], rtol=1e-3)


# ---------------------------------------------------------------- what is proved


@pytest.mark.slow
@settings(max_examples=25)
@given(
    oracles.squares(3, bound=4.0),
    st.sampled_from([0.2, 0.6, 0.95]),
    st.sampled_from(["first", "last"]),
)
def test_nothing_on_the_promised_side_is_worse_than_the_shortfall(logits, target, root):
    found = alone(logits, target, root=root)
    if status(found) != "FOUND":
        return
    epsilon = float(found.epsilon)
    if root == "first":
        wrong = target - kept_down(logits, epsilon * np.geomspace(1, 1e-2, 150)).min()
    else:
        wrong = kept_down(logits, epsilon * np.geomspace(10, 1, 200)).max() - target
    assert wrong <= float(found.shortfall) + 1e-9


@pytest.mark.slow
def test_shortfall_holds_also_where_the_projections_allowed_do_not_certify(rng):
    logits, targets = rng.normal(size=(8, 16, 16)), np.resize([0.5, 0.9, 0.999], 8)
    result = jax.jit(jax.vmap(partial(calibrate_epsilon, max_projections=16)))(logits, targets)
    for s, target, epsilon, shortfall in zip(
        logits, targets, meets(result, targets), result.shortfall, strict=True
    ):
        assert target - kept_down(s, epsilon * np.geomspace(1, 0.05, 100)).min() <= shortfall
    assert not np.asarray(result.certified).all()
    assert (np.asarray(result.num_projections) < 16 + 30 + 24).all()


@pytest.mark.slow
def test_tied_optima_leave_a_target_above_the_limit_unreachable():
    tied = np.eye(3) + np.roll(np.eye(3), 1, 0)  # σ₂ → cos(π/3) as ε → 0
    for root in ("first", "last"):
        missed = alone(tied, 0.51, root=root)
        assert status(missed) == "UNREACHABLE" and np.isnan(missed.epsilon) and not missed.certified
        met = alone(tied, 0.49, root=root)
        assert status(met) == "FOUND" and met.kept == pytest.approx(0.49, abs=1e-10)
        assert bool(met.certified) == (root == "last") == bool(np.isfinite(met.shortfall))


def test_tied_optima_that_fall_into_blocks_are_certified():
    found = solve([np.kron(np.eye(2), np.ones((2, 2)))], [0.9])
    assert found.certified.all()
    assert found.epsilon[0] == pytest.approx(1 / (2 * np.arctanh(0.9)), rel=1e-9)


# ---------------------------------------------------------------- questions without an answer


def test_bad_input_has_a_status_and_no_epsilon():
    bad = [
        (SWAP, 0.0, "BAD_TARGET"),
        (SWAP, 1.0, "BAD_TARGET"),
        (SWAP, -0.5, "BAD_TARGET"),
        (SWAP, np.nan, "BAD_TARGET"),
        ([[np.nan, 0.0], [0.0, 1.0]], 0.5, "NOT_FINITE"),
        ([[np.inf, 0.0], [0.0, 1.0]], 0.5, "NOT_FINITE"),
        ([[0.3, 1.3], [0.1, 1.1]], 0.5, "NO_DETAIL"),
        ([[0.0, 0.0], [0.0, 0.0]], 0.5, "NO_DETAIL"),
    ]
    logits, targets, expected = zip(*bad, strict=True)
    found = solve(np.kron(logits, TWICE), targets)
    assert [CalibrationStatus(x).name for x in found.status] == list(expected)
    assert np.isnan(found.epsilon).all() and np.isnan(found.kept).all()
    assert np.isinf(found.shortfall).all() and not found.certified.any()


def test_logits_further_apart_than_the_largest_number_are_not_finite():
    found = solve([1.7e308 * np.kron(SWAP, TWICE)], [0.5])
    assert found.status[0] == CalibrationStatus.NOT_FINITE


def test_calibration_refuses_what_is_no_question():
    for wrong in (
        lambda: calibrate_epsilon(np.zeros((2, 3)), 0.5),
        lambda: calibrate_epsilon(SWAP, [0.5, 0.6]),
        lambda: calibrate_epsilon(SWAP, 0.5, root="middle"),  # pyright: ignore
        lambda: calibrate_epsilon(SWAP, 0.5, max_projections=1),
    ):
        with pytest.raises(ValueError, match="must"):
            wrong()


def test_a_calibration_shows_its_status_in_words_one_or_many_or_traced():
    found = solve(np.kron([SWAP, 0 * SWAP, SWAP], TWICE), [0.5, 0.5, 2.0])
    first, second, _ = (jax.tree.map(lambda x, i=i: x[i], found) for i in range(3))
    assert repr(first) == "Calibration: FOUND; ε = 0.910239, keeps 0.5, certified"
    assert repr(second).startswith("Calibration: NO_DETAIL (logits of a layer are row and column")
    shown = repr(found)
    assert shown.startswith("Calibration: 1 FOUND, 1 NO_DETAIL (") and "1 BAD_TARGET (" in shown
    assert shown.endswith("; [3], 1 certified")
    shown = []
    jax.eval_shape(lambda s: shown.append(repr(calibrate_epsilon(s, 0.5))), SWAP)
    assert shown[0].startswith("Calibration(epsilon=float64[], kept=float64[], status=int")
    assert repr(jax.tree.map(lambda x: 0, found)).startswith("Calibration(epsilon=0, ")


# ---------------------------------------------------------------- derivatives


@pytest.mark.slow
def test_gradient_of_epsilon_is_that_of_differences_in_both_modes(rng):
    logits, direction = rng.normal(size=(2, 4, 4))
    gradient = jax.jit(jax.grad(epsilon_of, (0, 1)))
    push = jax.jit(lambda *x: jax.jvp(epsilon_of, x, (direction, 1.0))[1])
    for target in (0.2, 0.7, 0.95):
        by_logits, by_target = gradient(logits, target)
        along = oracles.difference(partial(epsilon_of, target=target), logits, direction)
        assert (by_logits * direction).sum() == pytest.approx(float(along), rel=1e-6)
        by_difference = oracles.difference(partial(epsilon_of, logits), target, 1.0)
        assert by_target == pytest.approx(float(by_difference), rel=1e-6)
        forward = (by_logits * direction).sum() + by_target
        assert push(logits, target) == pytest.approx(float(forward), rel=1e-9)


def test_the_gradient_of_two_by_two_is_that_of_the_closed_form():
    """ε = (S₁₁ − S₁₂)/(2 artanh t) for S = [[a, b], [b, a]], of which each unit is there twice."""
    target, artanh = 0.5, np.arctanh(0.5)
    by_logits, by_target = slopes_of(np.kron(SWAP, TWICE), target)
    slope = -1 / (2 * artanh**2 * (1 - target**2))
    of_each = np.kron([[1, -1], [-1, 1]], TWICE / 4)  # a quarter of the slope by an entry of S
    np.testing.assert_allclose(by_logits, of_each / (4 * artanh), rtol=1e-9)
    assert by_target == pytest.approx(slope, rel=1e-9)
