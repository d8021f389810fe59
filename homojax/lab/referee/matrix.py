"""Both sides of the claims about one matrix, in many digits."""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

from homojax.lab.referee.algebra import (
    detail,
    lambda2,
    norm,
    row_differences,
    schatten,
    singular_values,
)


def _dobrushin(m: mp.matrix) -> mp.mpf:
    return max(sum(map(abs, rows), mp.mpf(0)) for rows in row_differences(m)) / 2


def _excess(y: mp.mpf) -> mp.mpf:
    return max((1 + y) * mp.log(1 + y) - y, mp.mpf(0)) if y > -1 else mp.mpf(1)


def deficit(m: mp.matrix) -> mp.mpf:
    """Return the entropy deficit n log n − H, in nats."""
    return mp.fsum(_excess(m.rows * x - 1) for x in m) / m.rows


def _frontier(deficit: mp.mpf, n: int) -> mp.mpf:
    def more(t):
        return (
            _excess((n - 1) * t)
            + 2 * (n - 1) * _excess(-t)
            + (n - 1) ** 2 * _excess(t / (n - 1))
            - n * deficit
        )

    if more(mp.mpf(1)) <= 0:
        return mp.mpf(1)
    return mp.findroot(more, (0, 1), solver="bisect", tol=mp.eps, maxsteps=100_000, verify=False)


def _truncated_norm(m: mp.matrix) -> tuple[mp.mpf, mp.mpf]:
    row, col = (max(abs(mp.fsum(x) - 1) for x in y.tolist()) for y in (m, m.T))
    return norm(m), mp.mpf(mp.sqrt((1 + row) * (1 + col)))


def _row_share(n: int) -> mp.mpf:
    return (n - 2) / ((n - 1) * mp.log(n - 1)) if n > 2 else mp.mpf(1)


def _of_softmax(x: mp.matrix) -> mp.mpf:
    rows = [[mp.exp(y - max(row)) for y in row] for row in x.tolist()]
    return norm(detail(mp.matrix([[y / mp.fsum(row) for y in row] for row in rows])))


def _of_wave(a: mp.matrix, frequency: int) -> mp.mpf:
    n = a.rows
    wave = mp.matrix([mp.cos(mp.pi * frequency * (mp.mpf(k) + 0.5) / n) for k in range(n)])
    return mp.norm(a * wave) / mp.norm(wave)


def _of_identity(x: mp.matrix) -> mp.mpf:
    n, centred = x.rows, detail(x)
    delta = mp.fsum(centred[k, k] for k in range(n)) / (n - 1)
    return abs(mp.exp(delta) - 1) / (mp.exp(delta) + n - 1)


def _of_rank(a: mp.matrix) -> mp.mpf:
    """Return n log(1 + Σ σ²), with σ₂ for every σ above √eps of float64."""
    values, least = singular_values(a)[:-1], mp.mpf(2) ** -26
    told = [values[0] if value > least else value for value in values]
    return mp.mpf(a.rows * mp.log(1 + mp.fsum(value**2 for value in told)))


# Both sides, from a doubly stochastic m, a = PMP, and logits x whose projection at ε = 1 is m.
MATRIX_SIDES: dict[str, Callable[[mp.matrix, mp.matrix, mp.matrix], tuple[mp.mpf, mp.mpf]]] = {
    "truncated_norm": lambda m, a, x: _truncated_norm(m),
    "hilbert": lambda m, a, x: (
        norm(a),
        mp.tanh(max(max(rows) - min(rows) for rows in row_differences(x)) / 4),
    ),
    "dobrushin": lambda m, a, x: (norm(a), mp.sqrt(_dobrushin(m) * _dobrushin(m.T))),
    "doeblin": lambda m, a, x: (norm(a), 1 - m.rows * min(m)),
    "frobenius_lower": lambda m, a, x: (schatten(a, 1) / mp.sqrt(m.rows - 1), norm(a)),
    "frobenius_upper": lambda m, a, x: (norm(a), schatten(a, 1)),
    "schatten_lower": lambda m, a, x: (schatten(a, 4) / mp.root(m.rows - 1, 8), norm(a)),
    "schatten_upper": lambda m, a, x: (norm(a), schatten(a, 4)),
    "eigenvalue": lambda m, a, x: (lambda2(m), norm(a)),
    "pinsker": lambda m, a, x: (norm(a), mp.sqrt(2 * deficit(m))),
    "logit_budget": lambda m, a, x: (
        mp.atanh(norm(a)),
        min(max(y) - min(y) for y in (x, detail(x))) / 2,
    ),
    "normalised_entropy": lambda m, a, x: (
        norm(a),
        mp.sqrt(deficit(m) / (m.rows * mp.log(m.rows))),
    ),
    "row_entropy": lambda m, a, x: (schatten(a, 1), mp.sqrt(_row_share(m.rows) * deficit(m))),
    "sinkhorn_forgets_more": lambda m, a, x: (norm(a), _of_softmax(x)),
    "softmax_forgets_more": lambda m, a, x: (_of_softmax(x), norm(a)),
    "low_pass": lambda m, a, x: (_of_wave(a, m.rows - 1), _of_wave(a, 1)),
    "identity_start": lambda m, a, x: (norm(a), _of_identity(x)),
    "rank_entropy": lambda m, a, x: (deficit(m), _of_rank(a)),
    "frontier": lambda m, a, x: (norm(a), _frontier(deficit(m), m.rows)),
}
