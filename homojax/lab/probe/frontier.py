"""Probe the frontier (law 2.3): the largest and the smallest σ₂ at each entropy deficit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from homojax.birkhoff import detail, entropy_deficit, isolated_unit, marginal_errors
from homojax.bounds import isolated_unit_frontier
from homojax.lab.devices import matrices_in_memory, require_memory
from homojax.lab.inputs import as_config, require_precision
from homojax.lab.probe.config import FrontierSearch
from homojax.lab.probe.equal_entropy import CHUNK, Side, search_lanes
from homojax.lab.progress import Progress, require_progress, silent
from homojax.lab.store import provenance
from homojax.programs import program
from homojax.projection.errors import entropy_error, projection_distance
from homojax.spectrum.singular_value import top_singular_pair

SIDES: tuple[Side, ...] = ("largest", "smallest")
MISSED_DEFICIT = 1e-9  # nats; a lane farther from its deficit counts for nothing
SHARE_TOLERANCE = 1e-6  # a start this near the largest σ₂ counts as having come there
VARIABLES = {  # name -> (dimensions beside n and deficit, units, what it is)
    "entropy_deficit": ((), "nat", "entropy deficit n log n − H"),
    "sigma2_largest": ((), "1", "largest σ₂ found"),
    "sigma2_smallest": ((), "1", "smallest σ₂ found"),
    "isolated_unit": ((), "1", "σ₂ of (1 − t)J + t(1 ⊕ J) at this deficit"),
    "excess": ((), "1", "largest σ₂ found less the isolated unit's"),
    "excess_error": ((), "1", "what rounding and the projection can leave in that"),
    "share": ((), "1", "share of the starts that came within 1e-6 of the largest"),
    "history_largest": (("step",), "1", "largest σ₂ of all starts, at that step"),
    "history_smallest": (("step",), "1", "smallest σ₂ of all starts, at that step"),
    "largest": (("row", "column"), "1", "the matrix of the largest σ₂ found"),
    "smallest": (("row", "column"), "1", "the matrix of the smallest σ₂ found"),
}


def frontier(
    config: FrontierSearch | None = None, *, progress: Progress = silent, **fields: Any
) -> xr.Dataset:
    """Find the largest and the smallest σ₂ at each entropy deficit, by constrained optimisation.

    The largest stands beside σ₂ of the isolated unit, which law 2.3 (frontier) conjectures to be
    the largest of all. How both are found: ``equal_entropy``.

    Args:
        config: where to look; or give its fields as keywords, such as ``n=(3, 4), deficits=4``.
        progress: called with (chunks of steps done, chunks in all, what is being done).
        fields: fields of ``FrontierSearch``.

    Returns:
        A Dataset of dimensions n and deficit (its number); ``VARIABLES`` says what is in it. A
        value is NaN where no start met the deficit, and matrices are padded with NaN.

    Raises:
        InputError: a field is unknown or refused, or JAX's x64 is switched off.

    >>> ds = frontier(n=3, deficits=4, starts=6, steps=100)
    >>> bool((ds.excess <= ds.excess_error).all())
    True
    """
    require_progress(progress)
    search = as_config(FrontierSearch, config, fields)
    require_precision("float64")
    need = matrices_in_memory(search.deficits * search.starts, max(search.n))
    require_memory(need, f"a search from {search.starts} starts at n = {max(search.n)}")
    chunks = -(-search.steps // CHUNK)
    total = len(search.n) * len(SIDES) * chunks

    def report_from(before: int, doing: str) -> Callable[[int], None]:
        return lambda done: progress(before + done, total, doing)

    results = []
    for i, n in enumerate(search.n):
        reports: dict[Side, Callable[[int], None]] = {
            side: report_from((len(SIDES) * i + k) * chunks, f"{side} σ₂, n = {n}")
            for k, side in enumerate(SIDES)
        }
        results.append(_search_size(search, n, reports))
    progress(total, total, "done")
    return _assemble(search, results)


def _search_size(
    search: FrontierSearch, n: int, reports: dict[Side, Callable[[int], None]]
) -> dict[str, np.ndarray]:
    """Return the variables of one n, [deficits, …]."""
    highest = float(entropy_deficit(isolated_unit(n)))
    deficits = np.linspace(0, highest, search.deficits + 2)[1:-1]
    found: dict[str, np.ndarray] = {"entropy_deficit": deficits}
    for side, report in reports.items():
        history, matrices = search_lanes(side, n, deficits, search, report)
        best = _choose_best(side, matrices, deficits)
        found |= {f"history_{side}": history, f"sigma2_{side}": best.sigma2, side: best.matrix}
        if side == "largest":
            found |= {"share": best.share, **_hold_against_isolated_unit(best, n)}
    return found


class Best(NamedTuple):
    """The best lane at each deficit, [deficits, …]; NaN where no lane met the deficit."""

    matrix: np.ndarray  # [deficits, n, n]
    deficit: np.ndarray  # its own, which differs from the one that was asked by rounding
    deficit_error: np.ndarray
    sigma2: np.ndarray
    sigma2_error: np.ndarray
    share: np.ndarray  # of the lanes that came as far


def _choose_best(side: Side, matrices: jax.Array, deficits: np.ndarray) -> Best:
    deficit, sigma2, deficit_error, sigma2_error = (np.asarray(x) for x in _measure(matrices))
    met = np.isfinite(sigma2) & (abs(deficit - deficits[:, None]) <= MISSED_DEFICIT)
    ranked = np.where(met, sigma2 if side == "largest" else -sigma2, -np.inf)
    best = np.arange(len(deficits)), ranked.argmax(1)
    sound = np.where(met[best], 1.0, np.nan)
    near = ranked >= ranked[best][:, None] - SHARE_TOLERANCE
    return Best(
        matrix=np.asarray(matrices)[best] * sound[:, None, None],
        deficit=deficit[best] * sound,
        deficit_error=deficit_error[best],
        sigma2=sigma2[best] * sound,
        sigma2_error=sigma2_error[best],
        share=near.mean(1) * sound,
    )


def _hold_against_isolated_unit(best: Best, n: int) -> dict[str, np.ndarray]:
    """Return by how much the largest σ₂ exceeds the isolated unit's, and the error of that."""
    curve = np.asarray(_isolated_unit_at(best.deficit, n))
    ahead = np.asarray(_isolated_unit_at(best.deficit + best.deficit_error, n))
    return {
        "isolated_unit": curve,
        "excess": best.sigma2 - curve,
        "excess_error": ahead - curve + best.sigma2_error,
    }


