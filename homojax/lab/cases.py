"""A case on disk: the one cell that broke a claim, with enough beside it to judge it again elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from homojax.lab.inputs import InputError, nearest
from homojax.theory import CLAIMS
from homojax.theory.stack import claim_depths

FORMAT = 1  # of the files; another one is refused


class Case(NamedTuple):
    """One cell, as it is saved: enough to judge it again."""

    claim: str
    scope: str
    family: str
    arrays: dict[str, np.ndarray]
    about: dict[str, Any]


def save_case(case: Case, path: Path) -> None:
    """Writes a case as .npz: its arrays, and ``about`` as JSON."""
    about = json.dumps(
        {
            "format": FORMAT,
            "claim": case.claim,
            "scope": case.scope,
            "family": case.family,
            **case.about,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, about=np.array(about), allow_pickle=False, **case.arrays)


def load_case(path: Path) -> Case:
    """Reads what ``save_case`` wrote.

    Raises:
        InputError: it cannot be read, is no case, or is one of a format or with a claim that this version does not know.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            values = {key: arrays[key] for key in arrays.files if key != "about"}
            claim, scope, family = (str(about.pop(key)) for key in ("claim", "scope", "family"))
    except Exception as error:  # a hostile or damaged file raises anything
        raise InputError(
            f"{path} is not a case that homojax verify saved, or is damaged."
        ) from error
    if about.get("format") != FORMAT:
        raise InputError(
            f"{path} was written by homojax {_version(about)} in another format: replay it with that version."
        )
    if claim not in CLAIMS:
        raise InputError(
            f'{path} is about the claim "{claim}", which this version does not have: {nearest(claim, CLAIMS)}'
        )
    if scope != CLAIMS[claim].scope:
        raise InputError(
            f"{path} has a case of scope {scope}, and {claim} is about {CLAIMS[claim].scope}: it is damaged."
        )
    for name, shape in _SHAPES[scope].items():
        if name not in values:
            raise InputError(f"{path} lacks {name}: it is damaged.")
        if values[name].dtype.kind not in "fi" or values[name].ndim != len(shape):
            raise InputError(
                f"{path}: {name} must be numbers of shape [{', '.join(shape)}]: it is damaged."
            )
    sizes = {size for name in _SHAPES[scope] for size in values[name].shape[-2:]}
    if (
        len(sizes) > 1
        or min(sizes, default=2) < 2
        or ("matrix" in values and values["matrix"].shape != values["logits"].shape)
    ):
        raise InputError(f"{path} has arrays that do not fit each other: it is damaged.")
    return Case(claim, scope, family, values, about)


def up_to_comparison(case: Case, shape: tuple[int, ...], at: int) -> Case:
    """The case with no more layers than its comparison number ``at`` of those in ``shape`` is about."""
    if case.scope != "stack" or not shape:
        return case
    layers = claim_depths(len(case.arrays["matrices"]))[np.unravel_index(at, shape)[0]]
    return case._replace(arrays={**case.arrays, "matrices": case.arrays["matrices"][:layers]})


_SHAPES = {
    "matrix": {"logits": ("n", "n"), "epsilon": ()},
    "projection": {"logits": ("n", "n"), "epsilon": ()},
    "stack": {"matrices": ("L", "n", "n"), "alpha": (), "probe": ("n",)},
    "noise": {"key": (), "snr": (), "n": ()},
}


def _version(about: dict[str, Any]) -> str:
    versions = about.get("versions")
    return str(versions.get("homojax", "unknown")) if isinstance(versions, dict) else "unknown"
