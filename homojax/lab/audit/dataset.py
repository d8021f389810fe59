"""The Dataset of an audit: its variables, with units and meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from homojax.lab.audit.certificates import Certificate
from homojax.lab.audit.layers import Layer
from homojax.lab.audit.names import gaps_in, stack_of
from homojax.lab.audit.recorded import QUANTILES, Sample, quantiles
from homojax.lab.audit.verdict import counted

NAMED = 3  # layers that a note names
LEAST_GAP = 1e-6  # of every token, to say anything of it

BY_LAYER = {  # as run, and with _converged at the end once converged: name -> (units, what it is)
    "row_error": ("1", "largest |row sum − 1|"),
    "col_error": ("1", "largest |column sum − 1|"),
    "sigma2": ("1", "share of detail that is kept at most, σ₂"),
    "lambda2": ("1", "largest |eigenvalue| on detail, |λ₂|"),
    "entropy_share": ("1", "entropy over n log n"),
    "dist_to_identity": ("1", "‖M − I‖_F"),
    "dist_to_uniform": ("1", "‖M − J‖_F"),
    "saturation": ("1", "(‖M‖_F² − 1)/(n − 1): 0 at J, 1 at permutations"),
    "leaving": ("1", "mean share of a stream that goes to others, 1 − tr M/n"),
    "amax_gain_fwd": ("1", "largest sum of magnitudes in a row"),
    "amax_gain_bwd": ("1", "largest sum of magnitudes in a column"),
}
OF_CONVERGED = {
    "gap_converged": ("1", "1 − σ₂ to relative accuracy, converged"),
    "response_converged": ("1", "‖∂M/∂S‖₂ is at least this, S in units of ε, converged"),
}
_MEASURED_AS_RUN = (
    *("row_error", "col_error", "sigma2", "dist_to_identity", "dist_to_uniform", "saturation"),
)
OF_CERTIFICATE = {  # of every token there can be
    "diameter_upper": ("logit units", "largest projective diameter of the logits over ε"),
    "sigma2_upper": ("1", "no token's matrix has a larger σ₂, as run"),
    "gap_lower": ("1", "no token's matrix has a smaller 1 − σ₂, converged"),
    "least_entry_lower": ("1", "no token's matrix has a smaller entry, as run"),
    "sum_error_upper": ("1", "no token's matrix misses a sum by more, as run"),
    "saturation_upper": ("1", "no token's matrix has a larger saturation, converged"),
    "dist_to_uniform_upper": ("1", "no token's matrix has a larger ‖M − J‖_F, converged"),
}
FOUND = {  # of tokens that were looked for by gradient
    "gap_found": ("1", "the smallest 1 − σ₂ of a token that was found, converged"),
    "sum_error_found": ("1", "the largest |sum − 1| of a token that was found, as run"),
}
OF_TOKENS = {  # of recorded tokens, with _sample at the end
    **{name: (BY_LAYER[name][0], f"{BY_LAYER[name][1]}, as run") for name in _MEASURED_AS_RUN},
    "sigma2_converged": ("1", f"{BY_LAYER['sigma2'][1]}, converged"),
    "leaving_converged": ("1", f"{BY_LAYER['leaving'][1]}, converged"),
    "response_converged": OF_CONVERGED["response_converged"],
}
OF_STACK = {  # of the products M_l ⋯ M_1
    "composite_sigma2": ("1", "share of detail that layers 1 … l keep at most"),
    "composite_dist_to_uniform": ("1", "‖M_l ⋯ M_1 − J‖_F"),
    "composite_amax_gain_fwd": ("1", "largest sum of magnitudes in a row of M_l ⋯ M_1"),
    "composite_amax_gain_bwd": ("1", "largest sum of magnitudes in a column of M_l ⋯ M_1"),
}
DEPTHS = {
    "lyapunov_exponent": ("nat/layer", "mean growth of the logarithm of detail"),
    "effective_depth_bound": ("layers", "depth at which little detail is left, by σ₂"),
    "effective_depth_lyapunov": ("layers", "depth at which little detail is left, by its exponent"),
    "effective_depth_measured": ("layers", "depth at which little detail is left, measured"),
}


def described() -> dict[str, tuple[str, str]]:
    """Return the variables of a layer: name -> (units, what it is)."""
    found = {}
    for name, (units, text) in BY_LAYER.items():
        found[name] = units, f"{text}, as run"
        found[f"{name}_converged"] = units, f"{text}, converged"
    return {**found, **OF_CONVERGED, **OF_CERTIFICATE}


def attrs_of(about: tuple[str, str]) -> dict[str, str]:
    """Return the attrs of a variable, from its units and what it is."""
    units, text = about
    return {"long_name": text, "units": units}


def coords_of(layers: tuple[Layer, ...]) -> dict[str, Any]:
    """Return the coordinates of layers: their order, and what the checkpoint says of each."""
    text = {"name": "in the checkpoint", "site": "sublayer", "layout": "row of the table"}
    columns = {
        "name": words([layer.name for layer in layers]),
        "site": words([layer.site for layer in layers]),
        "layout": words([layer.layout for layer in layers]),
        "preset": words([layer.preset.name for layer in layers]),
        "dynamic": [layer.dynamic for layer in layers],
        "n": [layer.n for layer in layers],
    }
    index = {"long_name": "mixing sublayer, in order"}
    return {
        "layer": ("layer", np.arange(1, len(layers) + 1), index),
        **{
            key: ("layer", column, {"long_name": text.get(key, key)})
            for key, column in columns.items()
        },
    }


def words(values: Iterable[str]) -> np.ndarray:
    """Return strings of any length, as a store keeps them."""
    return np.array(list(values), object)


def padded(matrices: list[np.ndarray]) -> np.ndarray:
    """Return matrices as one array, NaN beyond their size."""
    n = max(len(matrix) for matrix in matrices)
    found = np.full((len(matrices), n, n), np.nan)
    for one, matrix in zip(found, matrices, strict=True):
        one[: len(matrix), : len(matrix)] = matrix
    return found


def certified(certificates: list[Certificate]) -> dict[str, np.ndarray]:
    """Return the variables of ``OF_CERTIFICATE``, [L] each."""
    columns = {
        "diameter_upper": [x.diameter for x in certificates],
        "sigma2_upper": [x.sigma2 for x in certificates],
        "gap_lower": [x.gap for x in certificates],
        "least_entry_lower": [x.least_run for x in certificates],
        "sum_error_upper": [x.sum_error for x in certificates],
        "saturation_upper": [x.saturation for x in certificates],
        "dist_to_uniform_upper": [x.dist_to_uniform for x in certificates],
    }
    return {name: np.array(column) for name, column in columns.items()}


def of_tokens(samples: Sequence[Sample | None]) -> xr.Dataset:
    """Return the quantiles over the recorded tokens of each layer."""
    variables: dict[str, Any] = {
        f"{name}_sample": (
            ("layer", "quantile"),
            np.stack(
                [
                    np.full(len(QUANTILES), np.nan) if x is None else quantiles(x.values[name])
                    for x in samples
                ]
            ),
            attrs_of(about),
        )
        for name, about in OF_TOKENS.items()
    }
    count = [0 if x is None else len(x.run) for x in samples]
    outside = [np.nan if x is None or x.outside is None else float(x.outside) for x in samples]
    variables["tokens"] = ("layer", count, {"long_name": "recorded tokens", "units": "1"})
    about = {"long_name": "recorded tokens with logits that no token can have", "units": "1"}
    variables["outside"] = ("layer", outside, about)
    index = {"long_name": "share of the recorded tokens below", "units": "1"}
    return xr.Dataset(variables, {"quantile": ("quantile", list(QUANTILES), index)})


def notes_of(
    ds: xr.Dataset,
    samples: Sequence[Sample | None],
    tokens: dict[str, np.ndarray] | None,
    *,
    verdict: str,
) -> list[str]:
    """Return sentences on what a reader could miss: where most is lost, what is left out or wrong.

    Args:
        ds: of all layers.
        samples: what was recorded of each.
        tokens: the products of what was recorded, if there are any.
        verdict: about the stack.
    """
    notes, depth = [], ds.sizes["layer"]
    in_product = int(ds.stacked.sum())
    least = {k: kept for k, kept in least_kept(ds).items() if kept < 0.995}
    if verdict == "trap" and in_product > NAMED and least:  # else it is in the trap only as run
        layers = (f"{ds.name.values[k]} (σ₂ = {kept:.3g})" for k, kept in least.items())
        notes.append(f"Least is kept by {', '.join(layers)}, once converged.")
    if depth > in_product:
        out = _listed(ds.name.values[~ds.stacked.values])
        notes.append(
            f"{depth - in_product} of {depth} layers are in no product: {out}. A product is of the "
            "layers of one n whose names begin alike, and the commonest are taken."
        )
    gaps = gaps_in(ds.name.values.tolist())
    if gaps:
        notes.append(
            f"No matrix was found of {_listed(gaps)}, though of most layers around: the stack is "
            "judged without."
        )
    there = [sample for sample in samples if sample is not None]
    if not there:
        vague = int((ds.dynamic & (ds.sigma2_upper >= 1) & ~(ds.gap_lower >= LEAST_GAP)).sum())
        if vague:
            notes.append(
                f"Of {counted(vague, 'layer')} nothing follows for every token: record the streams "
                "of tokens that matter to you, and add --streams."
            )
        return notes
    if tokens is None:
        absent = [
            name
            for name, sample, inside in zip(ds.name.values, samples, ds.stacked.values, strict=True)
            if inside and sample is None
        ]
        are = "is" if len(absent) == 1 else "are"
        why = f"{_listed(absent)} {are} missing" if absent else "the numbers of tokens differ"
        notes.append(f"There is no product of what was recorded: {why}.")
    lost = {
        name: int((~np.isfinite(np.stack(list(sample.values.values()))).all(0)).sum())
        for name, sample in zip(ds.name.values, samples, strict=True)
        if sample is not None
    }
    if any(lost.values()):
        count = counted(sum(lost.values()), "recorded matrix", "recorded matrices")
        notes.append(
            f"Quantiles leave out {count} of {_listed([name for name in lost if lost[name]])}: a "
            "recorded number is not finite, or there is no doubly stochastic limit."
        )
    wrong = sum(bool(sample.outside) for sample in there)
    if wrong:
        notes.append(
            f"Of {wrong} of {counted(len(there), 'layer')} matrices were recorded that no token of "
            "this checkpoint can have: the recording is of another model, or of the transposes."
        )
    return notes


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def least_kept(ds: xr.Dataset) -> dict[int, float]:
    """Return the places of the layers of the product that keep least, with their converged σ₂."""
    kept = ds.sigma2_converged if "sigma2_converged" in ds else None
    if "sigma2_converged_sample" in ds:
        sample = ds.sigma2_converged_sample.sel(quantile=0.5)
        kept = sample if kept is None else sample.fillna(kept)
    assert kept is not None, "a layer has a static part, or was recorded"
    least = kept.where(ds.stacked).argsort().values[:NAMED]
    return {int(k): float(kept[k]) for k in least}


def stacked(layers: tuple[Layer, ...]) -> np.ndarray:
    """Return which layers follow each other: those of the commonest n and beginning of a name.

    Of recorded matrices alone, those of the commonest n: their names are anybody's.
    """
    kinds = [
        (layer.n, "" if layer.layout == "recorded" else stack_of(layer.name)) for layer in layers
    ]
    common = Counter(kinds).most_common(1)[0][0]
    return np.array([kind == common for kind in kinds])
