"""The numbered claims of theory.md: what they say, and how far both sides can be off.

Each module declares the claims of its sections; importing it puts them into ``CLAIMS``.
"""

# Importing declares claims: this is their order.
# isort: off
from homojax.theory import (
    cases,
    claim,
    projection,
    disputed_cooling,
    matrix,
    disputed_matrix,
    disputed_rank,
    depth,
    composite,
    residual,
    disputed_stack,
    disputed_rank_composed,
    disputed_gauge,
    noise,
    detection,
    normalising_layers,
)

# isort: on
from homojax.theory.claim import CLAIMS

__all__ = [
    "CLAIMS",
    "cases",
    "claim",
    "composite",
    "depth",
    "detection",
    "disputed_cooling",
    "disputed_gauge",
    "disputed_matrix",
    "disputed_rank",
    "disputed_rank_composed",
    "disputed_stack",
    "matrix",
    "noise",
    "normalising_layers",
    "projection",
    "residual",
]
