"""Both sides of the claims about how a projection changes with ε, in many digits."""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

from homojax.lab.referee.algebra import detail, row_differences, scaled, sigma2
from homojax.lab.referee.matrix import deficit

Projection = Callable[[mp.mpf | float], mp.matrix]  # at so many times ε


def projection_at(
    kernel: mp.matrix, support: np.ndarray, places: int, ratio: mp.mpf | float
) -> mp.matrix:
    """Return the projection at ``ratio`` times ε."""
    projection = scaled(kernel / ratio, support, places)
    if projection is None:
        raise RuntimeError("Newton's method does not end")
    return projection


def _sigma2_slope(project: Projection) -> mp.mpf:
    """Return dσ₂/d log ε by a central difference, to some forty digits."""
    step = mp.mpf(10) ** -20
    ends = (sigma2(project(mp.mpf(mp.exp(way)))) for way in (step, -step))
    rise = next(ends) - next(ends)
    return rise / (2 * step)


def _entropy(m: mp.matrix) -> mp.mpf:
    return m.rows * mp.log(m.rows) - deficit(m)


def _fall_short(m: mp.matrix, x: mp.matrix) -> mp.mpf:
    """Return how far M falls short of the heaviest assignment: max ⟨x, Π⟩ − ⟨x, M⟩."""
    # A set of columns, as bits -> the most that as many first rows can have there.
    best = {0: mp.mpf(0)}
    for i in range(m.rows):
        heavier: dict[int, mp.mpf] = {}
        for taken, weight in best.items():
            for j in range(m.rows):
                if not taken >> j & 1:
                    heavier[taken | 1 << j] = max(
                        weight + x[i, j], heavier.get(taken | 1 << j, mp.ninf)
                    )
        best = heavier
    return best.popitem()[1] - mp.fsum(a * b for a, b in zip(m, x, strict=True))


def _near_barycentre(m: mp.matrix, x: mp.matrix) -> tuple[mp.mpf, mp.mpf]:
    linear = detail(x) / m.rows
    size = m.rows * max(map(abs, linear))
    rate = (mp.expm1(size) - size) / size if size else mp.mpf(0)
    return mp.norm(m - mp.ones(m.rows) / m.rows - linear), rate * mp.norm(linear)


def _top_pair(m: mp.matrix) -> tuple[mp.matrix, mp.mpf, mp.matrix]:
    """Return (u, σ₂, v)."""
    a = detail(m)
    squares, vectors = mp.eigsy(a.T * a)
    v = vectors[:, max(range(m.rows), key=lambda k: squares[k])]
    return a * v / mp.norm(a * v), mp.norm(a * v), v


def _alternation_rate(m: mp.matrix) -> tuple[mp.mpf, mp.mpf]:
    """Return the rate along v, and σ₂².

    The rate is how one alternation shrinks a disturbance of 1e-30 to both sides: its error is of
    order 1e-60.
    """
    _, sigma2, v = _top_pair(m)
    step = mp.mpf(10) ** -30

    def alternate(size):
        f = [
            -mp.log(mp.fsum(m[i, j] * mp.exp(size * v[j]) for j in range(m.rows)))
            for i in range(m.rows)
        ]
        return [
            -mp.log(mp.fsum(m[i, j] * mp.exp(f[i]) for i in range(m.rows))) for j in range(m.rows)
        ]

    moved = mp.fdot(v, alternate(step)) - mp.fdot(v, alternate(-step))
    return moved / (2 * step), sigma2**2


def _rest(m: mp.matrix, change: mp.matrix) -> mp.matrix:
    """Return R = change − df 1ᵀ − 1 dgᵀ such that rows and columns of M∘R sum to 0."""
    n = m.rows
    system, sums = mp.matrix(2 * n), mp.matrix(2 * n, 1)
    for i in range(n):
        system[i, i] = system[n + i, n + i] = 1
        sums[i] = mp.fsum(m[i, j] * change[i, j] for j in range(n))
        sums[n + i] = mp.fsum(m[j, i] * change[j, i] for j in range(n))
        for j in range(n):
            system[i, n + j] = system[n + j, i] = m[i, j]
    most = 2 * n - 1  # the last dg is held
    moves = mp.matrix([*mp.lu_solve(system[:most, :most], sums[:most]), 0])
    return mp.matrix([[change[i, j] - moves[i] - moves[n + j] for j in range(n)] for i in range(n)])


def _weights(n: int) -> mp.matrix:
    """Return the W of ``homojax.theory``."""
    waves = [[mp.cos(i + 2 * j + mp.mpf(j * j) / 2) for j in range(n)] for i in range(n)]
    weights = detail(mp.matrix(waves))
    return weights / mp.norm(weights)


