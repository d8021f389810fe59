"""Is doubly stochastic mixing a low-pass filter? (law 8.3, low pass, which is false)

    python experiments/frequencies.py [--quick]

Detail has a frequency only where units have positions. The gain of a frequency k is ‖P M w_k‖, with
w_k the wave of the discrete cosine transform that crosses zero k times. Logits that know positions
are kernels of the distance |i − j|, and the columns of handwritten digits. Others do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import homojax as hj
from homojax.birkhoff import center
from homojax.lab.datasets import standardised_digits
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.figure_style import BOUND, FAINT, MEASURED, WARNING
from homojax.lab.page import Table
from homojax.programs import program

N = 32
NOISE = 0.3  # standard deviation of what is added to kernels, so that a draw is one of many
EPSILON = (0.2, 1.0, 5.0)
SEEDS = {"smoke": 6, "quick": 40, "full": 200}
COLOURS = (BOUND, MEASURED, WARNING)
SHARES = (0.1, 0.9)  # of the draws, between which the band lies


def _gap(n: int) -> np.ndarray:
    return abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(float)


def _digits(rng: np.random.Generator) -> np.ndarray:
    """Return scaled products of the 8 columns of 20 images."""
    images = standardised_digits()
    chosen = images[rng.choice(len(images), 20, replace=False)].reshape(-1, 8, 8)
    columns = chosen.transpose(2, 0, 1).reshape(8, -1)
    return columns @ columns.T / np.sqrt(columns.shape[1])


def _kernel(kernel: np.ndarray) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: kernel + NOISE * rng.standard_normal(kernel.shape)


def _shuffled(rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(N)
    return _kernel(-_gap(N)[np.ix_(order, order)])(rng)


# what positions mean in them, and how logits are drawn
FAMILIES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "near: −|i − j|": _kernel(-_gap(N)),
    "every fourth: 2 cos(π(i − j)/2)": _kernel(2 * np.cos(np.pi * _gap(N) / 2)),
    "same parity: 2(−1)^(i+j)": _kernel(2 * (-1.0) ** _gap(N)),
    "columns of digits, n = 8": _digits,
    "near, positions shuffled": _shuffled,
    "Gaussian": lambda rng: rng.standard_normal((N, N)),
}


class Gains(NamedTuple):
    """The gain of every frequency, [ε, seed, n − 1]."""

    gain: np.ndarray

    def thirds(self, e: int) -> np.ndarray:
        """Return the mean gain of low, middle and high frequencies, [seed, 3]."""
        parts = np.array_split(self.gain[e], 3, axis=1)
        return np.stack([part.mean(1) for part in parts], 1)


def waves(n: int) -> np.ndarray:
    """Return the waves of the discrete cosine transform but for the constant one, [n − 1, n]."""
    found = np.cos(np.pi * np.arange(1, n)[:, None] * (np.arange(n) + 0.5) / n)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@program
def gains(logits: jax.Array, epsilon: jax.Array, basis: jax.Array) -> jax.Array:
    """Return ‖P M w‖ of every wave, [ε, seed, n − 1]."""

    def measure(epsilon, logits):
        image = hj.sinkhorn(logits, epsilon).matrix @ basis.T
        return jnp.sqrt((center(image) ** 2).sum(0))

    return jax.vmap(jax.vmap(measure, (None, 0)), (0, None))(epsilon, logits)


def kind(thirds: np.ndarray) -> str:
    """Return what a family is: which third has the larger gain in 95 % of the draws, or more."""
    names = "low-pass", "band-pass", "high-pass"
    shares = np.bincount(thirds.argmax(1), minlength=3) / len(thirds)
    return names[shares.argmax()] if shares.max() >= 0.95 else "none"


def table_of(found: dict[str, Gains]) -> Table:
    """Return the gains of the thirds, and what a family is at each ε."""
    rows = []
    for name, gains_of in found.items():
        for e, epsilon in enumerate(EPSILON):
            thirds = gains_of.thirds(e)
            cells = [
                f"{np.median(part):.3f} ({np.quantile(part, SHARES[0]):.3f} to "
                f"{np.quantile(part, SHARES[1]):.3f})"
                for part in thirds.T
            ]
            rows.append([name, f"{epsilon:g}", *cells, kind(thirds)])
    return Table(
        "Mean gain of the lowest, middle and highest third of frequencies: medians of draws, with "
        "the 10 % and 90 % quantiles. A kind is told where 95 % of the draws agree.",
        ["logits", "ε", "low", "middle", "high", "kind"],
        rows,
    )


def draw(found: dict[str, Gains]) -> Figure:
    """Draw the gain over the frequency, a panel for each family."""
    fig, axes = plt.subplots(2, 3, figsize=(11, 6.2), sharey=True, layout="constrained")
    for ax, (name, gains_of) in zip(axes.flat, found.items(), strict=True):
        for e, (epsilon, colour) in enumerate(zip(EPSILON, COLOURS, strict=True)):
            gain = gains_of.gain[e]
            frequency = np.arange(1, gain.shape[1] + 1) / (gain.shape[1] + 1)
            low, high = np.quantile(gain, SHARES, axis=0)
            ax.fill_between(frequency, low, high, color=colour, alpha=0.18, lw=0)
            line = np.median(gain, axis=0)
            ax.plot(frequency, line, "o-", ms=2.5, lw=1.3, color=colour, label=f"ε = {epsilon:g}")
        ax.set_title(name, fontsize=10)
        ax.axhline(1, color=FAINT, lw=0.8, ls=":")
        ax.set(xlim=(0, 1), ylim=(0, 1.05))
    for ax in axes[:, 0]:
        ax.set_ylabel("gain ‖P M w‖")
    for ax in axes[1]:
        ax.set_xlabel("frequency, zero crossings a step")
    axes[0, 2].legend(loc="upper left")
    fig.suptitle("What M keeps of each frequency: medians and 80 % of the draws")
    return fig


def study(size: Size, bench: Bench) -> Study:
    """Return the gain of every frequency, family by family."""
    found = {}
    for k, (name, draw_logits) in enumerate(FAMILIES.items()):
        bench.progress(k, len(FAMILIES), name)
        logits = np.stack(
            [draw_logits(np.random.default_rng([k, seed])) for seed in range(SEEDS[size])]
        )
        basis = waves(logits.shape[-1])
        found[name] = Gains(np.asarray(gains(logits, np.asarray(EPSILON), basis)))
    kinds = {
        name: "/".join(dict.fromkeys(kind(one.thirds(e)) for e in range(len(EPSILON))))
        for name, one in found.items()
    }
    return Study(
        text="; ".join(f"{name}: {what}" for name, what in kinds.items()) + ".",
        tables=[table_of(found)],
        figure=draw(found),
    )


if __name__ == "__main__":
    command(study)
