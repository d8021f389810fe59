"""What a network is made of."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from homojax.networks.fields import at_least, check_fields, not_negative


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a network is made of.

    ε, α and the size of the noise are values of a model. They can vary without compiling again.

    Raises:
        ValueError: a field is out of its range, or the width does not divide into the heads.

    >>> Architecture("softmax", over="attention", depth=4).width
    32
    """

    mixer: str = "sinkhorn"
    """Makes the mixing matrix: a parametrization (theory.md §6), or a preset of public code."""
    over: Literal["tokens", "attention", "streams"] = "tokens"
    """What is mixed: tokens by a matrix of parameters or by attention, or residual streams."""
    depth: Annotated[int, at_least(1)] = 8
    """Number of layers."""
    width: Annotated[int, at_least(1)] = 32
    """Features of a token."""
    hidden: Annotated[int, at_least(0)] = 0
    """Hidden features of each layer's feed-forward branch; 0: no branch."""
    heads: Annotated[int, at_least(1)] = 2
    """Heads of attention."""
    streams: Annotated[int, at_least(2)] = 4
    """Residual streams of hyper-connections."""
    dynamic: bool = False
    """Let the matrix and the maps of hyper-connections depend on the token, too."""
    learned: bool = True
    """Train the parameters of the mixing matrices."""
    learned_alpha: bool = False
    """Train every layer's residual weight α, too, starting from the given one."""
    norm: Literal["none", "layer", "rms"] = "layer"
    """Norm over the features of every token."""
    placement: Literal["pre", "post"] = "pre"
    """Put the norm before a branch, or after the branch's sum with the residual."""
    logit_scale: Annotated[float, not_negative] = 1.0
    """Standard deviation of the mixing parameters at the start; presets start as their codes do."""
    num_iters: Annotated[int, at_least(1)] = 20
    """Alternations of the mixer truncated-sinkhorn."""
    mixing_dtype: Literal["bfloat16", "float16", "float32", "float64"] = "float32"
    """Precision of the mixing matrix and of the mixing."""
    noisy: bool = False
    """Add Gaussian noise to every entry after every layer; its size is a value of the model."""
    remat: bool = False
    """Compute layers again in the backward pass instead of keeping their states."""

    def __post_init__(self):
        check_fields(self)
        if self.over != "tokens" and self.width % self.heads:
            multiple = self.heads * (self.width // self.heads + 1)
            raise ValueError(
                f"width = {self.width} does not divide into {self.heads} heads: "
                f"try width = {multiple}"
            )
