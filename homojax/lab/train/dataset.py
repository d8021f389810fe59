"""The Dataset of a training: its variables, with unit and meaning, and how depths become it."""

from __future__ import annotations

import numpy as np
import xarray as xr

from homojax.lab.store import provenance
from homojax.lab.train.config import Train
from homojax.lab.train.judgements import JUDGED
from homojax.lab.train.tasks import load_task
from homojax.networks.mixing import tempered
from homojax.theory.claim import VERDICTS

GRID = ("epsilon", "alpha", "noise", "seed")  # the values of runs that are trained side by side

Meaning = tuple[tuple[str, ...], str, str]  # (dimensions after the grid's; unit; in words)

MEASURED: dict[str, Meaning] = {  # before training and after it
    "alpha": (("layer",), "1", "residual weight of a layer"),
    "sigma2": (("layer",), "1", "σ₂ of a layer's mixing matrix"),
    "row_error": ((), "1", "largest |row sum − 1| of any matrix"),
    "col_error": ((), "1", "largest |column sum − 1| of any matrix"),
    "kept": ((), "1", "σ₂ of the composite of the layers (1 − α)I + αM"),
    "kept_after": (("layer",), "1", "σ₂ of the composite of the first so many of these layers"),
    "kept_predicted": (
        ("layer",),
        "1",
        "bound on it by laws 3.1 (product bound) and 5.1 (residual bound), Π(1 − α + ασ₂)",
    ),
    "turned_predicted": (
        ("layer",),
        "rad",
        "largest turn by law 5.2, of tokens mixed by a matrix alone; π: no bound",
    ),
    "depth_bound": (
        (),
        "layers",
        "effective depth at ρ = ½ by laws 5.1 and 3.2; inf: σ₂ rounds to 1",
    ),
    "depth_typical": (
        (),
        "layers",
        "effective depth at ρ = ½ by the top Lyapunov exponent; inf: the loss is rounding",
    ),
    "energy": (("after",), "1", "energy of the detail after so many layers"),
    "turned": (("layer",), "rad", "angle by which a layer turned the detail, without its noise"),
    "cosine": (("layer",), "1", "cosine of the detail after a layer with that without noise"),
    "cosine_predicted": (
        ("layer",),
        "1",
        "the same by law 4.2, from the signal-to-noise ratio there",
    ),
}
VARIABLES: dict[str, Meaning] = {
    "loss": (
        ("report",),
        "nat",
        "mean training loss since the last report; NaN once a run has stopped",
    ),
    "test_loss": ((), "nat", "loss on held-out examples"),
    "accuracy": ((), "1", "accuracy on held-out examples"),
    **{
        f"{name}_{when}": (dims, unit, f"{text}, {words} training")
        for when, words in (("start", "before"), ("end", "after"))
        for name, (dims, unit, text) in MEASURED.items()
    },
    "failed_step": ((), "steps", "step whose loss or gradient was not finite; −1: none"),
    "failed_layer": (
        (),
        "1",
        "layer after which a number was first not finite; 0: embedding; L + 1: after the layers; "
        "−1: none",
    ),
    "failed_backward": (
        (),
        "1",
        "whether the forward pass was finite, and the gradient of that layer was the first not to "
        "be",
    ),
}
COUNTS = {  # claim × layer, over runs
    "violated": "comparisons found violated",
    "undecidable": "comparisons that cannot be told at this precision",
    "holds": "comparisons found to hold",
    "not_applicable": "comparisons whose assumptions are not met",
}


def assemble(config: Train, parts: list[dict[str, np.ndarray]]) -> xr.Dataset:
    """Return the Dataset of a training, from the variables [runs, …] of every depth."""
    variables = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        make = _count if name in VERDICTS else _variable
        variables[name] = make(config, name, values)
    task = load_task(config.task)
    precision = variables["sigma2_end"][1].dtype.name
    attrs = {
        **provenance("train", config, dtype=precision),
        "statement": task.statement,
        "chance": task.chance,
        "seed": config.seed,
        "tempered": int(tempered(config.architecture.mixer)),
    }
    return xr.Dataset(variables, _coordinates(config), attrs)


def _variable(config: Train, name: str, parts: list[np.ndarray]) -> tuple:
    """Return a variable over depth × epsilon × alpha × noise × seed, NaN where no layer is."""
    dims, unit, text = VARIABLES[name]
    grid = [len(config.epsilon), len(config.alpha), len(config.noise), config.seeds]
    if dims:
        length = _lengths(config)[dims[0]]
        parts = [_padded(part, length, np.nan) for part in parts]
    values = np.stack([part.reshape(*grid, *part.shape[1:]) for part in parts])
    return ("depth", *GRID, *dims), values, {"long_name": text, "units": unit}


def _count(config: Train, name: str, parts: list[np.ndarray]) -> tuple:
    """Return the counts of a verdict over depth × claim × layer, 0 where no layer is."""
    length = _lengths(config)["layer"]
    values = np.stack([_padded(part, length, 0) for part in parts])
    return ("depth", "claim", "layer"), values, {"long_name": COUNTS[name], "units": "1"}


def _padded(values: np.ndarray, length: int, fill: float) -> np.ndarray:
    """Return values [rows, ≤ length] with the second axis filled up to the length."""
    return np.pad(values, ((0, 0), (0, length - values.shape[1])), constant_values=fill)


def _lengths(config: Train) -> dict[str, int]:
    """Return the lengths of the dimensions that a variable may have after the grid's."""
    deepest = max(config.all_depths)
    return {"layer": deepest, "after": deepest + 1, "report": len(config.report_steps)}


def _coordinates(config: Train) -> dict:
    def axis(name: str, values, text: str, unit: str = "1") -> tuple:
        return name, values, {"long_name": text, "units": unit}

    deepest = max(config.all_depths)
    claims, statuses = (
        np.array([getattr(claim, field) for claim in JUDGED], object)
        for field in ("name", "status")
    )
    return {
        "depth": axis("depth", list(config.all_depths), "layers"),
        "epsilon": axis("epsilon", list(config.epsilon), "entropy weight ε", "logit units"),
        "alpha": axis("alpha", list(config.alpha), "residual weight α"),
        "noise": axis("noise", list(config.noise), "standard deviation of the noise"),
        "seed": ("seed", np.arange(config.seeds), {"long_name": "seed"}),
        "report": axis("report", list(config.report_steps), "steps"),
        "layer": ("layer", np.arange(1, deepest + 1), {"long_name": "layer"}),
        "after": ("after", np.arange(deepest + 1), {"long_name": "layers passed"}),
        "claim": ("claim", claims, {"long_name": "claim"}),
        "status": ("claim", statuses),
    }
