"""Scan the sensitivity of σ₂ along ε: where a gradient reaches the logits at all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
import xarray as xr

from homojax.calibration.sensitivity import Sensitivity, sensitivity
from homojax.lab.datasets import trained_mhc
from homojax.lab.inputs import POSITIVE, InputError, as_config, require_precision
from homojax.lab.probe.config import SensitivityScan
from homojax.lab.progress import Progress, require_progress, silent
from homojax.lab.store import provenance
from homojax.presets import PRESETS
from homojax.programs import program

EPSILON = np.geomspace(0.01, 100, 81)  # the ε of a scan that names none
VARIABLES = {  # name -> (dimensions beside case, units, what it is)
    "sigma2": (("epsilon",), "1", "σ₂"),
    "log_gap": (("epsilon",), "1", "log(1 − σ₂)"),
    "gradient_norm": (("epsilon",), "1/logit units", "‖∂σ₂/∂S‖_F"),
    "epsilon_slope": (("epsilon",), "1/logit units", "∂σ₂/∂ε"),
    "depth": (("epsilon",), "layers", "effective depth at retention {:g}"),
    "depth_slope": (("epsilon",), "layers/logit units", "∂(effective depth)/∂ε"),
    "started": ((), "logit units", "ε that it is used at"),
    "logits": (("row", "column"), "logit units", "logits, padded with NaN"),
}

Cases = Mapping[str, tuple[np.ndarray, float]]  # name -> (logits [n, n], the ε it is used at)


def scan_sensitivity(
    config: SensitivityScan | None = None,
    cases: Cases | None = None,
    *,
    progress: Progress = silent,
    **fields: Any,
) -> xr.Dataset:
    """Measure σ₂, its derivatives and the effective depth along ε, case by case.

    Args:
        config: at which ε; or give its fields as keywords, such as ``epsilon=(0.1, 1, 10)``.
        cases: name -> (logits [n, n], the ε that they are used at); default:
            ``initialisations()``.
        progress: called with (cases done, cases in all, what is being done).
        fields: fields of ``SensitivityScan``.

    Returns:
        A Dataset of dimensions case and epsilon; ``VARIABLES`` says what is in it. Each measured
        variable is a field of ``homojax.sensitivity``.

    Raises:
        InputError: a field or a case is unknown or refused, or JAX's x64 is switched off.

    >>> ds = scan_sensitivity(epsilon=np.geomspace(0.05, 50, 13), cases={"I": (np.eye(2), 1.0)})
    >>> dict(ds.gradient_norm.sizes)
    {'case': 1, 'epsilon': 13}
    """
    require_progress(progress)
    config = as_config(SensitivityScan, config, fields)
    require_precision("float64")
    cases = initialisations() if cases is None else _checked(cases)
    epsilon = EPSILON if config.epsilon is None else np.asarray(config.epsilon)
    results = []
    for i, (name, (logits, _)) in enumerate(cases.items()):
        progress(i, len(cases), name)
        results.append(_sensitivities(logits, epsilon, config.retention))
    progress(len(cases), len(cases), "done")
    return _assemble(config, cases, epsilon, results)


def _checked(cases: Any) -> dict[str, tuple[np.ndarray, float]]:
    """Return cases with logits and ε as numbers."""
    example = 'cases={"I": (np.eye(2), 1.0)}'
    if not isinstance(cases, Mapping):
        raise InputError(f"cases must be a dict, not {type(cases).__name__}: try {example}.")
    if not cases:
        raise InputError(f"cases is empty: give at least one, as {example}.")
    checked = {}
    for name, case in cases.items():
        try:
            if not isinstance(case, tuple | list):  # the rows of a 2 × 2 matrix are two, too
                raise TypeError
            logits, start = case
            logits, start = np.asarray(logits, float), float(start)
        except (TypeError, ValueError):
            raise InputError(f'the case "{name}" is no (logits, ε): try {example}.') from None
        if logits.ndim != 2 or len(set(logits.shape)) > 1 or len(logits) < 2:
            shape = list(logits.shape)
            raise InputError(f'the case "{name}" has logits {shape}: give [n, n] with n ≥ 2.')
        if not 0 < start < np.inf:
            raise InputError(f'the case "{name}" has ε = {start}: it must be {POSITIVE.text}.')
        checked[name] = logits, start
    return checked


def initialisations() -> dict[str, tuple[np.ndarray, float]]:
    """Return logits and ε that public codes start from, and what training made of one.

    - The off-diagonal −8 at τ = 0.05 of the preset tokenbender (law 6.2, gradient trap).
    - KromHC's factors [[p, q], [q, p]] with p, q = softmax(0, b). They are the projections of
      [[0, b], [b, 0]] at ε = 1: its preset's b, and some b on the way to J.
    - The first layer of the trained matrices that ship with the package.
    - Normal logits, for comparison.

    Returns:
        Name -> (logits [n, n], ε).

    >>> initialisations()["KromHC factor, b = -8"][1]
    1.0
    """
    data, mhc, kromhc = trained_mhc(), PRESETS["tokenbender"], PRESETS["kromhc"]
    start = float(kromhc.initial(2)[0, 1])
    factors = {
        f"KromHC factor, b = {b:g}": (b * (1.0 - np.eye(2)), float(kromhc.epsilon))
        for b in (start, -2, -1, 0)
    }
    trained = np.array(data["layers"][0]["logits"]), float(data["tau"])
    normal = np.random.default_rng(0).standard_normal((16, 16)), 1.0
    return {
        "tokenbender, −8 off the diagonal, n = 4": (
            np.asarray(mhc.initial(4), float),
            float(mhc.epsilon),
        ),
        **factors,
        "trained mHC, layer 1, n = 4": trained,
        "normal logits, n = 16": normal,
    }


@program
@partial(jax.vmap, in_axes=(None, 0, None))
def _sensitivities(logits: jax.Array, epsilon: jax.Array, retention: jax.Array) -> Sensitivity:
    return sensitivity(logits, epsilon, retention=retention)


def _assemble(
    config: SensitivityScan, cases: Cases, epsilon: np.ndarray, results: list[Sensitivity]
) -> xr.Dataset:
    """Return the Dataset of results, one for each case."""
    most = max(len(logits) for logits, _ in cases.values())
    padded = np.full((len(cases), most, most), np.nan)
    for room, (logits, _) in zip(padded, cases.values(), strict=True):
        room[: len(logits), : len(logits)] = logits
    given = {"started": np.array([start for _, start in cases.values()]), "logits": padded}
    variables = {}
    for name, (dims, units, text) in VARIABLES.items():
        if name in given:
            values = given[name]
        else:
            values = np.stack([np.asarray(getattr(result, name)) for result in results])
        attrs = {"long_name": text.format(config.retention), "units": units}
        variables[name] = (("case", *dims), values, attrs)
    coords = {
        "case": ("case", np.array(list(cases), object)),
        "epsilon": ("epsilon", epsilon, {"long_name": "entropy weight ε", "units": "logit units"}),
    }
    return xr.Dataset(variables, coords, provenance("probe sensitivity", config, dtype="float64"))
