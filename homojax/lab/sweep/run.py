"""Run a sweep: what ``hj.sweep`` is."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from homojax.lab.inputs import InputError, as_config, require_precision
from homojax.lab.places import place_of
from homojax.lab.progress import Progress, require_progress, silent
from homojax.lab.sources import load_source
from homojax.lab.sweep.config import NO_SHARDS, Sweep
from homojax.lab.sweep.fill import Shard, filled
from homojax.lab.sweep.plan import lanes_of
from homojax.lab.sweep.refine import refined


def sweep(
    config: Sweep | None = None,
    store: str | Path | None = None,
    *,
    shard: Shard | None = None,
    progress: Progress = silent,
    **fields: Any,
) -> xr.Dataset:
    """Map the trap: measure every law's prediction beside what it predicts, over a grid.

    Args:
        config: what to run; or give its fields as keywords, such as ``epsilon=(0.1, 1), n=8``.
        store: a path for a zarr store, or a URL that fsspec knows, such as s3://bucket/a.zarr; one
            that holds this very sweep is read and returned, and an interrupted sweep goes on.
        shard: (i, k): measure every k-th block alone, from the i-th on, counted from 0; others
            measure the rest into the same store. Default: all, or this process's part of a
            ``jax.distributed`` run.
        progress: called with (cells done, cells in all, what is being done).
        fields: fields of ``Sweep``.

    Returns:
        A Dataset of dimensions n, epsilon, seed, and layer, depth, snr, alpha where a quantity
        varies with them, with ``units`` and ``long_name`` on every variable. Its attrs have all
        that is needed to run it again. With ``refine`` epsilon has the added values, too. It stays
        on the disk where it has more than 1 GB. Results do not depend on how many devices or
        processes made them; on how cells are blocked only by rounding.

    Raises:
        InputError: the source, the store or the shard is not usable as asked, another process
            writes the store, or float64 is asked with JAX's x64 switched off.
        OSError: the store cannot be written; blocks done so far are kept in it.

    >>> tiny = dict(epsilon=(1.0,), depth=(1, 2), n=4, seeds=1, samples=8, dtype="float32")
    >>> dict(sweep(**tiny).sigma2.sizes)
    {'n': 1, 'epsilon': 1, 'seed': 1, 'layer': 2}
    """
    require_progress(progress)
    config = as_config(Sweep, config, fields)
    store = place_of(store)
    require_precision(config.precision)
    source = load_source(config)
    config = config.settled(source.layers)
    shard = _checked(shard)
    if config.refine is None:
        return filled(config, source, store, lanes_of(config, source), progress, shard=shard)
    if shard[1] > 1:
        raise InputError(NO_SHARDS)
    return refined(config, source, store, progress)


def _checked(shard: Shard | None) -> Shard:
    """Return a shard that there is; by default this process's."""
    if shard is None:
        return jax.process_index(), jax.process_count()
    try:
        which, count = map(operator.index, shard)
    except (TypeError, ValueError):
        raise InputError(f"shard must be two whole numbers (i, k), got {shard!r}.") from None
    if not 0 <= which < count:
        raise InputError(f"there is no shard {which} of {count}: they are 0 to {count - 1}.")
    return which, count
