"""The Dataset of a verification: counts of verdicts, tightness, and where the worst case is."""

from __future__ import annotations

import numpy as np
import xarray as xr

from homojax.lab.judging import chosen_claims
from homojax.lab.store import provenance
from homojax.lab.verify.config import Verification
from homojax.lab.verify.plan import Group, claims_of
from homojax.theory.claim import VERDICTS, Claim

VARIABLES = {
    "violated": "comparisons found violated",
    "undecidable": "comparisons that cannot be told at this precision",
    "holds": "comparisons found to hold",
    "not_applicable": "comparisons whose assumptions are not met",
    "tightness_median": "lesser over greater side, median; of equalities difference over margin",
    "tightness_best": "the same, largest",
    "least_slack": "least slack, in units of the margin",
    "block": "block that the least slack is in",
    "cell": "cell of the block that has the least slack",
    "refereed": "comparisons decided in 50 digits",
}
EMPTY = {**dict.fromkeys(VERDICTS, 0), "refereed": 0, "block": -1, "cell": -1}
SCOPES = ("projection", "matrix", "stack", "noise")


def assemble(
    config: Verification, groups: list[Group], counted: list[list[dict[str, np.ndarray]]]
) -> xr.Dataset:
    """Return the Dataset of a verification, from the blocks of each group."""
    claims = {claim.name: claim for scope in SCOPES for claim in claims_of(config, scope)}
    if not config.mutants:
        claims = {claim.name: claim for claim in chosen_claims(config.claims)}  # theory.md's order
    families = list(dict.fromkeys(group.family for group in groups))
    sizes = sorted({group.n for group in groups})
    shape = len(claims), len(families), len(sizes)
    data = {name: np.full(shape, EMPTY.get(name, np.nan)) for name in VARIABLES}
    rows = {name: row for row, name in enumerate(claims)}
    for group, parts in zip(groups, counted, strict=True):
        place = families.index(group.family), sizes.index(group.n)
        for claim, values in _merge(parts).items():
            for name, value in values.items():
                data[name][rows[claim], *place] = value
    variables = {
        name: (("claim", "family", "n"), data[name], {"long_name": text})
        for name, text in VARIABLES.items()
    }
    verb = "verify"
    title = f"homojax {verb}" + (" --mutants" if config.mutants else "")
    attrs = provenance(verb, config, dtype=config.dtype, title=title)
    coordinates = _coordinates(claims, families, sizes, config.mutants)
    return xr.Dataset(variables, coordinates, {**attrs, "seed": config.seed})


def _merge(parts: list[dict[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Return claim -> the values of the Dataset, over the blocks of a group."""
    merged = {}
    for name in {key.rsplit("/", 1)[0] for key in parts[0]}:
        verdicts = np.sum([part[f"{name}/verdicts"] for part in parts], axis=0)
        tight = np.concatenate([part[f"{name}/tightness"] for part in parts])
        worst = min((part[f"{name}/worst"] for part in parts), key=lambda row: row[0])
        known = tight[np.isfinite(tight)]
        merged[name] = {
            **dict(zip(VERDICTS, verdicts, strict=True)),
            "tightness_median": np.median(known) if len(known) else np.nan,
            "tightness_best": known.max() if len(known) else np.nan,
            "least_slack": worst[0],
            "block": worst[1],
            "cell": worst[2],
            "refereed": sum(part[f"{name}/worst"][3] for part in parts),
        }
    return merged


def _coordinates(
    claims: dict[str, Claim], families: list[str], sizes: list[int], mutants: bool
) -> dict:
    def words(values) -> tuple:
        return "claim", np.array(list(values), object)

    fields = ("number", "statement", "latex", "source", "direction", "scope")
    return {
        "claim": (*words(claims), {"long_name": "claim"}),
        "family": ("family", np.array(families, object), {"long_name": "family of cases"}),
        "n": ("n", sizes, {"long_name": "mixed units", "units": "1"}),
        **{field: words(getattr(claim, field) for claim in claims.values()) for field in fields},
        "assumes": words(
            "; ".join(told for told, _ in claim.assumptions) for claim in claims.values()
        ),
        "status": words("mutant" if mutants else claim.status for claim in claims.values()),
    }
