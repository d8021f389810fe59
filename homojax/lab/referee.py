"""Claims about a matrix, a projection or a stack, decided again in as many digits as it takes.

Both sides are computed anew, in mpmath, and share no code with ``homojax.theory``. That takes a
tenth of a second at n = 4, and seconds at n = 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import mpmath as mp
import numpy as np

from homojax.lab.cases import Case
from homojax.projection.masks import total_support
from homojax.theory import CLAIMS
from homojax.theory.claim import Verdict

REFEREED_SIZE = 6  # n up to which a question of many digits is answered unless it is asked for more


def in_many_digits(case: Case, largest: int = REFEREED_SIZE) -> tuple[Any, Any] | None:
    """Return (lesser, greater) of a case, as the referee finds them.

    Args:
        case: a saved case.
        largest: the largest n that is worth the time.

    Returns:
        None for a larger n, and where the referee says nothing.
    """
    arrays = case.arrays
    if case.scope == "stack" and arrays["matrices"].shape[-1] <= largest:
        return referee_stack(
            case.claim, arrays["matrices"], float(arrays["alpha"]), arrays["probe"]
        )
    if case.scope in ("matrix", "projection") and len(arrays["logits"]) <= largest:
        return referee(case.claim, arrays["logits"], float(arrays["epsilon"]), arrays.get("matrix"))
    return None


def decided(claim_name: str, lesser: mp.mpf, greater: mp.mpf) -> Verdict:
    """Return the verdict of 50 digits on a claim of the list.

    A bound that is attained to 40 digits stays undecidable. An equality holds to within its
    resolution.
    """
    claim = CLAIMS[claim_name]
    slack = greater - lesser
    if claim.is_equality:
        slack = claim.resolution - abs(slack)
    if abs(slack) <= 1e-40 * (1 + abs(greater)):
        return Verdict.UNDECIDABLE
    return Verdict.HOLDS if slack > 0 else Verdict.VIOLATED


def referee(
    claim_name: str, logits: np.ndarray, epsilon: float, matrix: np.ndarray | None, digits: int = 50
) -> tuple[mp.mpf, mp.mpf] | None:
    """Return (lesser, greater) of a claim about a matrix or a projection, in many digits.

    The float64 inputs are taken to be exact. A given matrix stands for the doubly stochastic one
    that scaling its rows and columns leads to. Zeros stay zeros, so that equalities survive that
    are a matter of pattern. Its logits are then its logarithms, and those given are not read.
    ``truncated_norm``, about matrices that are not doubly stochastic, takes the matrix as it is.

    Args:
        claim_name: of the list.
        logits: [n, n].
        epsilon: the entropy weight.
        matrix: [n, n]; None for the projection of the logits.
        digits: places of each side, and of its distance from 1.

    Returns:
        None where nothing can be said: of a claim that has no sides here; of one about logits where
        the matrix has zeros; of one about how the projection changes where there is a matrix; of
        inputs that are not numbers or admit no scaling; where Newton's method does not end.
    """
    given = np.asarray(logits if matrix is None else matrix, float)
    support = _usable_support(claim_name, given, is_matrix=matrix is not None)
    if support is None:
        return None
    # By Hilbert's bound 1 − σ₂ ≥ e^−spread, and its digits are wanted.
    values = given[support] / epsilon if matrix is None else np.log(given[support])
    places = digits + 20 + int(np.ptp(values) / np.log(10))
    with mp.workdps(places):
        kernel = mp.matrix(np.where(support, given, 0 if matrix is None else 1).tolist())
        kernel = kernel / mp.mpf(float(epsilon)) if matrix is None else kernel.apply(mp.log)
        try:
            if claim_name == "truncated_norm" and matrix is not None:
                exact = mp.matrix(given.tolist())
            else:
                exact = _scaled(kernel, support, places - 10)
            if exact is None:
                return None
            with mp.workdps(2 * places):  # squares of small differences keep their digits
                if claim_name in _SIDES:
                    return _SIDES[claim_name](exact, _detail(exact), kernel)
                project = partial(_project, kernel, support, places - 10)
                return _PROJECTION_SIDES[claim_name](exact, project, kernel)
        except (ZeroDivisionError, RuntimeError):  # a singular system, iterations without an end
            return None


def _usable_support(claim_name: str, given: np.ndarray, *, is_matrix: bool) -> np.ndarray | None:
    """Return where a matrix or logits may be positive; None where nothing can be said."""
    least = 0.0 if is_matrix else -np.inf
    known = claim_name in _SIDES or (claim_name in _PROJECTION_SIDES and not is_matrix)
    if not known or not ((given >= least) & (given < np.inf)).all():
        return None
    support = given > least
    if not (claim_name == "truncated_norm" and is_matrix):
        support = np.asarray(jax.jit(total_support)(support))
    about_logits = claim_name in ("hilbert", "logit_budget")
    if not support.any() or (about_logits and not support.all()):
        return None
    return support


def referee_stack(
    claim_name: str, matrices: np.ndarray, alpha: float, probe: np.ndarray, digits: int = 50
) -> tuple[mp.mpf, mp.mpf] | None:
    """Return (lesser, greater) of a claim about a stack at its full depth L, in many digits.

    Each matrix stands for the doubly stochastic one that scaling its rows and columns leads to.

    Args:
        claim_name: of the list.
        matrices: [L, n, n], layer 1 first.
        alpha: the residual weight of all layers.
        probe: [n].
        digits: places of each side.

    Returns:
        None as ``referee`` does, and for ``effective_depth`` where the bound leaves more than half.
    """
    if claim_name not in _STACK_SIDES or not all(
        np.isfinite(x).all() for x in (matrices, alpha, probe)
    ):
        return None
    with mp.workdps(digits + 40):
        layers = []
        for matrix in np.asarray(matrices, float):
            support = np.asarray(jax.jit(total_support)(matrix > 0))
            if matrix.min() < 0 or not support.any():
                return None
            kernel = mp.matrix(np.where(support, matrix, 1).tolist()).apply(mp.log)
            layers.append(_scaled(kernel, support, digits + 20))
        if any(layer is None for layer in layers):
            return None
        with mp.workdps(2 * digits + 40):
            try:
                return _STACK_SIDES[claim_name](
                    layers, mp.mpf(float(alpha)), mp.matrix(np.asarray(probe, float).tolist())
                )
            except (ZeroDivisionError, RuntimeError):
                return None


def _scaled(kernel: mp.matrix, support: np.ndarray, places: int) -> mp.matrix | None:
    """Return diag(e^f) exp(kernel) diag(e^g) in 𝔅ₙ on a total support; None if there is no end.

    By Newton's method on the semi-dual, while the kernel cools.
    """
    n, entries = len(support), np.argwhere(support).tolist()
    linked = np.linalg.matrix_power(support.T @ support, n)  # columns of one block
    free = [j for j in range(n) if linked[j].argmax() < j]  # in each block one potential is held
    values = [kernel[i, j] for i, j in entries]
    heat, g = max(max(values) - min(values), mp.mpf(1)), mp.matrix(n, 1)

    def scale(g):
        m = mp.matrix(n)
        for i, j in entries:
            m[i, j] = mp.exp(kernel[i, j] / heat + g[j])
        for i in range(n):
            m[i, :] /= mp.fsum(m[i, :])
        return m, mp.matrix([mp.fsum(m[:, j]) - 1 for j in range(n)])

    m, missing = scale(g)
    for _ in range(500):
        worst = max(map(abs, missing))
        if heat == 1 and worst <= mp.mpf(10) ** -places:
            return m
        if heat > 1 and worst < 0.01:
            g, heat = g * min(2, heat), max(heat / 2, mp.mpf(1))
            m, missing = scale(g)
            continue
        gram, step = m.T * m, mp.matrix(n, 1)
        curvature = mp.matrix(
            [[(j == k) * (1 + missing[j]) - gram[j, k] for k in free] for j in free]
        )
        for j, move in zip(
            free, mp.lu_solve(curvature, mp.matrix([-missing[j] for j in free])), strict=True
        ):
            step[j] = move
        slope, length = mp.fdot(step, missing), mp.mpf(1)
        m, missing = scale(g + step)
        # Halve a step that goes too far, by its slope: values would not tell, for rounding.
        while mp.fdot(step, missing) > -slope / 10 and length > mp.eps:
            length /= 2
            m, missing = scale(g + length * step)
        g += length * step
    return None


def _singular_values(a: mp.matrix) -> list[mp.mpf]:
    """Return the singular values, descending."""
    return sorted(
        (mp.sqrt(max(x, mp.mpf(0))) for x in mp.eigsy(a.T * a, eigvals_only=True)), reverse=True
    )


def _norm(a: mp.matrix) -> mp.mpf:
    return _singular_values(a)[0]


def _lambda2(m: mp.matrix) -> mp.mpf:
    return mp.mpf(max(map(abs, mp.eig(_detail(m), left=False, right=False))))


def _detail(m: mp.matrix) -> mp.matrix:
    centring = mp.eye(m.rows) - mp.ones(m.rows) / m.rows
    return centring * m * centring


def _schatten(a: mp.matrix, k: int) -> mp.mpf:
    power = (a.T * a) ** k
    return mp.root(mp.fsum(power[i, i] for i in range(a.rows)), 2 * k)


def _row_differences(x: mp.matrix) -> list[list[mp.mpf]]:
    """Return every row less every other."""
    return [[p - q for p, q in zip(a, b, strict=True)] for a in x.tolist() for b in x.tolist()]


def _dobrushin(m: mp.matrix) -> mp.mpf:
    return max(sum(map(abs, rows), mp.mpf(0)) for rows in _row_differences(m)) / 2


def _excess(y: mp.mpf) -> mp.mpf:
    return max((1 + y) * mp.log(1 + y) - y, mp.mpf(0)) if y > -1 else mp.mpf(1)


def _deficit(m: mp.matrix) -> mp.mpf:
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
    return _norm(m), mp.mpf(mp.sqrt((1 + row) * (1 + col)))


# Both sides, from a doubly stochastic m, a = PMP, and logits x whose projection at ε = 1 is m.
_SIDES: dict[str, Callable[[mp.matrix, mp.matrix, mp.matrix], tuple[mp.mpf, mp.mpf]]] = {
    "truncated_norm": lambda m, a, x: _truncated_norm(m),
    "hilbert": lambda m, a, x: (
        _norm(a),
        mp.tanh(max(max(rows) - min(rows) for rows in _row_differences(x)) / 4),
    ),
    "dobrushin": lambda m, a, x: (_norm(a), mp.sqrt(_dobrushin(m) * _dobrushin(m.T))),
    "doeblin": lambda m, a, x: (_norm(a), 1 - m.rows * min(m)),
    "frobenius_lower": lambda m, a, x: (_schatten(a, 1) / mp.sqrt(m.rows - 1), _norm(a)),
    "frobenius_upper": lambda m, a, x: (_norm(a), _schatten(a, 1)),
    "schatten_lower": lambda m, a, x: (_schatten(a, 4) / mp.root(m.rows - 1, 8), _norm(a)),
    "schatten_upper": lambda m, a, x: (_norm(a), _schatten(a, 4)),
    "eigenvalue": lambda m, a, x: (_lambda2(m), _norm(a)),
    "pinsker": lambda m, a, x: (_norm(a), mp.sqrt(2 * _deficit(m))),
    "logit_budget": lambda m, a, x: (
        mp.atanh(_norm(a)),
        min(max(y) - min(y) for y in (x, _detail(x))) / 2,
    ),
    "normalised_entropy": lambda m, a, x: (
        _norm(a),
        mp.sqrt(_deficit(m) / (m.rows * mp.log(m.rows))),
    ),
    "frontier": lambda m, a, x: (_norm(a), _frontier(_deficit(m), m.rows)),
}


Projection = Callable[[mp.mpf | float], mp.matrix]  # at so many times ε


def _project(
    kernel: mp.matrix, support: np.ndarray, places: int, ratio: mp.mpf | float
) -> mp.matrix:
    """Return the projection at ``ratio`` times ε."""
    projection = _scaled(kernel / ratio, support, places)
    if projection is None:
        raise RuntimeError("Newton's method does not end")
    return projection


def _sigma2_slope(project: Projection) -> mp.mpf:
    """Return dσ₂/d log ε by a central difference, to some forty digits."""
    step = mp.mpf(10) ** -20
    rise = _sigma2(project(mp.exp(step))) - _sigma2(project(mp.exp(-step)))
    return rise / (2 * step)


def _entropy(m: mp.matrix) -> mp.mpf:
    return m.rows * mp.log(m.rows) - _deficit(m)


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
    linear = _detail(x) / m.rows
    size = m.rows * max(map(abs, linear))
    rate = (mp.expm1(size) - size) / size if size else mp.mpf(0)
    return mp.norm(m - mp.ones(m.rows) / m.rows - linear), rate * mp.norm(linear)


def _top_pair(m: mp.matrix) -> tuple[mp.matrix, mp.mpf, mp.matrix]:
    """Return (u, σ₂, v)."""
    a = _detail(m)
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


def _differential(m: mp.matrix, project: Projection, x: mp.matrix) -> tuple[mp.mpf, mp.mpf]:
    """Return ⟨W, dM/d log ε⟩ by a central difference and by the implicit function theorem.

    W is that of ``homojax.theory``.
    """
    weights = _detail(
        mp.matrix(
            [[mp.cos(i + 2 * j + mp.mpf(j * j) / 2) for j in range(m.rows)] for i in range(m.rows)]
        )
    )
    weights /= mp.norm(weights)
    step = mp.mpf(10) ** -20
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


# Both sides, from the projection m of x at ε = 1, and a function that gives it at another ε.
_PROJECTION_SIDES: dict[
    str, Callable[[mp.matrix, Projection, mp.matrix], tuple[mp.mpf, mp.mpf]]
] = {
    "barycentre_limit": lambda m, project, x: _near_barycentre(m, x),
    "assignment_limit": lambda m, project, x: (_fall_short(m, x), _entropy(m)),
    "entropy_rises": lambda m, project, x: (_entropy(m), _entropy(project(1.25))),
    "sigma2_falls": lambda m, project, x: (_sigma2(project(1.25)), _sigma2(m)),
    "sigma2_slope": lambda m, project, x: (_sigma2_slope(project), mp.mpf(0)),
    "alternation_rate": lambda m, project, x: _alternation_rate(m),
    "differential": _differential,
    "sigma2_path": lambda m, project, x: (
        abs(mp.asin(_sigma2(project(1.25))) - mp.asin(_sigma2(m))),
        mp.sqrt(
            (1 - mp.mpf(1) / m.rows)
            * (_entropy(project(1.25)) - _entropy(m))
            * mp.log(mp.mpf("1.25"))
        ),
    ),
    "weight_decay": lambda m, project, x: (
        _sigma2(project(1.25)),
        mp.tanh(max(max(rows) - min(rows) for rows in _row_differences(x)) / 5),
    ),
    "gradient_trap": lambda m, project, x: _gradient_trap(m),
}


def _product(layers: list[mp.matrix]) -> mp.matrix:
    product = mp.eye(layers[0].rows)
    for layer in layers:
        product = layer * product
    return product


def _least_shared(layers: list[mp.matrix]) -> mp.mpf:
    return mp.fprod(1 - m.rows * min(m) for m in layers)


def _turned(
    layers: list[mp.matrix], x: mp.matrix, layer: Callable[[mp.matrix, mp.matrix], mp.matrix]
) -> mp.mpf:
    x = x - mp.ones(x.rows, 1) * mp.fsum(x) / x.rows
    start = x / mp.norm(x)
    for m in layers:
        x = layer(m, x)
    x = x / mp.norm(x)
    return 2 * mp.atan2(mp.norm(start - x), mp.norm(start + x))


def _most_turned(
    layers: list[mp.matrix], alpha: mp.mpf, sigma2: Callable[[mp.matrix], mp.mpf]
) -> mp.mpf:
    """Return the sum of the bounds; a layer whose branch outweighs the rest may turn by π."""
    moved = [alpha * sigma2(m) for m in layers]
    return mp.mpf(mp.fsum(mp.asin(x / (1 - alpha)) if x < 1 - alpha else mp.pi for x in moved))


def _half(layers: list[mp.matrix]) -> tuple[mp.mpf, mp.mpf] | None:
    """Return what the first layers with Π σ₂ ≤ ½ keep, and ½; None if there are none."""
    kept = mp.mpf(1)
    for count, layer in enumerate(layers, 1):
        kept *= _sigma2(layer)
        if kept <= 0.5:
            return _sigma2(_product(layers[:count])), mp.mpf("0.5")
    return None


def _growth(layers: list[mp.matrix]) -> mp.mpf:
    """Return exp of the top Lyapunov exponent, by Gram and Schmidt from Helmert's contrasts."""
    n = layers[0].rows
    frame = [[1] * k + [-k] + [0] * (n - k - 1) for k in range(1, n)]
    frame = [mp.matrix(c) / mp.norm(c) for c in frame]
    growths = [mp.mpf(1)] * (n - 1)
    for layer in map(_detail, layers):
        next_frame: list[mp.matrix] = []
        for k, column in enumerate(frame):
            x = layer * column
            for q in next_frame:
                x -= q * mp.fdot(q, x)
            growths[k] *= mp.norm(x)
            next_frame.append(x / (mp.norm(x) or 1))
        frame = next_frame
    return mp.mpf(max(mp.root(growth, len(layers)) for growth in growths))


