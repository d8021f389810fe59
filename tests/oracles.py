"""References in NumPy, SciPy and mpmath, and the matrices to try them on.

Nothing here imports homojax or JAX.
"""

import itertools

import mpmath as mp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, stats

# ---------------------------------------------------------------- matrices


def squares(n, bound=5.0):
    """Hypothesis strategy: [n, n] arrays with entries in ±bound, as logits."""
    return hnp.arrays(
        np.float64, (n, n), elements=st.floats(-bound, bound, allow_subnormal=False, width=32)
    )


def permutation(rng, n):
    return np.eye(n)[rng.permutation(n)]


def permutation_mixture(rng, n, count):
    """A convex combination of ``count`` random permutations: in 𝔅ₙ by construction."""
    return np.tensordot(
        rng.dirichlet(np.ones(count)), [permutation(rng, n) for _ in range(count)], 1
    )


def lazy_permutation(rng, n, t):
    return t * permutation(rng, n) + (1 - t) / n


def isolated(n, t):
    """(1 − t)J + t(1 ⊕ J): M − J has rank one and norm t."""
    block = np.full((n, n), 1 / (n - 1))
    block[0], block[:, 0], block[0, 0] = 0, 0, 1
    return (1 - t) / n + t * block


def symmetric_psd(rng, n):
    """Doubly stochastic, symmetric, positive semidefinite: MᵀM of a mixture."""
    m = permutation_mixture(rng, n, 3)
    return m.T @ m


def birkhoff_family(rng, n, count=12):
    """[K, n, n], doubly stochastic: sparse, dense, near-permutation, near-uniform, symmetric."""
    mixtures = [permutation_mixture(rng, n, k) for k in (1, 2, 3, 2 * n) for _ in range(count)]
    lazy = [lazy_permutation(rng, n, t) for t in rng.uniform(size=count)]
    blocks = [isolated(n, t) for t in (0.01, 0.3, 0.7, 1.0)]
    logits = [
        alternate(rng.normal(size=(n, n)), epsilon, 3000) for epsilon in (0.5, 1.0, 3.0, 30.0)
    ]
    return np.array(
        [
            np.full((n, n), 1 / n),
            *mixtures,
            *lazy,
            *blocks,
            *logits,
            *(symmetric_psd(rng, n) for _ in range(count)),
        ]
    )


# ---------------------------------------------------------------- the polytope


def centring(n):
    return np.eye(n) - np.full((n, n), 1 / n)


def singular_values(matrix):
    """Of P M P on V⊥, descending, from the explicit product; batched."""
    p = centring(matrix.shape[-1])
    return np.linalg.svd(p @ matrix @ p, compute_uv=False)[..., :-1]


def sigma2(matrix):
    return singular_values(matrix)[..., 0]


def entropy_deficit(matrix):
    """n log n + Σ M log M to forty digits."""
    n = len(matrix)
    with mp.workdps(40):
        return float(
            n * mp.log(n)
            + mp.fsum(mp.mpf(float(x)) * mp.log(float(x)) for x in np.ravel(matrix) if x > 0)
        )


def projective_diameter(logits):
    n = range(len(logits))
    return max(
        logits[i, k] + logits[j, m] - logits[i, m] - logits[j, k]
        for i, j, k, m in itertools.product(n, repeat=4)
    )


def dobrushin(matrix):
    """½ max ‖Mᵢ − Mⱼ‖₁ over pairs of rows."""
    return max(abs(a - b).sum() / 2 for a in matrix for b in matrix)


def round_to_birkhoff(matrix):
    """A doubly stochastic matrix near a non-negative one.

    Altschuler, Weed and Rigollet (arXiv 1705.09634), algorithm 2.
    """
    m = matrix * np.minimum(1, 1 / matrix.sum(1))[:, None]
    m = m * np.minimum(1, 1 / m.sum(0))[None, :]
    row_missing, col_missing = np.maximum(1 - m.sum(1), 0), np.maximum(1 - m.sum(0), 0)
    total = row_missing.sum()
    return m if total <= 0 else m + np.outer(row_missing, col_missing) / total


# ---------------------------------------------------------------- projections


def alternate(logits, epsilon, num_iters, last="columns"):
    """``num_iters`` alternations from exp(S/ε), as a model runs them: no logarithms."""
    m = np.exp((logits - np.max(logits)) / epsilon)
    first, second = (1, 0) if last == "columns" else (0, 1)
    for _ in range(num_iters):
        m = m / m.sum(first, keepdims=True)
        m = m / m.sum(second, keepdims=True)
    return m


def project(logits, epsilon):
    """The entropic projection of a small matrix, in many digits."""
    return np.array(_project(logits, epsilon, np.zeros_like(logits)), dtype=float)


def derivative_of_projection(logits, epsilon, direction, step=1e-12):
    """How the projection of a small matrix changes along ``direction`` in the logits.

    A central difference in many digits.
    """
    with mp.workdps(100):
        ahead, behind = (_project(logits, epsilon, sign * step * direction) for sign in (1, -1))
        return np.array(
            [
                [(x - y) / (2 * step) for x, y in zip(*rows, strict=True)]
                for rows in zip(ahead, behind, strict=True)
            ],
            float,
        )


