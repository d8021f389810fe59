from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import homojax as hj
import oracles
from homojax.bounds import path_length_bound
from homojax.calibration import calibrate_depth, calibrate_epsilon, epsilon_schedule
from homojax.calibration.search import CalibrationStatus
from homojax.calibration.sensitivity import sensitivity, trainable_band

COUNTEREXAMPLES = Path(__file__).parents[1] / "docs" / "counterexamples"
TARGETS = np.array([0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1 - 1e-4, 1 - 1e-6])
SWAP = [[1.0, 0.0], [0.0, 1.0]]

batch = jax.jit(jax.vmap(calibrate_epsilon))
project = jax.jit(jax.vmap(hj.sinkhorn, (None, 0)))
calibrated = jax.jit(lambda logits, target: calibrate_epsilon(logits, target).epsilon)


def status(result):
    return CalibrationStatus(int(result.status)).name


def sigma2_on_grid(logits, epsilons):
    """σ₂ at descending ε, by damped Newton steps on the semi-dual in NumPy, each from the last."""
    g, values = np.zeros(len(logits)), []
    for previous, epsilon in zip([epsilons[0], *epsilons[:-1]], epsilons, strict=True):
        g = g * previous / epsilon

        def rows(g, epsilon=epsilon):
            log_m = logits / epsilon + g
            sums = np.logaddexp.reduce(log_m, axis=1)
            return sums.sum() - g.sum(), np.exp(log_m - sums[:, None])

        for _ in range(200):
            value, m = rows(g)
            gradient = m.sum(0) - 1
            if abs(gradient).max() < 1e-12:
                break
            step = np.linalg.lstsq(np.diag(m.sum(0)) - m.T @ m, -gradient, rcond=1e-14)[0]
            length = min(1, 2 / abs(step).max())
            while rows(g + length * step)[0] > value + 1e-13 * abs(value) and length > 1e-9:
                length /= 2
            g = g + length * step
        assert abs(gradient).max() < 1e-10
        values.append(oracles.sigma2(m))
    return np.array(values)


# ---------------------------------------------------------------- the theorem that certifies


@pytest.mark.parametrize("n", [2, 3, 8])
def test_neither_the_matrix_nor_the_angle_goes_farther_than_the_path_bound(n, rng):
    epsilons = np.geomspace(0.03, 30, 60)
    for scale in (0.3, 3.0):
        matrices = np.asarray(project(scale * rng.standard_t(2, size=(n, n)), epsilons).matrix)
        entropies, angles = (np.asarray(jax.vmap(f)(matrices)) for f in (hj.entropy, hj.sigma2))
        angles = np.arcsin(np.minimum(angles, 1))
        for gap in (1, 5, 40):
            rise, log_ratio = (
                entropies[gap:] - entropies[:-gap],
                np.log(epsilons[gap:] / epsilons[:-gap]),
            )
            bound = np.asarray(path_length_bound(rise, log_ratio, n))
            distance = np.linalg.norm(matrices[gap:] - matrices[:-gap], 2, axis=(1, 2))
            assert (distance <= bound + 1e-5).all() and (
                abs(angles[gap:] - angles[:-gap]) <= bound + 1e-5
            ).all()
            least = [angles[i : i + gap + 1].min() for i in range(len(bound))]
            assert (
                np.array(least) >= (angles[gap:] + angles[:-gap] - bound) / 2 - 1e-5
            ).all()  # arcsin near 1: √eps


def test_path_bound_is_attained_by_two_by_two_matrices_on_short_ways():
    for epsilon in (0.2, 1.0, 5.0):
        matrices = project(np.array(SWAP), epsilon * np.array([1, 1.001])).matrix
        rise = np.diff(jax.vmap(hj.entropy)(matrices))[0]
        angles = np.arcsin(jax.vmap(hj.sigma2)(matrices))
        assert path_length_bound(rise, np.log(1.001), 2) == pytest.approx(
            abs(np.diff(angles))[0], rel=1e-4
        )


# ---------------------------------------------------------------- calibrate_epsilon


