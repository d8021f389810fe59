"""What a network is made of."""

from __future__ import annotations

import dataclasses
from typing import Literal

from homojax.numerics import require_count, require_number


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a network is made of. ε, α and the noise are values of a model, not here: they vary without compiling again."""

    mixer: str = "sinkhorn"
    """What makes the mixing matrix: a parametrization of theory.md §6, or a preset of public code."""
    over: Literal["tokens", "attention", "streams"] = "tokens"
    """What is mixed: tokens by a matrix of parameters, tokens by attention, or the residual streams of hyper-connections."""
    depth: int = 8
    """Layers."""
    width: int = 32
    """Features of a token."""
    hidden: int = 0
    """Hidden features of the feed-forward branch of every layer; 0: none."""
    heads: int = 2
    """Of attention."""
    streams: int = 4
    """Of hyper-connections."""
    dynamic: bool = False
    """Hyper-connections whose matrix and maps depend on the token, too."""
    learned: bool = True
    """Whether the parameters of mixing matrices are trained."""
    learned_alpha: bool = False
    """Whether every layer's residual weight α is trained, too, from the one that is given."""
    norm: Literal["none", "layer", "rms"] = "layer"
    """Over the features of every token."""
    placement: Literal["pre", "post"] = "pre"
    """The norm before a branch, or after its sum with the residual."""
    logit_scale: float = 1.0
    """Standard deviation of the mixing parameters at the start; presets start as their code does."""
    num_iters: int = 20
    """Alternations of the mixer truncated-sinkhorn."""
    mixing_dtype: Literal["bfloat16", "float16", "float32", "float64"] = "float32"
    """Precision of the mixing matrix and of the mixing."""
    noisy: bool = False
    """Gaussian noise on every entry after every layer; its size is a value of the model."""
    remat: bool = False
    """Compute layers again in the backward pass instead of keeping what they made."""

    def __post_init__(self):
        for name, least in (
            ("depth", 1),
            ("width", 1),
            ("hidden", 0),
            ("heads", 1),
            ("streams", 2),
            ("num_iters", 1),
        ):
            object.__setattr__(self, name, require_count(name, getattr(self, name), least))
        for name, values in (
            ("over", ("tokens", "attention", "streams")),
            ("norm", ("none", "layer", "rms")),
            ("placement", ("pre", "post")),
            ("mixing_dtype", ("bfloat16", "float16", "float32", "float64")),
        ):
            if getattr(self, name) not in values:
                raise ValueError(
                    f'{name} must be one of {", ".join(values)}, not "{getattr(self, name)}"'
                )
        if self.over != "tokens" and self.width % self.heads:
            raise ValueError(f"width = {self.width} does not divide into {self.heads} heads")
        object.__setattr__(self, "logit_scale", require_number("logit_scale", self.logit_scale))
