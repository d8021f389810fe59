"""Calibration and sensitivity of many logits at once: the ε that meets a target, and where gradients reach the logits at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from homojax import spectrum
from homojax.calibration import (
    CalibrationStatus,
    calibrate_depth,
    calibrate_epsilon,
    epsilon_schedule,
)
from homojax.calibration.sensitivity import sensitivity
from homojax.depth import detail_composite, lyapunov_exponents
from homojax.lab.inputs import InputError, require_precision
from homojax.lab.runs import versions
from homojax.lab.sources import load_source, trained_mhc
from homojax.lab.sweep.config import Sweep
from homojax.presets import PRESETS
from homojax.projection.sinkhorn import sinkhorn

ANSWERS = {
    CalibrationStatus.FOUND: "found",
    CalibrationStatus.UNREACHABLE: "no ε can: the target is missed as ε → 0 (tied logits), or everywhere",
    CalibrationStatus.NO_DETAIL: "no ε can: the logits are row and column shifts, so σ₂ = 0 at every ε",
    CalibrationStatus.BAD_TARGET: "the target is outside (0, 1)",
    CalibrationStatus.NOT_FINITE: "a logit is not finite",
    CalibrationStatus.NOT_CONVERGED: "no answer: a projection on the way did not converge, or the last interval did not close",
}


@dataclasses.dataclass(frozen=True)
class Calibrate:
    """Which logits to calibrate, and to what: --sigma2 for every matrix, or --retention over --depth layers."""

    sigma2: float | None = None
    """Target σ₂ of every matrix by itself, in (0, 1)."""
    retention: float | None = None
    """Share of detail, in (0, 1), that a stack of layers is to keep."""
    depth: int | None = None
    """Layers of the stack; default: as many as the source has, or 16 of random ones."""
    kept: Literal["bound", "lyapunov", "composite"] = "bound"
    """How a stack's share is counted: Π σ₂, exp of L Lyapunov exponents, or σ₂ of the product."""
    schedule: bool = False
    """Give every layer its own ε, with σ₂ = ρ^(1/L) in each."""
    root: Literal["first", "last"] = "first"
    """first: the largest ε such that every smaller one meets the target; last: the largest that meets it at all."""
    source: str = "gaussian"
    """Where the logits come from: gaussian, digits, trained-mhc or file."""
    path: Path | None = None
    """For source file: a .npy, .npz or .safetensors array [..., n, n]; the last leading axis is the layer, others are seeds."""
    array: str | None = None
    """Which array of an .npz or .safetensors file to take, where it holds several."""
    orientation: Literal["outputs-first", "inputs-first"] = "outputs-first"
    """For source file: whether the first matrix axis is the output (y = M x) or the input (y = x M) of the mixing."""
    n: tuple[int, ...] | None = None
    """Numbers of mixed units, at least 2; default: what the source has, or 4 and 16."""
    seeds: int | None = None
    """Independent stacks per n; default: what the source has, or 8."""
    seed: int = 0
    """Of random logits."""

    def __post_init__(self):
        if (self.sigma2 is None) == (self.retention is None):
            raise InputError("give one target: --sigma2, or --retention with a depth.")
        name, value = (
            ("sigma2", self.sigma2) if self.retention is None else ("retention", self.retention)
        )
        if value is None or not 0 < value < 1:
            raise InputError(
                f"{name} = {value} is not possible: it must be strictly between 0 and 1."
            )
        if self.sigma2 is not None and (self.schedule or self.depth is not None):
            raise InputError("depth and schedule are for a retention; a σ₂ is each matrix's own.")
        if self.schedule and self.kept != "bound":
            raise InputError(f"a schedule is made for the bound Π σ₂, not for kept = {self.kept}.")
        if self.depth is not None and self.depth < 1:
            raise InputError(f"depth = {self.depth} is not possible: it must be at least 1 layer.")
        load_source(self._sweep())

    def _sweep(self) -> Sweep:
        fields = ("source", "path", "array", "orientation", "n", "seeds", "seed")
        return Sweep(**{name: getattr(self, name) for name in fields})


