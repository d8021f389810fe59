"""What a verification is told: which claims, on what, how often."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from homojax.lab.inputs import SEED, UNITS, Config, InputError, Range, at_least

ANY = Range(lambda name: True, "a name", may_be_empty=True)
CELLS = Range(lambda x: 0 <= x <= 10**9, "between 0 and a billion")
NOISE = "noise"  # the family of the claims about signals, which have no matrix


@dataclasses.dataclass(frozen=True)
class Verification(Config):
    """Which claims to test, on what, how often. Cells are spread evenly over families and sizes."""

    claims: Annotated[tuple[str, ...], ANY] = ()
    """Names (hilbert) or numbers of docs/claims.md (2.3, or 3 for all of §3); default: all."""
    families: Annotated[tuple[str, ...], ANY] = ()
    """Families of matrices, and "noise" for signals in noise; default: all."""
    n: Annotated[tuple[int, ...], UNITS] = (2, 3, 4, 8, 16)
    """Numbers of mixed units. A family has its cells at those that it exists at."""
    cells: Annotated[int, CELLS] = 20_000
    """Single matrices, in all."""
    stacks: Annotated[int, CELLS] = 2_000
    """Stacks of matrices, in all; half of them one matrix repeated."""
    depth: Annotated[int, at_least(2)] = 32
    """Layers of a stack."""
    signals: Annotated[int, CELLS] = 1_000
    """Signals in noise, in all, at n = 3, 8 and 64; each is drawn 4096 times."""
    dtype: Literal["float32", "float64"] = "float64"
    """Precision of everything computed."""
    escalate: bool = False
    """Decide again what is undecidable.

    From float32 in float64, and of small matrices a few in 50 digits."""
    mutants: bool = False
    """Test the instrument: wrong versions of every claim, each of which must be found violated."""
    seed: Annotated[int, SEED] = 0
    """Of all randomness."""

    def check(self) -> None:
        """Raise InputError where a claim or a family does not exist, or has nothing at these n."""
        if self.claims:
            from homojax.lab.judging import chosen_claims

            chosen_claims(self.claims)
        if not self.families:
            return
        from homojax.lab.verify.families import choose_families

        for family in choose_families([name for name in self.families if name != NOISE]):
            if not any(map(family.sizes, self.n)):
                sizes = ", ".join(map(str, self.n))
                raise InputError(
                    f"family {family.name} has no matrix at n = {sizes}: it needs {family.needs}."
                )
