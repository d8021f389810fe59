"""Doubly stochastic or softmax: which forgets faster? (law 8.2, doubly stochastic or softmax)

    python experiments/collapse.py [--quick]

Both rules read the same logits S at the same ε: A = softmax(S/ε), or the projection M_ε(S). What a
stack keeps is ‖P A_L ⋯ A_1 P‖₂. Both have rows that sum to 1, so no detail comes back from the mean,
and P A_L ⋯ A_1 P is a product of P A P. Two interventions test why one rule is ahead: ε of the
projection is moved until its rows have the entropy of softmax's; and entries are moved within rows
until no two rows have their largest entry in one column.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

import homojax as hj
from homojax.birkhoff import center, detail
from homojax.lab.experiment import Arrays, Bench, Size, Study, command
from homojax.lab.page import Table
from homojax.lab.programs import program
from homojax.lab.sources import LogitSource, load_source
from homojax.spectrum.singular_value import spectral_norm

EPSILON = {
    "smoke": (0.2, 2.0),
    "quick": tuple(np.geomspace(0.05, 20, 7)),
    "full": tuple(np.geomspace(0.05, 20, 13)),
}
DEPTH = 64
DEPTHS = (1, 2, 4, 8, 16, 32, 64)
SEEDS = {"smoke": 3, "quick": 9, "full": 24}
# n = 256 is projected at fewer ε and seeds, and for 16 layers.
UNITS = {"smoke": (4,), "quick": (4, 16), "full": (2, 4, 16, 64, 256)}
LARGE, FEW_LAYERS, FEW_SEEDS = 256, 16, 8
DRAWN = (4, 16, 64)
STACKS = ("independent", "shared", "residual")
ATTENTION = ("attention", "attention + residual")
FEATURES = 16  # of a token
GONE = -6.0  # log₁₀ of the detail at which tokens count as one
COLD, WARM = 0.05, 0.5


class Kept(NamedTuple):
    """What stacks keep, log₁₀, and the mean entropy of their rows; the first axis is the rule."""

    kept: np.ndarray  # [rule, stack, ε, seed, depth]
    tokens: np.ndarray  # [rule, ε, seed, depth], of Gaussian tokens, independent layers
    entropy: np.ndarray  # [rule, ε, seed], independent layers, nats
    moved: (
        np.ndarray
    )  # [ε, seed, depth], softmax whose rows have their tops in columns of their own


# ---------------------------------------------------------------- logits


def draw(family: str, n: int, seed: int, layers: int) -> np.ndarray:
    """Return logits [layers, n, n] of one stack."""
    if family == "digits":
        return load_source(LogitSource(source="digits", n=(n,), seeds=seed + 1)).draw(
            n, seed, layers
        )
    rng = np.random.default_rng([n, seed])
    if family == "Gaussian":
        return rng.standard_normal((layers, n, n))
    if family == "heavy tails":
        return rng.standard_t(2, (layers, n, n))
    rank = max(1, n // 8)
    queries, keys = rng.standard_normal((2, layers, n, rank))
    return queries @ keys.swapaxes(1, 2) / math.sqrt(rank)


FAMILIES = ("Gaussian", "heavy tails", "low rank", "digits")


def with_tops_apart(logits: np.ndarray) -> np.ndarray:
    """Return logits [L, n, n] whose rows are turned until row i has its largest entry at i.

    Each row keeps its values, and so its entropy.
    """
    n = logits.shape[-1]
    places = (np.arange(n)[None, :] - np.arange(n)[:, None] + logits.argmax(-1)[..., None]) % n
    return np.take_along_axis(logits, places, axis=-1)


# ---------------------------------------------------------------- measuring


def softmax(logits: jax.Array, epsilon: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits / epsilon, axis=-1)


def project(logits: jax.Array, epsilon: jax.Array) -> jax.Array:
    return hj.sinkhorn(logits, epsilon).matrix  # type: ignore[return-value]


RULES = (softmax, project)


def products(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return log₁₀ of ‖P A_l ⋯ A_1 P‖₂, and of what Gaussian tokens keep, [L] each."""
    n = matrices.shape[1]

    def multiply(state, matrix):
        block, log_size = state
        block = center(matrix @ block)
        size = abs(block).max()
        unit = jnp.where(size > 0, size, 1)
        state = block / unit, log_size + jnp.log10(unit)
        return state, state

    start = detail(jnp.eye(n)), jnp.zeros(())
    _, (blocks, log_size) = jax.lax.scan(multiply, start, matrices)
    typical = jnp.sqrt((blocks**2).sum((1, 2)) / (n - 1))
    return tuple(log_size + jnp.log10(x) for x in (jax.vmap(spectral_norm)(blocks), typical))