@threadpool_limits.wrap(limits=1, user_api="blas")
def calibrate(
    what: Calibrate, *, progress: Callable[[int, int, str], None] | None = None
) -> xr.Dataset:
    """The ε of every matrix or stack that meets the target, with what is proved of it.

    Dimensions n, seed, layer (one for all layers of a stack with a common ε). Variables: ``epsilon`` and ``kept`` (NaN where
    there is no answer), ``status`` (a ``CalibrationStatus``), ``certified``, ``shortfall``, ``ceiling`` (the worst-case rule of
    theory.md 2.1), and ``curve`` along ``grid_epsilon``: what is kept there, of the first seed, up to six layers.

    Raises:
        InputError: JAX's x64 is switched off, or the logits are not to be had.

    >>> calibrate(Calibrate(sigma2=0.5, n=(3,), seeds=2)).status.values.ravel().tolist()  # 0: FOUND
    [0, 0]
    """
    require_precision("float64")
    source = load_source(what._sweep())
    layers = what.depth or source.layers or (1 if what.sigma2 is not None else 16)
    single = what.sigma2 is not None or what.schedule
    shape = len(source.sizes), source.seeds, layers if single else 1
    data = {name: np.full(shape, np.nan) for name in ("epsilon", "kept", "shortfall", "ceiling")}
    data |= {"status": np.zeros(shape, np.int8), "certified": np.zeros(shape, bool)}
    shown = min(shape[2], 6)
    grid, curve = (
        np.full((len(source.sizes), 97), np.nan),
        np.full((len(source.sizes), shown, 97), np.nan),
    )
    for i, n in enumerate(source.sizes):
        if progress:
            progress(i, len(source.sizes), f"n = {n}")
        stacks = np.stack([source.draw(n, seed, layers) for seed in range(source.seeds)])
        found = jax.jit(jax.vmap(_calibrated(what)))(stacks)
        for name in data:
            data[name][i] = np.reshape(getattr(found, name), shape[1:])
        middle = np.nanmedian(np.append(data["epsilon"][i], np.median(data["ceiling"][i])))
        grid[i] = (
            np.geomspace(middle / 30, middle * 30, 97)
            if middle > 0
            else np.geomspace(0.01, 100, 97)
        )
        curve[i] = _curves(what, stacks[0][:shown] if single else stacks[0], grid[i])
    if progress:
        progress(len(source.sizes), len(source.sizes), "done")
    coords = {
        "n": ("n", list(source.sizes), {"long_name": "mixed units", "units": "1"}),
        "seed": ("seed", np.arange(source.seeds), {"long_name": "independent stack"}),
        "layer": (
            "layer",
            np.arange(1, shape[2] + 1),
            {"long_name": "layer; 1 where all have one ε"},
        ),
    }
    variables = {
        name: (("n", "seed", "layer"), data[name], attrs) for name, attrs in _VARIABLES.items()
    }
    variables |= {
        "grid_epsilon": (
            ("n", "grid"),
            grid,
            {"long_name": "entropy weight ε", "units": "logit units"},
        ),
        "curve": (
            ("n", "shown_layer", "grid"),
            curve,
            {"long_name": "kept at that ε, first seed", "units": "1"},
        ),
    }
    config = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(what).items()}
    attrs = {
        "title": "homojax probe calibrate",
        "source": source.description,
        "config": json.dumps(config),
        "versions": json.dumps(versions()),
        "dtype": "float64",
    }
    return xr.Dataset(variables, coords, attrs)


_VARIABLES = {
    "epsilon": {"long_name": "calibrated entropy weight ε", "units": "logit units"},
    "kept": {"long_name": "share of detail kept there", "units": "1"},
    "status": {"long_name": "how it ended, a CalibrationStatus"},
    "certified": {"long_name": "whether the promise of the root is proved"},
    "shortfall": {
        "long_name": "proved: nothing on the promised side misses the target by more",
        "units": "1",
    },
    "ceiling": {
        "long_name": "above this ε no logits of this diameter meet the target (2.1)",
        "units": "logit units",
    },
}


def _calibrated(what: Calibrate) -> Callable:
    if what.sigma2 is not None:
        return jax.vmap(partial(calibrate_epsilon, target_sigma2=what.sigma2, root=what.root))
    assert what.retention is not None  # Calibrate saw to it
    if what.schedule:
        return partial(epsilon_schedule, retention=what.retention, root=what.root)
    return partial(calibrate_depth, retention=what.retention, kept=what.kept, root=what.root)


