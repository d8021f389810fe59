"""The twelve trained matrices at τ = 0.05 in hundreds of digits: their gaps, of which some are
1e-78, and their composite.

NumPy and mpmath only; nothing here imports homojax or JAX.
"""

import itertools
import json
from functools import cache
from pathlib import Path

import mpmath as mp
import numpy as np

DIGITS = 300
TRAINED = json.loads(
    (Path(__file__).parents[1] / "homojax" / "data" / "trained_mhc_logits.json").read_text("utf-8")
)


def project(logits, epsilon):
    """The entropic projection M of a small matrix of mpf, by Newton's method on the semi-dual down
    an ε schedule.

    Σ log Σ exp(S/ε + g) − Σg is convex in the column potential g, with gradient (column sums − 1)
    and Hessian diag(column sums) − MᵀM; the last potential is held at 0. Ends when a step moves no
    potential by 1e-40: each entry has 40 right digits, however flat the semi-dual, for the steps
    converge quadratically. Call it with twice the digits of the smallest entry.
    """
    n = len(logits)
    spread = max(map(max, logits)) - min(map(min, logits))
    g, stage = [mp.mpf(0)] * n, max(spread, epsilon)

    def rows(g):
        weights = [[mp.exp(x / stage + gj) for x, gj in zip(row, g, strict=True)] for row in logits]
        sums = [mp.fsum(row) for row in weights]
        value = mp.fsum(mp.log(total) for total in sums) - mp.fsum(g)
        return value, [[x / total for x in row] for row, total in zip(weights, sums, strict=True)]

    while True:
        value, m = rows(g)
        col_sums = [mp.fsum(m[i][j] for i in range(n)) for j in range(n)]
        hessian = mp.matrix(n - 1)
        for j, k in itertools.product(range(n - 1), repeat=2):
            hessian[j, k] = col_sums[j] * (j == k) - mp.fsum(m[i][j] * m[i][k] for i in range(n))
        step = [*mp.lu_solve(hessian, mp.matrix([1 - x for x in col_sums[:-1]])), mp.mpf(0)]
        slope, length = mp.fdot(step, [x - 1 for x in col_sums]), mp.mpf(1)
        while (
            max(map(abs, step)) * length > mp.mpf(10) ** -20
        ):  # below that the semi-dual is quadratic
            if (
                rows([a + length * b for a, b in zip(g, step, strict=True)])[0]
                <= value + length * slope / 10
            ):
                break
            length /= 2
        g = [a + length * b for a, b in zip(g, step, strict=True)]
        if max(map(abs, step)) < mp.mpf(10) ** -40:
            if stage == epsilon:
                return rows(g)[1]
            colder = max(epsilon, stage / 2)
            g, stage = [x * stage / colder for x in g], colder


@cache
def trained_matrices():
    """Twelve [4, 4] mpf matrices, in layer order, doubly stochastic to far below their gaps."""
    with mp.workdps(DIGITS):
        layers = [
            [[mp.mpf(str(x)) for x in row] for row in layer["logits"]]
            for layer in TRAINED["layers"]
        ]
        return [mp.matrix(project(logits, mp.mpf(str(TRAINED["tau"])))) for logits in layers]


@cache
def trained_gaps():
    """Twelve 1 − σ₂, as mpf."""
    with mp.workdps(DIGITS):
        return [1 - mp.sqrt(mp.eigsy(m.T * m, eigvals_only=True)[2]) for m in trained_matrices()]


@cache
def trained_composite_distance():
    """‖M₁₂ ⋯ M₁ − J‖_F, as mpf."""
    with mp.workdps(DIGITS):
        product = mp.eye(4)
        for m in trained_matrices():
            product = m * product
        return mp.sqrt(mp.fsum((x - mp.mpf(1) / 4) ** 2 for x in product))


def trained_log_matrices():
    """log M to float64, [12, 4, 4]: each entry to relative accuracy in M."""
    with mp.workdps(DIGITS):
        return np.array(
            [
                [[float(mp.log(m[i, j])) for j in range(4)] for i in range(4)]
                for m in trained_matrices()
            ]
        )


if __name__ == "__main__":
    with mp.workdps(DIGITS):
        for layer, m, gap in zip(
            TRAINED["layers"], trained_matrices(), trained_gaps(), strict=True
        ):
            missed = max(abs(mp.fsum(m[:, j]) - 1) for j in range(4))
            print(
                f"{layer['name']:24} 1 − σ₂ = {mp.nstr(gap, 12):24} column sums − 1: {mp.nstr(missed, 3)}"
            )
        print(
            "composite's Frobenius distance to uniform", mp.nstr(trained_composite_distance(), 20)
        )