@pytest.mark.parametrize(
    ("root", "dtype"),
    [
        ("first", "float64"),
        ("last", "float32"),
        pytest.param("first", "float32", marks=pytest.mark.slow),
        pytest.param("last", "float64", marks=pytest.mark.slow),
    ],
    indirect=["dtype"],
)
def test_epsilon_of_two_by_two_is_the_closed_form(root, dtype):
    for target in TARGETS if dtype == np.float64 else TARGETS[:-3]:
        found = calibrate_epsilon(3 * np.array(SWAP, dtype), target.astype(dtype), root=root)
        expected = 3 / (2 * np.arctanh(target))
        rtol = (
            1e-9 + 1e-12 / (1 - target) if dtype == np.float64 else 1e-4
        )  # by what σ₂'s last digits are worth near 1
        assert status(found) == "FOUND" and found.epsilon.dtype == found.shortfall.dtype == dtype
        assert found.epsilon == pytest.approx(
            expected, rel=rtol
        ) and found.ceiling == pytest.approx(expected, rel=rtol)
        assert found.certified or dtype == np.float32 or target > 0.999


def meets(result, targets):
    """Every lane found, with the target met, by the projection solved anew without a start."""
    epsilon = np.asarray(result.epsilon)
    assert (np.asarray(result.status) == CalibrationStatus.FOUND).all()
    np.testing.assert_allclose(result.kept, targets, rtol=0, atol=1e-10)
    assert (epsilon <= np.asarray(result.ceiling) * (1 + 1e-9)).all()
    return epsilon


def test_random_logits_meet_their_targets_as_one_batch(rng):
    logits, targets = rng.normal(size=(120, 4, 4)), np.resize(TARGETS, 120)
    result = batch(logits, targets)
    epsilon = meets(result, targets)
    solved = jax.jit(jax.vmap(lambda s, e: hj.sigma2(hj.sinkhorn(s, e, tol=1e-13).matrix)))(
        logits, epsilon
    )
    np.testing.assert_allclose(solved, targets, rtol=0, atol=1e-10)
    assert np.asarray(result.certified)[targets <= 0.999].all()
    assert (np.asarray(result.shortfall)[targets <= 0.999] < 2e-4).all()


@pytest.mark.slow
@pytest.mark.parametrize(("n", "lanes", "most"), [(4, 1000, 256), (16, 1000, 256), (64, 1000, 32)])
def test_a_thousand_random_logits_meet_their_targets(n, lanes, most, rng):
    logits, targets = rng.normal(size=(lanes, n, n)), np.resize(TARGETS, lanes)
    result = jax.jit(jax.vmap(partial(calibrate_epsilon, max_projections=most)))(logits, targets)
    meets(result, targets)
    if n <= 16:
        assert np.asarray(result.certified)[targets <= 0.99].all()


@pytest.mark.parametrize("name", ["sigma2_falls-4", "sigma2_falls-3"])
@pytest.mark.slow
def test_first_and_last_root_where_sigma2_rises_are_those_of_a_dense_grid(name):
    logits = np.load(COUNTEREXAMPLES / f"{name}.npz")["logits"]
    epsilons = np.geomspace(40, 0.05, 1500) if name.endswith("4") else np.geomspace(2, 0.004, 1500)
    sigma2 = sigma2_on_grid(logits, epsilons)
    rises = np.diff(sigma2) < -1e-6  # as ε rises
    assert rises.any()
    low, high = sigma2[1:][rises].min(), sigma2[:-1][rises].max()
    several = 0
    for share in (0.1, 0.5, 0.9):
        target = low + share * (high - low)
        up = sigma2 >= target
        expected = {"last": epsilons[up].max(), "first": epsilons[~up].min()}
        several += expected["last"] > 1.1 * expected["first"]
        for root, grid in expected.items():
            found = calibrate_epsilon(logits, target, root=root)
            assert status(found) == "FOUND" and found.certified and found.shortfall < 2e-4
            assert abs(np.log(float(found.epsilon) / grid)) <= 1.01 * np.log(
                epsilons[0] / epsilons[1]
            )
            assert sigma2_on_grid(logits, np.geomspace(epsilons[0], float(found.epsilon), 50))[
                -1
            ] == pytest.approx(target, abs=1e-9)
    assert several == (3 if name.endswith("4") else several)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    oracles.squares(3, bound=4.0),
    st.sampled_from([0.2, 0.6, 0.95]),
    st.sampled_from(["first", "last"]),
)
def test_nothing_on_the_promised_side_is_worse_than_the_shortfall(logits, target, root):
    found = calibrate_epsilon(logits, target, root=root)
    if status(found) != "FOUND":
        return
    ratios = np.geomspace(1, 1e-3, 200) if root == "first" else np.geomspace(1, 10, 200)
    sigma2 = np.asarray(jax.vmap(hj.sigma2)(project(logits, float(found.epsilon) * ratios).matrix))
    wrong = target - sigma2.min() if root == "first" else sigma2.max() - target
    assert wrong <= float(found.shortfall) + 1e-9