def _curves(what: Calibrate, layers: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """σ₂ of each layer [layers, grid]; of a stack with a common ε what it keeps, [1, grid]."""
    matrices = jax.jit(
        jax.vmap(jax.vmap(lambda s, e: sinkhorn(s, e).matrix, (0, None)), (None, 0))
    )(jnp.asarray(layers), grid)
    if what.sigma2 is not None or what.schedule:
        return np.asarray(jax.jit(jax.vmap(jax.vmap(spectrum.sigma2)))(matrices)).T
    keep = {
        "bound": lambda m: jnp.prod(jax.vmap(spectrum.sigma2)(m)),
        "composite": lambda m: spectrum.sigma2(detail_composite(m)[-1]),
        "lyapunov": lambda m: jnp.exp(len(m) * lyapunov_exponents(m)[0]),
    }[what.kept]
    return np.asarray(jax.jit(jax.vmap(keep))(matrices))[None]


# ---------------------------------------------------------------- sensitivity


def initialisations() -> dict[str, tuple[np.ndarray, float]]:
    """Logits and ε that public codes start from, and what training made of one: name -> (logits [n, n], ε).

    The off-diagonal −8 at τ = 0.05 of the preset tokenbender (theory.md 6.2); KromHC's factors [[p, q], [q, p]], p, q =
    softmax(0, b), are the projections of [[0, b], [b, 0]] at ε = 1, its preset's and on the way to J; the first layer of the
    trained matrices that ship.
    """
    data, mhc, kromhc = trained_mhc(), PRESETS["tokenbender"], PRESETS["kromhc"]
    start = float(kromhc.initial(2)[0, 1])
    krom = {
        f"KromHC factor, b = {b:g}": (b * (1.0 - np.eye(2)), kromhc.epsilon)
        for b in (start, -2, -1, 0)
    }
    return {
        "tokenbender, −8 off the diagonal, n = 4": (np.asarray(mhc.initial(4), float), mhc.epsilon),
        **krom,
        "trained mHC, layer 1, n = 4": (np.array(data["layers"][0]["logits"]), float(data["tau"])),
        "normal logits, n = 16": (np.random.default_rng(0).standard_normal((16, 16)), 1.0),
    }


def sensitivity_over(
    epsilons: np.ndarray | None = None,
    cases: dict[str, tuple[np.ndarray, float]] | None = None,
    retention: float = 0.1,
) -> xr.Dataset:
    """σ₂, its derivatives and the effective depth along ε, of each case: by default public initialisations, ε from 0.01 to 100.

    Dimensions case, epsilon. Variables as of ``homojax.sensitivity`` (but for the gradient itself), and ``started`` [case], the ε
    that the case is used at.

    >>> sensitivity_over(np.array([1.0]), {"pair": (np.eye(2), 1.0)}).sizes["case"]
    1
    """
    epsilons = np.geomspace(0.01, 100, 81) if epsilons is None else np.asarray(epsilons, float)
    cases = initialisations() if cases is None else cases
    found = [
        jax.jit(jax.vmap(partial(sensitivity, retention=retention), (None, 0)))(s, epsilons)
        for s, _ in cases.values()
    ]
    variables: dict[str, Any] = {
        name: (
            ("case", "epsilon"),
            np.stack([np.asarray(getattr(f, name)) for f in found]),
            {"long_name": text, "units": unit},
        )
        for name, text, unit in (
            ("sigma2", "σ₂", "1"),
            ("log_gap", "log(1 − σ₂)", "1"),
            ("gradient_norm", "‖∂σ₂/∂S‖_F", "1/logit units"),
            ("epsilon_slope", "∂σ₂/∂ε", "1/logit units"),
            ("depth", f"effective depth at retention {retention:g}", "layers"),
            ("depth_slope", "∂(effective depth)/∂ε", "layers/logit units"),
        )
    }
    started = np.array([epsilon for _, epsilon in cases.values()])
    variables["started"] = (
        "case",
        started,
        {"long_name": "ε that it is used at", "units": "logit units"},
    )
    coords = {
        "case": ("case", np.array(list(cases), object)),
        "epsilon": ("epsilon", epsilons, {"long_name": "entropy weight ε", "units": "logit units"}),
    }
    return xr.Dataset(
        variables,
        coords,
        {"title": "homojax probe sensitivity", "versions": json.dumps(versions())},
    )
