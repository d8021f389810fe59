"""What the probes take on the command line: a search or a scan, and where to write."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from homojax.lab.inputs import Output
from homojax.lab.probe.config import Calibrate, FrontierSearch, Search, SensitivityScan


@dataclasses.dataclass(frozen=True, kw_only=True)
class TightenCommand(Output):
    """Bring a bound as close to equality as it comes, by gradient from many random starts.

    Writes the case with its replay, the history and report.html.
    """

    place: ClassVar[Path] = Path("runs/tighten")

    claim: tyro.conf.Positional[str]
    """Name (hilbert) or number in docs/claims.md (1.4)."""
    config: Annotated[Search, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Search)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefuteCommand(Output):
    """Hunt a violation of a claim, by gradient from many random starts.

    Writes the case with its replay, the history and report.html. Exits 1 if a theorem or a
    conjecture was violated, or a claim that is known to be false was not.
    """

    place: ClassVar[Path] = Path("runs/refute")

    claim: tyro.conf.Positional[str]
    """Name (sigma2_falls) or number in docs/claims.md (1.4)."""
    config: Annotated[Search, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Search)


@dataclasses.dataclass(frozen=True)
class FrontierCommand(Output):
    """Find the largest and the smallest σ₂ at each entropy deficit (law 2.3, frontier).

    Writes zarr, a figure and report.html. Exits 1 if a σ₂ lies above the frontier.
    """

    place: ClassVar[Path] = Path("runs/frontier")

    config: Annotated[FrontierSearch, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=FrontierSearch
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrateCommand(Output):
    """Find the ε that meets a target, for every matrix or stack of a source.

    Writes zarr, a figure and report.html.
    """

    place: ClassVar[Path] = Path("runs/calibrate")

    config: Annotated[Calibrate, tyro.conf.arg(name="")]


@dataclasses.dataclass(frozen=True)
class SensitivityCommand(Output):
    """Find where a gradient reaches the logits: ‖∂σ₂/∂S‖ along ε (law 6.2, gradient trap).

    Writes zarr, a figure and report.html.
    """

    place: ClassVar[Path] = Path("runs/sensitivity")

    config: Annotated[SensitivityScan, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=SensitivityScan
    )