@pytest.mark.slow
def test_shortfall_holds_also_where_the_projections_allowed_do_not_certify(rng):
    logits, targets = rng.normal(size=(8, 16, 16)), np.resize([0.5, 0.9, 0.999], 8)
    result = jax.jit(jax.vmap(partial(calibrate_epsilon, max_projections=16)))(logits, targets)
    for s, target, epsilon, shortfall in zip(
        logits, targets, meets(result, targets), result.shortfall, strict=True
    ):
        sigma2 = jax.vmap(hj.sigma2)(project(s, epsilon * np.geomspace(1, 0.05, 100)).matrix)
        assert target - sigma2.min() <= shortfall
    assert (
        not np.asarray(result.certified).all()
        and (np.asarray(result.num_projections) < 16 + 30 + 24).all()
    )


@pytest.mark.slow
def test_tied_optima_leave_a_target_above_the_limit_unreachable():
    tied = np.eye(3) + np.roll(np.eye(3), 1, 0)  # σ₂ → cos(π/3) as ε → 0
    for root in ("first", "last"):
        missed = calibrate_epsilon(tied, 0.51, root=root)
        assert status(missed) == "UNREACHABLE" and np.isnan(missed.epsilon) and not missed.certified
        met = calibrate_epsilon(tied, 0.49, root=root)
        assert status(met) == "FOUND" and met.kept == pytest.approx(0.49, abs=1e-10)
        assert bool(met.certified) == (root == "last") == bool(np.isfinite(met.shortfall))


@pytest.mark.slow
def test_tied_optima_that_fall_into_blocks_are_certified():
    found = calibrate_epsilon(np.kron(np.eye(2), np.ones((2, 2))), 0.9)
    assert found.certified and found.epsilon == pytest.approx(1 / (2 * np.arctanh(0.9)), rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        (SWAP, 0.0, "BAD_TARGET"),
        (SWAP, 1.0, "BAD_TARGET"),
        (SWAP, -0.5, "BAD_TARGET"),
        (SWAP, np.nan, "BAD_TARGET"),
        ([[np.nan, 0.0], [0.0, 1.0]], 0.5, "NOT_FINITE"),
        ([[-np.inf, 0.0], [0.0, 1.0]], 0.5, "NOT_FINITE"),
        ([[0.3, 1.3], [0.1, 1.1]], 0.5, "NO_DETAIL"),
        ([[0.0, 0.0], [0.0, 0.0]], 0.5, "NO_DETAIL"),
    ],
)
def test_bad_input_has_a_status_and_no_epsilon(logits, target, expected):
    found = calibrate_epsilon(logits, target)
    assert status(found) == expected
    assert (
        np.isnan(found.epsilon)
        and np.isnan(found.kept)
        and np.isinf(found.shortfall)
        and not found.certified
    )


