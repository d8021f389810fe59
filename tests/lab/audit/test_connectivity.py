"""What a graph's least eigenvalue is at least, from its edges and its cuts."""

import itertools

import numpy as np
import pytest

from homojax.lab.audit.connectivity import connectivity, least_connectivity


def second_eigenvalue(weights):
    weights = weights * (1 - np.eye(len(weights)))
    return np.linalg.eigvalsh(np.diag(weights.sum(1)) - weights)[1]


def cuts_of(weights):
    n = len(weights)
    sides = [x for size in range(1, n) for x in itertools.combinations(range(n), size)]
    over = [weights[np.ix_(x, [j for j in range(n) if j not in x])].sum() for x in sides]
    return sides, over


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_no_graph_lies_below_what_its_cuts_and_edges_say(rng, n):
    for _ in range(60):
        weights = 10 ** rng.uniform(-4, 1, (n, n))
        weights = weights + weights.T
        sides, over = cuts_of(weights)
        shares = rng.uniform(0.3, 1, len(over))
        known = weights * rng.uniform(0, 1) * rng.integers(0, 2)
        found = least_connectivity(known, sides, (shares * over).tolist())
        assert found <= second_eigenvalue(weights) * (1 + 1e-9)
        assert connectivity(weights) == pytest.approx(second_eigenvalue(weights), rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_path_attains_it(n):
    path = np.diag(np.ones(n - 1), 1)
    path = path + path.T
    sides = [(i,) for i in range(n)] + ([(0, 1), (0, 2), (0, 3)] if n == 4 else [])
    found = least_connectivity(np.zeros((n, n)), sides, [1.0] * len(sides))
    assert found == pytest.approx(second_eigenvalue(path), rel=1e-9)