def _differential(m: mp.matrix, project: Projection, x: mp.matrix) -> tuple[mp.mpf, mp.mpf]:
    """Return ⟨W, dM/d log ε⟩ by a central difference and by the implicit function theorem."""
    weights, step = _weights(m.rows), mp.mpf(10) ** -20
    later, earlier = (project(mp.mpf(mp.exp(move))) for move in (step, -step))
    difference = (later - earlier) / (2 * step)
    implicit = mp.fsum(w * p * -r for w, p, r in zip(weights, m, _rest(m, x), strict=True))
    return mp.mpf(mp.fdot(weights, difference)), mp.mpf(implicit)


def _gradient_trap(m: mp.matrix) -> tuple[mp.mpf, mp.mpf]:
    """Return ε‖∂σ₂/∂S‖_F and its bound."""
    u, _, v = _top_pair(m)
    outer = u * v.T
    gradient = [p * r for p, r in zip(m, _rest(m, outer), strict=True)]
    weight = mp.fsum(p * w**2 for p, w in zip(m, outer, strict=True))
    return mp.norm(gradient), mp.mpf(mp.sqrt(max(m) * weight))


def _response(m: mp.matrix) -> mp.mpf:
    """Return ‖∂M/∂S W‖ at ε = 1, with the W that eight power steps lead to."""
    u, _, v = _top_pair(m)
    image = u * v.T + _weights(m.rows)
    for _ in range(9):
        size = mp.norm(image) or 1
        rest = _rest(m, image / size)
        image = mp.matrix([[m[i, j] * rest[i, j] for j in range(m.rows)] for i in range(m.rows)])
    return mp.mpf(mp.norm(image))


def _drift(m: mp.matrix, project: Projection, x: mp.matrix) -> tuple[mp.mpf, mp.mpf]:
    """Return (I − MᵀM) dγ/dε by a central difference, and Mᵀh_r − h_c, of the first unit."""
    n, step = m.rows, mp.mpf(10) ** -20

    def potentials(ratio: mp.mpf) -> mp.matrix:
        kept = project(ratio)
        rest = [[ratio * mp.log(kept[i, j]) - x[i, j] for i in range(n)] for j in range(n)]
        return mp.matrix([mp.fsum(column) / n for column in rest])

    later, earlier = (potentials(mp.mpf(mp.exp(move))) for move in (step, -step))
    move = (later - earlier) / (2 * step)
    entropies = mp.matrix([[-m[i, j] * mp.log(m[i, j]) for j in range(n)] for i in range(n)])
    rows, columns = entropies * mp.ones(n, 1), entropies.T * mp.ones(n, 1)
    return mp.mpf((move - m.T * (m * move))[0]), mp.mpf((m.T * rows - columns)[0])


# Both sides, from the projection m of x at ε = 1, and a function that gives it at another ε.
PROJECTION_SIDES: dict[str, Callable[[mp.matrix, Projection, mp.matrix], tuple[mp.mpf, mp.mpf]]] = {
    "barycentre_limit": lambda m, project, x: _near_barycentre(m, x),
    "assignment_limit": lambda m, project, x: (_fall_short(m, x), _entropy(m)),
    "entropy_rises": lambda m, project, x: (_entropy(m), _entropy(project(1.25))),
    "sigma2_falls": lambda m, project, x: (sigma2(project(1.25)), sigma2(m)),
    "sigma2_slope": lambda m, project, x: (_sigma2_slope(project), mp.mpf(0)),
    "alternation_rate": lambda m, project, x: _alternation_rate(m),
    "differential": _differential,
    "sigma2_path": lambda m, project, x: (
        abs(mp.asin(sigma2(project(1.25))) - mp.asin(sigma2(m))),
        mp.sqrt(
            (1 - mp.mpf(1) / m.rows)
            * (_entropy(project(1.25)) - _entropy(m))
            * mp.log(mp.mpf("1.25"))
        ),
    ),
    "weight_decay": lambda m, project, x: (
        sigma2(project(1.25)),
        mp.tanh(max(max(rows) - min(rows) for rows in row_differences(x)) / 5),
    ),
    "sensitivity": lambda m, project, x: (
        _response(m),
        mp.mpf(max(2 * p * (1 - p) for p in m)),
    ),
    "sensitivity_grows": lambda m, project, x: (
        mp.mpf(_response(project(1.25)) / mp.mpf("1.25")),
        _response(m),
    ),
    "potential_drift": _drift,
    "gradient_trap": lambda m, project, x: _gradient_trap(m),
}