@cache
def stacks_of(rule) -> jax.stages.Wrapped:
    """Return the compiled (logits [L, n, n], ε [E]) -> what three kinds of stacks keep."""

    def measure(logits: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, ...]:
        matrices = jax.vmap(rule, (0, None))(logits, epsilon)
        n = matrices.shape[1]
        kinds = (
            matrices,
            jnp.broadcast_to(matrices[:1], matrices.shape),
            (jnp.eye(n) + matrices) / 2,
        )
        kept, tokens = zip(*map(products, kinds), strict=True)
        entropy = jax.scipy.special.entr(matrices).sum(-1).mean()
        return jnp.stack(kept), tokens[0], entropy

    return program(jax.vmap(measure, (None, 0)))


def measure(family: str, n: int, epsilon: tuple[float, ...], seeds: int, layers: int) -> Kept:
    """Return what stacks of one family keep, seed by seed."""
    every = np.asarray(epsilon)
    found, moved = [], []
    for seed in range(seeds):
        logits = draw(family, n, seed, layers)
        found.append([jax.device_get(stacks_of(rule)(logits, every)) for rule in RULES])
        moved.append(jax.device_get(stacks_of(softmax)(with_tops_apart(logits), every))[0][:, 0])
    kept, tokens, entropy = (
        np.stack([[of_rule[k] for of_rule in one] for one in found]) for k in range(3)
    )
    at = np.asarray([depth - 1 for depth in DEPTHS if depth <= layers])
    return Kept(
        kept=kept.transpose(1, 3, 2, 0, 4)[..., at],
        tokens=tokens.transpose(1, 2, 0, 3)[..., at],
        entropy=entropy.transpose(1, 2, 0),
        moved=np.stack(moved, 1)[..., at],
    )


def attend(rule, branch: float, tokens: jax.Array, weights: jax.Array, epsilon: jax.Array):
    """Return log₁₀ of the detail that tokens [n, d] keep of themselves, [L].

    Logits are X W Xᵀ of the current tokens X. Their mean and their detail are carried apart, so that
    the detail keeps its digits. What is the same in a row of logits changes neither rule.
    """
    begin = center(tokens)

    def layer(state, weight):
        mean, rest = state
        logits = (mean + rest) @ weight @ rest.T
        image = (1 - branch) * (rule(logits, epsilon) @ rest) + branch * rest
        return (mean + image.mean(0), center(image)), jnp.sqrt((center(image) ** 2).sum())

    _, sizes = jax.lax.scan(layer, (tokens.mean(0), begin), weights)
    return jnp.log10(sizes) - jnp.log10(jnp.sqrt((begin**2).sum()))


@cache
def attention_of(rule, branch: float) -> jax.stages.Wrapped:
    over_epsilon = jax.vmap(partial(attend, rule, branch), (None, None, 0))
    return program(jax.vmap(over_epsilon, (0, 0, None), 1))


def measure_attention(n: int, epsilon: tuple[float, ...], seeds: int) -> np.ndarray:
    """Return what the tokens of self-attention keep, [rule, kind, ε, seed, L]."""
    rng = np.random.default_rng([n, 1])
    tokens = rng.standard_normal((seeds, n, FEATURES))
    weights = rng.standard_normal((seeds, DEPTH, FEATURES, FEATURES)) / FEATURES
    given = tokens, weights, np.asarray(epsilon)
    return np.array(
        [[attention_of(rule, branch)(*given) for branch in (0.0, 0.5)] for rule in RULES]
    )


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
    """Return log₁₀ of softmax over Sinkhorn, where both are above what float64 has."""
    with np.errstate(invalid="ignore"):
        return kept[0] - kept[1]


def at_equal_entropy(found: Kept, epsilon: tuple[float, ...], e: int) -> np.ndarray:
    """Return ``ahead`` [seed, depth] with the projection at the ε where its rows are as mixed."""
    logs = np.log(epsilon)
    out = []
    for seed in range(found.entropy.shape[2]):
        where = np.interp(found.entropy[0, e, seed], found.entropy[1, :, seed], logs)
        curve = found.kept[1, 0, :, seed]
        same = [np.interp(where, logs, curve[:, depth]) for depth in range(curve.shape[1])]
        out.append(found.kept[0, 0, e, seed] - same)
    return np.array(out)


def first_gone(kept: np.ndarray) -> np.ndarray:
    """Return the first depth at which log₁₀ kept [..., L] is below ``GONE``; ∞ if it never is."""
    below = kept < GONE
    return np.where(below.any(-1), below.argmax(-1) + 1.0, np.inf)


