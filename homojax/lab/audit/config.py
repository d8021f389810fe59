"""What an audit is told: how matrices are made, where layouts do not say it, and the thresholds."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from homojax.lab.audit.by_hand import ByHand
from homojax.lab.inputs import FRACTION, POSITIVE, InputError, at_least


@dataclasses.dataclass(frozen=True)
class Audit(ByHand):
    """How to read a checkpoint, and from where on a layer is called what."""

    sum_error: Annotated[float, POSITIVE] = 0.01
    """A row or column sum farther from 1 than this: the matrix is not doubly stochastic."""
    retention: Annotated[float, FRACTION] = 0.1
    """A layer, or the stack, that keeps less of the detail than this is in the trap."""
    near_identity: Annotated[float, FRACTION] = 0.1
    """A layer in which less than this share of each stream goes to others is near the identity."""
    search: bool = False
    """Look by gradient, too, for the tokens that come nearest to what is certified: how much of a
    bound is attained, and by which token. It takes some seconds more."""
    learning_rate: Annotated[float | None, POSITIVE] = None
    """Of several checkpoints: the rate of the training between them. With it and the decay, what
    decay alone would make of the first one stands beside each (law 6.1, weight decay)."""
    decay: Annotated[float | None, FRACTION] = None
    """Decoupled weight decay on the logits."""
    steps: Annotated[tuple[int, ...], at_least(0)._replace(may_be_empty=True)] = ()
    """Training step of each checkpoint; default: the last number in its name."""
    response: Annotated[float, POSITIVE] = 1e-6
    """Where no entry answers a change of the logits by more than this, the layer is locked."""

    def check(self) -> None:
        super().check()
        if (self.learning_rate is None) != (self.decay is None):
            given, missing = f"decay = {self.decay}", "learning_rate"
            if self.decay is None:
                given, missing = f"learning_rate = {self.learning_rate}", "decay (--decay)"
            raise InputError(f"{given} needs a {missing} beside it, to predict what decay does.")
        if list(self.steps) != sorted(self.steps):
            raise InputError("steps must grow: name the checkpoints in the order of the training.")