def _shared_rate(layers: list[mp.matrix]) -> mp.mpf:
    return mp.root(_sigma2(_product([layers[0]] * len(layers))), len(layers))


def _henrici(layers: list[mp.matrix]) -> mp.mpf:
    a, depth, radius = _detail(layers[0]), len(layers), _lambda2(layers[0])
    d = a.rows - 1
    departure = mp.root(mp.mpf(d**3 - d) / 12, 4) * mp.sqrt(mp.norm(a.T * a - a * a.T))
    words = (
        math.comb(depth, k) * radius ** (depth - k) * departure**k
        for k in range(min(depth, d - 1) + 1)
    )
    return mp.root(mp.fsum(words), depth)


def _gain(product: mp.matrix) -> mp.mpf:
    """Return the largest absolute row or column sum, whichever is farther from 1."""
    sums = (max(mp.mpf(mp.fsum(map(abs, x))) for x in y.tolist()) for y in (product, product.T))
    return max(sums, key=lambda gain: abs(gain - 1))


def _horn(layers: list[mp.matrix]) -> tuple[mp.mpf, mp.mpf]:
    """Return geometric means of the first k singular values on V⊥, k with the least slack."""
    d = layers[0].rows - 1
    curves = [_singular_values(_detail(m))[:d] for m in (_product(layers), *layers)]
    means = [[mp.root(mp.fprod(curve[:k]), k) for k in range(1, d + 1)] for curve in curves]
    pairs = ((kept, mp.fprod(bounds)) for kept, *bounds in zip(*means, strict=True))
    return min(pairs, key=lambda pair: pair[1] - pair[0])


