"""What a person reads of a frontier, a calibration and a scan of sensitivities."""

from __future__ import annotations

import numpy as np
import xarray as xr

from homojax.calibration import CalibrationStatus
from homojax.calibration.sensitivity import trainable_band
from homojax.lab import page
from homojax.lab.page import Section, Table
from homojax.lab.probe import plots
from homojax.lab.probe.calibrate import REASONS

SHOWN_ANSWERS = 24  # rows of a calibration's table
LEAST_SIGMA2 = 1e-12  # at and below it M is J
NONE = "–"


def describe_frontier(ds: xr.Dataset) -> Section:
    """Return whether anything lies above the isolated unit's curve, and by how much."""
    above, found = ds.excess > ds.excess_error, int(ds.excess.notnull().sum())
    if above.any():
        text = (
            f"The frontier (law 2.3) is BROKEN: {int(above.sum())} of {found} deficits have a "
            f"larger σ₂ than the isolated unit, by up to {float(ds.excess.max()):.3g}; the "
            "matrices are in the data."
        )
    elif found:
        text = (
            f"The frontier (law 2.3) stands: at none of {found} deficits does a σ₂ exceed the "
            f"isolated unit's by more than the error. The largest excess is "
            f"{float(ds.excess.max()):.1e}, the largest shortfall {float(-ds.excess.min()):.1e}."
        )
    else:
        text = "Nothing was found."
    if found < above.size:
        text += (
            f" At {above.size - found} deficits no start met the deficit: give the search more "
            "starts or steps."
        )
    return Section(
        heading="",
        text=text,
        as_expected=not above.any(),
        tables=[_frontier_table(ds)],
        about=page.about(ds.attrs, "frontier.zarr"),
    )


def _frontier_table(ds: xr.Dataset) -> Table:
    header = ["n", "ΔH", "largest σ₂", "isolated unit", "smallest σ₂", "excess", "error"]
    columns = ("entropy_deficit", "sigma2_largest", "isolated_unit", "sigma2_smallest")
    rows = []
    for i, k in np.ndindex(ds.sizes["n"], ds.sizes["deficit"]):
        cell = ds.isel(n=i, deficit=k)
        row = [str(int(cell.n)), *(f"{float(cell[name]):.6f}" for name in columns)]
        row += [f"{float(cell.excess):+.1e}", f"{float(cell.excess_error):.0e}"]
        rows.append([*row, f"{float(cell.share):.0%}"])
    return Table("σ₂ at each entropy deficit (nat)", [*header, "starts there"], rows)


# ---------------------------------------------------------------- calibrate


def describe_calibration(ds: xr.Dataset) -> Section:
    """Return how many found an ε, how many are certified, and the answers."""
    found = ds.status == CalibrationStatus.FOUND
    certified = int((found & ds.certified).sum())
    text = f"{int(found.sum())} of {found.size} found an ε, {certified} of them certified."
    for status, reason in REASONS.items():
        count = int((ds.status == status).sum())
        if count:
            text += f" {count}: {reason}."
    return Section(
        heading="",
        text=f"{text} Source: {ds.attrs['source']}.",
        tables=[_answer_table(ds)],
        about=page.about(ds.attrs, "calibrate.zarr"),
    )


def _answer_table(ds: xr.Dataset) -> Table:
    rows = [
        _answer(ds.isel(n=i, seed=seed, layer=layer))
        for i, seed, layer in list(np.ndindex(*ds.status.shape))[:SHOWN_ANSWERS]
    ]
    caption = (
        "certified: the promise of the root is proved, to the shortfall; ceiling: the worst-case "
        "rule (law 2.1, logit budget)"
    )
    if len(rows) < ds.status.size:
        caption += f"; {len(rows)} of {ds.status.size}, all are in the data"
    header = ["n", "seed", "layer", "ε", "kept", "certified", "shortfall", "ceiling", "status"]
    return Table(caption, header, rows)


def _answer(cell: xr.Dataset) -> list[str]:
    """Return the row of one matrix or stack."""
    status = CalibrationStatus(int(cell.status))
    found = status == CalibrationStatus.FOUND
    proved = found and bool(np.isfinite(cell.shortfall))
    return [
        *(str(int(cell[name])) for name in ("n", "seed", "layer")),
        f"{float(cell.epsilon):.8g}" if found else NONE,
        f"{float(cell.kept):.8g}" if found else NONE,
        "yes" if found and cell.certified else "no",
        f"{float(cell.shortfall):.1e}" if proved else NONE,
        f"{float(cell.ceiling):.5g}",
        status.name.lower().replace("_", " "),
    ]


# ---------------------------------------------------------------- sensitivity


def describe_sensitivity(ds: xr.Dataset) -> Section:
    """Return the trainable band of each case, and whether it is used at an ε within that."""
    rows = [_band(ds.sel(case=case)) for case in ds.case.values]
    outside = [row[0] for row in rows if row[-1] == "no"]
    caption = (
        "band: where ‖∂σ₂/∂S‖ keeps a tenth of its maximum over the grid of ε (law 6.2, gradient "
        "trap); < and >: beyond the grid"
    )
    header = ["logits", "ε", "‖∂σ₂/∂S‖", "band from", "to", "inside"]
    return Section(
        heading="",
        text=f"Outside their trainable band: {'; '.join(outside) or 'none'}.",
        tables=[Table(caption, header, rows)],
        about=page.about(ds.attrs, "sensitivity.zarr"),
    )


def _band(cells: xr.Dataset) -> list[str]:
    """Return the row of one case."""
    started = float(cells.started)
    norm = plots.gradient_norm_at_start(cells)
    row = [str(cells.case.item()), f"{started:g}", NONE if np.isnan(norm) else f"{norm:.1e}"]
    if float(cells.sigma2.max()) < LEAST_SIGMA2:  # J at every ε: nothing to train away from
        return [*row, NONE, NONE, "σ₂ = 0"]
    norms, epsilon = cells.gradient_norm.values, cells.epsilon.values
    low, high = map(float, trainable_band(epsilon, gradient_norms=norms))
    inside = low <= started <= high
    start = f"{low:.3g}" if low > 0 else f"< {epsilon[0]:.3g}"
    end = f"{high:.3g}" if np.isfinite(high) else f"> {epsilon[-1]:.3g}"
    return [*row, start, end, "yes" if inside else "no"]
