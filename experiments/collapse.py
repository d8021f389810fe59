"""Doubly stochastic or softmax: which forgets faster? (law 8.2, doubly stochastic or softmax)

    python experiments/collapse.py [--quick]

Both rules read the same logits S at the same ε: A = softmax(S/ε), or the projection M_ε(S). A stack
keeps ‖P A_L ⋯ A_1 P‖₂. interventions.py takes away what may be the cause of a rule's lead.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from interventions import INTERVENTIONS, intervene
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from rules import DEPTH, DEPTHS, FAMILIES, STACKS, Kept, measure, measure_attention

from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.page import Table

EPSILON = {
    "smoke": (0.2, 2.0),
    "quick": tuple(np.geomspace(0.05, 20, 5)),
    "full": tuple(np.geomspace(0.05, 20, 13)),
}
SEEDS = {"smoke": 2, "quick": 6, "full": 24}
UNITS = {"smoke": (4,), "quick": (16,), "full": (2, 4, 16, 64, 256)}
LARGE, FEW_EPSILON = 256, (0, 3, 5, 9, 12)  # n = 256 has five ε of the thirteen
DRAWN = (4, 16, 64)
ATTENTION = {"smoke": (4,), "quick": (4,), "full": DRAWN}
NONE = np.full(1, -1)  # no run failed
GONE = -6.0  # log₁₀ of the detail at which tokens count as one
COLD, WARM, HOT = 0.05, 0.5, 20.0
REGIMES = {"cold": COLD, "warm": WARM, "hot": HOT}


# ---------------------------------------------------------------- what it says


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the median, and an interval that holds the true one in 95 % of all draws, or more.

    By ranks: no assumption about the distribution but that draws are independent.
    """
    count, ordered, tail, rank = len(values), np.sort(values), 0.0, 0
    while tail + math.comb(count, rank) * 0.5**count <= 0.025:
        tail += math.comb(count, rank) * 0.5**count
        rank += 1
    low, high = (ordered[rank - 1], ordered[count - rank]) if rank else (-np.inf, np.inf)
    return float(np.median(values)), float(low), float(high)


def ahead(kept: np.ndarray) -> np.ndarray:
    """Return log₁₀ of softmax over Sinkhorn; not finite where one of them lost all in float64."""
    with np.errstate(invalid="ignore"):
        return kept[0] - kept[1]


def first_gone(kept: np.ndarray) -> np.ndarray:
    """Return the first depth at which log₁₀ kept [..., L] is below ``GONE``; ∞ if it never is."""
    below = kept < GONE
    return np.where(below.any(-1), below.argmax(-1) + 1.0, np.inf)


def signed(values: np.ndarray, form: str = "+.2f") -> str:
    """Return the median with its interval, as +1.23 (+0.90 to +1.50)."""
    if not np.isfinite(values).all():
        return "–"
    middle, low, high = (f"{x:{form}}" for x in interval(values))
    return f"{middle} ({low} to {high})"


def nearest(epsilon: tuple[float, ...], wanted: float) -> int:
    return int(abs(np.log(epsilon) - math.log(wanted)).argmin())


class Map(NamedTuple):
    """All that was measured, by family and n."""

    epsilon: dict[int, tuple[float, ...]]  # by n
    stacks: dict[tuple[str, int], Kept]
    changed: dict[tuple[str, str, int], np.ndarray]  # ``intervene``, by its name, too

    def near(self, n: int, wanted: float) -> tuple[int, float]:
        """Return the index of the ε nearest to one that is wanted, and that ε."""
        index = nearest(self.epsilon[n], wanted)
        return index, self.epsilon[n][index]


def table_of_regimes(drawn: Map) -> Table:
    """Return ``ahead`` of independent layers, by family, n, ε and depth."""
    rows = []
    for (family, n), stacks in drawn.stacks.items():
        for wanted in (COLD, WARM, 5.0):
            e, epsilon = drawn.near(n, wanted)
            lead = ahead(stacks.kept[:, 0, e])
            cells = [signed(lead[:, DEPTHS.index(depth)]) for depth in (1, 16, 64)]
            rows.append([family, str(n), f"{epsilon:.2g}", *cells])
    return Table(
        "log₁₀ of what softmax keeps over what Sinkhorn keeps, independent layers: medians over "
        "seeds, with intervals of at least 95 %.",
        ["logits", "n", "ε", "1 layer", "16 layers", "64 layers"],
        rows,
    )


