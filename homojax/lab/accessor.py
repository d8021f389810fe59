"""``ds.homojax.plot()`` and ``ds.homojax.summary()``, of every verb's Dataset."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROOMS = {  # verb -> (module that describes its Dataset, module that draws it, the figure)
    "sweep": ("sweep.report", "sweep.plots", "phase_diagram"),
    "verify": ("verify.report", "verify.plots", "tightness_map"),
    "probe frontier": ("probe.report", "probe.plots", "frontier"),
    "probe calibrate": ("probe.report", "probe.plots", "calibration"),
    "probe sensitivity": ("probe.report", "probe.plots", "sensitivity"),
    "train": ("train.report", "train.plots", "training"),
}


@xr.register_dataset_accessor("homojax")
class Accessor:
    """What a Dataset that a verb made can say of itself."""

    def __init__(self, ds: xr.Dataset):
        self._ds = ds

    def plot(self) -> Figure:
        """Return the main figure of the verb's page."""
        _, plots, name = self._rooms()
        return getattr(_load(plots), name)(self._ds)

    def summary(self) -> str:
        """Return what the run found, in a few sentences."""
        report, _, _ = self._rooms()
        return _load(report).headline(self._ds)

    def _rooms(self) -> tuple[str, str, str]:
        verb = self._ds.attrs.get("verb")
        if verb not in _ROOMS:
            raise ValueError(f"this Dataset says verb = {verb!r}: no homojax verb made it")
        return _ROOMS[verb]


def _load(room: str) -> Any:
    return importlib.import_module(f"homojax.lab.{room}")
