"""The Dataset of a sweep: its variables, with unit and meaning."""

from __future__ import annotations

import numpy as np

from homojax.lab.grid_store import MISSING, Layout, Variable
from homojax.lab.sources import Source
from homojax.lab.store import provenance
from homojax.lab.sweep.config import Sweep
from homojax.numerics import marginal_tolerance
from homojax.projection.result import Status
from homojax.theory import CLAIMS
from homojax.theory.claim import VERDICTS

CELL = ("n", "epsilon", "seed")  # the dimensions of which each block has a part
OF_ALL_SEEDS = ("lyapunov_sigma2",)
NUM_PROBES = 8  # random detail vectors whose turn is measured; the largest is kept
MATRIX_CLAIMS = [
    claim for claim in CLAIMS.values() if claim.scope == "matrix" and claim.number == "2"
]
_STATUS = {status.name.lower(): status for status in Status}
LAWS: dict[str, tuple[tuple[str, ...], str]] = {  # claim -> (dimensions of its verdicts, statement)
    **{claim.name: (("layer",), claim.statement) for claim in MATRIX_CLAIMS},
    "product": (("depth",), CLAIMS["product"].statement),
    "residual": (("depth", "alpha"), CLAIMS["residual"].statement),
    "turn": (("depth", "alpha"), CLAIMS["turn"].statement),
}
BOUNDS = [claim for claim in MATRIX_CLAIMS if claim.name != "eigenvalue"]  # λ₂ is measured anyway

# name -> (dimensions after n, epsilon, seed; unit; meaning)
VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "row_error": (("layer",), "1", "max |row sum − 1|"),
    "col_error": (("layer",), "1", "max |column sum − 1|"),
    "num_steps": (("layer",), "steps", "solver steps"),
    "status": (("layer",), "", "how the projection ended"),
    "relative_epsilon": (("layer",), "1", "ε over the logits' spread ‖PSP‖_F/(n−1)"),
    "sigma2": (("layer",), "1", "subdominant singular value σ₂ = ‖PMP‖₂"),
    "lambda2": (("layer",), "1", "subdominant eigenvalue modulus λ₂"),
    "entropy": (("layer",), "nat", "entropy H(M), at most n log n"),
    "entropy_deficit": (("layer",), "nat", "entropy deficit ΔH = n log n − H(M)"),
    **{
        f"{claim.name}_bound": (("layer",), "1", f"bound of {claim.name}: {claim.statement}")
        for claim in BOUNDS
    },
    "composite_sigma2": (
        ("depth",),
        "1",
        "σ₂ of the product of the first layers, measured: detail retained",
    ),
    "product_sigma2": (("depth",), "1", "Π σ₂ of the first layers: bound on the above (3.1)"),
    "lyapunov_sigma2": (
        ("depth",),
        "1",
        "exp(depth × λ₁), λ₁ the mean over seeds of the top Lyapunov exponent: the typical rate",
    ),
    "composite_distance": (
        ("depth",),
        "1",
        "‖M_L ⋯ M_1 − J‖₂: equal to composite_sigma2 on doubly stochastic products only",
    ),
    "dist_to_uniform": (
        ("depth",),
        "1",
        "‖M_L ⋯ M_1 − J‖_F, the Frobenius distance that public mHC logs use",
    ),
    "composite_doeblin_bound": (
        ("depth",),
        "1",
        "Π (1 − n min M): bound on composite_distance (3.6)",
    ),
    "composite_amax_gain_fwd": (
        ("depth",),
        "1",
        "max absolute row sum of the composite: sees lost feasibility, blind to collapse (3.4)",
    ),
    "composite_amax_gain_bwd": (("depth",), "1", "max absolute column sum of the composite"),
    "lyapunov_exponent": (
        (),
        "nat/layer",
        "top Lyapunov exponent of the stack on V⊥; of few layers a transient",
    ),
    "effective_depth_bound": (
        (),
        "layers",
        "depth at which Π σ₂ (geometric mean) falls to the retention; inf: σ₂ rounds to 1",
    ),
    "effective_depth_lyapunov": (
        (),
        "layers",
        "depth at which the typical rate falls to the retention; inf: the loss is rounding",
    ),
    "effective_depth_measured": (
        (),
        "layers",
        "depth at which the measured composite falls to it; inf: not within the stack",
    ),
    "output_snr": (("snr",), "1", "‖Mx‖²/(dν²) after the first layer"),
    "cosine_mean": (("snr",), "1", "layer-norm cosine, Monte Carlo mean"),
    "cosine_stderr": (("snr",), "1", "standard error of that mean"),
    "cosine_exact": (("snr",), "1", "layer-norm cosine, exact mean (4.2) at output_snr"),
    "cosine_ks": (("snr",), "1", "Kolmogorov-Smirnov distance of the draws to the exact law (4.1)"),
    "residual_sigma2": (
        ("depth", "alpha"),
        "1",
        "σ₂ of the product of residual layers: retention, measured",
    ),
    "residual_sigma2_bound": (
        ("depth", "alpha"),
        "1",
        "Π (1 − α + ασ₂): bound on the above (5.1)",
    ),
    "turn": (
        ("depth", "alpha"),
        "rad",
        f"largest angle turned by {NUM_PROBES} random detail vectors: transformation, measured",
    ),
    "turn_bound": (
        ("depth", "alpha"),
        "rad",
        "Σ arcsin(ασ₂/(1−α)): bound on the turn where its premise holds, else π or more (5.2)",
    ),
    **{
        f"verdict_{law}": (dims, "", f"verdict on {statement}")
        for law, (dims, statement) in LAWS.items()
    },
}


