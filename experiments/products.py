"""Infinite products of doubly stochastic matrices: three fates (law 8.5, sum of gaps).

    python experiments/products.py [--quick]

A stack is repeated for ever. Its products tend to J, or they go in a cycle, or they settle on a
matrix that mixes within groups only. Which one, the zeros of one period decide. Without a period
there is another fate: products that never settle. Law 8.5 says J where Σ(1 − σ₂) is infinite. Where
it is finite the law says nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import homojax as hj
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.page import Table
from homojax.programs import program

LAYERS = {"smoke": 16, "quick": 96, "full": 384}
N = 8


class Stack(NamedTuple):
    """The layers of a product, [L, n, n], and how many make a period; 0: it has none."""

    matrices: np.ndarray
    period: int


# ---------------------------------------------------------------- stacks


def permutation(order: np.ndarray) -> np.ndarray:
    """Return the matrix whose output i is input ``order``[i]."""
    return np.eye(len(order))[order]


def de_bruijn(n: int) -> np.ndarray:
    """Return the walk on words: i goes to 2i and 2i + 1 modulo n, with equal chances."""
    inputs = (2 * np.arange(n)[:, None] + np.arange(2)) % n
    return np.eye(n)[inputs].mean(1)


def stacks(layers: int) -> dict[str, Stack]:
    """Return stacks with n = 8, one of each kind."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, N, N))
    gaussian = np.asarray([hj.sinkhorn(one, 0.3).matrix for one in logits])
    turn = permutation(np.roll(np.arange(N), 1))
    groups = np.kron(np.eye(2), np.full((N // 2, N // 2), 2 / N))
    stays = [1 / (layer + 1) ** 2 for layer in range(1, layers + 1)]  # Σ is finite

    def repeated(period: np.ndarray) -> Stack:
        return Stack(np.resize(period, (layers, N, N)), len(period))

    return {
        "Gaussian logits, ε = 0.3": repeated(gaussian),
        "de Bruijn's walk": repeated(de_bruijn(N)[None]),
        "two groups": repeated(groups[None]),
        "a turn by one place": repeated(turn[None]),
        "groups that swap": repeated((groups @ permutation(np.roll(np.arange(N), N // 2)))[None]),
        "(1 − t)I + tJ, t = 1/(l + 1)²": Stack(
            np.stack([(1 - t) * np.eye(N) + t / N for t in stays]), 0
        ),
        "random permutations": Stack(
            np.stack([permutation(rng.permutation(N)) for _ in range(layers)]), 0
        ),
    }


# ---------------------------------------------------------------- fates


def pattern_of(period: np.ndarray) -> np.ndarray:
    """Return where the product of a period [L, n, n] is positive."""
    pattern = np.eye(period.shape[1], dtype=bool)
    for layer in period:
        pattern = (layer > 0) @ pattern
    return pattern


def powers_of(pattern: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Return the powers of a pattern until one comes back, and which one it was, from 0."""
    powers = [pattern]
    while True:
        power = pattern @ powers[-1]
        for k, old in enumerate(powers):
            if (power == old).all():
                return powers, k
        powers.append(power)


def cycle(period: np.ndarray) -> int:
    """Return after how many periods the zeros of the powers come back."""
    powers, back = powers_of(pattern_of(period))
    return len(powers) - back


def fate(period: np.ndarray) -> tuple[str, str]:
    """Return the fate of a stack [L, n, n] that is repeated for ever, and what certifies it.

    Zeros of the entries must be exact, and other entries surely positive. Then the zeros of the
    product are known, whatever the rounding. The powers of a doubly stochastic matrix tend to a
    limit unless their zeros go in a cycle. The limit is uniform on each of its groups, the units
    that some power connects.
    """
    powers, back = powers_of(pattern_of(period))
    length = len(powers) - back
    if length > 1:
        return "cycle", f"zeros of the powers come back after {length} periods"
    if powers[-1].all():
        return "J", f"all entries are positive, periods needed: {len(powers)}"
    return "groups", f"{len(np.unique(powers[-1], axis=0))} groups that never mix"


class Course(NamedTuple):
    """What was measured of a product, layer by layer."""

    distance: np.ndarray  # [L], ‖M_l ⋯ M_1 − J‖₂
    gaps: np.ndarray  # [L], Σ (1 − σ₂) up to there
    moved: np.ndarray  # [L − s], how far the next s layers move the product, 2-norm; s: a cycle


@program
def distances(matrices: jax.Array) -> jax.Array:
    """Return ‖M − J‖₂ of each matrix."""
    return jax.vmap(hj.spectrum.distance_to_uniform)(matrices)


def course(stack: Stack) -> Course:
    """Return the course of a product."""
    products = np.asarray(hj.composite(stack.matrices))
    step = max(1, stack.period * cycle(stack.matrices[: stack.period]))
    moved = np.linalg.norm(products[step:] - products[:-step], ord=2, axis=(1, 2))
    sigma2 = np.asarray(jax.vmap(hj.sigma2)(stack.matrices))
    return Course(np.asarray(distances(products)), np.cumsum(1 - sigma2), moved)


def table_of(found: dict[str, tuple[Stack, Course]]) -> Table:
    """Return where each product is after all layers, and its fate."""
    rows = []
    for name, (stack, one) in found.items():
        what, why = fate(stack.matrices[: stack.period]) if stack.period else ("–", "no period")
        gaps = 0.0 if abs(one.gaps[-1]) < 1e-9 else one.gaps[-1]  # but for rounding
        measured = [gaps, np.exp(-gaps), one.distance[-1], one.moved[-1]]
        rows.append([name, *(f"{value:.2g}" for value in measured), what, why])
    layers = len(next(iter(found.values()))[0].matrices)
    return Table(
        f"After {layers} layers: the sum of gaps Σ(1 − σ₂); exp(−Σ), the bound of 8.5; the "
        "distance to J; how far one more cycle (or layer) moves the product. And the fate of the "
        "stack, repeated for ever, by its zeros.",
        ["stack", "Σ gaps", "bound", "to J", "moved", "fate", "certificate"],
        rows,
    )


def draw(found: dict[str, tuple[Stack, Course]]) -> Figure:
    """Draw the distance to J and how far products still move, over the layers."""
    fig, (far, moving) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    for k, (name, (_, one)) in enumerate(found.items()):
        # marks at other places on each line, so that lines on each other are seen
        look = {"color": plt.get_cmap("tab10")(k), "lw": 1.2, "marker": "os^Dvpx"[k], "ms": 5.5}
        look["markevery"] = (0.02 + 0.022 * k, 0.16)
        far.plot(np.arange(1, len(one.distance) + 1), one.distance + 1e-17, label=name, **look)
        moving.plot(np.arange(1, len(one.moved) + 1), one.moved + 1e-17, **look)
    for ax in (far, moving):
        ax.set(xscale="log", yscale="log", xlabel="layers", ylim=(2e-18, 6))
    far.set_ylabel("distance to J, ‖M_l ⋯ M_1 − J‖₂")
    moving.set_ylabel("how far the next cycle, or layer, moves it")
    fig.legend(loc="outside lower center", ncols=3)
    fig.suptitle(
        "Products of doubly stochastic matrices, n = 8: to J, to groups, in a cycle, nowhere"
    )
    return fig


def study(size: Size, bench: Bench) -> Study:
    """Return the course and the fate of each stack."""
    found = {}
    wanted = stacks(LAYERS[size])
    for k, (name, stack) in enumerate(wanted.items()):
        bench.progress(k, len(wanted), name)
        found[name] = stack, course(stack)
    walk = found["de Bruijn's walk"][1]
    return Study(
        text=f"De Bruijn's walk has gaps that sum to {abs(walk.gaps[-1]):.1g}, and is J after "
        f"{int((walk.distance < 1e-12).argmax()) + 1} layers: gaps that sum to infinity suffice, "
        "and are not needed.",
        tables=[table_of(found)],
        figure=draw(found),
    )


if __name__ == "__main__":
    command(study)
