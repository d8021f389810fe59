"""What a selection has to leave of a verb's Dataset, in a sentence where it did not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from homojax.lab.inputs import InputError

if TYPE_CHECKING:
    import xarray as xr


def require_dims(ds: xr.Dataset, names: Iterable[str]) -> None:
    """Return nothing where a Dataset has dimensions of these names, with values, and none twice.

    Raises:
        InputError: a selection or a mean has left one out, has left nothing of it, or took a value
            twice.
    """
    for name in names:
        if name not in ds.dims:
            raise InputError(
                f"this Dataset has no dimension {name} any more: choose by lists, as "
                f"ds.isel({name}=[0]), and take means of single variables."
            )
        if ds.sizes[name] == 0:
            raise InputError(
                f"the selection left nothing of the dimension {name}: choose at least one."
            )
        if name in ds.indexes and not ds.indexes[name].is_unique:
            raise InputError(
                f"the selection took a value of the dimension {name} twice: choose each once."
            )
