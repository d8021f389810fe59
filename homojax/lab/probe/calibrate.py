"""Calibrate a source of logits: the ε of every matrix or stack that meets a target."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from homojax import spectrum
from homojax.calibration import (
    CalibrationStatus,
    calibrate_depth,
    calibrate_epsilon,
    epsilon_schedule,
)
from homojax.depth import detail_composite, lyapunov_exponents
from homojax.lab.devices import matrices_in_memory, require_memory
from homojax.lab.inputs import as_config, require_precision
from homojax.lab.probe.config import Calibrate, Kept, Root
from homojax.lab.progress import Progress, require_progress, silent
from homojax.lab.sources import Source, load_source
from homojax.lab.store import provenance
from homojax.programs import Effort, program
from homojax.projection.sinkhorn import sinkhorn

DEFAULT_DEPTH = 16  # of a stack of random logits
SHOWN_LAYERS = 6  # most curves of one n
GRID = 97  # points of a curve
GRID_SPAN = 30.0  # a curve goes from the median answer over this to the answer times this
VARIABLES = {  # name -> (dimensions, units, what it is)
    "epsilon": (("seed", "layer"), "logit units", "calibrated entropy weight ε"),
    "kept": (("seed", "layer"), "1", "share of detail kept there"),
    "status": (("seed", "layer"), "", "how it ended, a CalibrationStatus"),
    "certified": (("seed", "layer"), "", "whether the promise of the root is proved"),
    "shortfall": (
        ("seed", "layer"),
        "1",
        "proved: nothing on the promised side misses the target by more",
    ),
    "ceiling": (
        ("seed", "layer"),
        "logit units",
        "above this ε no logits of this diameter meet the target (law 2.1, logit budget)",
    ),
    "grid_epsilon": (("grid",), "logit units", "entropy weight ε"),
    "curve": (("shown_layer", "grid"), "1", "kept at that ε, first seed"),
}
ANSWERS = tuple(name for name, (dims, _, _) in VARIABLES.items() if dims == ("seed", "layer"))
REASONS = {  # why there is no answer
    CalibrationStatus.UNREACHABLE: "no ε can: the target is missed as ε → 0 (tied logits), or "
    "everywhere",
    CalibrationStatus.NO_DETAIL: "no ε can: the logits are row and column shifts, so σ₂ = 0 at "
    "every ε",
    CalibrationStatus.BAD_TARGET: "the target is outside (0, 1)",
    CalibrationStatus.NOT_FINITE: "a logit is NaN or +∞, or logits are too far apart",
    CalibrationStatus.NOT_CONVERGED: "no answer: a projection on the way did not converge, or the "
    "last interval did not close",
    CalibrationStatus.INFEASIBLE: "no ε can: no doubly stochastic matrix is 0 wherever the logits "
    "are −inf",
    CalibrationStatus.ALWAYS_MET: "none is needed: the mask keeps that much however large ε is",
}


def calibrate(
    config: Calibrate | None = None, *, progress: Progress = silent, **fields: Any
) -> xr.Dataset:
    """Find the ε of every matrix or stack that meets a target, with what is proved of it.

    Args:
        config: what to calibrate; or give its fields as keywords, such as ``sigma2=0.5, n=4``.
        progress: called with (sizes done, sizes in all, what is being done).
        fields: fields of ``Calibrate``.

    Returns:
        A Dataset of dimensions n, seed and layer (one where all layers of a stack have one ε);
        ``VARIABLES`` says what is in it. ``epsilon`` and ``kept`` are NaN where there is no answer,
        and ``status`` says why. ``curve`` is what the first seed keeps along ``grid_epsilon``, of
        at most six layers.

    Raises:
        InputError: a field is unknown or refused, the source is not to be had, or JAX's x64 is
            switched off.

    >>> calibrate(sigma2=0.5, n=3, seeds=2).status.values.ravel().tolist()  # 0: FOUND
    [0, 0]
    """
    require_progress(progress)
    config = as_config(Calibrate, config, fields)
    require_precision("float64")
    source = load_source(config)
    results = []
    for i, n in enumerate(source.sizes):
        progress(i, len(source.sizes), f"n = {n}")
        results.append(_calibrate_size(config, source, n))
    progress(len(source.sizes), len(source.sizes), "done")
    return _assemble(config, source, results)


def _calibrate_size(config: Calibrate, source: Source, n: int) -> dict[str, np.ndarray]:
    """Return the variables of one n."""
    each = config.sigma2 is not None or config.schedule  # every layer has its own ε
    layers = config.depth or source.layers or (1 if config.sigma2 is not None else DEFAULT_DEPTH)
    need = matrices_in_memory(source.seeds * layers, n)
    require_memory(need, f"a calibration of {source.seeds * layers} matrices at n = {n}")
    stacks = np.stack([source.draw(n, seed, layers) for seed in range(source.seeds)])
    target = config.retention if config.sigma2 is None else config.sigma2
    answers = _solver(config.sigma2 is not None, config.schedule, config.kept, config.root)(
        stacks, target
    )
    shape = source.seeds, layers if each else 1
    found = {name: np.reshape(getattr(answers, name), shape) for name in ANSWERS}
    found["grid_epsilon"] = _grid_around(found["epsilon"], found["ceiling"])
    shown = stacks[0][:SHOWN_LAYERS] if each else stacks[0]
    how = "each" if each else config.kept
    found["curve"] = _measure_curves(how, shown, found["grid_epsilon"])
    return found


@cache
def _solver(single: bool, schedule: bool, kept: Kept, root: Root) -> Callable[[Any, Any], Any]:
    """Return the compiled calibration of logits [seeds, L, n, n] to one target."""
    if single:
        solve = jax.vmap(partial(calibrate_epsilon, root=root), (0, None))
    elif schedule:
        solve = partial(epsilon_schedule, root=root)
    else:
        solve = partial(calibrate_depth, kept=kept, root=root)
    return program(jax.vmap(solve, (0, None)), Effort.LESS)


def _grid_around(epsilon: np.ndarray, ceiling: np.ndarray) -> np.ndarray:
    """Return the ε of the curves, with the answers in their middle."""
    known = np.append(epsilon, np.median(ceiling))
    known = known[np.isfinite(known) & (known > 0)]  # a mask has no ceiling, and may need no ε
    middle = np.median(known) if len(known) else 1.0
    low, high = middle / GRID_SPAN, middle * GRID_SPAN
    return np.geomspace(low, high, GRID)


def _measure_curves(kept: str, layers: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return σ₂ of each layer [layers, grid]; of a stack with one ε what it keeps, [1, grid]."""
    matrices = _project_along(jnp.asarray(layers), grid)
    shares = np.asarray(_measure(kept, matrices))
    return shares.T if kept == "each" else shares[None]


