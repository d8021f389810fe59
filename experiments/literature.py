"""Who says what of doubly stochastic mixing, and what holds (theory.md, section 8)

    python experiments/literature.py [--quick]

Every disputed statement is a claim, judged on families of matrices as ``homojax verify --claims 8``
does it. Four questions need more than a verdict. They have parts of their own, which are scripts,
too: collapse.py (alone it has n = 256 besides), products.py, cooling.py and frequencies.py.
"""

from __future__ import annotations

from functools import partial

import collapse
import cooling
import frequencies
import products
import xarray as xr

import homojax as hj
from homojax.lab.experiment import Bench, Size, Study, command
from homojax.lab.page import Table

PARTS = {
    "Collapse: doubly stochastic or softmax?": partial(collapse.study, largest=64),
    "Products: three fates": products.study,
    "Cooling: how fast may ε fall?": cooling.study,
    "Frequencies: is it a low-pass filter?": frequencies.study,
}
UNITS = {"smoke": (4,), "quick": (4,), "full": (2, 4, 8)}
CELLS = {"smoke": 200, "quick": 1_000, "full": 20_000}
STACKS = {"smoke": 20, "quick": 100, "full": 2_000}


def study(size: Size, bench: Bench) -> Study:
    """Return the verdict on every disputed claim, and the four studies."""
    judged = hj.verify(
        claims=("8",),
        n=UNITS[size],
        cells=CELLS[size],
        stacks=STACKS[size],
        progress=lambda done, total, doing: bench.progress(done, total, f"claims: {doing}"),
    )
    return Study(
        text=sentence(judged),
        tables=[table_of(judged)],
        parts={heading: part(size, bench) for heading, part in PARTS.items()},
    )


def sentence(judged: xr.Dataset) -> str:
    """Say how many claims there are, and how they fared."""
    known = {status: judged.sel(claim=judged.status == status) for status in ("theorem", "refuted")}
    broken = int((known["theorem"].violated.sum(("family", "n")) > 0).sum())
    refuted = int((known["refuted"].violated.sum(("family", "n")) > 0).sum())
    return (
        f"{judged.sizes['claim']} disputed claims. Of {known['theorem'].sizes['claim']} theorems "
        f"{broken} are violated. Of {known['refuted'].sizes['claim']} claims that are said to be "
        f"false, {refuted} are."
    )


def table_of(judged: xr.Dataset) -> Table:
    """Return who says what, and what was found."""
    rows = []
    for name in judged.claim.values:
        row = judged.sel(claim=name)
        claim = hj.CLAIMS[str(name)]
        rows.append([claim.number, claim.source, claim.statement, verdict(row), command_for(name)])
    title = "Who says what, and what holds. Cells: comparisons that could be decided."
    return Table(title, ["§", "who", "says", "found", "to see it"], rows)


def verdict(row: xr.Dataset) -> str:
    """Return what was found of one claim, in words and numbers."""
    violated, holds = int(row.violated.sum()), int(row.holds.sum())
    if violated:
        family, n = (int(x[0]) for x in row.violated.values.nonzero())
        where = f"{row.family.values[family]}, n = {row.n.values[n]}"
        return f"false: violated in {violated:,} of {violated + holds:,} cells, first {where}"
    return f"holds in {holds:,} of {holds:,} cells" if holds else "undecided: attained everywhere"


def command_for(name: str) -> str:
    return f"homojax verify --claims {name}"


if __name__ == "__main__":
    command(study)