def signed(values: np.ndarray) -> str:
    """Return the median with its interval, as +1.23 (+0.9 to +1.5)."""
    if not np.isfinite(values).all():
        return "–"
    middle, low, high = interval(values)
    return f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"


def nearest(epsilon: tuple[float, ...], wanted: float) -> int:
    return int(abs(np.log(epsilon) - math.log(wanted)).argmin())


class Map(NamedTuple):
    """All that was measured, by family and n."""

    epsilon: tuple[float, ...]
    found: dict[tuple[str, int], Kept]

    def depth(self, n: int, wanted: int) -> int:
        """Return the index of a depth, or of the deepest that this n has."""
        return min(DEPTHS.index(wanted), next(iter(self.of(n))).kept.shape[-1] - 1)

    def of(self, n: int) -> list[Kept]:
        return [found for (_, units), found in self.found.items() if units == n]


def table_of_regimes(drawn: Map) -> Table:
    """Return ``ahead`` of independent layers, by family, n, ε and depth."""
    rows = []
    for (family, n), found in drawn.found.items():
        for wanted in (COLD, WARM, 5.0):
            e = nearest(drawn.epsilon, wanted)
            lead = ahead(found.kept[:, 0, e])
            cells = [signed(lead[:, drawn.depth(n, depth)]) for depth in (1, 16, 64)]
            rows.append([family, str(n), f"{drawn.epsilon[e]:.2g}", *cells])
    return Table(
        "log₁₀ of what softmax keeps over what Sinkhorn keeps, independent layers: medians over "
        "seeds, with intervals of at least 95 %. n = 256 has 16 layers.",
        ["logits", "n", "ε", "1 layer", "16 layers", "64 layers"],
        rows,
    )


def table_of_causes(drawn: Map) -> Table:
    """Return what the two interventions make of the lead."""
    rows = []
    warm, cold = (nearest(drawn.epsilon, wanted) for wanted in (WARM, COLD))
    for (family, n), found in drawn.found.items():
        at, last = drawn.depth(n, 16), drawn.depth(n, 64)
        apart = found.moved[cold, :, last] - found.kept[1, 0, cold, :, last]
        rows.append(
            [
                *(family, str(n)),
                signed(ahead(found.kept[:, 0, warm])[:, at]),
                signed(at_equal_entropy(found, drawn.epsilon, warm)[:, at]),
                signed(ahead(found.kept[:, 0, cold])[:, last]),
                signed(apart),
            ]
        )
    return Table(
        f"The lead of softmax, and what is left of it. ε = {drawn.epsilon[warm]:.2g} for the first two "
        f"columns, 16 layers; ε = {drawn.epsilon[cold]:.2g} for the others, 64 layers.",
        ["logits", "n", "same ε", "same entropy of rows", "cold", "cold, tops apart"],
        rows,
    )


def table_of_stacks(drawn: Map) -> Table:
    """Return the lead where layers are shared, and with a residual branch of weight ½."""
    rows = []
    for (family, n), found in drawn.found.items():
        last = drawn.depth(n, 64)
        for wanted in (COLD, WARM):
            e = nearest(drawn.epsilon, wanted)
            cells = [signed(ahead(found.kept[:, k, e])[:, last]) for k in range(len(STACKS))]
            rows.append([family, str(n), f"{drawn.epsilon[e]:.2g}", *cells])
    title = "The same lead after 64 layers, for other stacks; residual: (I + A)/2 in every layer."
    return Table(title, ["logits", "n", "ε", *STACKS], rows)


def table_of_attention(epsilon: tuple[float, ...], kept: dict[int, np.ndarray]) -> Table:
    """Return after how many layers the tokens of self-attention are one, and what a branch saves."""
    rows = []
    for n, values in kept.items():
        for wanted in (COLD, WARM, 5.0):
            e = nearest(epsilon, wanted)
            depths = [f"{np.median(first_gone(values[rule, 0, e])):g}" for rule in (0, 1)]
            saved = [f"{np.median(values[rule, 1, e, :, -1]):.2f}" for rule in (0, 1)]
            lead = signed(ahead(values[:, 1, e, :, -1]))
            rows.append([str(n), f"{epsilon[e]:.2g}", *depths, *saved, lead])
    return Table(
        f"Self-attention, logits X W Xᵀ of the current tokens: medians of the first layer with less "
        f"than {10**GONE:.0e} of the detail; and of log₁₀ of the detail after {DEPTH} layers with a "
        "residual branch of weight ½.",
        ["n", "ε", "softmax", "Sinkhorn", "softmax, residual", "Sinkhorn, residual", "lead"],
        rows,
    )


