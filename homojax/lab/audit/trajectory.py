"""Several checkpoints of one training: what changes, and what weight decay alone would do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from homojax.lab.audit.config import Audit
from homojax.lab.audit.dataset import attrs_of, stacked, words
from homojax.lab.audit.layers import Mixing
from homojax.lab.audit.measures import matrices_of, measure_each, measure_stack
from homojax.lab.inputs import InputError

VARIABLES = {  # of layers, with trajectory_ before: name -> (units, what it is)
    "sigma2": ("1", "share of detail that is kept at most, σ₂, as run"),
    "sigma2_converged": ("1", "share of detail that is kept at most, σ₂, converged"),
    "sum_error": ("1", "largest |row or column sum − 1|, as run"),
    "leaving_converged": ("1", "mean share of a stream that goes to others, converged"),
    "sigma2_decayed": ("1", "σ₂ of the first checkpoint's logits after decay alone, converged"),
}
OF_STACK = {
    "composite_sigma2": ("1", "share of detail that all layers keep at most, as run"),
    "composite_sigma2_converged": ("1", "share of detail that all layers keep at most, converged"),
    "composite_sigma2_decayed": (
        "1",
        "the same of the first checkpoint's logits after decay alone",
    ),
}


def trajectory(config: Audit, names: Sequence[str], mixings: Sequence[Mixing]) -> xr.Dataset:
    """Return what is measured of each checkpoint, in the order given, at the static parts.

    Where a learning rate and a decay are given, ``…_decayed`` is what decay alone would make of the
    first checkpoint: its logits times (1 − rate · decay)^steps. Law 6.1, weight decay.

    Args:
        config: with ``learning_rate``, ``decay`` and ``steps``.
        names: of the checkpoints.
        mixings: theirs.

    Raises:
        InputError: they have different layers, or decay is asked for and steps are not known.
    """
    first = mixings[0].layers
    for name, mixing in zip(names, mixings, strict=True):
        if [(x.name, x.n) for x in mixing.layers] != [(x.name, x.n) for x in first]:
            raise InputError(
                f"{name} has other layers than {names[0]}: several checkpoints must be of one "
                "training."
            )
    steps = _steps(config, names)
    shares = None
    if config.learning_rate is not None and config.decay is not None:
        if steps is None:
            raise InputError(
                "to predict decay, say of which step each checkpoint is: add --steps, or give "
                "files or folders numbers that grow."
            )
        after = np.array(steps) - steps[0]
        shares = (1 - config.learning_rate * config.decay) ** after
    columns = [
        _measured(config, mixing, mixings[0], None if shares is None else float(shares[k]))
        for k, mixing in enumerate(mixings)
    ]
    variables: dict[str, Any] = {}
    for key, about in {**VARIABLES, **OF_STACK}.items():
        if key in columns[0]:
            dims = ("checkpoint",) if key in OF_STACK else ("checkpoint", "layer")
            values = np.stack([column[key] for column in columns])
            variables[f"trajectory_{key}"] = (dims, values, attrs_of(about))
    coords: dict[str, Any] = {"checkpoint": ("checkpoint", words(names))}
    if steps is not None:
        coords["step"] = ("checkpoint", list(steps), {"long_name": "training step", "units": "1"})
    return xr.Dataset(variables, coords)


def _measured(
    config: Audit, mixing: Mixing, first: Mixing, share: float | None
) -> dict[str, np.ndarray]:
    layers, together = list(mixing.layers), stacked(mixing.layers)
    found = {name: np.full(len(layers), np.nan) for name in VARIABLES}
    for n in sorted({layer.n for layer in layers}):
        which = [k for k, layer in enumerate(layers) if layer.n == n]
        made = matrices_of([layers[k] for k in which])
        run, converged = measure_each(made.run), measure_each(made.converged)
        found["sigma2"][which] = run["sigma2"]
        found["sigma2_converged"][which] = converged["sigma2"]
        found["sum_error"][which] = np.maximum(run["row_error"], run["col_error"])
        found["leaving_converged"][which] = converged["leaving"]
        stacks = {"": made.run, "_converged": made.converged}
        if share is not None:
            decayed = [first.layers[k]._replace(base=share * first.layers[k].base) for k in which]
            stacks["_decayed"] = matrices_of(decayed).converged
            found["sigma2_decayed"][which] = measure_each(stacks["_decayed"])["sigma2"]
        if together[which[0]]:
            own = [i for i, k in enumerate(which) if together[k]]
            for end, stack in stacks.items():
                kept = measure_stack(stack[own], config.retention)["composite_sigma2"]
                found[f"composite_sigma2{end}"] = np.asarray(kept[-1])
    if share is None:
        found.pop("sigma2_decayed")
    return found


def order_note(config: Audit, names: Sequence[str]) -> list[str]:
    """Return a sentence where checkpoints may have been given in another order than theirs."""
    backwards = _steps(config, names) is None and _steps(config, sorted(names, key=_numbers))
    if not backwards:
        return []
    return ["The numbers in the checkpoints' names do not grow: the last one given is audited."]


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,15}", name)]


def _steps(config: Audit, names: Sequence[str]) -> tuple[int, ...] | None:
    """Return of which step each checkpoint is: as given, or by a number in its name or folder."""
    if config.steps:
        return config.steps
    for parts in zip(*(Path(name).parts[::-1] for name in names), strict=False):
        numbers = [re.findall(r"\d{1,15}", part) for part in parts]
        steps = tuple(int(each[-1]) for each in numbers if each)
        if len(steps) == len(names) and all(a < b for a, b in itertools.pairwise(steps)):
            return steps
    return None
