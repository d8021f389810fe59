"""What ``homojax verify`` takes: a verification or a saved case, and where to write."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from homojax.lab.inputs import Output
from homojax.lab.verify.config import Verification


@dataclasses.dataclass(frozen=True)
class VerifyCommand(Output):
    """Test the theory: every claim on many matrices.

    Writes zarr, a report, and the worst case of every violation. Exits 0 if every theorem holds and
    every refuted claim was refuted again (with --mutants: if each was caught), else 1.
    """

    place: ClassVar[Path] = Path("runs/verify")

    verification: Annotated[Verification, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Verification
    )
    replay: Path | None = None
    """Judge one saved case (.npz) again, in every precision, and do nothing else."""