def sentence(drawn: Map) -> str:
    """Say how often each rule is ahead beyond doubt, over the whole grid."""
    certain = {"softmax": 0, "Sinkhorn": 0, "neither": 0}
    for found in drawn.found.values():
        lead = ahead(found.kept[:, 0]).transpose(0, 2, 1).reshape(-1, found.kept.shape[3])
        for values in lead[np.isfinite(lead).all(1)]:
            _, low, high = interval(values)
            certain["softmax" if low > 0 else "Sinkhorn" if high < 0 else "neither"] += 1
    total = sum(certain.values())
    return (
        f"Of {total} points of the grid (logits, n, ε, depth; independent layers), softmax keeps more "
        f"in {certain['softmax']}, Sinkhorn in {certain['Sinkhorn']}, and for "
        f"{certain['neither']} the sign is not certain."
    )


def draw_map(drawn: Map) -> Figure:
    """Draw who is ahead, over ε and depth: a row of panels for each n, a column for each family."""
    units = [n for n in DRAWN if drawn.of(n)]
    families = list(dict.fromkeys(family for family, _ in drawn.found))
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
    colours = None
    for row, n in zip(axes, units, strict=True):
        for ax, family in zip(row, families, strict=True):
            colours = draw_panel(ax, drawn.epsilon, drawn.found[family, n], scale)
            ax.set_title(f"{family}, n = {n}", fontsize=9.5)
        row[0].set_ylabel("layers")
    for ax in axes[-1]:
        ax.set_xlabel("ε")
    label = "log₁₀ of softmax over Sinkhorn\nred: softmax keeps more; blue: Sinkhorn"
    fig.colorbar(colours, ax=axes, label=label, ticks=[-30, -10, -1, -0.1, 0, 0.1, 1, 10, 30])
    fig.suptitle("What independent layers keep, at the same logits and ε (dots: sign not certain)")
    return fig


def draw_panel(ax, epsilon: tuple[float, ...], found: Kept, scale: SymLogNorm):
    lead = ahead(found.kept[:, 0]).transpose(2, 0, 1)  # [depth, ε, seed]
    depths = DEPTHS[: len(lead)]
    lead = np.nan_to_num(lead, neginf=-400, posinf=400)
    spans = np.apply_along_axis(interval, -1, lead)  # [depth, ε, 3]
    colours = ax.pcolormesh(
        epsilon,
        depths,
        spans[..., 0],
        cmap="RdBu_r",
        norm=scale,
        shading="nearest",
        rasterized=True,
    )
    unsure = (spans[..., 1] <= 0) & (spans[..., 2] >= 0)
    rows, columns = np.nonzero(unsure)
    ax.plot(np.asarray(epsilon)[columns], np.asarray(depths)[rows], "k.", ms=2)
    ax.set(xscale="log", yscale="log", yticks=depths[::2], yticklabels=map(str, depths[::2]))
    ax.minorticks_off()
    ax.grid(False)
    return colours


# ---------------------------------------------------------------- the study


def study(size: Size, bench: Bench) -> Study:
    """Return who keeps more, where, and what is left of it after the interventions."""
    epsilon, found = EPSILON[size], {}
    families = FAMILIES[:2] if size == "smoke" else FAMILIES
    for n in UNITS[size]:
        layers = FEW_LAYERS if n == LARGE else DEPTH
        seeds = min(SEEDS[size], FEW_SEEDS) if n == LARGE else SEEDS[size]
        for family in families:
            label = f"{family.replace(' ', '-')}-{n}"
            about = f"{epsilon} {seeds} {layers}"
            arrays = bench.measured(
                label,
                about,
                lambda f=family, n=n, s=seeds, m=layers: as_arrays(measure(f, n, epsilon, s, m)),
            )
            found[family, n] = Kept(**{name: arrays[name] for name in Kept._fields})
    drawn = Map(epsilon, found)
    attention = {
        n: bench.measured(
            f"attention-{n}",
            f"{epsilon} {SEEDS[size]}",
            lambda n=n: {"kept": measure_attention(n, epsilon, SEEDS[size]), "failed": NONE_FAILED},
        )["kept"]
        for n in UNITS[size]
        if n in DRAWN
    }
    tables = [table_of_regimes(drawn), table_of_causes(drawn), table_of_stacks(drawn)]
    return Study(
        text=sentence(drawn),
        tables=[*tables, table_of_attention(epsilon, attention)],
        figure=draw_map(drawn),
    )


NONE_FAILED = np.full(1, -1)


def as_arrays(found: Kept) -> Arrays:
    return {**found._asdict(), "failed": NONE_FAILED}


if __name__ == "__main__":
    command(study)