def test_calibration_refuses_what_is_no_question():
    for wrong in (
        lambda: calibrate_epsilon(np.zeros((2, 3)), 0.5),
        lambda: calibrate_epsilon(SWAP, [0.5, 0.6]),
        lambda: calibrate_epsilon(SWAP, 0.5, root="middle"),  # pyright: ignore
        lambda: calibrate_epsilon(SWAP, 0.5, max_projections=1),
        lambda: calibrate_depth(SWAP, 0.5),
        lambda: calibrate_depth(SWAP, 0.5, depth=0),
        lambda: calibrate_depth([SWAP], 0.5, depth=3),
        lambda: calibrate_depth(SWAP, 0.5, depth=3, kept="all"),  # pyright: ignore
    ):
        with pytest.raises(ValueError, match=r"must|need|depth"):
            wrong()


@pytest.mark.slow
def test_gradient_of_epsilon_is_that_of_differences_in_both_modes(rng):
    logits, direction = rng.normal(size=(2, 4, 4))
    for target in (0.2, 0.7, 0.95):
        by_logits, by_target = jax.jit(jax.grad(calibrated, (0, 1)))(logits, target)
        along = oracles.difference(
            lambda s, target=target: calibrated(s, target), logits, direction
        )
        assert (by_logits * direction).sum() == pytest.approx(float(along), rel=1e-6)
        assert by_target == pytest.approx(
            float(oracles.difference(partial(calibrated, logits), target, 1.0)), rel=1e-6
        )
        forward = jax.jit(lambda *at: jax.jvp(calibrated, at, (direction, 1.0))[1])(logits, target)
        assert forward == pytest.approx(float((by_logits * direction).sum() + by_target), rel=1e-9)


@pytest.mark.slow
def test_batch_gives_what_single_calls_give(rng):
    logits, targets = rng.normal(size=(6, 4, 4)), TARGETS[[0, 2, 3, 4, 5, 6]]
    together = batch(np.concatenate([logits, np.zeros((1, 4, 4))]), np.append(targets, 0.5))
    for i, target in enumerate(targets):
        alone = calibrate_epsilon(logits[i], target)
        assert together.epsilon[i] == pytest.approx(float(alone.epsilon), rel=1e-9)
        assert together.certified[i] == alone.certified
    assert status(jax.tree.map(lambda a: a[-1], together)) == "NO_DETAIL"


@pytest.mark.slow
def test_float32_meets_the_target_to_1e_minus_5(rng):
    logits, targets = (
        rng.normal(size=(24, 4, 4)).astype("float32"),
        np.resize(TARGETS[:5], 24).astype("float32"),
    )
    result = batch(logits, targets)
    assert (np.asarray(result.status) == 0).all()
    np.testing.assert_allclose(result.kept, targets, atol=1e-5)
    reference = batch(logits.astype("float64"), targets.astype("float64"))
    np.testing.assert_allclose(
        np.asarray(result.epsilon)[targets < 0.95],
        np.asarray(reference.epsilon)[targets < 0.95],
        rtol=1e-3,
    )


# ---------------------------------------------------------------- calibrate_depth, epsilon_schedule


def kept_by(stack, epsilon, kind):
    matrices = np.asarray(jax.vmap(lambda s: hj.sinkhorn(s, epsilon, tol=1e-13).matrix)(stack))
    if kind == "bound":
        return np.prod(oracles.sigma2(matrices))
    if kind == "composite":
        return oracles.sigma2(np.linalg.multi_dot(list(matrices[::-1])))
    frame, growth = (
        np.asarray(hj.birkhoff.detail_basis(matrices.shape[1])),
        0.0,
    )  # over few layers exponents depend on the first frame
    for matrix in matrices:
        frame, r = np.linalg.qr(oracles.centring(len(matrix)) @ matrix @ frame)
        growth += np.log(abs(np.diag(r)))
    return np.exp(np.max(growth))


