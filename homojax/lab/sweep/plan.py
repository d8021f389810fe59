"""How the cells of a sweep are divided into blocks, which are measured one after the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from homojax.lab.devices import require_memory
from homojax.lab.grid_store import Region
from homojax.lab.sources import Source
from homojax.lab.sweep.config import Sweep

Cell = tuple[int, int]  # (index of ε, seed)
FEW = 8  # cells whose layer norm is simulated side by side: more need memory and are slower


class Lanes(NamedTuple):
    """What the programs of a sweep are compiled for."""

    at_once: dict[int, int]  # n -> cells side by side
    in_all: int  # cells of each n


class Block(NamedTuple):
    """Cells of one n, a rectangle of ε × seeds."""

    n: int
    region: Region  # of the Dataset
    lanes: int  # for how many cells its program is compiled
    in_all: int  # cells of this n in the sweep

    @property
    def cells(self) -> list[Cell]:
        """The cells, lanes alike in ε side by side."""
        epsilons, seeds = (_range(self.region[dim]) for dim in ("epsilon", "seed"))
        return [(e, s) for e in epsilons for s in seeds]

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many n, ε and seeds it has."""
        return tuple(len(_range(span)) for span in self.region.values())  # type: ignore


def _range(span: slice) -> range:
    return range(span.start, span.stop)


def lanes_of(config: Sweep, source: Source) -> Lanes:
    """Return the lanes of each n, and how many cells will fill them.

    There are four blocks at least, so that an interrupt loses a quarter. Lanes are a power of two,
    so that most sweeps run programs of few sizes.
    """
    cells = len(config.epsilon) * source.seeds
    quarter = max(1, -(-cells // 4))
    most = {n: min(block_size(config, n), quarter) for n in source.sizes}
    return Lanes({n: 2 ** (count.bit_length() - 1) for n, count in most.items()}, cells)


def chunks_of(config: Sweep, source: Source, lanes: Lanes) -> dict[str, int]:
    """Return how many n, ε and seeds a chunk of the Dataset has: a block of the largest n.

    Lanes alike in ε lie together.
    """
    least = min(lanes.at_once.values())
    epsilons, seeds = len(config.epsilon), source.seeds
    few = min(least, seeds)

    def blocks(width: int) -> int:
        return -(-epsilons // (least // width)) * -(-seeds // width)

    width = min(range(few, max(0, few - 4096), -1), key=blocks)  # the widest of those with fewest
    return {"n": 1, "epsilon": min(epsilons, least // width), "seed": width}


def blocks_of(config: Sweep, source: Source, chunks: dict[str, int], lanes: Lanes) -> list[Block]:
    """Return all blocks in the order in which they are measured, each of whole chunks."""
    blocks = []
    for i, n in enumerate(source.sizes):
        width = chunks["seed"]
        most = max(lanes.at_once[n], _power_of_two(chunks["epsilon"] * width))
        height = chunks["epsilon"] * max(1, most // (chunks["epsilon"] * width))
        for e in range(0, len(config.epsilon), height):
            for s in range(0, source.seeds, width):
                region = {
                    "n": slice(i, i + 1),
                    "epsilon": slice(e, min(e + height, len(config.epsilon))),
                    "seed": slice(s, min(s + width, source.seeds)),
                }
                blocks.append(Block(n, region, most, lanes.in_all))
    return blocks


def _power_of_two(count: int) -> int:
    """Return the least power of two that is at least ``count``."""
    return 2 ** (count - 1).bit_length()


def block_size(config: Sweep, n: int) -> int:
    """Return how many cells fit in the memory allowed, by a count of the largest arrays.

    Raises:
        InputError: not even one cell fits in this machine.
    """
    layers = max(config.depth)
    stack = layers * n * n * (24 + 3 * len(config.alpha))
    draw = 5 * n + len(config.snr) * (2 * n + 20)
    noise = config.samples * draw + 20_000  # of a few cells only, however many there are
    itemsize = np.dtype(config.precision).itemsize
    cell = itemsize * (stack + noise)
    require_memory(cell, f"one cell at n = {n}, depth {layers} and {config.samples} samples")
    most = config.memory_mb * 1e6 / itemsize
    side_by_side = most / (stack + noise)
    return max(1, int(side_by_side if side_by_side < FEW else (most - FEW * noise) / stack))