def table_of_causes(drawn: Map) -> Table:
    """Return what is left of the lead where its cause is taken away."""
    rows = []
    for (name, family, n), leads in drawn.changed.items():
        regime, layers = INTERVENTIONS[name].regime, INTERVENTIONS[name].layers or DEPTH
        _, epsilon = drawn.near(n, REGIMES[regime])
        hot = regime == "hot"
        cells = [signed(abs(of), ".2g") if hot else signed(of) for of in leads]
        rows.append([regime, f"{epsilon:.2g}", name, str(layers), family, str(n), *cells])
    return Table(
        "The lead of softmax, and what is left of it after an intervention. Hot: its size, "
        "without the sign.",
        ["regime", "ε", "intervention", "layers", "logits", "n", "lead", "lead then"],
        rows,
    )


def table_of_stacks(drawn: Map) -> Table:
    """Return the lead where layers are shared, and with a residual branch of weight ½."""
    rows = []
    for (family, n), stacks in drawn.stacks.items():
        for wanted in (COLD, WARM):
            e, epsilon = drawn.near(n, wanted)
            cells = [signed(ahead(stacks.kept[:, k, e])[:, -1]) for k in range(len(STACKS))]
            tokens = signed(ahead(stacks.tokens[:, e])[:, -1])
            rows.append([family, str(n), f"{epsilon:.2g}", *cells, tokens])
    title = (
        f"The same lead after {DEPTH} layers, for other stacks; residual: (I + A)/2 in every "
        "layer; tokens: of the detail of Gaussian tokens, independent layers."
    )
    return Table(title, ["logits", "n", "ε", *STACKS, "tokens"], rows)


def table_of_attention(epsilon: tuple[float, ...], kept: dict[int, np.ndarray]) -> Table:
    """Return after how many layers all tokens of self-attention are one, without a branch."""
    rows = []
    for n, values in kept.items():
        for wanted in (COLD, WARM, 5.0):
            e = nearest(epsilon, wanted)
            depths = [f"{np.median(first_gone(values[rule, 0, e])):g}" for rule in (0, 1)]
            saved = [f"{np.median(values[rule, 1, e, :, -1]):.2f}" for rule in (0, 1)]
            lead = signed(ahead(values[:, 1, e, :, -1]))
            rows.append([str(n), f"{epsilon[e]:.2g}", *depths, *saved, lead])
    return Table(
        "Self-attention, logits X W Xᵀ of the current tokens: medians of the first layer with less "
        f"than 10^{GONE:g} of the detail. With a residual branch of weight ½: log₁₀ of the detail "
        f"after {DEPTH} layers.",
        ["n", "ε", "softmax", "Sinkhorn", "softmax, residual", "Sinkhorn, residual", "lead"],
        rows,
    )


def sentence(drawn: Map) -> str:
    """Say how often each rule is ahead beyond doubt, over the whole grid."""
    certain = {"softmax": 0, "Sinkhorn": 0, "neither": 0}
    for stacks in drawn.stacks.values():
        lead = ahead(stacks.kept[:, 0]).transpose(0, 2, 1).reshape(-1, stacks.kept.shape[3])
        for values in lead[np.isfinite(lead).all(1)]:
            _, low, high = interval(values)
            certain["softmax" if low > 0 else "Sinkhorn" if high < 0 else "neither"] += 1
    total = sum(certain.values())
    return (
        f"Of {total} points of the grid (logits, n, ε, depth; independent layers), softmax keeps "
        f"more in {certain['softmax']}, Sinkhorn in {certain['Sinkhorn']}, and for "
        f"{certain['neither']} the sign is not certain. Points are left out where one rule lost "
        "all that float64 can tell."
    )


