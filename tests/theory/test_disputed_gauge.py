"""§8.9, gauge: every entry of the table in docs/theory.md, tried on random gauges."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import special

import homojax as hj
import oracles
from homojax.theory.cases.stack import stack_case
from homojax.theory.claim import Verdict

N, LAYERS, ROUNDS = 5, 6, 100
RNG = np.random.default_rng(89)
P = oracles.centring(N)
ONES = np.full((N, N), 1 / N)
FRAME = np.linalg.svd(P)[0][:, : N - 1]  # of V⊥
LOGITS = RNG.normal(size=(LAYERS, N, N)) + 3 * np.eye(N)
MATRICES = [oracles.alternate(s, 1.0, 3000) for s in LOGITS]
MATRICES[2] = np.where(np.eye(N) > 0, 0.5, 0.5 * np.roll(np.eye(N), 1, 0))  # has zeros


def a_permutation():
    return oracles.permutation(RNG, N)


def an_isometry():
    turn = np.linalg.qr(RNG.normal(size=(N - 1, N - 1)))[0]
    return ONES + FRAME @ turn @ FRAME.T


def a_scaling():
    return np.diag(np.exp(RNG.uniform(-0.5, 0.5, N)))


def with_unit_row_sums():
    t = np.eye(N) + 0.2 * RNG.normal(size=(N, N))
    return t + (1 - t.sum(1, keepdims=True)) / N


def anything():
    return np.eye(N) + 0.2 * RNG.normal(size=(N, N))


GROUPS = {  # column of the table -> (one gauge, whether its ends are alike)
    "permutations": (a_permutation, False),
    "orthogonal, T1 = 1": (an_isometry, False),
    "diagonal": (a_scaling, False),
    "invertible, T1 = 1": (with_unit_row_sums, False),
    "any, T_L = T_0": (anything, True),
}


def composite(matrices):
    return np.linalg.multi_dot(matrices[::-1])


def curve(matrix):
    return np.linalg.svd(P @ matrix @ P, compute_uv=False)


def moduli(matrix):
    return np.sort(abs(np.linalg.eigvals(matrix)))


def exponents(matrices):
    """All Lyapunov exponents of the matrices, repeated."""
    frame, total = np.eye(len(matrices[0])), np.zeros(len(matrices[0]))
    for _ in range(ROUNDS):
        for matrix in matrices:
            frame, r = np.linalg.qr(matrix @ frame)
            total += np.log(abs(np.diag(r)))
    return np.sort(total) / (ROUNDS * len(matrices))


QUANTITIES = {  # row of the table -> a function of (matrices, what is read, what is written)
    "M_l ∈ 𝔅ₙ": lambda ms, r, w: [max(*oracles.marginal_errors(m), -m.min(), 0) < 1e-9 for m in ms],
    "row sums": lambda ms, r, w: [m.sum(1) for m in ms],
    "σ₂ of the layers, Π σ₂, effective depth": lambda ms, r, w: [curve(m)[0] for m in ms],
    "σ₂ and singular values of the composite": lambda ms, r, w: curve(composite(ms)),
    "amax gain": lambda ms, r, w: [
        abs(composite([np.eye(N), *ms[: k + 1]])).sum(1).max() for k in range(LAYERS)
    ],
    "entropy": lambda ms, r, w: [special.xlogy(abs(m), abs(m)).sum() for m in ms],
    "λ₂ of a layer": lambda ms, r, w: [moduli(P @ m @ P)[-1] for m in ms],
    "eigenvalues of the composite": lambda ms, r, w: moduli(composite(ms)),
    "rank": lambda ms, r, w: [np.linalg.matrix_rank(m, tol=1e-9) for m in (*ms, composite(ms))],
    "Lyapunov exponents with the mean's, T bounded": lambda ms, r, w: exponents(ms),
    "Lyapunov exponents on V⊥ (3.3), T bounded": lambda ms, r, w: exponents(
        [FRAME.T @ m @ FRAME for m in ms]
    ),
    "number of zeros": lambda ms, r, w: [(abs(m) < 1e-12).sum() for m in ms],
    "what is read of what is written": lambda ms, r, w: r @ composite(ms) @ w,
    "reach, relative to the mean": lambda ms, r, w: (r @ composite(ms) @ w) / (r.sum() * w.sum()),
}


def table():
    """Row -> the entries of the table in docs/theory.md."""
    text = (Path(hj.__file__).parents[1] / "docs" / "theory.md").read_text("utf-8")
    section = text.partition("### 8.9 ")[2].partition("\n### ")[0]
    lines = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)
    rows = [[entry.strip() for entry in line.split("|")] for line in lines]
    header, _, *rows = rows
    return header[1:], {name: entries for name, *entries in rows}


@pytest.mark.parametrize("name", QUANTITIES)
def test_every_entry_of_the_table_is_what_random_gauges_show(name):
    columns, rows = table()
    assert columns == list(GROUPS) and set(rows) == set(QUANTITIES)
    of = QUANTITIES[name]
    read, written = RNG.normal(size=(2, N)) + 1
    before = np.asarray(of(MATRICES, read, written), float)
    for entry, (draw, alike) in zip(rows[name], GROUPS.values(), strict=True):
        moved = []
        for _ in range(5):
            gauge = [draw() for _ in range(LAYERS + 1)]
            if alike or "Lyapunov" in name:  # else ends that repeat would not fit
                gauge[-1] = gauge[0]
            back = [np.linalg.inv(t) for t in gauge]
            changed = [t @ m @ b for t, m, b in zip(gauge[1:], MATRICES, back[:-1], strict=True)]
            after = of(changed, read @ back[-1], gauge[0] @ written)
            moved.append(abs(np.asarray(after, float) - before).max())
        tolerance = 0.02 if "Lyapunov" in name else 1e-8
        assert entry in ("yes", "no")
        assert (max(moved) < tolerance) == (entry == "yes"), (name, entry, moved)
        assert entry == "yes" or max(moved) > 1e-3


def test_a_gauge_makes_every_layer_of_an_invertible_stack_the_identity():
    gauge = [np.eye(N)]
    for matrix in MATRICES:
        gauge.append(np.linalg.inv(matrix @ np.linalg.inv(gauge[-1])))
    for before, matrix, after in zip(gauge[:-1], MATRICES, gauge[1:], strict=True):
        np.testing.assert_allclose(after @ matrix @ np.linalg.inv(before), np.eye(N), atol=1e-8)
        np.testing.assert_allclose(after.sum(1), 1, atol=1e-8)


def test_the_claims_about_gauges_are_those_of_numpy():
    q = P @ np.cos(1 + np.arange(N))
    q /= np.linalg.norm(q)
    stretch, back = np.eye(N) + np.outer(q, q), np.eye(N) - np.outer(q, q) / 2
    reflection = np.eye(N) - 2 * np.outer(q, q)
    found = [oracles.sigma2(m) for m in MATRICES]
    case = stack_case(np.array(MATRICES), sigma2=found, measured=("composites",))
    whole = composite(MATRICES)
    changed, turned = stretch @ whole @ back, reflection @ whole
    kept = oracles.sigma2(whole)
    expected = {
        "gauge_period": (np.trace(changed), np.trace(whole), Verdict.HOLDS),
        "gauge_isometry": (oracles.sigma2(turned), kept, Verdict.HOLDS),
        "gauge_growth": (oracles.sigma2(changed), 2 * kept, Verdict.HOLDS),
        "gauge_sigma2": (oracles.sigma2(changed), kept, None),
        "gauge_gain": (abs(turned).sum(1).max(), 1, None),
    }
    for name, (lesser, greater, verdict) in expected.items():
        comparison, verdicts = hj.CLAIMS[name].judge(case)
        assert comparison.lesser[-1] == pytest.approx(lesser, abs=1e-12), name
        assert comparison.greater[-1] == pytest.approx(greater, abs=1e-12), name
        assert verdict is None or verdicts[-1] == verdict, name


def test_a_cycle_of_streams_shows_that_neither_sigma2_nor_the_gain_is_an_invariant():
    """C maps other directions to the one that T stretches, and Q leaves no entry of it as it is."""
    cycle = np.roll(np.eye(N), 1, 0)
    case = stack_case(cycle[None], sigma2=[1.0], measured=("composites",))
    comparison, verdict = hj.CLAIMS["gauge_sigma2"].judge(case)
    assert comparison.lesser[0] > 1.1 and verdict[0] == Verdict.VIOLATED
    comparison, verdict = hj.CLAIMS["gauge_gain"].judge(case)
    assert comparison.lesser[0] > 1.5 and verdict[0] == Verdict.VIOLATED
