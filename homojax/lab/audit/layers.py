"""One mixing layer of a checkpoint: all that its matrix depends on, for one token and for all."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from homojax.lab.audit.tensors import Precision, Skipped, Tensor, read_rows
from homojax.lab.inputs import InputError
from homojax.presets import Preset

Site = Literal["attention", "feed-forward", "other"]


class Layer(NamedTuple):
    """The mixing of one sublayer, whose parameters for a token of streams x are ``logits`` below.

    logits = base + scale · Φ u, where u = rmsnorm(x) is a vector of n·C numbers in the ball of
    ``radius``, and the rows of Φ are those of the projection with the norm's gain folded in.
    Everything that matters of Φ to the set of all logits is its Gram matrix. Where a token's
    streams are normalised one by one, u lies in a part of that ball.
    """

    name: str
    number: int | None  # the first number in its name
    site: Site
    layout: str  # a key of LAYOUTS, or "by hand"
    preset: Preset  # with the alternations and constants of this model; it turns the matrix
    base: np.ndarray  # float64, in the shape of the preset's parameters
    base_precision: Precision
    scale: float = 0.0  # 0 where nothing depends on the token
    gram: np.ndarray | None = None  # ΦΦᵀ, float64 [p, p] of p parameters; None where static
    fn_precision: Precision | None = None
    n: int = 0  # streams
    features: int | None = None  # C of each stream; None where no tensor tells
    read: np.ndarray | None = None  # [n] weights of what the sublayer reads, at the static part
    write: np.ndarray | None = None  # [n] weights of what it writes, at the static part
    streams_apart: bool = False  # whether each stream is normalised by itself
    tensors: tuple[str, ...] = ()  # names in the file

    @property
    def dynamic(self) -> bool:
        """Whether the matrix depends on the token."""
        return self.gram is not None and self.scale != 0

    @property
    def radius(self) -> float:
        """√(nC), the largest 2-norm of what the projection is given."""
        return float(self.n * (self.features or 0)) ** 0.5

    @property
    def turned(self) -> bool:
        """Whether it has square logits that stand the other way round than in y = M x."""
        return self.preset.num_iters is not None and self.preset.orientation == "inputs-first"

    def logits(self) -> np.ndarray:
        """Return S/ε [n, n] of the static part, for y = M x, where there are alternations."""
        logits = self.base / self.preset.epsilon
        return logits.T if self.turned else logits

    def matrix(self) -> np.ndarray:
        """Return the matrix [n, n] of the static part, with y = M x, as precise as JAX computes."""
        return np.asarray(self.preset.matrix(self.base))


class Mixing(NamedTuple):
    """What a checkpoint has of mixing: layers in order, and what looks like it and is not there."""

    layers: tuple[Layer, ...]
    skipped: tuple[Skipped, ...]


class Projection(NamedTuple):
    """The rows of a projection that make the logits, and where they are."""

    fn: Tensor  # a matrix
    rows: slice
    turned: bool = False  # whether the file has inputs first
    gain: np.ndarray | None = None  # of the norm before it
    copies: int | None = None  # streams that are projected one by one, by the same rows

    def gram(self) -> np.ndarray:
        """Return ΦΦᵀ in float64; no more than a part of Φ is held at a time.

        Raises:
            InputError: its numbers are too large to square.
        """
        total: np.ndarray | float = 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            for columns, rows in read_rows(self.fn, self.rows, turned=self.turned):
                rows = rows if self.gain is None else rows * self.gain[None, columns]
                total = total + rows @ rows.T
        gram = np.asarray(total)
        if not np.isfinite(gram).all():
            raise InputError(
                f"{self.fn.name} has numbers too large to square: a training that diverged leaves "
                "such numbers; take an earlier checkpoint."
            )
        return gram if self.copies is None else np.kron(np.eye(self.copies), gram)
