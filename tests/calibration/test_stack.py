"""calibrate_depth and epsilon_schedule: the stack keeps the share asked for, by NumPy's count."""

import jax
import numpy as np
import pytest

import oracles
from homojax.calibration import (
    CalibrationStatus,
    calibrate_depth,
    calibrate_epsilon,
    epsilon_schedule,
)

SWAP = [[1.0, 0.0], [0.0, 1.0]]
KINDS = [
    "bound",
    pytest.param("composite", marks=pytest.mark.slow),
    pytest.param("lyapunov", marks=pytest.mark.slow),
]


def status(result):
    return CalibrationStatus(int(result.status)).name


def projected(stack, epsilons):
    """[K, L, n, n] at descending ε, by NumPy."""
    start = [max(np.ptp(stack), 2 * epsilons[0])]
    way = np.concatenate([np.geomspace(start, epsilons[0], 12)[:-1, 0], epsilons])
    layers = [oracles.project_down(s, way)[-len(epsilons) :] for s in stack]
    return np.stack(layers, axis=1)


def top_growth(matrices):
    """The largest log growth over the stack, by QR from Helmert's frame, on which it depends."""
    n = matrices.shape[-1]
    helmert = np.zeros((n, n - 1))
    for k in range(1, n):
        helmert[:k, k - 1], helmert[k, k - 1] = 1, -k
    frame, growth = helmert / np.linalg.norm(helmert, axis=0), 0.0
    for matrix in matrices:
        frame, r = np.linalg.qr(oracles.centring(n) @ matrix @ frame)
        growth += np.log(abs(np.diag(r)))
    return np.max(growth)


KEPT = {
    "bound": lambda matrices: np.prod(oracles.sigma2(matrices)),
    "composite": lambda matrices: oracles.sigma2(np.linalg.multi_dot(list(matrices[::-1]))),
    "lyapunov": lambda matrices: np.exp(top_growth(matrices)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_stack_keeps_the_share_asked_for_and_below_the_ceiling(kind, rng):
    stack = rng.normal(size=(4, 3, 3))
    found = calibrate_depth(stack, 0.5, kept=kind)
    assert status(found) == "FOUND" and bool(found.certified) == (kind != "lyapunov")
    kept = [
        KEPT[kind](m) for m in projected(stack, float(found.epsilon) * np.geomspace(1, 0.1, 30))
    ]
    assert kept[0] == pytest.approx(0.5, abs=1e-9)
    diameter = max(oracles.projective_diameter(s) for s in stack)
    budget = np.arctanh(0.5 ** (1 / 4))  # law 2.1, logit_budget
    assert found.ceiling * budget * 4 == pytest.approx(diameter)
    assert found.epsilon <= found.ceiling
    if kind != "lyapunov":
        assert min(kept) >= 0.5 - float(found.shortfall) - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bound", "composite", "lyapunov"])
def test_shared_matrix_keeps_the_share_asked_for(kind, rng):
    logits, depth = rng.normal(size=(3, 3)), 10
    found = calibrate_depth(logits, 0.3, depth=depth, kept=kind, root="last")
    matrix = projected(logits[None], np.array([float(found.epsilon)]))[0, 0]
    expected = {
        "bound": oracles.sigma2(matrix) ** depth,
        "composite": oracles.sigma2(np.linalg.matrix_power(matrix, depth)),
        "lyapunov": np.sort(abs(np.linalg.eigvals(matrix)))[-2] ** depth,
    }
    assert status(found) == "FOUND" and bool(found.certified) == (kind != "lyapunov")
    assert expected[kind] == pytest.approx(0.3, abs=1e-9)
    if kind == "bound":
        one = calibrate_epsilon(logits, 0.3 ** (1 / depth), root="last")
        assert found.epsilon == pytest.approx(float(one.epsilon), rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("root", ["first", "last"])
def test_composite_of_one_layer_is_calibrated_as_that_layer_is_also_where_sigma2_rises(
    root, counterexamples
):
    logits = np.load(counterexamples / "sigma2_falls-4.npz")["logits"]
    for target in (0.585, 0.6):
        found = calibrate_depth(logits, target, depth=1, kept="composite", root=root)
        expected = calibrate_epsilon(logits, target, root=root)
        assert found.certified and found.epsilon == pytest.approx(float(expected.epsilon), rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bound", "composite"])
def test_gradient_of_a_stacks_epsilon_is_that_of_differences(kind, rng):
    stack, direction = rng.normal(size=(2, 3, 3, 3))
    epsilon = jax.jit(lambda s: calibrate_depth(s, 0.5, kept=kind).epsilon)
    along = oracles.difference(epsilon, stack, direction)
    slope = (jax.jit(jax.grad(epsilon))(stack) * direction).sum()
    assert slope == pytest.approx(float(along), rel=1e-6)


@pytest.mark.slow
def test_schedule_gives_every_layer_the_same_share(rng):
    stack = rng.normal(size=(4, 3, 3))
    schedule = jax.jit(epsilon_schedule)
    found = schedule(stack, 0.5)
    kept = [
        oracles.sigma2(projected(s[None], np.array([e]))[0, 0])
        for s, e in zip(stack, np.asarray(found.epsilon), strict=True)
    ]
    np.testing.assert_allclose(kept, 0.5**0.25, atol=1e-9)
    assert np.asarray(found.certified).all()
    assert (np.asarray(schedule(stack, -1.0).status) == CalibrationStatus.BAD_TARGET).all()


def test_depth_refuses_what_is_no_question():
    for wrong in (
        lambda: calibrate_depth(SWAP, 0.5),
        lambda: calibrate_depth(SWAP, 0.5, depth=0),
        lambda: calibrate_depth([SWAP], 0.5, depth=3),
        lambda: calibrate_depth(SWAP, 0.5, depth=3, kept="all"),  # pyright: ignore
        lambda: calibrate_depth(SWAP, 0.5, depth=3, root="middle"),  # pyright: ignore
    ):
        with pytest.raises(ValueError, match=r"must|need|depth"):
            wrong()
