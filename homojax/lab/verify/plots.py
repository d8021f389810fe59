"""The figure of a verification."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from homojax.lab.figure_style import WARNING, sheet


def tightness_map(ds: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw claims about matrices × families: the best tightness, and where one is violated."""
    bounds = _bounds(ds)
    best = bounds.tightness_best.max("n")
    known = best.notnull().any("claim").values
    best, violated = best[:, known], (bounds.violated.sum("n") > 0)[:, known]
    size = 3.2 + 0.36 * best.sizes["family"], max(3.4, 1.8 + 0.3 * best.sizes["claim"])
    page = sheet(ax, size=size)
    ax = page.axes[0]
    ax.set_facecolor("#e4e4e4")
    image = ax.imshow(np.clip(best, 0, 1), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    rows, cols = np.nonzero(violated.values)
    ax.plot(cols, rows, "x", color=WARNING, markersize=8, markeredgewidth=2)
    pairs = zip(bounds.number.values, bounds.claim.values, strict=True)
    labels = [f"{number} {name}" for number, name in pairs]
    ax.set_yticks(range(len(labels)), labels)
    ax.set_xticks(range(best.sizes["family"]), best.family.values, rotation=60, ha="right")
    ax.set(xlabel="family of cases", ylabel="claim")
    ax.grid(False)
    page.colorbar(image, "best tightness:\nlesser over greater side")
    return page.fig


def _bounds(ds: xr.Dataset) -> xr.Dataset:
    """Return the bounds about matrices at n > 2: a 2 × 2 matrix attains nearly everything.

    Where equalities, signals or n = 2 are all that was asked, these are better than nothing.
    """
    kinds = zip(ds.direction.values, ds.scope.values, strict=True)
    bounds = ds.sel(claim=[sign not in ("=", "~") and scope != "noise" for sign, scope in kinds])
    bounds = bounds if bounds.sizes["claim"] else ds
    return bounds.sel(n=bounds.n > 2) if (ds.n > 2).any() else bounds
