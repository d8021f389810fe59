"""Cooling (law 8.8, cooling): how fast may ε fall, with one alternation a step or with Newton's?

    python experiments/cooling.py [--quick]

ε falls from 2 to 0.01 by a constant ratio. Each step starts from the potentials of the one before.
The lag is how far the column potential of one alternation a step is from the exact one, as the
largest difference in units of ε. Prediction: a step multiplies it by MᵀM/q, and adds the move of
the exact potential. So it grows in units of ε where σ₂² > q. Beside the alternation goes Newton's
method of ``hj.sinkhorn``, down the same steps. Logits have a standard deviation of 1: normal ones,
and those of an assignment, −|x − y|² of random points of a square.
"""

from functools import partial
from itertools import pairwise
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.nn import logsumexp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from homojax import sigma2, sinkhorn
from homojax.birkhoff import center
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.page import Table

HOT, COLD = 2.0, 0.01  # ε, in standard deviations of the logits
RATIOS = {
    "smoke": (0.005, 0.5),
    "quick": (0.005, 0.5, 0.8, 0.95),
    "full": (0.005, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99),
}
COLDEST = 0.04  # ε that the figure shows: beyond it the potentials of many cannot be told
DRAWN = (0.5, 0.8, 0.95, 0.99)  # ratios that the figure shows
MATRICES = {"smoke": 4, "quick": 32, "full": 200}
UNITS = {"smoke": 4, "quick": 8, "full": 16}
KINDS = ("normal", "assignment")
TOUCH = 1e-6  # a disturbance of the potentials, in units of ε, whose growth is measured
LEAST_GAP = 1e-8  # 1 − σ₂² below which float64 does not tell potentials apart
HEADER = ["logits", "q", "steps", "σ₂² > q at", "lag there", "predicted", "lag at end", "predicted"]
HEADER += ["sums off", "right", "exact", "Newton", "converged"]
CAPTION = (
    "Medians over matrices. σ₂² > q at: the ε where it first is, and the lag there. Sums off: the "
    "largest |sum − 1| on the way. Right: matrices whose rows end with their largest entry at the "
    "best assignment; exact: the same of the exact matrices. Newton: steps in all; converged: "
    "share of all projections. Lag at end: the last that float64 can tell."
)


class Path(NamedTuple):
    """What happened on the way down with one ratio; all but ``epsilon`` is [steps, matrices]."""

    epsilon: np.ndarray  # [steps]
    kept: np.ndarray  # σ₂² of the exact matrix
    lag: np.ndarray
    predicted: np.ndarray
    growth: np.ndarray  # of a disturbance, in units of ε, in one step
    sums: np.ndarray  # largest |sum − 1| after the alternation
    right: np.ndarray  # whether the largest entry of each row is at the best assignment
    exact_right: np.ndarray  # the same of the exact matrix
    newton: np.ndarray  # steps
    converged: np.ndarray


class State(NamedTuple):
    """Potentials in the logits' units, [n]: they are what a step starts from."""

    exact: jax.Array
    alternated: jax.Array
    disturbed: jax.Array
    lag: jax.Array  # as predicted


def study(size: Size, bench: Bench) -> Study:
    """Return the lag, the sums and the assignments at every ratio, for both kinds of logits."""
    paths = {}
    keys = [(kind, ratio) for kind in KINDS for ratio in RATIOS[size]]
    for done, (kind, ratio) in enumerate(keys):
        bench.progress(done, len(keys), f"{kind}, ratio {ratio:g}")
        paths[kind, ratio] = cool(draw_logits(kind, size), ratio)
    rows = [row(kind, ratio, path) for (kind, ratio), path in paths.items()]
    slow = [path for (_, ratio), path in paths.items() if ratio >= 0.5]
    right, exact = (np.mean([x[-1] for x in ends]) for ends in zip(*map(rights, slow), strict=True))
    newton = np.mean([path.converged.mean() for path in paths.values()])
    return Study(
        text=f"With a ratio of 0.5 or more, the rows of one alternation a step end at the best "
        f"assignment of {right:.1%} of the matrices, those of the exact matrices of {exact:.1%}. "
        f"Newton's method converges in {newton:.1%} of all projections, at every ratio.",
        tables=[Table(CAPTION, HEADER, rows)],
        figure=draw(paths, UNITS[size]),
    )


