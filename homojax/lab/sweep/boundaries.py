"""Between which ε something changes: the detail that is left, or the verdict on a law."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr

from homojax.lab.inputs import InputError
from homojax.lab.selections import require_dims
from homojax.lab.store import config_of
from homojax.lab.sweep.dataset import LAWS
from homojax.theory.claim import Verdict

LEVELS = (0.9, 0.5, 0.1)  # shares of detail whose contours are found, beside the retention asked


def contours(ds: xr.Dataset) -> xr.Dataset:
    """Return between which ε the detail that is left falls through a level.

    It is the median over seeds, as in the phase diagram. Any sweep that measured depth has
    contours; those of ``refine`` are as narrow as was asked.

    Args:
        ds: a sweep.

    Returns:
        A Dataset of dimensions n, depth and share (0.9, 0.5, 0.1 and the retention):

        - lower, upper: the ε between which the share is crossed. Where it is crossed more than
          once, all crossings are between them. Where less is left at every ε of the grid, the
          interval is from 0 to the smallest; where more is, from the largest to inf.
        - width: ln(upper/lower).
        - crossings: how many there are.

    Raises:
        InputError: the sweep did not measure depth, or a selection left out what is needed.

    >>> from homojax.lab.sweep.run import sweep
    >>> tiny = dict(epsilon=(0.1, 10.0), depth=(1, 2), n=4, seeds=1, samples=8, dtype="float32")
    >>> found = contours(sweep(**tiny)).sel(n=4, depth=1, share=0.5)
    >>> float(found.lower), float(found.upper)
    (0.1, 10.0)
    """
    if "composite_sigma2" not in ds:
        raise InputError(
            "this Dataset has no composite_sigma2: measure depth, and keep that variable."
        )
    require_dims(ds, ("epsilon", "seed"))
    above = _is_left(ds).sortby("epsilon")
    epsilon = above.epsilon.values
    crossed = above.diff("epsilon", label="lower") != 0
    ends = xr.zeros_like(crossed.epsilon, dtype=float) + epsilon[1:]
    crossings, left = crossed.sum("epsilon"), above.isel(epsilon=0) == 1
    lower = crossed.epsilon.where(crossed).min("epsilon")
    lower = lower.where(crossings > 0, xr.where(left, epsilon[-1], 0.0))
    upper = ends.where(crossed).max("epsilon")
    upper = upper.where(crossings > 0, xr.where(left, np.inf, epsilon[0]))
    units = {"units": ds.epsilon.attrs["units"]}
    with np.errstate(divide="ignore"):
        width = np.log(upper / lower)
    return xr.Dataset(
        {
            "lower": lower.assign_attrs(long_name="largest ε known to be below", **units),
            "upper": upper.assign_attrs(long_name="smallest ε known to be above", **units),
            "width": width.assign_attrs(long_name="ln(upper/lower)", units="1"),
            "crossings": crossings.assign_attrs(long_name="times that it is crossed", units="1"),
        }
    ).drop_vars("epsilon", errors="ignore")


class Change(NamedTuple):
    """Two neighbours in ε between which the worst verdict on a law changes."""

    law: str
    n: int
    lower: float
    upper: float
    before: Verdict
    after: Verdict


def verdict_changes(ds: xr.Dataset) -> Iterator[Change]:
    """Yield where the worst verdict on a law, of all seeds, layers, depths and α, changes."""
    require_dims(ds, ("n", "epsilon"))
    ds = ds.sortby("epsilon")
    epsilon = ds.epsilon.values.tolist()
    for law, worst in _worst_verdicts(ds).items():
        for n in ds.n.values:
            verdicts = [Verdict(int(code)) for code in worst.sel(n=n).values]
            neighbours = zip(epsilon, epsilon[1:], verdicts, verdicts[1:], strict=False)
            yield from (Change(law, int(n), *two) for two in neighbours if two[2] != two[3])


def readings(ds: xr.Dataset) -> xr.Dataset:
    """Return what is compared from one ε to the next: small numbers along epsilon."""
    left = {"left": _is_left(ds)} if "composite_sigma2" in ds else {}
    return xr.Dataset({**left, **_worst_verdicts(ds)}).load()


def midpoints(read: xr.Dataset, width: float) -> np.ndarray:
    """Return the ε half-way, in ln ε, between neighbours that differ and lie farther apart.

    Args:
        read: readings, by rising ε.
        width: the distance in ln ε from which on they are near enough.
    """
    epsilon = read.epsilon.values
    wide = np.diff(np.log(epsilon)) > width
    changed = np.zeros_like(wide)
    for reading in read.data_vars.values():
        rows = reading.transpose("epsilon", ...).values.reshape(len(epsilon), -1)
        changed |= (rows[1:] != rows[:-1]).any(1)
    low, high = epsilon[:-1][wide & changed], epsilon[1:][wide & changed]
    return np.sqrt(low) * np.sqrt(high)


def even_size(ds: xr.Dataset, width: float) -> int:
    """Return how many ε an even grid in ln ε needs from end to end, at most ``width`` apart."""
    low, high = float(ds.epsilon.min()), float(ds.epsilon.max())
    return 1 + int(np.ceil(np.log(high / low) / width - 1e-9))


def _is_left(ds: xr.Dataset) -> xr.DataArray:
    """Return whether a share is left, 0 or 1, of dimensions n, epsilon, depth, share; −1: NaN."""
    kept = ds.composite_sigma2.median("seed", skipna=False)
    levels = sorted({*LEVELS, config_of(ds)["retention"]}, reverse=True)
    share = xr.DataArray(levels, dims="share", coords={"share": levels})
    return xr.where(kept.isnull(), np.int8(-1), (kept >= share).astype(np.int8))


def _worst_verdicts(ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the worst verdict on each law that was measured, of dimensions n and epsilon."""
    names = {law: f"verdict_{law}" for law in LAWS}
    verdicts = {law: ds[name] for law, name in names.items() if name in ds}
    return {
        law: x.min([dim for dim in x.dims if dim not in ("n", "epsilon")])
        for law, x in verdicts.items()
    }
