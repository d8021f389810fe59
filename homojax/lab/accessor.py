"""``ds.homojax``: a Dataset that a verb made draws itself, and says what was found."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import xarray as xr

from homojax.lab.inputs import InputError, nearest
from homojax.lab.sweep.config import figures_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Verb(NamedTuple):
    """Where a verb's Dataset is described and drawn."""

    room: str  # its report.py and plots.py
    figures: dict[str, str]  # kind -> function of plots.py; the first is the main one
    dims: tuple[str, ...]  # the dimensions that figures and summary go along
    drawn: Callable[[dict[str, Any]], list[str]] | None = None  # config -> kinds; None: all


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
        dims=("n", "epsilon", "depth", "seed"),
        drawn=figures_of,
    ),
    "verify": _Verb("verify", {"tightness": "tightness_map"}, dims=("claim", "family", "n")),
    "probe frontier": _Verb("probe", {"frontier": "frontier"}, dims=("n",)),
    "probe calibrate": _Verb("probe", {"calibration": "calibration"}, dims=("n", "seed", "layer")),
    "probe sensitivity": _Verb("probe", {"sensitivity": "sensitivity"}, dims=("case",)),
    "train": _Verb(
        "train",
        {kind: kind for kind in ("training", "loss", "accuracy", "layers", "kept")},
        dims=("depth", "epsilon", "alpha", "noise", "seed"),
    ),
    "audit": _Verb(
        "audit", {kind: kind for kind in ("layers", "matrices", "reach")}, dims=("layer",)
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
        verb = self._verb()
        return tuple(
            verb.figures if verb.drawn is None else verb.drawn(json.loads(self._ds.attrs["config"]))
        )

    def plot(self, kind: str | None = None, ax: Axes | None = None) -> Figure:
        """Return a figure.

        Args:
            kind: one of ``kinds``; default: the first.
            ax: an axis to draw on, where the figure has one panel; default: a figure of its own.

        Raises:
            InputError: there is no such kind, the figure has more than one panel, or a selection or
                a mean has left out a dimension or a variable.
        """
        verb, kinds = self._verb(), self.kinds
        if not kinds:
            raise InputError("there is no figure of what this sweep was asked to measure.")
        kind = kinds[0] if kind is None else str(kind)
        if kind in verb.figures and kind not in kinds:
            raise InputError(
                f'this sweep did not measure what "{kind}" draws; there are: {", ".join(kinds)}.'
            )
        if kind not in kinds:
            raise InputError(f'there is no figure "{kind}": {nearest(kind, kinds)}')
        return _made(getattr(_load(f"{verb.room}.plots"), verb.figures[kind]), self._whole(), ax)

    def summary(self) -> str:
        """Return what the run found, in a few sentences.

        Raises:
            InputError: a selection or a mean has left out a dimension or a variable.
        """
        return _made(_load(f"{self._verb().room}.report").headline, self._whole())

    def _whole(self) -> xr.Dataset:
        """Return the Dataset, with every dimension that its verb gave it."""
        # One n that was chosen by its value is no dimension any more.
        dims = self._verb().dims
        alone = "n" in dims and "n" in self._ds.coords and "n" not in self._ds.dims
        ds = self._ds.expand_dims("n") if alone else self._ds
        gone = [name for name in dims if name not in ds.dims]
        if gone:
            raise InputError(
                f"this Dataset has no dimension {gone[0]} any more: choose by lists, as "
                f"ds.isel({gone[0]}=[0]), and take means of single variables."
            )
        return ds

    def _verb(self) -> _Verb:
        verb = self._ds.attrs.get("verb")
        if str(verb) not in _VERBS or "config" not in self._ds.attrs:
            raise InputError(f"this Dataset says verb = {verb!r}: no homojax verb made it.")
        return _VERBS[str(verb)]


def _made(make: Callable, ds: xr.Dataset, *args: Any) -> Any:
    """Return ``make(ds, *args)``, or name the variable that was left out of the Dataset."""
    try:
        return make(ds, *args)
    except (KeyError, AttributeError) as error:
        missing = re.search(r"(?:No variable named|object has no attribute) '(\w+)'", str(error))
        if missing is None or missing[1] in ds.variables:
            raise
        raise InputError(
            f"this Dataset has no {missing[1]} any more: keep all variables of the run."
        ) from error


def _load(room: str) -> Any:
    return importlib.import_module(f"homojax.lab.{room}")