@pytest.mark.parametrize(
    "kind",
    [
        "bound",
        pytest.param("composite", marks=pytest.mark.slow),
        pytest.param("lyapunov", marks=pytest.mark.slow),
    ],
)
def test_stack_keeps_the_share_asked_for_and_below_the_ceiling(kind, rng):
    stack = rng.normal(size=(4, 3, 3))
    found = calibrate_depth(stack, 0.5, kept=kind)
    assert status(found) == "FOUND" and bool(found.certified) == (kind != "lyapunov")
    assert kept_by(stack, float(found.epsilon), kind) == pytest.approx(0.5, abs=1e-9)
    diameter = max(oracles.projective_diameter(s) for s in stack)
    assert found.ceiling * hj.bounds.logit_budget(0.5, 4) * 4 == pytest.approx(diameter)
    assert found.epsilon <= found.ceiling
    if kind != "lyapunov":
        colder = [
            kept_by(stack, ratio * float(found.epsilon), kind) for ratio in np.geomspace(1, 0.1, 30)
        ]
        assert min(colder) >= 0.5 - float(found.shortfall) - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bound", "composite", "lyapunov"])
def test_shared_matrix_keeps_the_share_asked_for(kind, rng):
    logits, depth = rng.normal(size=(3, 3)), 10
    found = calibrate_depth(logits, 0.3, depth=depth, kept=kind, root="last")
    matrix = np.asarray(hj.sinkhorn(logits, found.epsilon, tol=1e-13).matrix)
    expected = {
        "bound": oracles.sigma2(matrix) ** depth,
        "composite": oracles.sigma2(np.linalg.matrix_power(matrix, depth)),
        "lyapunov": np.sort(abs(np.linalg.eigvals(matrix)))[-2] ** depth,
    }
    assert status(found) == "FOUND" and bool(found.certified) == (kind != "lyapunov")
    assert expected[kind] == pytest.approx(0.3, abs=1e-9)
    if kind == "bound":
        assert found.epsilon == pytest.approx(
            float(calibrate_epsilon(logits, 0.3 ** (1 / depth), root="last").epsilon), rel=1e-8
        )


@pytest.mark.slow
@pytest.mark.parametrize("root", ["first", "last"])
def test_composite_of_one_layer_is_calibrated_as_that_layer_is_also_where_sigma2_rises(root):
    logits = np.load(COUNTEREXAMPLES / "sigma2_falls-4.npz")["logits"]
    for target in (0.585, 0.6):
        found = calibrate_depth(logits, target, depth=1, kept="composite", root=root)
        expected = calibrate_epsilon(logits, target, root=root)
        assert found.certified and found.epsilon == pytest.approx(float(expected.epsilon), rel=1e-8)


@pytest.mark.slow
def test_gradient_of_a_stacks_epsilon_is_that_of_differences(rng):
    stack, direction = rng.normal(size=(2, 3, 3, 3))
    for kind in ("bound", "composite"):
        epsilon = jax.jit(lambda s, kind=kind: calibrate_depth(s, 0.5, kept=kind).epsilon)
        along = oracles.difference(epsilon, stack, direction)
        assert (jax.jit(jax.grad(epsilon))(stack) * direction).sum() == pytest.approx(
            float(along), rel=1e-6
        )


@pytest.mark.slow
def test_schedule_gives_every_layer_the_same_share(rng):
    stack = rng.normal(size=(4, 3, 3))
    found = epsilon_schedule(stack, 0.5)
    kept = [
        kept_by(s[None], e, "bound") for s, e in zip(stack, np.asarray(found.epsilon), strict=True)
    ]
    np.testing.assert_allclose(kept, 0.5**0.25, atol=1e-9)
    assert np.asarray(found.certified).all()
    assert (np.asarray(epsilon_schedule(stack, -1.0).status) == CalibrationStatus.BAD_TARGET).all()


# ---------------------------------------------------------------- sensitivity, trainable_band


