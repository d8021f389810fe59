"""What a person sees of an audit: the verdict, the layers, the stack, and what was skipped."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

from homojax.lab import page
from homojax.lab.audit import plots
from homojax.lab.audit.charts import charts_of
from homojax.lab.audit.command import AuditCommand
from homojax.lab.audit.dataset import least_kept
from homojax.lab.audit.run import audit
from homojax.lab.audit.verdict import WORDS, counted
from homojax.lab.blocks import resume
from homojax.lab.page import Picture, Section, Table
from homojax.lab.progress import Progress, progress_bar, silent
from homojax.lab.runs import run_folder

SHOWN_LAYERS = 32  # rows of the terminal's table
CERTAINTIES = {
    "every token": "certified for every token",
    "recorded sample": "on the recorded sample",
    "static part": "at the static part",
}


def run_command(command: AuditCommand, console: Console) -> bool:
    """Audit a checkpoint, and show it. Returns whether no verdict is one to fail on."""
    import jax

    jax.config.update("jax_enable_x64", True)
    if command.json and command.out is None:
        ds = _audit(command)
    else:
        # Standard output is for the object alone.
        ds = _into_folder(command, Console(stderr=True) if command.json else console)
    if command.json:
        print(json.dumps(as_json(ds), ensure_ascii=False, allow_nan=False))
    found = {ds.attrs["verdict"], *ds.verdict.values.tolist()}
    return found.isdisjoint(command.failing)


def _into_folder(command: AuditCommand, console: Console) -> xr.Dataset:
    recorded = {"streams": command.streams, "matrices": command.matrices}
    given = {name: _whole(path) for name, path in recorded.items() if path is not None}
    checkpoints = [_whole(path) for path in command.checkpoint]
    identity = {"verb": "audit", "checkpoint": checkpoints, **given, **command.config.as_dict()}
    folder = run_folder(command, identity)
    with progress_bar(console, "audit") as progress:
        make = partial(_audit, command, progress)
        ds = resume(folder.part / "audit.zarr", command.config.digest, lambda _: make())
    section = describe(ds)._replace(charts=charts_of(ds), pictures=_pictures(ds))
    title = f"Audit of {Path([*given.values(), *checkpoints][-1]).name}"
    written = page.write_page(folder.part, title, [section])
    folder.finish(*written, "audit.zarr")
    if not command.json:
        brief = [_shortened(table) for table in section.tables]
        page.show(section._replace(tables=brief), console)
        page.show_place(folder.name, console)
    return ds


def _whole(path: Path) -> str:
    return str(path.expanduser().absolute())


def _audit(command: AuditCommand, progress: Progress = silent) -> xr.Dataset:
    return audit(
        list(command.checkpoint) or None,
        command.config,
        streams=command.streams,
        matrices=command.matrices,
        progress=progress,
    )


def _pictures(ds: xr.Dataset) -> list[Picture]:
    wanted: list[tuple] = [
        (
            "layers.png",
            "Each layer's gap 1 − σ₂, the errors of its sums, and what the product keeps.",
            plots.layers,
            ds,
        ),
    ]
    if "matrix" in ds:
        caption = "The matrices as run and converged, y = M x."
        wanted.append(("matrices.png", caption, plots.matrices, ds))
    if "checkpoint" in ds.dims:
        caption = "What changed from checkpoint to checkpoint, at the static parts."
        wanted.append(("trajectory.png", caption, plots.trajectory, ds))
    if "reach_converged" in ds:
        caption = "What is written at a layer and read at a later one, over an even mix (0)."
        wanted.append(("reach.png", caption, plots.reach, ds))
    return page.draw_all(wanted)


def headline(ds: xr.Dataset) -> str:
    """Say what an audit found, in a few sentences."""
    verdict, certainty = WORDS[ds.attrs["verdict"]], ds.attrs["certainty"]
    if certainty == "undecidable":
        begin = f"Undecidable within the error of the stored numbers, {verdict} if they are exact"
    else:
        begin = f"{verdict.capitalize()} ({CERTAINTIES[certainty]})"
    return f"{begin}: {ds.attrs['reason']}."


def describe(ds: xr.Dataset) -> Section:
    """Return the verdict, and the tables behind it."""
    skipped = json.loads(ds.attrs["skipped"])
    tables = [_layer_table(ds), *_sample_tables(ds), *_stack_tables(ds), *_trajectory_tables(ds)]
    advice = json.loads(ds.attrs["advice"])
    if advice:
        rows = [[WORDS[each["verdict"]], each["do"], each["then"]] for each in advice]
        tables.append(Table("What to do", ["verdict", "do", "what changes"], rows))
    if skipped:
        rows = [[each["name"], each["reason"]] for each in skipped]
        tables.append(
            Table("Tensors that look like mixing and were skipped", ["name", "reason"], rows)
        )
    return Section(
        heading="",
        text=" ".join([headline(ds), *json.loads(ds.attrs["notes"])]),
        as_expected=ds.attrs["verdict"] in ("healthy", "near-identity", "none"),
        tables=tables,
        about=page.about(ds.attrs, "audit.zarr"),
    )


def _layer_table(ds: xr.Dataset) -> Table:
    static, dynamic = "sigma2" in ds, bool(ds.dynamic.any())
    header = ["layer", "name", "preset"]
    header += ["sum error", "σ₂", "σ₂ converged", "|λ₂|"] if static else []
    header += ["σ₂ every token, as run", "error every token"] if dynamic else []
    searched = dynamic and "gap_found" in ds
    header += ["σ₂ found", "error found"] if searched else []
    header += ["verdict", "certainty"]
    rows = []
    for i in range(ds.sizes["layer"]):
        one = ds.isel(layer=i)
        row = [str(int(one.layer)), str(one.name.item()), str(one.preset.item())]
        if static:
            row += [f"{max(float(one.row_error), float(one.col_error)):.1e}"]
            row += [f"{float(one[name]):.4f}" for name in ("sigma2", "sigma2_converged", "lambda2")]
        if dynamic:
            row += [_upper(float(one.sigma2_upper), 1, "≤ {:.6f}")]
            row += [_upper(float(one.sum_error_upper), int(one.n) - 1, "≤ {:.1e}")]
        if searched:
            row += [f"{1 - float(one.gap_found):.6f}", f"{float(one.sum_error_found):.1e}"]
        rows.append([*row, WORDS[one.verdict.item()], str(one.certainty.item())])
    wrong = [one in ("trap", "unconverged", "locked") for one in ds.verdict.values]
    if ds.attrs["verdict"] == "trap":
        wrong = [k in least_kept(ds) or one for k, one in enumerate(wrong)]
    caption = "Layers in order"
    caption += "; matrices are for y = M x; numbers at the static part" if static else ""
    caption += ", verdicts on the recorded tokens where there are some" if "tokens" in ds else ""
    return Table(caption, header, rows, wrong)


def _sample_tables(ds: xr.Dataset) -> list[Table]:
    """Return what was recorded of each layer: medians, and from the 5 % to the 95 % quantile."""
    if "tokens" not in ds:
        return []
    header = [
        "layer",
        "name",
        "tokens",
        "outside",
        "σ₂",
        "σ₂ converged",
        "to others",
        "worst error",
    ]
    rows = []
    for one in (ds.isel(layer=i) for i in np.flatnonzero(ds.tokens.values)):
        outside = "–" if np.isnan(float(one.outside)) else f"{float(one.outside):,.0f}"
        row = [str(int(one.layer)), str(one.name.item()), f"{int(one.tokens):,}", outside]
        for name in ("sigma2", "sigma2_converged", "leaving_converged"):
            low, middle, high = one[f"{name}_sample"].sel(quantile=[0.05, 0.5, 0.95]).values
            row.append(f"{middle:.3g} ({low:.3g} to {high:.3g})")
        error = max(float(one[f"{side}_error_sample"][-1]) for side in ("row", "col"))
        rows.append([*row, f"{error:.1e}"])
    wrong = [row[3] not in ("–", "0") for row in rows]
    caption = (
        "Recorded tokens: medians (5 % to 95 % of them); outside: tokens with logits that no token "
        "of this checkpoint can have"
    )
    return [Table(caption, header, rows, wrong)]


def _upper(value: float, trivial: float, shown: str) -> str:
    """Return a bound; that nothing follows where it says no more than holds anyway."""
    return shown.format(value) if value < trivial else "nothing follows"


def _stack_tables(ds: xr.Dataset) -> list[Table]:
    tables, count = [], int(ds.stacked.sum())
    if "composite_sigma2" in ds:
        last = int(np.flatnonzero(ds.stacked.values)[-1])
        rows = []
        for end, name in (("", "as run"), ("_converged", "converged")):
            numbers = [
                f"{float(ds[f'composite_{key}{end}'][last]):.3g}"
                for key in ("sigma2", "dist_to_uniform", "amax_gain_fwd", "amax_gain_bwd")
            ]
            depths = [
                f"{float(ds[f'effective_depth_{key}{end}']):.3g}"
                for key in ("bound", "lyapunov", "measured")
            ]
            rows.append([name, *numbers, *depths])
        header = ["state", "σ₂", "‖C − J‖", "gain rows", "gain columns"]
        header += ["L by σ₂", "L by Lyapunov", "L measured"]
        caption = f"The product of {counted(count, 'layer')}; L: the depth at which little is left"
        tables.append(Table(caption, header, rows))
    if "composite_sigma2_sample" in ds:
        rows = [
            [name, *(f"{x:.3g}" for x in ds[f"composite_sigma2{end}_sample"].values)]
            for end, name in (("", "as run"), ("_converged", "converged"))
        ]
        header = ["state", *(f"{x:.0%}" for x in ds["quantile"].values)]
        caption = f"σ₂ of the product of {count} layers: quantiles over recorded tokens"
        tables.append(Table(caption, header, rows))
    return tables


CHANGES = {  # over the layers: means of σ₂ and of what goes to others, and the worst sum error
    "sigma2": "mean σ₂",
    "sigma2_converged": "mean σ₂ converged",
    "sum_error": "worst sum error",
    "leaving_converged": "to others",
    "composite_sigma2": "σ₂ of the product",
    "composite_sigma2_converged": "converged",
    "sigma2_decayed": "mean σ₂ by decay alone",
    "composite_sigma2_decayed": "product by decay alone",
}


def _trajectory_tables(ds: xr.Dataset) -> list[Table]:
    """Return what changed from checkpoint to checkpoint."""
    if "checkpoint" not in ds.dims:
        return []
    first = "step" if "step" in ds.coords else "checkpoint"
    columns = _changes(ds)
    rows = [
        [str(name), *(f"{float(column[k]):.4g}" for column in columns.values())]
        for k, name in enumerate(ds[first].values)
    ]
    header = ["name" if first == "checkpoint" else first]
    header += [CHANGES[name] for name in columns]
    return [Table("From checkpoint to checkpoint, at the static parts", header, rows)]


def _changes(ds: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return what changed from checkpoint to checkpoint, by the names of ``CHANGES``."""
    columns = {
        "sigma2": ds.trajectory_sigma2.mean("layer"),
        "sigma2_converged": ds.trajectory_sigma2_converged.mean("layer"),
        "sum_error": ds.trajectory_sum_error.max("layer"),
        "leaving_converged": ds.trajectory_leaving_converged.mean("layer"),
        "composite_sigma2": ds.trajectory_composite_sigma2,
        "composite_sigma2_converged": ds.trajectory_composite_sigma2_converged,
    }
    if "trajectory_sigma2_decayed" in ds:
        columns["sigma2_decayed"] = ds.trajectory_sigma2_decayed.mean("layer")
        columns["composite_sigma2_decayed"] = ds.trajectory_composite_sigma2_decayed
    return columns