def rights(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each matrix is at its best assignment, alternated and exact."""
    return path.right, path.exact_right


def draw_logits(kind: str, size: Size) -> np.ndarray:
    """Return logits [matrices, n, n] of standard deviation 1 each."""
    rng, count, n = np.random.default_rng(8), MATRICES[size], UNITS[size]
    if kind == "normal":
        logits = rng.normal(size=(count, n, n))
    else:
        x, y = rng.random((2, count, n, 2))
        logits = -((x[:, :, None] - y[:, None]) ** 2).sum(-1)
    return logits / logits.std((1, 2), keepdims=True)


def cool(logits: np.ndarray, ratio: float) -> Path:
    """Return what happens to logits [matrices, n, n] as ε falls by one ratio."""
    steps = round(np.log(COLD / HOT) / np.log(ratio))
    epsilons = HOT * (COLD / HOT) ** (np.arange(steps + 1) / steps)
    best = np.array([linear_sum_assignment(-one)[1] for one in logits])
    state, found = begin(logits, epsilons[0]), []
    for before, epsilon in pairwise(epsilons):
        state, measured = step(logits, best, before, epsilon, state)
        found.append(measured)
    return Path(epsilons[1:], *map(np.array, zip(*jax.device_get(found), strict=True)))


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def begin(logits: jax.Array, epsilon: jax.Array) -> State:
    """Return the potentials to begin from: exact ones, and a disturbance of them."""
    exact = epsilon * sinkhorn(logits, epsilon).col_potential
    touch = epsilon * TOUCH * jnp.cos(jnp.arange(len(logits)))
    return State(exact, exact, exact + touch, jnp.zeros_like(exact))


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, None, None, 0))
def step(
    logits: jax.Array, best: jax.Array, before: jax.Array, epsilon: jax.Array, state: State
) -> tuple[State, tuple[jax.Array, ...]]:
    """Return the state one step colder, and the fields of ``Path`` but ``epsilon``."""
    # Newton's method, from the potentials of the step before: the exact ones.
    result = sinkhorn(logits, epsilon, init=state.exact / epsilon, method="newton")
    matrix, exact = cast(jax.Array, result.matrix), center(epsilon * result.col_potential)
    kept = sigma2(matrix) ** 2

    # One alternation, of the potentials and of disturbed ones.
    alternated, mixed = alternate(logits, epsilon, state.alternated)
    disturbed, _ = alternate(logits, epsilon, state.disturbed)
    apart, was_apart = spread(disturbed - alternated), spread(state.disturbed - state.alternated)
    again = alternated + TOUCH * epsilon / apart * (disturbed - alternated)

    # The prediction: MᵀM takes of the old lag and of the move of the exact potential.
    lag = center(matrix.T @ (matrix @ (state.lag + state.exact - exact)))
    known = jnp.where(1 - kept > LEAST_GAP, 1.0, jnp.nan)
    measured = (
        kept,
        known * spread(alternated - exact) / epsilon,
        known * spread(lag) / epsilon,
        known * apart / was_apart * before / epsilon,
        abs(mixed.sum(1) - 1).max(),
        (mixed.argmax(1) == best).all(),
        (matrix.argmax(1) == best).all(),
        result.num_steps,
        result.converged,
    )
    return State(exact, alternated, again, lag), measured


def alternate(
    logits: jax.Array, epsilon: jax.Array, potential: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the column potential [n] after one alternation, in the logits' units, and M."""
    f = -logsumexp((logits + potential) / epsilon, axis=1)
    g = -logsumexp(logits / epsilon + f[:, None], axis=0)
    return center(epsilon * g), jnp.exp(logits / epsilon + f[:, None] + g[None, :])


def spread(x: jax.Array) -> jax.Array:
    """Return the largest difference of two entries."""
    return x.max() - x.min()


def row(kind: str, ratio: float, path: Path) -> list[str]:
    """Return the row of one ratio."""
    passed = path.kept > ratio
    first = np.where(passed.any(0), passed.argmax(0), len(passed) - 1)
    lags = [
        values[places, np.arange(len(first))]
        for places in (first, last_known(path))
        for values in (path.lag, path.predicted)
    ]
    return [
        kind,
        f"{ratio:g}",
        str(len(path.epsilon)),
        f"{np.median(path.epsilon[first]):.2f}",
        *map(_middle, lags),
        f"{np.median(path.sums.max(0)):.2g}",
        f"{path.right[-1].mean():.1%}",
        f"{path.exact_right[-1].mean():.1%}",
        f"{np.median(path.newton.sum(0)):.0f}",
        f"{path.converged.mean():.1%}",
    ]


def _middle(lags: np.ndarray) -> str:
    """Return the median of the lags that can be told."""
    told = lags[np.isfinite(lags)]
    return f"{np.median(told):.2g}" if told.size else "–"


def last_known(path: Path) -> np.ndarray:
    """Return the last step at which the lag of each matrix can be told, [matrices]."""
    known = np.isfinite(path.lag)
    return np.where(known.any(0), len(known) - 1 - known[::-1].argmax(0), 0)


def draw(paths: dict[tuple[str, float], Path], n: int) -> Figure:
    """Draw the lag over ε for both kinds, and the ratio at which a disturbance would not grow."""
    fig, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    ratios = [ratio for ratio in DRAWN if any(ratio == key[1] for key in paths)]
    for ax, kind in zip(axes, KINDS, strict=False):
        for k, ratio in enumerate(ratios):
            _draw_lag(ax, f"C{k}", ratio, paths[kind, ratio])
        ax.axhline(1, color="0.3", lw=1, ls=":")
        ax.set(xscale="log", yscale="log", xlabel="entropy weight ε (logits' deviations)")
        ax.set(title=f"{kind} logits, n = {n}", xlim=(HOT, COLDEST), ylim=(1e-4, 1e2))
    axes[0].set_ylabel("lag of the potentials, in units of ε")
    axes[0].legend(fontsize=8, loc="lower right")
    for k, kind in enumerate(KINDS):
        path = paths[kind, ratios[-1]]
        style = {"color": f"C{k + 5}"}
        axes[2].plot(path.epsilon, np.median(path.kept, 1), lw=4, alpha=0.3, **style)
        axes[2].plot(path.epsilon, _median(ratios[-1] * path.growth), label=kind, **style)
    axes[2].set(xscale="log", xlim=(HOT, COLDEST), xlabel="entropy weight ε (logits' deviations)")
    axes[2].set_title("critical ratio: measured (thin), σ₂² (wide)")
    axes[2].legend(fontsize=8)
    fig.suptitle(
        "One alternation a step as ε falls: measured lag (solid), predicted (dashed), σ₂² = q (dot)"
    )
    return fig


def _draw_lag(ax: Axes, colour: str, ratio: float, path: Path) -> None:
    lag = _median(path.lag)
    ax.plot(path.epsilon, lag, color=colour, label=f"q = {ratio:g}")
    ax.plot(path.epsilon, _median(path.predicted), "--", color=colour)
    passed = np.median(path.kept, 1) > ratio
    if passed.any():
        ax.plot(path.epsilon[passed.argmax()], lag[passed.argmax()], "o", color=colour)


def _median(values: np.ndarray) -> np.ndarray:
    """Return medians over matrices, NaN from where half of them cannot be told."""
    enough = np.isfinite(values).mean(1) > 0.5
    return np.where(
        enough, np.median(np.where(np.isfinite(values), values, np.inf), axis=1), np.nan
    )


if __name__ == "__main__":
    command(study)