def test_sensitivity_of_two_by_two_is_the_closed_form_at_any_gap():
    for epsilon in (10.0, 1.0, 0.1, 1 / 180):  # σ₂ = tanh(a/2ε), a = 1: the last gap is 1e-78
        found = sensitivity(SWAP, epsilon, 0.5)
        x = 1 / (2 * epsilon)
        log_gap = np.log(2) - 2 * x - np.log1p(np.exp(-2 * x))
        slope = 1 / np.cosh(x) ** 2 / (2 * epsilon)  # dσ₂/da, of which each entry has a half
        assert found.log_gap == pytest.approx(log_gap, abs=1e-11)
        np.testing.assert_allclose(
            found.gradient, slope / 2 * np.array([[1, -1], [-1, 1]]), rtol=1e-9
        )
        assert found.gradient_norm == pytest.approx(slope, rel=1e-9)
        assert found.epsilon_slope == pytest.approx(-slope / epsilon, rel=1e-9)
        depth = np.log(0.5) / np.log1p(-np.exp(log_gap))
        assert found.depth == pytest.approx(depth, rel=1e-9)
        sigma2 = np.tanh(x)
        assert found.depth_slope == pytest.approx(
            -slope / epsilon * depth / (-np.log1p(-np.exp(log_gap)) * sigma2), rel=1e-9
        )


@pytest.mark.slow
def test_sensitivity_is_the_derivative_through_the_projection_and_within_its_bound(rng):
    logits = rng.normal(size=(5, 5))

    def through(s, e):
        return hj.sigma2(hj.sinkhorn(s, e, tol=1e-13).matrix)

    for epsilon in (0.1, 0.4, 3.0, 30.0):
        found = sensitivity(logits, epsilon)
        gradient, slope = jax.grad(through, (0, 1))(logits, epsilon)
        np.testing.assert_allclose(found.gradient, gradient, atol=1e-8)
        assert found.epsilon_slope == pytest.approx(float(slope), rel=1e-5)
        assert found.sigma2 == pytest.approx(float(through(logits, epsilon)), abs=1e-10)
        assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
        assert found.gradient_norm <= found.gradient_bound
        depth = jax.jit(
            lambda log_ratio, e=epsilon: sensitivity(logits, e * jnp.exp(log_ratio)).depth
        )
        assert found.depth_slope * epsilon == pytest.approx(
            float(oracles.difference(depth, 0.0, 1.0)), rel=1e-6
        )


def test_sensitivity_of_a_bad_epsilon_is_nan():
    for epsilon in (0.0, -1.0, np.nan):
        assert all(np.isnan(x).all() for x in sensitivity(SWAP, epsilon))


def test_trainable_band_is_where_the_norm_keeps_its_share():
    epsilons = np.geomspace(1e-3, 1e3, 601)
    norms = epsilons**2 / (1 + epsilons**4)  # ½ at 1; x/(1 + x²) = t/2 with x = ε²
    low, high = trainable_band(epsilons, norms, 0.1)
    x = 10 - np.sqrt(99)
    assert low == pytest.approx(np.sqrt(x), rel=1e-3) and high == pytest.approx(
        1 / np.sqrt(x), rel=1e-3
    )
    assert (
        trainable_band(epsilons[200:], norms[200:])[0] < 1
        and trainable_band(epsilons[:400], norms[:400])[1] > 1
    )
    assert trainable_band(epsilons[295:305], norms[295:305]) == (0, np.inf)
    assert trainable_band([1.0, 2.0, 3.0], [0.0, 1.0, 0.0])[0] == pytest.approx(2)
    assert all(np.isnan(trainable_band(epsilons, 0 * norms)))


def test_trainable_band_of_gaussian_logits_lies_between_saturation_and_the_barycentre(rng):
    logits, epsilons = rng.normal(size=(4, 4)), np.geomspace(0.01, 100, 60)
    norms = jax.jit(jax.vmap(lambda e: sensitivity(logits, e).gradient_norm))(jnp.asarray(epsilons))
    low, high = trainable_band(epsilons, norms)
    assert 0.01 < low < 1 < high < 100


def test_logits_further_apart_than_the_largest_number_are_not_finite():
    logits = np.array([[3e38, 0], [0, 3e38]], "float32")
    assert (
        calibrate_epsilon(logits, 0.5).status == hj.calibration.search.CalibrationStatus.NOT_FINITE
    )