def _shortened(table: Table) -> Table:
    """Return a table with as many rows as a terminal has room for; those to mark come first."""
    if len(table.rows) <= SHOWN_LAYERS:
        return table
    wrong = list(table.wrong) or [False] * len(table.rows)
    order = sorted(range(len(table.rows)), key=lambda i: not wrong[i])[:SHOWN_LAYERS]
    order.sort()
    caption = f"{table.caption}; {len(order)} of {len(table.rows)}, all are in report.html"
    return Table(caption, table.header, [table.rows[i] for i in order], [wrong[i] for i in order])


# ---------------------------------------------------------------- JSON


OF_LAYER = ("row_error", "col_error", "sigma2", "sigma2_converged", "sigma2_upper", "lambda2")


def _said(layer: xr.Dataset) -> float:
    """Return σ₂ that no token exceeds, NaN where nothing follows."""
    most = float(layer.get("sigma2_upper", np.nan))
    return most if most < 1 else np.nan


def as_json(ds: xr.Dataset) -> dict[str, Any]:
    """Return an audit as plain values; a number that there is not is null."""
    last = int(np.flatnonzero(ds.stacked.values)[-1])
    layers = []
    for one in (ds.isel(layer=i) for i in range(ds.sizes["layer"])):
        layer = {
            "name": one.name.item(),
            "layer": int(one.layer),
            "site": one.site.item(),
            "preset": one.preset.item(),
            "dynamic": bool(one.dynamic),
            **{name: _number(one.get(name, np.nan)) for name in OF_LAYER},
            "verdict": one.verdict.item(),
            "certainty": one.certainty.item(),
        }
        layer["sigma2_upper"] = _number(_said(one))
        if "tokens" in ds:
            outside = _number(one.outside)
            layer |= {"tokens": int(one.tokens)}
            layer["outside"] = None if outside is None else int(outside)
            layer["sample"] = {
                name: _quantiles(one[f"{name}_sample"])
                for name in ("row_error", "col_error", "sigma2", "sigma2_converged")
            }
        layers.append(layer)
    composite: dict[str, Any] = {
        name: _number(ds[name][last]) if name in ds else None
        for name in (
            f"composite_{kind}{end}"
            for kind in ("sigma2", "dist_to_uniform")
            for end in ("", "_converged")
        )
    }
    composite = {name.removeprefix("composite_"): x for name, x in composite.items()}
    composite["unconverged_share"] = ds.attrs["unconverged_share"]
    if "composite_sigma2_sample" in ds:
        composite["sample"] = {
            f"sigma2{end}": _quantiles(ds[f"composite_sigma2{end}_sample"])
            for end in ("", "_converged")
        }
    found = {
        **{key: ds.attrs[key] for key in ("verdict", "certainty", "reason")},
        "layers": layers,
        "composite": composite,
        **{key: json.loads(ds.attrs[key]) for key in ("skipped", "notes", "advice")},
    }
    if "checkpoint" in ds.dims:
        found["changes"] = [
            {
                **{key: ds[key][k].item() for key in ("checkpoint", "step") if key in ds.coords},
                **{name: _number(column[k]) for name, column in _changes(ds).items()},
            }
            for k in range(ds.sizes["checkpoint"])
        ]
    return found


def _quantiles(values: xr.DataArray) -> dict[str, float | None]:
    """Return the quantiles of a sample by the share of tokens below."""
    return {f"{x:g}": _number(values.sel(quantile=x)) for x in values["quantile"].values}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
