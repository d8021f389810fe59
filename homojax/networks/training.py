"""How a network is trained."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from homojax.networks.fields import at_least, check_fields, not_negative, positive


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained: AdamW with decoupled decay, a linear warm-up, a cosine to zero.

    Raises:
        ValueError: a field is out of its range.

    >>> Training(steps=200).learning_rate
    0.003
    """

    steps: Annotated[int, at_least(1)] = 1000
    """Steps of the optimiser."""
    batch: Annotated[int, at_least(1)] = 64
    """Examples in a step."""
    learning_rate: Annotated[float, positive] = 3e-3
    """Learning rate after the warm-up."""
    warmup: Annotated[int, at_least(0)] = 50
    """Steps of the warm-up."""
    weight_decay: Annotated[float, not_negative] = 0.0
    """Decay of all parameters except α and the parameters of mixing matrices."""
    mixing_decay: Annotated[float, not_negative] = 0.0
    """Decay of the parameters of mixing matrices."""
    clip: Annotated[float, positive] = 1.0
    """Largest norm of a gradient."""

    def __post_init__(self):
        check_fields(self)