@program
@partial(jax.vmap, in_axes=(None, 0))
@partial(jax.vmap, in_axes=(0, None))
def _project_along(logits: jax.Array, epsilon: jax.Array) -> Any:
    return sinkhorn(logits, epsilon).matrix


@partial(program, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0))
def _measure(kept: str, matrices: jax.Array) -> jax.Array:
    """Return what a stack of matrices keeps."""
    if kept == "each":
        return jax.vmap(spectrum.sigma2)(matrices)
    if kept == "bound":
        return jnp.prod(jax.vmap(spectrum.sigma2)(matrices))
    if kept == "composite":
        return spectrum.sigma2(detail_composite(matrices)[-1])
    return jnp.exp(len(matrices) * lyapunov_exponents(matrices)[0])


def _assemble(
    config: Calibrate, source: Source, results: list[dict[str, np.ndarray]]
) -> xr.Dataset:
    """Return the Dataset of results, one for each n."""
    variables = {}
    for name, (dims, units, text) in VARIABLES.items():
        values = np.stack([result[name] for result in results])
        values = values.astype(np.int8) if name == "status" else values
        attrs = {"long_name": text} | ({"units": units} if units else {})
        variables[name] = (("n", *dims), values, attrs)
    layers, shown = results[0]["epsilon"].shape[1], len(results[0]["curve"])
    text = "layer; 1 where all have one ε"
    coords = {
        "n": ("n", list(source.sizes), {"long_name": "mixed units", "units": "1"}),
        "seed": ("seed", np.arange(source.seeds), {"long_name": "independent stack"}),
        "layer": ("layer", np.arange(1, layers + 1), {"long_name": text}),
        "shown_layer": ("shown_layer", np.arange(1, shown + 1), {"long_name": "layer of a curve"}),
    }
    attrs = {
        **provenance("probe calibrate", config, dtype="float64"),
        "source": source.description,
        "target": config.sigma2 or config.retention ** (1 / layers),  # of each answer
    }
    return xr.Dataset(variables, coords, attrs)
