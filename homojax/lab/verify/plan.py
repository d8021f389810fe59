"""The cells of a verification: which families at which n, in blocks, and how they are drawn."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from homojax.lab.judging import chosen_claims, project
from homojax.lab.verify.config import NOISE, Verification
from homojax.lab.verify.families import FAMILIES, Family, choose_families
from homojax.theory.claim import Claim, mutants_of

NOISE_SIZES = 3, 8, 64  # few and many directions for the noise to go
CONSTANT = ("uniform", "identity")  # families whose cells are all one: two do
MOST_ENTRIES = {"matrix": 2**20, "stack": 2**21}  # of the matrices of a block
MOST_CELLS = 2**13  # of a block
NOISE_BLOCK = 16


class Group(NamedTuple):
    """The cells of one family at one n, drawn and judged block by block."""

    scope: str  # "matrix" (with the claims of scope projection where there are logits), "stack" …
    family: str
    n: int
    cells: int
    block: int  # cells computed together

    def num_blocks(self) -> int:
        """Return how many blocks the cells fill."""
        return -(-self.cells // self.block)

    def cells_of(self, block: int) -> int:
        """Return how many cells of a block count; it is always drawn whole."""
        return min(self.block, self.cells - block * self.block)


def claims_of(config: Verification, scope: str) -> tuple[Claim, ...]:
    """Return the claims of this scope that a verification is about, or their mutants."""
    claims = [claim for claim in chosen_claims(config.claims) if claim.scope == scope]
    if not config.mutants:
        return tuple(claims)
    true = [claim for claim in claims if claim.status != "refuted"]
    return tuple(mutant for claim in true for mutant in mutants_of(claim))


# ---------------------------------------------------------------- groups


def plan(config: Verification) -> list[Group]:
    """Return the groups of a verification. Those of one n lie together and share programs."""
    scopes = {claim.scope for claim in chosen_claims(config.claims)}
    groups: list[Group] = []
    if scopes & {"matrix", "projection"}:
        groups += _groups_of(config, scopes, "matrix", config.cells, layers=1)
    if "stack" in scopes:
        groups += _groups_of(config, scopes, "stack", config.stacks, layers=config.depth)
    if "noise" in scopes and (not config.families or NOISE in config.families):
        groups += _groups_of_noise(config.signals)
    return groups


def _groups_of(
    config: Verification, scopes: set[str], scope: str, total: int, layers: int
) -> Iterator[Group]:
    """Yield the groups of matrices or stacks: ``total`` cells spread evenly over the families."""
    places = list(_places(config, scopes))
    if not (total and places):
        return
    share = -(-total // max(1, sum(family.name not in CONSTANT for family, _ in places)))
    for n in config.n:
        block = max(2, min(share, MOST_ENTRIES[scope] // (n * n * layers), MOST_CELLS))
        for family, size in places:
            if size == n:
                count = min(share, 2) if family.name in CONSTANT else share
                yield Group(scope, family.name, n, cells=count, block=block + block % 2)


def _places(config: Verification, scopes: set[str]) -> Iterator[tuple[Family, int]]:
    """Yield the families at the n that they exist at.

    Claims about projections alone leave out families of matrices, which have no logits.
    """
    for family in _matrix_families(config):
        for n in config.n:
            if not family.sizes(n):
                continue
            if scopes != {"projection"} or _has_logits(family, n):
                yield family, n


def _has_logits(family: Family, n: int) -> bool:
    return family.draw(np.random.default_rng(0), n, 1).matrix is None


def _matrix_families(config: Verification) -> list[Family]:
    if not config.families:
        return list(FAMILIES.values())
    return choose_families([name for name in config.families if name != NOISE])


def _groups_of_noise(signals: int) -> Iterator[Group]:
    if not signals:
        return
    share = -(-signals // len(NOISE_SIZES))
    for n in NOISE_SIZES:
        yield Group("noise", NOISE, n, cells=share, block=min(share, NOISE_BLOCK))


# ---------------------------------------------------------------- cells


def draw(config: Verification, group: Group, block: int) -> dict[str, np.ndarray]:
    """Return the cells of a block, arrays [block, …], as exact as float64.

    They are so whatever they are judged in. Rounded to float32, a matrix and its logits would no
    more be each other's: what rounding does is in the margins of the precision that rounds, and not
    in those of a finer one that judges again.
    """
    words = zlib.crc32(f"{group.scope} {group.family}".encode())
    rng = np.random.default_rng([config.seed, words, group.n, block])
    if group.scope == "noise":
        return {
            "key": rng.integers(0, 2**31, group.block),
            "snr": np.exp(rng.uniform(np.log(1e-3), np.log(1e3), group.block)),
            "n": np.full(group.block, group.n),
        }
    if group.scope == "stack":
        return _draw_stacks(config, group, rng)
    cells = FAMILIES[group.family].draw(rng, group.n, group.block)
    arrays = {"logits": cells.logits, "epsilon": cells.epsilon}
    return arrays if cells.matrix is None else {**arrays, "matrix": cells.matrix}


def _draw_stacks(
    config: Verification, group: Group, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return stacks: half of independent layers, half of one matrix repeated."""
    size, n, half, depth = group.block, group.n, group.block // 2, config.depth
    cells = FAMILIES[group.family].draw(rng, n, half * depth + size - half)
    matrices = cells.matrix
    if matrices is None:
        dtype = "float64" if config.escalate else config.dtype
        projected = project(cells.logits.astype(dtype), cells.epsilon.astype(dtype))
        matrices = np.asarray(jax.device_get(projected), np.float64)
    independent = matrices[: half * depth].reshape(half, depth, n, n)
    shared = np.repeat(matrices[half * depth :, None], depth, 1)
    return {
        "matrices": np.concatenate([independent, shared]),
        "alpha": rng.uniform(0, 1, size),
        "probe": rng.standard_normal((size, n)),
    }
