"""The Dataset of a sweep: its variables, with unit and meaning."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from homojax.lab.grid_store import MISSING, Layout, Variable
from homojax.lab.sources import Source
from homojax.lab.store import provenance
from homojax.lab.sweep.config import Sweep
from homojax.layernorm.kolmogorov import KS_ERROR
from homojax.numerics import marginal_tolerance
from homojax.projection.result import Status
from homojax.theory import CLAIMS
from homojax.theory.claim import VERDICTS

CELL = ("n", "epsilon", "seed")  # the dimensions of which each block has a part
OF_ALL_SEEDS = ("lyapunov_sigma2",)
KS_ROUNDING = 0.01  # how far rounding of the cosines may move their distance to the law
NUM_PROBES = 8  # random detail vectors whose turn is measured; the largest is kept
BOUNDS = [
    claim
    for claim in CLAIMS.values()
    if claim.scope == "matrix" and claim.number == "2" and claim.name != "eigenvalue"
]
_STATUS = {status.name.lower(): status for status in Status}
LAWS: dict[str, tuple[str, tuple[str, ...]]] = {  # claim -> (group, dimensions of its verdicts)
    "eigenvalue": ("spectrum", ("layer",)),
    **{claim.name: ("bounds", ("layer",)) for claim in BOUNDS},
    "product": ("depth", ("depth",)),
    "residual": ("residual", ("depth", "alpha")),
    "turn": ("residual", ("depth", "alpha")),
}

# name -> (group; dimensions after n, epsilon, seed; unit; meaning). What has no group is the
# projection's, and is always measured.
VARIABLES: dict[str, tuple[str | None, tuple[str, ...], str, str]] = {
    "row_error": (None, ("layer",), "1", "max |row sum − 1|"),
    "col_error": (None, ("layer",), "1", "max |column sum − 1|"),
    "num_steps": (None, ("layer",), "steps", "solver steps"),
    "status": (None, ("layer",), "", "how the projection ended"),
    "relative_epsilon": (None, ("layer",), "1", "ε over the logits' spread ‖PSP‖_F/(n−1)"),
    "sigma2": ("spectrum", ("layer",), "1", "subdominant singular value σ₂ = ‖PMP‖₂"),
    "lambda2": ("spectrum", ("layer",), "1", "subdominant eigenvalue modulus λ₂"),
    "entropy": (None, ("layer",), "nat", "entropy H(M), at most n log n"),
    "entropy_deficit": (None, ("layer",), "nat", "entropy deficit ΔH = n log n − H(M)"),
    **{
        f"{claim.name}_bound": (
            "bounds",
            ("layer",),
            "1",
            f"bound of {claim.name}: {claim.statement}",
        )
        for claim in BOUNDS
    },
    "composite_sigma2": (
        "depth",
        ("depth",),
        "1",
        "σ₂ of the product of the first layers, measured: detail retained",
    ),
    "product_sigma2": (
        "depth",
        ("depth",),
        "1",
        "Π σ₂ of the first layers: bound on the above (3.1)",
    ),
    "lyapunov_sigma2": (
        "depth",
        ("depth",),
        "1",
        "exp(depth × λ₁), λ₁ the mean over seeds of the top Lyapunov exponent: the typical rate",
    ),
    "composite_distance": (
        "depth",
        ("depth",),
        "1",
        "‖M_L ⋯ M_1 − J‖₂: equal to composite_sigma2 on doubly stochastic products only",
    ),
    "dist_to_uniform": (
        "depth",
        ("depth",),
        "1",
        "‖M_L ⋯ M_1 − J‖_F, the Frobenius distance that public mHC logs use",
    ),
    "composite_doeblin_bound": (
        "depth",
        ("depth",),
        "1",
        "Π (1 − n min M): bound on composite_distance (3.6)",
    ),
    "composite_amax_gain_fwd": (
        "depth",
        ("depth",),
        "1",
        "max absolute row sum of the composite: sees lost feasibility, blind to collapse (3.4)",
    ),
    "composite_amax_gain_bwd": (
        "depth",
        ("depth",),
        "1",
        "max absolute column sum of the composite",
    ),
    "lyapunov_exponent": (
        "depth",
        (),
        "nat/layer",
        "top Lyapunov exponent of the stack on V⊥; of few layers a transient",
    ),
    "effective_depth_bound": (
        "depth",
        (),
        "layers",
        "depth at which Π σ₂ falls to the retention, past the stack by its mean; inf: σ₂ is 1",
    ),
    "effective_depth_lyapunov": (
        "depth",
        (),
        "layers",
        "depth at which the typical rate falls to the retention; inf: the loss is rounding",
    ),
    "effective_depth_measured": (
        "depth",
        (),
        "layers",
        "depth at which the measured composite falls to it; inf: not within the stack",
    ),
    "output_snr": ("layernorm", ("snr",), "1", "‖Mx‖²/(dν²) after the first layer"),
    "cosine_mean": ("layernorm", ("snr",), "1", "layer-norm cosine, Monte Carlo mean"),
    "cosine_stderr": ("layernorm", ("snr",), "1", "standard error of that mean"),
    "cosine_exact": (
        "layernorm",
        ("snr",),
        "1",
        "layer-norm cosine, exact mean (4.2) at output_snr",
    ),
    "cosine_ks": (
        "layernorm",
        ("snr",),
        "1",
        "Kolmogorov-Smirnov distance of the draws to the exact law (4.1): never too large, and "
        f"at most {KS_ERROR:g} too small where they follow it; NaN where rounding could move it by "
        f"{KS_ROUNDING:g}",
    ),
    "residual_sigma2": (
        "residual",
        ("depth", "alpha"),
        "1",
        "σ₂ of the product of residual layers: retention, measured",
    ),
    "residual_sigma2_bound": (
        "residual",
        ("depth", "alpha"),
        "1",
        "Π (1 − α + ασ₂): bound on the above (5.1)",
    ),
    "turn": (
        "residual",
        ("depth", "alpha"),
        "rad",
        f"largest angle turned by {NUM_PROBES} random detail vectors: transformation, measured",
    ),
    "turn_bound": (
        "residual",
        ("depth", "alpha"),
        "rad",
        "Σ arcsin(ασ₂/(1−α)): bound on the turn where its premise holds, else π or more (5.2)",
    ),
    **{
        f"verdict_{law}": (group, dims, "", f"verdict on {CLAIMS[law].statement}")
        for law, (group, dims) in LAWS.items()
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
        for name, (group, dims, units, meaning) in VARIABLES.items()
        if group is None or group in sweep.measure
    }
    return Layout(_coordinates(sweep, source), chunks, variables, attrs)


def of_all_seeds(sweep: Sweep, read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Return the variables that only all seeds together have; ``read`` gives those of each."""
    if "depth" not in sweep.measure:
        return {}
    rates = np.asarray(sweep.depth) * read("lyapunov_exponent").mean(2)[..., None]
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