@partial(program, static_argnums=1)
@partial(jax.vmap, in_axes=(0, None))
def _isolated_unit_at(deficit: jax.Array, n: int) -> jax.Array:
    return isolated_unit_frontier(deficit, n=n)


@program
@jax.vmap
@jax.vmap
def _measure(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return (ΔH, σ₂, the error of each) of a matrix that is nearly doubly stochastic."""
    sigma2 = top_singular_pair(detail(matrix))[0]
    distance = projection_distance(matrix, *marginal_errors(matrix), sigma2)
    return entropy_deficit(matrix), sigma2, entropy_error(len(matrix), distance), distance


def _assemble(search: FrontierSearch, results: list[dict[str, np.ndarray]]) -> xr.Dataset:
    """Return the Dataset of results, one for each n."""
    most = max(search.n)
    for n, result in zip(search.n, results, strict=True):
        for name in SIDES:
            room = ((0, 0), (0, most - n), (0, most - n))
            result[name] = np.pad(result[name], room, constant_values=np.nan)
    variables = {
        name: (
            ("n", "deficit", *dims),
            np.stack([result[name] for result in results]),
            {"long_name": text, "units": units},
        )
        for name, (dims, units, text) in VARIABLES.items()
    }
    coords = {
        "n": ("n", list(search.n), {"long_name": "mixed units", "units": "1"}),
        "deficit": np.arange(search.deficits),
        "step": [min(done + CHUNK, search.steps) for done in range(0, search.steps, CHUNK)],
    }
    return xr.Dataset(variables, coords, provenance("probe frontier", search, dtype="float64"))
