"""A case on disk: the one cell that broke a claim, with enough beside it to be judged again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from homojax.lab.inputs import InputError
from homojax.lab.places import path_of
from homojax.registry import nearest
from homojax.theory import CLAIMS
from homojax.theory.cases.stack import claim_depths

FORMAT = 1  # of the files; another one is refused
_SHAPES = {  # scope -> name -> shape of the arrays that a case is judged from
    "matrix": {"logits": ("n", "n"), "epsilon": ()},
    "projection": {"logits": ("n", "n"), "epsilon": ()},
    "stack": {"matrices": ("L", "n", "n"), "alpha": (), "probe": ("n",)},
    "noise": {"key": (), "snr": (), "n": ()},
}


class Case(NamedTuple):
    """One cell, as it is saved."""

    claim: str  # its name
    scope: str
    family: str  # of cases, or "probe"
    arrays: dict[str, np.ndarray]  # those that it is judged from
    about: dict[str, Any]  # how it came about: versions, seed or search


def save_case(case: Case, path: Path) -> None:
    """Write a case as .npz: its arrays, and everything else as JSON."""
    header = {
        "format": FORMAT,
        "claim": case.claim,
        "scope": case.scope,
        "family": case.family,
        **case.about,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, about=np.array(json.dumps(header)), allow_pickle=False, **case.arrays)


def load_case(path: str | Path) -> Case:
    """Read what ``save_case`` wrote.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "case.npz"
    >>> arrays = {"logits": np.eye(2), "matrix": np.eye(2), "epsilon": np.array(1.0)}
    >>> save_case(Case("hilbert", "matrix", "probe", arrays, {}), file)
    >>> load_case(file).claim
    'hilbert'

    Raises:
        InputError: the file cannot be read, is no case, or is one of another format or of a claim
            that this version does not have.
    """
    path = Path(path_of(path) or "")
    if not path.is_file():
        if path.is_dir():
            raise InputError(f"{path} is a folder: name the .npz file of a case in it.")
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
            f"{path} was written by homojax {_version(about)} in another format: replay it with "
            "that version."
        )
    if claim not in CLAIMS:
        raise InputError(
            f'{path} is about the claim "{claim}", which this version does not have: '
            f"{nearest(claim, CLAIMS)}"
        )
    if scope != CLAIMS[claim].scope:
        raise InputError(
            f"{path} has a case of scope {scope}, and {claim} is about {CLAIMS[claim].scope}: it "
            "is damaged."
        )
    _check_arrays(path, scope, values)
    return Case(claim=claim, scope=scope, family=family, arrays=values, about=about)


def _check_arrays(path: Path, scope: str, values: dict[str, np.ndarray]) -> None:
    """Raise InputError where an array is missing, or its shape does not fit the others."""
    for name, shape in _SHAPES[scope].items():
        if name not in values:
            raise InputError(f"{path} lacks {name}: it is damaged.")
        if values[name].dtype.kind not in "fi" or values[name].ndim != len(shape):
            raise InputError(
                f"{path}: {name} must be numbers of shape [{', '.join(shape)}]: it is damaged."
            )
    sizes = {size for name in _SHAPES[scope] for size in values[name].shape[-2:]}
    unequal = "matrix" in values and values["matrix"].shape != values["logits"].shape
    if len(sizes) > 1 or min(sizes, default=2) < 2 or unequal:
        raise InputError(f"{path} has arrays that do not fit each other: it is damaged.")


def up_to_comparison(case: Case, shape: tuple[int, ...], index: int) -> Case:
    """Return the case with no more layers than one of its comparisons is about.

    Args:
        case: of any scope; only stacks have layers.
        shape: that of the case's comparisons.
        index: the comparison's, in their flat order.
    """
    if case.scope != "stack" or not shape:
        return case
    depth = np.unravel_index(index, shape)[0]
    layers = claim_depths(len(case.arrays["matrices"]))[depth]
    return case._replace(arrays={**case.arrays, "matrices": case.arrays["matrices"][:layers]})


def _version(about: dict[str, Any]) -> str:
    versions = about.get("versions")
    return str(versions.get("homojax", "unknown")) if isinstance(versions, dict) else "unknown"
