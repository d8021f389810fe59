"""``ds.homojax``: a Dataset that a verb made draws itself, and says what was found."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import xarray as xr

from homojax.lab.inputs import InputError
from homojax.lab.selections import require_dims
from homojax.lab.sweep.config import figures_of
from homojax.registry import nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Verb(NamedTuple):
    """Where a verb's Dataset is described and drawn."""

    room: str  # its report.py and plots.py
    figures: dict[str, str]  # kind -> function of plots.py; the first is the main one
    dims: tuple[str, ...]  # the dimensions that every figure and the summary need, in their order
    others: tuple[str, ...] = ()  # the dimensions after these, in their order
    also: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # kind, "summary" -> others needed
    drawn: Callable[[xr.Dataset], list[str]] | None = None  # the kinds that there are; None: all


_OF_AUDIT = {  # kind of figure -> a variable that it draws
    "layers": "stacked",
    "matrices": "matrix",
    "reach": "reach_converged",
    "trajectory": "checkpoint",
}
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
        dims=("n", "epsilon", "seed", "depth"),
        others=("layer", "snr", "alpha"),
        also={"entropy": ("layer",), "summary": ("layer",)},
        drawn=lambda ds: figures_of(json.loads(ds.attrs["config"])),
    ),
    "verify": _Verb("verify", {"tightness": "tightness_map"}, dims=("claim", "family", "n")),
    "probe frontier": _Verb(
        "probe",
        {"frontier": "frontier"},
        dims=("n", "deficit"),
        others=("step", "row", "column"),
    ),
    "probe calibrate": _Verb(
        "probe",
        {"calibration": "calibration"},
        dims=("n", "seed", "layer"),
        others=("shown_layer", "grid"),
        also={"calibration": ("shown_layer", "grid")},
    ),
    "probe sensitivity": _Verb(
        "probe",
        {"sensitivity": "sensitivity"},
        dims=("case", "epsilon"),
        others=("row", "column"),
    ),
    "train": _Verb(
        "train",
        {kind: kind for kind in ("training", "loss", "accuracy", "layers", "kept")},
        dims=("depth", "epsilon", "alpha", "noise", "seed"),
        others=("claim", "layer", "after", "report"),
        also={
            "training": ("layer", "report"),
            "loss": ("report",),
            "layers": ("layer",),
            "kept": ("layer",),
            "summary": ("claim",),
        },
    ),
    "audit": _Verb(
        "audit",
        {kind: kind for kind in _OF_AUDIT},
        dims=("layer",),
        others=("row", "col", "reader", "quantile", "checkpoint"),
        also={"matrices": ("row", "col")},
        drawn=lambda ds: [kind for kind, name in _OF_AUDIT.items() if name in ds.variables],
    ),
}


@xr.register_dataset_accessor("homojax")
class Accessor:
    """What a Dataset that a verb made can say of itself: ``ds.homojax``.

    >>> from homojax.lab.sweep.run import sweep
    >>> tiny = dict(epsilon=(1.0,), depth=(1, 2), n=4, seeds=1, samples=8, dtype="float32")
    >>> sweep(**tiny).homojax.kinds
    ('phase', 'survival', 'entropy', 'layernorm', 'residual')
    """

    def __init__(self, ds: xr.Dataset):
        self._ds = ds

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of figures that there are of this Dataset; the first is the main one."""
        verb = self._verb()
        return tuple(verb.figures if verb.drawn is None else verb.drawn(self._ds))

    def plot(self, kind: str | None = None, ax: Axes | None = None) -> Figure:
        """Return a figure.

        Args:
            kind: one of ``kinds``; default: the first.
            ax: an axis to draw on, where the figure has one panel; default: a figure of its own.

        Raises:
            InputError: there is no such kind, ``ax`` is no axis or the figure has more panels, or a
                selection or a mean has left out a dimension or a variable, or nothing is left.
        """
        verb, kinds = self._verb(), self.kinds
        if not kinds:
            raise InputError("there is no figure of what this sweep was asked to measure.")
        kind = kinds[0] if kind is None else str(kind)
        if kind in verb.figures and kind not in kinds:
            raise InputError(
                f'this run did not measure what "{kind}" draws; there are: {", ".join(kinds)}.'
            )
        if kind not in kinds:
            raise InputError(f'there is no figure "{kind}": {nearest(kind, kinds)}')
        return _made(
            getattr(_load(f"{verb.room}.plots"), verb.figures[kind]), self._whole(kind), ax
        )

    def summary(self) -> str:
        """Return what the run found, in a few sentences.

        Raises:
            InputError: a selection or a mean has left out a dimension or a variable, or has left
                nothing of it.
        """
        return _made(_load(f"{self._verb().room}.report").headline, self._whole("summary"))

    def _whole(self, kind: str) -> xr.Dataset:
        """Return the Dataset as its verb makes it: all dimensions of a kind, in their order."""
        verb, ds = self._verb(), self._ds
        # One n that was chosen by its value is no dimension any more.
        alone = "n" in verb.dims and "n" in ds.coords and "n" not in ds.dims
        ds = ds.expand_dims("n") if alone else ds
        order = (*verb.dims, *verb.others)
        kept = [name for name in verb.others if name in ds.dims]
        require_dims(ds, (*verb.dims, *verb.also.get(kind, ()), *kept))
        # Views: only a Dataset that is out of order is copied.
        ds = ds.transpose(*order, ..., missing_dims="ignore")
        unsorted = [name for name in order if _is_unsorted(ds, name)]
        return ds.sortby(unsorted) if unsorted else ds

    def _verb(self) -> _Verb:
        verb = self._ds.attrs.get("verb")
        if str(verb) not in _VERBS or "config" not in self._ds.attrs:
            raise InputError(f"this Dataset says verb = {verb!r}: no homojax verb made it.")
        return _VERBS[str(verb)]


def _is_unsorted(ds: xr.Dataset, name: str) -> bool:
    """Return whether a dimension has numbers that do not rise."""
    numbers = ds.indexes.get(name)
    return (
        numbers is not None and numbers.dtype.kind in "iuf" and not numbers.is_monotonic_increasing
    )


def _made(make: Callable, ds: xr.Dataset, *args: Any) -> Any:
    """Return ``make(ds, *args)``, or name the variable that was left out of the Dataset."""
    try:
        return make(ds, *args)
    except (KeyError, AttributeError) as error:
        missing = _missing_of(error)
        if missing is None or missing in ds.variables:
            raise
        raise InputError(
            f"this Dataset has no {missing} any more: keep all variables of the run."
        ) from error


def _missing_of(error: KeyError | AttributeError) -> str | None:
    """Return the name that a Dataset was asked for in vain; None: the error is another one."""
    if isinstance(error, AttributeError):
        return error.name if isinstance(error.obj, xr.Dataset) else None
    missing = re.search(r"No variable named '(\w+)'", str(error))
    return missing and missing[1]


def _load(room: str) -> Any:
    return importlib.import_module(f"homojax.lab.{room}")
