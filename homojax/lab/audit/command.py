"""What ``homojax audit`` takes: a checkpoint, how to read it, and what to answer with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from homojax.lab.audit.config import Audit
from homojax.lab.inputs import InputError, Output
from homojax.registry import nearest

FAILING = ("trap", "unconverged", "locked")  # verdicts that a gate may fail on


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditCommand(Output):
    """Say whether a model's residual mixing is in the trap: per layer and for the stack.

    Writes zarr, figures and report.html.
    """

    place: ClassVar[Path] = Path("runs/audit")

    checkpoint: tyro.conf.Positional[tuple[Path, ...]] = ()
    """A .safetensors, .npz, .npy, .gguf, .pt or .pth file, an index of shards, or a folder.

    Several: checkpoints of one training, in order. The last one is audited, and what changed is
    shown."""
    streams: Path | None = None
    """A file of recorded streams [..., n, C] by the names of layers, or [..., L, n, C]: what the
    model mixed at some tokens."""
    matrices: Path | None = None
    """A file of recorded mixing matrices [..., n, n] by the names of layers, or [..., L, n, n];
    also without a checkpoint."""
    config: Annotated[Audit, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Audit)
    json: bool = False
    """Print one JSON object in place of tables, and write nothing unless --out is given."""
    fail_on: str = ""
    """Verdicts, as trap,unconverged,locked: exit 1 where the stack or a layer has one of them."""

    def __post_init__(self):
        for verdict in self.failing:
            if verdict not in FAILING:
                raise InputError(f'no gate fails on "{verdict}": {nearest(verdict, FAILING)}')

    @property
    def failing(self) -> tuple[str, ...]:
        """The verdicts of ``fail_on``."""
        return tuple(self.fail_on.replace(",", " ").split())