def draw_map(drawn: Map) -> Figure:
    """Draw who is ahead, over ε and depth: a row of panels for each n, a column for each family."""
    units = [n for n in DRAWN if n in drawn.epsilon]
    families = list(dict.fromkeys(family for family, _ in drawn.stacks))
    fig, axes = plt.subplots(
        len(units),
        len(families),
        figsize=(2.9 * len(families) + 1, 2.5 * len(units) + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    scale = SymLogNorm(linthresh=0.1, vmin=-30, vmax=30, base=10)
    for row, n in zip(axes, units, strict=True):
        for ax, family in zip(row, families, strict=True):
            draw_panel(ax, drawn.epsilon[n], drawn.stacks[family, n], scale)
            ax.set_title(f"{family}, n = {n}", fontsize=9.5)
        row[0].set_ylabel("layers")
    for ax in axes[-1]:
        ax.set_xlabel("ε")
    label = "log₁₀ of softmax over Sinkhorn\nred: softmax keeps more; blue: Sinkhorn"
    colours = axes[0, 0].collections[0]
    fig.colorbar(colours, ax=axes, label=label, ticks=[-30, -10, -1, -0.1, 0, 0.1, 1, 10, 30])
    fig.suptitle("What independent layers keep, at the same logits and ε (dots: sign not certain)")
    return fig


def draw_panel(ax: Axes, epsilon: tuple[float, ...], stacks: Kept, scale: SymLogNorm) -> None:
    """Draw one family at one n."""
    lead = ahead(stacks.kept[:, 0]).transpose(2, 0, 1)  # [depth, ε, seed]
    depths = DEPTHS[: len(lead)]
    lead = np.nan_to_num(lead, neginf=-400, posinf=400)
    spans = np.apply_along_axis(interval, -1, lead)  # [depth, ε, 3]
    ax.pcolormesh(
        epsilon,
        depths,
        spans[..., 0],
        cmap="RdBu_r",
        norm=scale,
        shading="nearest",
        rasterized=True,
    )
    ax.contour(epsilon, depths, spans[..., 0], levels=[0], colors="black", linewidths=0.8)
    unsure = (spans[..., 1] <= 0) & (spans[..., 2] >= 0)
    rows, columns = np.nonzero(unsure)
    ax.plot(np.asarray(epsilon)[columns], np.asarray(depths)[rows], "k.", ms=2)
    ax.set(xscale="log", yscale="log", yticks=depths[::2], yticklabels=map(str, depths[::2]))
    ax.minorticks_off()
    ax.grid(False)


# ---------------------------------------------------------------- the study


def study(size: Size, bench: Bench, largest: int = LARGE) -> Study:
    """Return who keeps more, where, and what is left of it after the interventions."""
    seeds = SEEDS[size]
    families = FAMILIES[:2] if size == "smoke" else FAMILIES
    units = [n for n in UNITS[size] if n <= largest]
    drawn = Map({n: epsilons(size, n) for n in units}, {}, {})
    wanted = [(family, n) for n in units for family in families]
    for k, (family, n) in enumerate(wanted):
        bench.progress(k, len(wanted), f"{family}, n = {n}")
        drawn.stacks[family, n] = stacks_kept(bench, family, n, drawn.epsilon[n], seeds)
    asked = [(name, *of) for name in INTERVENTIONS for of in wanted]
    for k, (name, family, n) in enumerate(asked):
        bench.progress(k, len(asked), f"{name}: {family}, n = {n}")
        if family in INTERVENTIONS[name].families:
            drawn.changed[name, family, n] = leads(bench, name, family, n, drawn, seeds)
    attention = {n: attended(bench, n, epsilons(size, n), seeds) for n in ATTENTION[size]}
    return Study(
        text=sentence(drawn),
        tables=[
            table_of_regimes(drawn),
            table_of_causes(drawn),
            table_of_stacks(drawn),
            table_of_attention(EPSILON[size], attention),
        ],
        figure=draw_map(drawn),
    )


def epsilons(size: Size, n: int) -> tuple[float, ...]:
    """Return the ε of the grid, or a few of them where n is large."""
    every = EPSILON[size]
    return tuple(every[k] for k in FEW_EPSILON) if n == LARGE else every


def stacks_kept(bench: Bench, family: str, n: int, epsilon: tuple[float, ...], seeds: int) -> Kept:
    """Return what stacks of one family keep."""
    arrays = bench.measured(
        f"stacks-{family.replace(' ', '-')}-{n}",
        f"{epsilon} {seeds} {DEPTH}",
        lambda: {**measure(family, n, epsilon, seeds, DEPTH)._asdict(), "failed": NONE},
    )
    return Kept(**{name: arrays[name] for name in Kept._fields})


def leads(bench: Bench, name: str, family: str, n: int, drawn: Map, seeds: int) -> np.ndarray:
    """Return the lead before and after an intervention, [2, seed]."""
    _, epsilon = drawn.near(n, REGIMES[INTERVENTIONS[name].regime])
    return bench.measured(
        f"{name.replace(' ', '-')}-{family.replace(' ', '-')}-{n}",
        f"{epsilon} {seeds} {DEPTH}",
        lambda: {"leads": intervene(name, family, n, epsilon, seeds, DEPTH), "failed": NONE},
    )["leads"]


def attended(bench: Bench, n: int, epsilon: tuple[float, ...], seeds: int) -> np.ndarray:
    """Return what the tokens of self-attention keep, [rule, kind, ε, seed, L]."""
    return bench.measured(
        f"attention-{n}",
        f"{epsilon} {seeds}",
        lambda: {"kept": measure_attention(n, epsilon, seeds), "failed": NONE},
    )["kept"]


if __name__ == "__main__":
    command(study)