def _sigma2(m: mp.matrix) -> mp.mpf:
    return _norm(_detail(m))


def _branch(m: mp.matrix, x: mp.matrix) -> mp.matrix:
    return m * x * (mp.norm(x) / mp.norm(m * x))


# Both sides, from layers in 𝔅ₙ, a residual weight a and a vector x.
_STACK_SIDES: dict[
    str, Callable[[list[mp.matrix], mp.mpf, mp.matrix], tuple[mp.mpf, mp.mpf] | None]
] = {
    "product": lambda ms, a, x: (_sigma2(_product(ms)), mp.fprod(map(_sigma2, ms))),
    "effective_depth": lambda ms, a, x: _half(ms),
    "lyapunov": lambda ms, a, x: (_growth(ms), mp.root(mp.fprod(map(_sigma2, ms)), len(ms))),
    "shared": lambda ms, a, x: (_lambda2(ms[0]), _shared_rate(ms)),
    "shared_limit": lambda ms, a, x: (
        _shared_rate(ms) - _lambda2(ms[0]),
        _henrici(ms) - _lambda2(ms[0]),
    ),
    "amax_gain": lambda ms, a, x: (_gain(_product(ms)), mp.mpf(1)),
    "horn": lambda ms, a, x: _horn(ms),
    "gain_retention": lambda ms, a, x: (mp.mpf(1), _sigma2(_product(ms))),
    "doeblin_composed": lambda ms, a, x: (_sigma2(_product(ms)), _least_shared(ms)),
    "doeblin_frobenius": lambda ms, a, x: (
        _schatten(_detail(_product(ms)), 1),
        mp.sqrt(x.rows - 1) * _least_shared(ms),
    ),
    "residual": lambda ms, a, x: (
        _sigma2(_product([(1 - a) * mp.eye(x.rows) + a * m for m in ms])),
        mp.fprod(1 - a + a * _sigma2(m) for m in ms),
    ),
    "turn": lambda ms, a, x: (
        _turned(ms, x, lambda m, y: (1 - a) * y + a * (m * y)),
        _most_turned(ms, a, _sigma2),
    ),
    "turn_prenorm": lambda ms, a, x: (
        _turned(ms, x, lambda m, y: (1 - a) * y + a * _branch(m, y)),
        _most_turned(ms, a, _sigma2),
    ),
    "turn_prenorm_bound": lambda ms, a, x: (
        _turned(ms, x, lambda m, y: (1 - a) * y + a * _branch(m, y)),
        _most_turned(ms, a, lambda m: mp.mpf(1)),
    ),
}
