"""What a probe is told: one frozen dataclass each, from Python or flags."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from homojax.lab.inputs import FRACTION, POSITIVE, SEED, UNITS, Config, InputError, at_least
from homojax.lab.sources import LogitSource

Goal = Literal["tighten", "refute"]
Root = Literal["first", "last"]
Kept = Literal["bound", "lyapunov", "composite"]


@dataclasses.dataclass(frozen=True)
class Search(Config):
    """Where to look for a matrix, and how long."""

    n: Annotated[int, UNITS] = 4
    """Mixed units (tokens or streams)."""
    epsilon: Annotated[float | None, POSITIVE] = 1.0
    """Entropy weight; None: it is searched, too."""
    bound: Annotated[float, POSITIVE] = 6.0
    """Largest |logit|."""
    layers: Annotated[int, at_least(1)] = 2
    """Layers of a stack, for claims about stacks."""
    starts: Annotated[int, at_least(1)] = 64
    """Random starts, climbed from side by side."""
    steps: Annotated[int, at_least(1)] = 300
    """First-order steps (Adam), on a smooth stand-in for σ₂."""
    polish: Annotated[int, at_least(0)] = 40
    """Quasi-Newton steps (L-BFGS) after those, on σ₂ itself: its kinks would mislead them."""
    seed: Annotated[int, SEED] = 0
    """Of the starts."""


@dataclasses.dataclass(frozen=True)
class FrontierSearch(Config):
    """At which n and entropy deficits to look, and how long."""

    n: Annotated[tuple[int, ...], UNITS] = (3, 4, 8, 16)
    """Numbers of mixed units (tokens or streams)."""
    deficits: Annotated[int, at_least(1)] = 20
    """Deficits for each n, evenly spread up to that of the isolated unit, where σ₂ reaches 1."""
    starts: Annotated[int, at_least(1)] = 32
    """Random starts at each deficit."""
    steps: Annotated[int, at_least(1)] = 400
    """Steps of the search for the largest σ₂, and of that for the smallest."""
    seed: Annotated[int, SEED] = 0
    """Of the starts."""


@dataclasses.dataclass(frozen=True)
class Calibrate(LogitSource):
    """Which logits to calibrate, and to which target.

    Give --sigma2 for every matrix by itself, or --retention for a stack of --depth layers.
    """

    sigma2: Annotated[float | None, FRACTION] = None
    """Target σ₂ of every matrix by itself, in (0, 1)."""
    retention: Annotated[float | None, FRACTION] = None
    """Share of detail, in (0, 1), that a stack of layers is to keep."""
    depth: Annotated[int | None, at_least(1, "layer")] = None
    """Layers of the stack; default: as many as the source has, or 16 of random ones."""
    kept: Kept = "bound"
    """How a stack's share is counted: Π σ₂, exp of L Lyapunov exponents, or σ₂ of the product."""
    schedule: bool = False
    """Give every layer its own ε, with σ₂ = ρ^(1/L) in each."""
    root: Root = "first"
    """first: the largest ε below which all ε meet the target; last: the largest ε that meets it."""

    def check(self) -> None:
        super().check()
        if (self.sigma2 is None) == (self.retention is None):
            raise InputError(
                "give one target: try sigma2 = 0.9, or try retention = 0.5 for a stack."
            )
        if self.sigma2 is not None and (self.schedule or self.depth is not None):
            raise InputError("depth and schedule are for a retention; a σ₂ is each matrix's own.")
        if self.schedule and self.kept != "bound":
            raise InputError(f"a schedule is made for the bound Π σ₂, not for kept = {self.kept}.")


@dataclasses.dataclass(frozen=True)
class SensitivityScan(Config):
    """At which ε to differentiate σ₂."""

    epsilon: Annotated[tuple[float, ...] | None, POSITIVE] = None
    """Entropy weights, in the logits' units; default: 81 from 0.01 to 100."""
    retention: Annotated[float, FRACTION] = 0.1
    """Share of detail at which the effective depth is read."""