def layout(sweep: Sweep, source: Source, chunks: dict[str, int]) -> Layout:
    """Return what the Dataset of a sweep will be, divided into such chunks."""
    attrs = provenance("sweep", sweep, dtype=sweep.precision, title=f"homojax sweep: {sweep.label}")
    attrs |= {
        "source": source.description,
        "distinct_layers": max(sweep.depth) if source.layers is None else source.layers,
        "seed": sweep.seed,
        "tol": _tolerance(sweep, source),
    }
    variables = {
        name: Variable(
            dims=tuple(dim for dim in (*CELL, *dims) if dim != "seed" or name not in OF_ALL_SEEDS),
            dtype=_dtype(name, sweep),
            attrs=_attrs(name, units, meaning),
        )
        for name, (dims, units, meaning) in VARIABLES.items()
    }
    return Layout(_coordinates(sweep, source), chunks, variables, attrs)


def of_all_seeds(sweep: Sweep, exponents: np.ndarray) -> dict[str, np.ndarray]:
    """Return the variables that only all seeds together have, from exponents [n, epsilon, seed]."""
    rates = np.asarray(sweep.depth) * exponents.mean(2)[..., None]
    return {"lyapunov_sigma2": np.exp(rates).astype(sweep.precision)}


def _dtype(name: str, sweep: Sweep) -> np.dtype:
    kind = "int32" if name == "num_steps" else "int8" if _is_code(name) else sweep.precision
    return np.dtype(kind)


def _is_code(name: str) -> bool:
    return name.split("_")[0] in ("status", "verdict")


def _attrs(name: str, units: str, meaning: str) -> dict:
    flags = {"status": _STATUS, "verdict": VERDICTS}.get(name.split("_")[0])
    if flags is None:
        return {"long_name": meaning, "units": units}
    flags = {**flags, "missing": MISSING}
    values = [int(value) for value in flags.values()]
    return {"long_name": meaning, "flag_values": values, "flag_meanings": " ".join(flags)}


def _coordinates(sweep: Sweep, source: Source) -> dict[str, tuple[np.ndarray, dict[str, str]]]:
    epsilon = {"long_name": "entropy weight ε", "units": "logit units"}
    snr = {"long_name": "input signal-to-noise ratio ‖x‖²/(dν²)", "units": "1"}
    return {
        "n": (np.asarray(source.sizes), {"long_name": "mixed units", "units": "1"}),
        "epsilon": (np.asarray(sweep.epsilon), epsilon),
        "seed": (np.arange(source.seeds), {"long_name": "independent stack"}),
        "layer": (np.arange(1, max(sweep.depth) + 1), {"long_name": "layer, from the input"}),
        "depth": (np.asarray(sweep.depth), {"long_name": "depth", "units": "layers"}),
        "snr": (np.asarray(sweep.snr), snr),
        "alpha": (np.asarray(sweep.alpha), {"long_name": "residual weight α", "units": "1"}),
    }


def _tolerance(sweep: Sweep, source: Source) -> str:
    if sweep.iterations:
        return "as truncated"
    return str(sweep.tol or {n: marginal_tolerance(n, sweep.precision) for n in source.sizes})
