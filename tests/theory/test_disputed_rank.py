"""§8.7, low rank: what it forbids is attained, and what it leaves is shown."""

import math

import numpy as np
import pytest
from scipy import special

import homojax as hj
import oracles
from homojax.theory.cases.matrix import matrix_case
from homojax.theory.cases.stack import stack_case
from homojax.theory.claim import Verdict

RNG = np.random.default_rng(87)


def judge(matrix):
    with np.errstate(divide="ignore"):
        case = matrix_case(np.log(matrix), 1.0, matrix, lambda2=0.0)
    comparison, verdict = hj.CLAIMS["rank_entropy"].judge(case)
    return comparison, int(verdict)


def glued(rng, n, atoms):
    """A coupling through a pivot of so many atoms, and the masses of those."""
    coupling = special.softmax(3 * rng.normal(size=(n, atoms)), axis=1)
    masses = coupling.sum(0)
    return coupling / masses @ coupling.T @ oracles.permutation_mixture(rng, n, 3), masses


@pytest.mark.parametrize(("n", "atoms"), [(4, 1), (4, 2), (6, 3), (16, 5)])
def test_a_pivot_leaves_one_direction_less_than_it_has_atoms_and_bounds_the_deficit(n, atoms):
    for _ in range(20):
        matrix, masses = glued(RNG, n, atoms)
        singular = oracles.singular_values(matrix)
        assert (singular[atoms - 1 :] < 1e-14).all() and (singular[: atoms - 1] > 1e-14).all()
        deficit = oracles.entropy_deficit(matrix)
        squares = (singular**2).sum()
        assert deficit <= n * math.log1p(squares) + 1e-12  # rows' relative entropies and Jensen
        assert squares <= (atoms - 1) * singular[0] ** 2 + 1e-12
        assert deficit <= n * math.log(n) - (masses * np.log(masses)).sum() + 1e-12
        comparison, verdict = judge(matrix)
        expected = n * math.log1p((atoms - 1) * singular[0] ** 2)
        assert comparison.greater == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert verdict == (Verdict.HOLDS if atoms > 1 else Verdict.UNDECIDABLE)


@pytest.mark.parametrize(("n", "blocks"), [(4, 2), (6, 3), (8, 8), (12, 4)])
def test_equal_uniform_blocks_have_the_most_deficit_of_their_rank(n, blocks):
    matrix = np.kron(oracles.permutation(RNG, blocks), np.full((n // blocks,) * 2, blocks / n))
    comparison, verdict = judge(matrix)
    assert comparison.lesser == pytest.approx(n * math.log(blocks), rel=1e-12)
    assert comparison.greater == pytest.approx(n * math.log(blocks), rel=1e-12)
    assert verdict == Verdict.UNDECIDABLE


def test_rank_two_is_enough_to_keep_a_direction_and_for_the_least_deficit_that_is_known():
    for t in (0.1, 0.5, 1.0):
        matrix = oracles.isolated(5, t)
        assert np.linalg.matrix_rank(matrix) == 2
        assert oracles.sigma2(matrix) == pytest.approx(t)


def test_no_composite_has_more_directions_than_its_narrowest_layer():
    for _ in range(10):
        wide = [oracles.permutation_mixture(RNG, 6, 4) for _ in range(3)]
        matrices = [wide[0], glued(RNG, 6, 3)[0], *wide[1:]]
        curves = np.array([oracles.singular_values(m) for m in matrices])
        composite = np.linalg.multi_dot(matrices[::-1])
        kept = oracles.singular_values(composite)
        others = [np.prod(np.delete(curves[:, 0], m)) for m in range(4)]
        expected = (curves * np.array(others)[:, None]).min(0)
        assert (kept[2:] < 1e-14).all() and (kept <= expected + 1e-14).all()
        matrices = np.asarray(matrices)
        case = stack_case(matrices, sigma2=curves[:, 0], measured=("curve", "layer_curves"))
        comparison, verdict = hj.CLAIMS["rank_composed"].judge(case)
        np.testing.assert_allclose(comparison.lesser[-1], kept, atol=1e-13)
        np.testing.assert_allclose(comparison.greater[-1], expected, atol=1e-13)
        assert (verdict != Verdict.VIOLATED).all()
