"""One mixing layer of a checkpoint: all that its matrix depends on, for one token and for all."""

from __future__ import annotations

from collections.abc import Iterator
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
    projection: Projection | None = None  # where the tensors of a static mixing have one, too
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
    def streams_apart(self) -> bool:
        """Whether each stream is normalised by itself."""
        return self.projection is not None and self.projection.copies is not None

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

    def without_constants(self) -> Layer:
        """Return the layer as its code would run it if it added nothing to entries and sums."""
        bare = self.preset._replace(added_to_entries=0.0, added_to_sums=0.0, least_sum=0.0)
        return self._replace(preset=bare)

    def parameters(self, streams: np.ndarray) -> np.ndarray:
        """Return the preset's parameters for tokens of these streams, [T, n, C] -> [T, …].

        Raises:
            InputError: the streams have another shape, or tokens differ in a gain.
        """
        if self.projection is None or not self.dynamic:
            return np.broadcast_to(self.base, (len(streams), *self.base.shape))
        if streams.shape[1:] != (self.n, self.features):
            raise InputError(
                f"streams of {self.name} have shape {list(streams.shape)}, and its projection "
                f"takes [tokens, {self.n}, {self.features}]."
            )
        moved = self.scale * self.projection.of(streams)
        return self.base + moved.reshape(-1, *self.base.shape)


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
    gain_is_largest: bool = False  # whether tokens have gains of their own, of at most this

    def _rows(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield some columns of Φ at a time, and which: no more than that is held."""
        for columns, rows in read_rows(self.fn, self.rows, turned=self.turned):
            yield columns, rows if self.gain is None else rows * self.gain[None, columns]

    def of(self, streams: np.ndarray) -> np.ndarray:
        """Return Φ rmsnorm(x) of streams x [T, n, C], [T, p].

        Raises:
            InputError: each token has a gain that is not known here.
        """
        if self.gain_is_largest:
            raise InputError(
                f"{self.fn.name} is for tokens of several modalities, each with its own gain: "
                "record matrices, not streams."
            )
        flat = streams.reshape(len(streams), self.copies or 1, -1)
        size = np.sqrt((flat**2).mean(-1, keepdims=True))
        flat = flat / np.where(size > 0, size, 1)
        parts = [flat[..., columns] @ rows.T for columns, rows in self._rows()]
        return np.sum(parts, 0).reshape(len(streams), -1)

    def gram(self) -> np.ndarray:
        """Return ΦΦᵀ in float64.

        Raises:
            InputError: its numbers are too large to square.
        """
        total: np.ndarray | float = 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            for _, rows in self._rows():
                total = total + rows @ rows.T
        gram = np.asarray(total)
        if not np.isfinite(gram).all():
            raise InputError(
                f"{self.fn.name} has numbers too large to square: a training that diverged leaves "
                "such numbers; take an earlier checkpoint."
            )
        return gram if self.copies is None else np.kron(np.eye(self.copies), gram)
