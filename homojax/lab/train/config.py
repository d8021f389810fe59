"""What a training is told: which networks, on which task, over which values."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Annotated, Any, NamedTuple

import numpy as np

from homojax.lab.inputs import (
    NOT_NEGATIVE,
    SEED,
    SEEDS,
    SHARE,
    Config,
    InputError,
    Range,
    at_least,
)
from homojax.networks.architecture import Architecture
from homojax.networks.training import Training

REPORTS = 20  # of a training: each is a mean of the loss, and a chance to save and to stop
TOGETHER = 16  # networks at most that train as one program
DEPTHS = at_least(1, "layer")._replace(may_be_empty=True)
EPSILONS = Range(lambda x: bool(0 < np.float32(x) < math.inf), "a positive number, in float32, too")


class Cell(NamedTuple):
    """The values by which runs that are trained side by side differ."""

    epsilon: float
    alpha: float
    noise: float
    seed: int


class Group(NamedTuple):
    """Networks of one depth that train side by side, as one program on one device."""

    depth: int
    number: int  # among the groups of this depth
    cells: tuple[Cell, ...]

    @property
    def key(self) -> str:
        """The name of what is kept of it."""
        return f"depth-{self.depth}-{self.number}"


@dataclasses.dataclass(frozen=True)
class Train(Config):
    """Which networks to train, on which task, over which values: every combination is trained."""

    task: str = "copying"
    """The task: copying, recall, digits or text."""
    architecture: Architecture = dataclasses.field(default_factory=Architecture)
    training: Training = dataclasses.field(default_factory=Training)
    depths: Annotated[tuple[int, ...], DEPTHS] = ()
    """Numbers of layers to compare; default: the architecture's depth alone."""
    epsilon: Annotated[tuple[float, ...], EPSILONS] = (1.0,)
    """Entropy weights ε of the mixing; a preset keeps its own."""
    alpha: Annotated[tuple[float, ...], SHARE] = (0.5,)
    """Residual weights of x -> (1 − α)x + αMx. Public hyper-connection codes have 1."""
    noise: Annotated[tuple[float, ...], NOT_NEGATIVE] = (0.0,)
    """Standard deviations of the noise that every layer adds to every entry."""
    seeds: Annotated[int, SEEDS] = 5
    """Initialisations, each with its own batches."""
    seed: Annotated[int, SEED] = 0
    """Of all randomness."""
    claims: bool = True
    """Judge the claims about matrices and stacks on the trained ones, too.

    It adds half a minute of compiling for every depth."""
    patience: Annotated[int, at_least(0)] = 0
    """Stop a run after so many reports without a lower mean loss; 0: never.

    There are 20 reports in a training."""

    def check(self) -> None:
        """Raise InputError where a residual weight is to be learned and could not move."""
        stuck = not all(0 < np.float32(alpha) < 1 for alpha in self.alpha)
        if self.architecture.learned_alpha and stuck:
            raise InputError(
                "a residual weight of 0 or 1 cannot be learned, because it could not move: try "
                "alpha = 0.5."
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What a folder that holds this training says it is."""
        return {"verb": "train", **self.as_dict()}

    @property
    def all_depths(self) -> tuple[int, ...]:
        """The numbers of layers that are trained."""
        return self.depths or (self.architecture.depth,)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The runs of one depth, in the order of the Dataset's dimensions."""
        grid = itertools.product(self.epsilon, self.alpha, self.noise, range(self.seeds))
        return tuple(itertools.starmap(Cell, grid))

    def groups(self, depth: int) -> tuple[Group, ...]:
        """Return the runs of one depth, divided into groups of like size.

        The division does not depend on the number of devices, because a program of fewer networks
        rounds in other ways.

        >>> [len(group.cells) for group in Train(seeds=36).groups(2)]
        [12, 12, 12]
        """
        cells, least = self.cells, -(-len(self.cells) // TOGETHER)
        # a few groups more, where all can have one size and thus one program
        count = next((k for k in range(least, 2 * least) if len(cells) % k == 0), least)
        borders = [len(cells) * i // count for i in range(count + 1)]
        return tuple(
            Group(depth, number, cells[first:last])
            for number, (first, last) in enumerate(itertools.pairwise(borders))
        )

    @property
    def report_steps(self) -> tuple[int, ...]:
        """The numbers of steps after which there is a report; each step of a short training.

        >>> Train(training=Training(steps=3)).report_steps
        (1, 2, 3)
        """
        steps = self.training.steps
        return tuple(sorted({-(-steps * i // REPORTS) for i in range(1, REPORTS + 1)}))
