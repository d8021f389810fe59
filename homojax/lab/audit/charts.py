"""The charts of an audit's page, which one can hover over, zoom, and pick a layer in."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from homojax.lab.audit.plots import LEAST
from homojax.lab.figure_style import BOUND, TYPICAL, WARNING
from homojax.lab.page import INK, Chart
from homojax.lab.store import config_of

Trace = dict[str, Any]
LOG: Trace = {"type": "log", "exponentformat": "power"}


def charts_of(ds: xr.Dataset) -> list[Chart]:
    """Return the charts of an audit: what it has to show."""
    config, found = config_of(ds), [_gaps(ds)]
    if "tokens" in ds:
        found.append(_tokens(ds))
    found.append(_errors(ds, config["sum_error"]))
    if "composite_sigma2" in ds:
        found += [_products(ds, config["retention"]), _matrices(ds)]
    if "reach_converged" in ds:
        found.append(_reach(ds))
    if "checkpoint" in ds.dims:
        found.append(_trajectory(ds))
    return found


# ---------------------------------------------------------------- over layers


def _gaps(ds: xr.Dataset) -> Chart:
    traces = []
    if "sigma2" in ds:
        traces += [
            _dots(ds, 1 - ds.sigma2, "as run, static part", INK, "circle"),
            _dots(ds, ds.gap_converged, "converged, static part", BOUND, "x"),
        ]
    if ds.dynamic.any():
        traces.append(_dots(ds, ds.gap_lower, "every token, at least", WARNING, "line-ew-open"))
    if "tokens" in ds:
        traces.append(
            _spread(ds, 1 - ds.sigma2_converged_sample, "recorded tokens, 5 % to 95 %, converged")
        )
    return _over_layers(
        "The contraction gap 1 − σ₂ of each layer: at least this share of every detail is "
        "lost. Up: it forgets. Down: it keeps.",
        traces,
        "contraction gap 1 − σ₂",
    )


def _errors(ds: xr.Dataset, threshold: float) -> Chart:
    traces = []
    if "sigma2" in ds:
        error = np.maximum(ds.row_error, ds.col_error)
        traces.append(_dots(ds, error, "as run, static part", INK, "circle"))
    if ds.dynamic.any():
        traces.append(
            _dots(ds, ds.sum_error_upper, "every token, at most", WARNING, "line-ew-open")
        )
    if "tokens" in ds:
        error = np.maximum(ds.row_error_sample, ds.col_error_sample)
        traces.append(_spread(ds, error, "recorded tokens, 5 % to 95 %, as run"))
    return _over_layers(
        "The largest |row or column sum − 1| of each layer. Dotted: doubly stochastic below.",
        traces,
        "largest |sum − 1|",
        line=threshold,
    )


def _products(ds: xr.Dataset, threshold: float) -> Chart:
    traces = []
    for name, text, colour in (
        ("composite_sigma2", "as run", INK),
        ("composite_sigma2_converged", "converged", BOUND),
    ):
        trace = _dots(ds, ds[name], text, colour, "circle")
        traces.append({**trace, "mode": "lines+markers", "line": {"color": colour}})
    return _over_layers(
        "What the product of the layers up to here keeps of the detail, at the static part. "
        "Dotted: in the trap below.",
        traces,
        "σ₂ of the product",
        line=threshold,
    )


def _tokens(ds: xr.Dataset) -> Chart:
    """Return boxes of the recorded tokens of each layer."""
    choices = {}
    for name, text in (
        ("sigma2_converged", "σ₂, converged"),
        ("sigma2", "σ₂, as run"),
        ("leaving_converged", "share that goes to others, converged"),
        ("saturation", "saturation: 0 at J, 1 at permutations"),
        ("dist_to_identity", "‖M − I‖_F"),
        ("dist_to_uniform", "‖M − J‖_F"),
    ):
        low, first, middle, third, high = (
            _plain(ds[f"{name}_sample"].sel(quantile=share).values)
            for share in (0.05, 0.25, 0.5, 0.75, 0.95)
        )
        trace: Trace = {"type": "box", "x": ds.layer.values.tolist(), "name": text}
        trace |= {"lowerfence": low, "q1": first, "median": middle, "q3": third}
        trace |= {"upperfence": high, "marker": {"color": TYPICAL}, "showlegend": False}
        choices[text] = [trace]
    return Chart(
        "Recorded tokens of each layer: median, quartiles, 5 % and 95 %.",
        choices,
        {
            "xaxis": _layers_axis(ds.sizes["layer"]),
            "yaxis": {"title": {"text": "of a token"}},
            **MARGINS,
        },
        "Show",
    )


def _over_layers(caption: str, traces: list[Trace], label: str, line: float | None = None) -> Chart:
    layout: Trace = {
        "xaxis": _layers_axis(max(len(trace["x"]) for trace in traces)),
        "yaxis": {**LOG, "title": {"text": label}},
        "legend": {"orientation": "h", "y": -0.28, "yanchor": "top"},
        **MARGINS,
    }
    if line is not None:
        at = {"x0": 0, "x1": 1, "y0": line, "y1": line, "xref": "paper"}
        look = {"dash": "dot", "color": "#777777", "width": 1}
        layout["shapes"] = [{"type": "line", **at, "line": look}]
    return Chart(caption, {"": traces}, layout)


MARGINS: Trace = {"margin": {"l": 60, "r": 20, "t": 36, "b": 50}}


def _layers_axis(layers: int) -> Trace:
    every = -(-layers // 12)  # whole numbers, a dozen at most
    return {"title": {"text": "layer (mixing sublayer)"}, "tick0": 1, "dtick": every}


def _dots(ds: xr.Dataset, values: xr.DataArray, text: str, colour: str, symbol: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": ds.layer.values.tolist(),
        "y": _plain(np.maximum(values.values, LEAST)),
        "text": [str(name) for name in ds.name.values],
        "hovertemplate": "layer %{x}, %{text}<br>%{y:.4g}",
        "name": text,
        "marker": {"color": colour, "symbol": symbol, "size": 8},
    }


def _spread(ds: xr.Dataset, quantiles: xr.DataArray, text: str) -> Trace:
    ends = np.sort([quantiles.sel(quantile=share).values for share in (0.05, 0.95)], 0)
    middle = np.maximum(quantiles.sel(quantile=0.5).values, LEAST)
    low, high = np.maximum(ends, LEAST)
    trace = _dots(ds, quantiles.sel(quantile=0.5), text, TYPICAL, "diamond")
    around = {"array": _plain(high - middle), "arrayminus": _plain(middle - low)}
    return {**trace, "error_y": {"type": "data", "color": TYPICAL, **around}}


# ---------------------------------------------------------------- maps


def _matrices(ds: xr.Dataset) -> Chart:
    choices = {}
    for one in (ds.isel(layer=i) for i in range(ds.sizes["layer"])):
        n = int(one.n)
        choices[f"{int(one.layer)}: {one.name.item()}"] = [
            {
                "type": "heatmap",
                "z": _plain(one[name].values[:n, :n]),
                "x": list(range(1, n + 1)),
                "y": list(range(1, n + 1)),
                "zmin": 0,
                "zmax": 1,
                "colorscale": "Viridis",
                "xaxis": f"x{axis}",
                "yaxis": f"y{axis}",
                "showscale": not axis,
                "colorbar": {"title": {"text": "entry"}},
                "hovertemplate": "to %{y}, from %{x}: %{z:.4f}<extra></extra>",
            }
            for name, axis in (("matrix", ""), ("matrix_converged", "2"))
        ]
    whole: Trace = {"dtick": 1, "constrain": "domain"}
    down: Trace = {**whole, "autorange": "reversed"}
    return Chart(
        "The matrix of a layer, y = M x, at the static part: from which stream to which.",
        choices,
        {
            "xaxis": {**whole, "domain": [0, 0.45], "title": {"text": "from, as run"}},
            "xaxis2": {**whole, "domain": [0.55, 1], "title": {"text": "from, converged"}},
            "yaxis": {**down, "title": {"text": "to"}, "scaleanchor": "x"},
            "yaxis2": {**down, "anchor": "x2", "scaleanchor": "x2"},
            **MARGINS,
        },
        "Layer",
    )


def _reach(ds: xr.Dataset) -> Chart:
    choices = {}
    for name, text in (("reach_converged", "converged"), ("reach", "as run")):
        values = np.log10(np.maximum(ds[name].values, 1e-6))
        most = float(np.nanmax(abs(values), initial=0.1))
        choices[text] = [
            {
                "type": "heatmap",
                "z": _plain(values),
                "x": ds.reader.values.tolist(),
                "y": ds.layer.values.tolist(),
                "zmin": -most,
                "zmax": most,
                "colorscale": "RdBu",
                "colorbar": {"title": {"text": "log₁₀"}},
                "hovertemplate": "layer %{y} writes, %{x} reads: 10^%{z:.3f}<extra></extra>",
            }
        ]
    return Chart(
        "Reach: what is written at a layer and read at a later one, over an even mix (0).",
        choices,
        {
            "xaxis": {"title": {"text": "layer that reads"}, "constrain": "domain"},
            "yaxis": {"title": {"text": "layer that writes"}, "scaleanchor": "x"},
            **MARGINS,
        },
        "Show",
    )


def _trajectory(ds: xr.Dataset) -> Chart:
    stepped = "step" in ds.coords
    x = (ds["step"].values if stepped else np.arange(1, ds.sizes["checkpoint"] + 1)).tolist()
    traces = []
    for name, text, colour, dash in (
        ("converged", "converged", BOUND, "solid"),
        ("", "as run", INK, "solid"),
        ("decayed", "decay alone, of the first checkpoint (6.1)", WARNING, "dash"),
    ):
        key = f"trajectory_composite_sigma2{'_' * bool(name)}{name}"
        if key in ds:
            trace: Trace = {"type": "scatter", "mode": "lines+markers", "x": x, "name": text}
            trace |= {"line": {"color": colour, "dash": dash}, "marker": {"color": colour}}
            traces.append({**trace, "y": _plain(ds[key].values)})
    axis = {"title": {"text": "training step" if stepped else "checkpoint, in order"}}
    return Chart(
        "σ₂ of the product of all layers, from checkpoint to checkpoint, at the static parts.",
        {"": traces},
        {
            "xaxis": axis,
            "yaxis": {**LOG, "title": {"text": "σ₂ of the product"}},
            "legend": {"orientation": "h", "y": -0.28, "yanchor": "top"},
            **MARGINS,
        },
    )


def _plain(values: np.ndarray) -> list:
    """Return numbers as JSON has them: what is no number is null."""
    found = np.asarray(values, object)
    found[~np.isfinite(np.asarray(values, float))] = None
    return found.tolist()
