"""Conjecture 2.3 at n = 3: the bound of a box is one, and a false conjecture is not certain."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar


def sum_of_rates(u, v, sigma):
    """Σᵢ I_v(σuᵢ), by SciPy; ∞ where no distribution has that mean."""
    total = 0.0
    for mean in sigma * u:
        if not v.min() < mean < v.max():
            return np.inf
        best = minimize_scalar(
            lambda x, mean=mean: np.log(np.mean(np.exp(x * v))) - x * mean,
            bounds=(-60, 60),
            method="bounded",
            options={"xatol": 1e-10},
        )
        total -= best.fun
    return total


def isolated_unit(sigma):
    matrix = (1 - sigma) / 3 + sigma * np.array([[1, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]])
    return (matrix * np.log(3 * matrix)).sum()


def test_a_bound_is_below_every_point_of_its_box_and_near_its_centre(load):
    three, rng = load("three_units"), np.random.default_rng(0)
    centre = rng.uniform([0, 0, 0.1], [np.pi / 6, np.pi / 3, 0.9], (60, 3))
    half = rng.uniform(0.002, 0.06, (60, 3))
    bound = three.least(three.Boxes(centre, half))
    for at, size, least in zip(centre, half, bound, strict=True):
        for place in (np.zeros(3), *rng.uniform(-1, 1, (6, 3))):
            alpha, beta, sigma = at + size * place
            u, v = (three.unit(np.array([angle]))[0][0] for angle in (alpha, beta))
            larger = max(sum_of_rates(u, v, sigma), sum_of_rates(v, u, sigma))
            assert least <= larger - isolated_unit(sigma) + 1e-9
    points = three.Boxes(centre, 0 * half)
    u, v = three.unit(centre[:, 0])[0], three.unit(centre[:, 1])[0]
    exact = [
        max(sum_of_rates(*pair, sigma), sum_of_rates(*pair[::-1], sigma)) - isolated_unit(sigma)
        for pair, sigma in zip(zip(u, v, strict=True), centre[:, 2], strict=True)
    ]
    finite = np.isfinite(exact)
    assert three.least(points)[finite] == pytest.approx(np.array(exact)[finite], abs=1e-7)


def test_deficit_and_its_derivatives(load):
    three, sigma, step = load("three_units"), np.linspace(0.05, 0.95, 19), 1e-5
    value, slope = three.deficit(sigma)
    assert value == pytest.approx([isolated_unit(one) for one in sigma], rel=1e-12)
    ahead, behind = (three.deficit(sigma + move) for move in (step, -step))
    assert slope == pytest.approx((ahead[0] - behind[0]) / (2 * step), rel=1e-6)
    bend = (ahead[1] - behind[1]) / (2 * step)
    assert three.curvature_of_deficit(sigma) == pytest.approx(bend, rel=1e-6)


def test_it_is_certain_far_from_the_isolated_unit_and_a_false_conjecture_is_not(load, monkeypatch):
    three = load("three_units")
    certain, left = three.certify(0.3, 0.9, 0.2)
    assert certain > 1_000 and len(left.centre) == 0
    deficit = three.deficit
    monkeypatch.setattr(three, "MOST", 20_000)
    monkeypatch.setattr(three, "deficit", lambda sigma: tuple(1.05 * x for x in deficit(sigma)))
    assert len(three.certify(0.3, 0.9, 0.2)[1].centre) > 0
