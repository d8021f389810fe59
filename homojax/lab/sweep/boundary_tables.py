"""The tables of a refined sweep: between which ε something changes, and how narrow that is."""

from __future__ import annotations

import numpy as np
import xarray as xr

from homojax.lab.page import Table
from homojax.lab.store import config_of
from homojax.lab.sweep.boundaries import contours, even_size, verdict_changes

CONTOUR_CAPTION = (
    "Between which ε the detail that is left falls through a share. < and >: outside the grid; "
    "width: the widest of the row, in ln ε"
)
CHANGE_CAPTION = "Between which ε the worst verdict on a law changes, of all its cells at one n"


def boundary_tables(ds: xr.Dataset) -> list[Table]:
    """Return the contours and the changes of verdicts, of a sweep that was refined."""
    if config_of(ds).get("refine") is None:
        return []
    tables = [_contour_table(ds)] if "composite_sigma2" in ds else []
    changes = [
        [one.law, str(one.n), _interval(ds, one.lower, one.upper), _arrow(one.before, one.after)]
        for one in verdict_changes(ds)
    ]
    header = ["law", "n", "ε", "verdict"]
    return [*tables, Table(CHANGE_CAPTION, header, changes)] if changes else tables


def refined_sentence(ds: xr.Dataset) -> str:
    """Say how far a sweep was refined, and what an even grid would take; "" of any other."""
    width = config_of(ds).get("refine")
    if width is None:
        return ""
    asked = len(config_of(ds)["epsilon"])
    return (
        f"ε was refined from {asked} to {ds.sizes['epsilon']:,} values: every change is known to "
        f"{width:g} in ln ε, for which an even grid needs {even_size(ds, width):,}."
    )


def _contour_table(ds: xr.Dataset) -> Table:
    found = contours(ds)
    shares = [f"{share:.3g}" for share in found.share.values]
    rows = []
    for n in found.n.values:
        for depth in found.depth.values:
            row = found.sel(n=n, depth=depth)
            ends = zip(row.lower.values, row.upper.values, strict=True)
            widest = float(row.width.where(row.crossings > 0).max())
            width = "–" if np.isnan(widest) else f"{widest:.2g}"
            rows.append([str(n), str(depth), *(_interval(ds, *pair) for pair in ends), width])
    return Table(CONTOUR_CAPTION, ["n", "depth", *shares, "width"], rows)


def _interval(ds: xr.Dataset, lower: float, upper: float) -> str:
    """Return an interval of ε, in as many digits as its width has a use for."""
    digits = 2 + max(1, int(np.ceil(-np.log10(config_of(ds)["refine"]))))
    if lower == 0 or np.isinf(upper):
        return f"< {upper:.3g}" if lower == 0 else f"> {lower:.3g}"
    return f"{lower:.{digits}g}–{upper:.{digits}g}"


def _arrow(*verdicts) -> str:
    return " → ".join(verdict.label for verdict in verdicts)