def _project(logits, epsilon, added):
    """By Newton's method with backtracking down an ε schedule."""
    n = len(logits)
    spread = float(np.ptp(logits) / epsilon)
    with mp.workdps(
        int(100 + spread)
    ):  # a gradient of 1e-40 is worth 1e-80 of the value, which the line search compares
        s = [
            [mp.mpf(float(x)) + mp.mpf(float(y)) for x, y in zip(*rows, strict=True)]
            for rows in zip(logits, added, strict=True)
        ]
        target = mp.mpf(float(epsilon))
        g, stage = [mp.mpf(0)] * n, max(mp.mpf(float(np.ptp(logits))), target)

        def rows(g):
            weights = [[mp.exp(x / stage + gj) for x, gj in zip(row, g, strict=True)] for row in s]
            sums = [mp.fsum(row) for row in weights]
            value = mp.fsum(mp.log(total) for total in sums) - mp.fsum(g)  # the semi-dual
            return value, [
                [x / total for x in row] for row, total in zip(weights, sums, strict=True)
            ]

        while True:
            value, m = rows(g)
            gradient = [mp.fsum(m[i][j] for i in range(n)) - 1 for j in range(n)]
            if max(map(abs, gradient)) < mp.mpf(10) ** -40:
                if stage == target:
                    return m
                colder = max(target, stage / 2)
                g, stage = [x * stage / colder for x in g], colder
                continue
            hessian = mp.matrix(
                n - 1
            )  # g[n−1] is held fixed: the semi-dual does not change along 1
            for j, k in itertools.product(range(n - 1), repeat=2):
                hessian[j, k] = (gradient[j] + 1) * (j == k) - mp.fsum(
                    m[i][j] * m[i][k] for i in range(n)
                )
            step = [*mp.lu_solve(hessian, mp.matrix([-x for x in gradient[:-1]])), mp.mpf(0)]
            slope, length = mp.fdot(step, gradient), mp.mpf(1)
            while (
                rows([a + length * b for a, b in zip(g, step, strict=True)])[0]
                > value + length * slope / 10
            ):
                length /= 2
            g = [a + length * b for a, b in zip(g, step, strict=True)]


def project_down(logits, epsilons):
    """Entropic projections at descending ε, [K, n, n], to 1e-10 in every sum.

    By damped Newton steps on the semi-dual in float64, each ε from the last.
    """
    g, matrices = np.zeros(len(logits)), []
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
        matrices.append(m)
    return np.array(matrices)


# ---------------------------------------------------------------- depth


def lyapunov(matrices):
    """Log growth a layer of every direction of V⊥, by QR on an SVD basis of the centring matrix."""
    n = matrices.shape[-1]
    frame = np.linalg.svd(centring(n))[0][:, :-1]
    growth = np.zeros(n - 1)
    for matrix in matrices:
        frame, r = np.linalg.qr(centring(n) @ matrix @ centring(n) @ frame)
        growth += np.log(abs(np.diag(r)))
    return growth / len(matrices)


# ---------------------------------------------------------------- layer normalisation


def cosine_cdf(t, snr, d):
    """P(cos θ ≤ t) as the noncentral t distribution's series in incomplete beta functions, in 50
    digits. d ≥ 2, |t| < 1.

    Φ(−δ) + ½ Σ pⱼ I(j + ½) + qⱼ I(j + 1), with I(a) = I_y(a, ν/2) and y = T²/(ν + T²) = t², for t ≥
    0; else by reflection. I(a + 1) = I(a) − yᵃ(1 − y)^b/(a B(a, b)).
    """
    with mp.workdps(50):
        t, delta, b = mp.mpf(float(t)), mp.sqrt(mp.mpf(float(snr)) * d), mp.mpf(d - 1) / 2
        sign, y, x = (1 if t >= 0 else -1), t * t, delta * delta / 2
        total = mp.ncdf(-sign * delta)
        for first, weight in ((mp.mpf("0.5"), 1), (mp.mpf(1), sign)):
            below = mp.betainc(first, b, 0, y, regularized=True)
            fall = y**first * (1 - y) ** b / (first * mp.beta(first, b))
            shift = first - mp.mpf("0.5")
            poisson = mp.exp(-x) * (x**shift) / mp.gamma(1 + shift)
            for j in range(int(x + 25 * mp.sqrt(x) + 60)):
                total += weight * poisson * below / 2
                below -= fall
                fall *= y * (first + j + b) / (first + j + 1)
                poisson *= x / (1 + j + shift)
        return float(total if sign > 0 else 1 - total)


def expected_cosine(snr, d):
    """√(κ/2) Γ((d+1)/2)/Γ(d/2 + 1) ₁F₁(½; d/2 + 1; −κ/2), κ = d·SNR, to 40 digits."""
    with mp.workdps(40):
        d = mp.mpf(d)
        kappa = d * mp.mpf(float(snr))
        ratio = mp.exp(mp.loggamma((d + 1) / 2) - mp.loggamma(d / 2 + 1))
        return float(mp.sqrt(kappa / 2) * ratio * mp.hyp1f1(0.5, d / 2 + 1, -kappa / 2))


def critical_snr(d, level, power):
    """The SNR at which the one-sided t-test of level ``level`` has this power, by SciPy. d ≥ 2."""
    threshold = stats.t.isf(level, d - 1)

    def missing(k):
        return stats.nct.sf(threshold, d - 1, k) - power

    return optimize.brentq(missing, 1e-9, 1e3, xtol=1e-14, rtol=1e-14) ** 2 / d


# ---------------------------------------------------------------- derivatives


def difference(f, x, direction, step=1e-3):
    """d/dt f(x + t·direction) at 0, by central differences: error about step⁴ and eps/step."""

    def odd(t):
        return np.asarray(f(x + t * direction)) - np.asarray(f(x - t * direction))

    return (8 * odd(step) - odd(2 * step)) / (12 * step)
