"""``ds.homojax``: a Dataset that a verb made draws itself, and says what was found."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import xarray as xr

from homojax.lab.inputs import InputError, nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Verb(NamedTuple):
    """Where a verb's Dataset is described and drawn."""

    room: str  # its report.py and plots.py
    figures: dict[str, str]  # kind -> function of plots.py; the first is the main one


_VERBS = {
    "sweep": _Verb(
        "sweep",
        {
            "phase": "phase_diagram",
            "survival": "survival",
            "entropy": "entropy_against_sigma2",
            "layernorm": "cosine_against_snr",
            "residual": "retention_against_turn",
        },
    ),
    "verify": _Verb("verify", {"tightness": "tightness_map"}),
    "probe frontier": _Verb("probe", {"frontier": "frontier"}),
    "probe calibrate": _Verb("probe", {"calibration": "calibration"}),
    "probe sensitivity": _Verb("probe", {"sensitivity": "sensitivity"}),
    "train": _Verb(
        "train",
        {kind: kind for kind in ("training", "loss", "accuracy", "layers", "kept")},
    ),
}


@xr.register_dataset_accessor("homojax")
class Accessor:
    """What a Dataset that a verb made can say of itself."""

    def __init__(self, ds: xr.Dataset):
        self._ds = ds

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of figures that there are of this Dataset; the first is the main one."""
        return tuple(self._verb().figures)

    def plot(self, kind: str | None = None, ax: Axes | None = None) -> Figure:
        """Return a figure.

        Args:
            kind: one of ``kinds``; default: the first.
            ax: an axis to draw on, where the figure has one panel; default: a figure of its own.

        Raises:
            InputError: there is no such kind, or the figure has more than one panel.
        """
        verb = self._verb()
        kind = self.kinds[0] if kind is None else kind
        if kind not in verb.figures:
            raise InputError(f'there is no figure "{kind}": {nearest(kind, verb.figures)}')
        # One n that was chosen by its value is no dimension any more.
        alone = "n" in self._ds.coords and "n" not in self._ds.dims
        ds = self._ds.expand_dims("n") if alone else self._ds
        return self._with(getattr(_load(f"{verb.room}.plots"), verb.figures[kind]), ds, ax)

    def summary(self) -> str:
        """Return what the run found, in a few sentences."""
        return self._with(_load(f"{self._verb().room}.report").headline, self._ds)

    def _with(self, make: Callable, ds: xr.Dataset, *args: Any) -> Any:
        """Return ``make`` of a Dataset, or say what a selection has taken out of it."""
        try:
            return make(ds, *args)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            single = [name for name in ds.coords if ds[name].ndim == 0]
            gone = ", ".join(str(name) for name in single)
            hint = f"; {gone}: one value each" if gone else ""
            raise InputError(
                "this Dataset has not all that its verb gave it, as after a mean or a choice of "
                f"variables{hint}: choose by lists, as ds.isel(seed=[0]), and keep the variables."
            ) from error

    def _verb(self) -> _Verb:
        verb = self._ds.attrs.get("verb")
        if verb not in _VERBS:
            raise InputError(f"this Dataset says verb = {verb!r}: no homojax verb made it.")
        return _VERBS[verb]


def _load(room: str) -> Any:
    return importlib.import_module(f"homojax.lab.{room}")
