"""What a person sees of an audit: the verdict, the layers, the stack, and what was skipped."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

from homojax.lab import page
from homojax.lab.audit import plots
from homojax.lab.audit.command import AuditCommand
from homojax.lab.audit.run import audit
from homojax.lab.audit.verdict import WORDS
from homojax.lab.blocks import resume
from homojax.lab.page import Picture, Section, Table
from homojax.lab.progress import progress_bar
from homojax.lab.runs import run_folder

SHOWN_LAYERS = 32  # rows of the terminal's table
CERTAINTIES = {
    "every token": "certified for every token",
    "static part": "at the static part",
    "undecidable": "undecidable: within the error of the stored numbers",
}


def run_command(command: AuditCommand, console: Console) -> bool:
    """Audit a checkpoint, and show it. Returns whether no verdict is one to fail on."""
    import jax

    jax.config.update("jax_enable_x64", True)
    if command.json and command.out is None:
        ds = audit(command.checkpoint, command.config)
    else:
        # Standard output is for the object alone.
        ds = _into_folder(command, Console(stderr=True) if command.json else console)
    if command.json:
        print(json.dumps(as_json(ds), ensure_ascii=False, allow_nan=False))
    found = {ds.attrs["verdict"], *ds.verdict.values.tolist()}
    return found.isdisjoint(command.failing)


def _into_folder(command: AuditCommand, console: Console) -> xr.Dataset:
    place = command.checkpoint.expanduser()
    identity = {"verb": "audit", "checkpoint": str(place.absolute()), **command.config.as_dict()}
    folder = run_folder(command, identity)
    with progress_bar(console, "audit") as progress:
        make = partial(audit, place, command.config, progress=progress)
        ds = resume(folder.part / "audit.zarr", command.config.digest, lambda _: make())
    section = describe(ds)._replace(pictures=_pictures(ds))
    written = page.write_page(folder.part, f"Audit of {place.name}", [section])
    folder.finish(*written, "audit.zarr")
    if not command.json:
        brief = [_shortened(table) for table in section.tables]
        page.show(section._replace(tables=brief), console)
        page.show_place(folder.name, console)
    return ds


def _pictures(ds: xr.Dataset) -> list[Picture]:
    wanted: list[tuple] = [
        (
            "layers.png",
            "Each layer's gap 1 − σ₂, the errors of its sums, and what the product keeps.",
            plots.layers,
            ds,
        ),
        ("matrices.png", "The matrices as run and converged, y = M x.", plots.matrices, ds),
    ]
    if "reach_converged" in ds:
        caption = "What is written at a layer and read at a later one, over an even mix (0)."
        wanted.append(("reach.png", caption, plots.reach, ds))
    return page.draw_all(wanted)


def headline(ds: xr.Dataset) -> str:
    """Say what an audit found, in a few sentences."""
    verdict, certainty = ds.attrs["verdict"], CERTAINTIES[ds.attrs["certainty"]]
    return f"{WORDS[verdict].capitalize()} ({certainty}): {ds.attrs['reason']}."


def describe(ds: xr.Dataset) -> Section:
    """Return the verdict, and the tables behind it."""
    skipped = json.loads(ds.attrs["skipped"])
    tables = [_layer_table(ds), _stack_table(ds)]
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
        text=headline(ds),
        as_expected=ds.attrs["verdict"] in ("healthy", "near-identity", "none"),
        tables=tables,
        about=page.about(ds.attrs, "audit.zarr"),
    )


def _layer_table(ds: xr.Dataset) -> Table:
    header = ["layer", "name", "preset", "sum error", "σ₂", "σ₂ converged", "|λ₂|"]
    dynamic = bool(ds.dynamic.any())
    header += ["σ₂ every token", "error every token"] if dynamic else []
    header += ["verdict", "certainty"]
    rows = []
    for i in range(ds.sizes["layer"]):
        one = ds.isel(layer=i)
        row = [str(int(one.layer)), str(one.name.item()), str(one.preset.item())]
        row += [f"{max(float(one.row_error), float(one.col_error)):.1e}"]
        row += [f"{float(one[name]):.4f}" for name in ("sigma2", "sigma2_converged", "lambda2")]
        if dynamic:
            row += [_upper(float(one.sigma2_upper), 1, "≤ {:.6f}")]
            row += [_upper(float(one.sum_error_upper), int(one.n) - 1, "≤ {:.1e}")]
        rows.append([*row, WORDS[one.verdict.item()], str(one.certainty.item())])
    wrong = [one in ("trap", "unconverged", "locked") for one in ds.verdict.values]
    return Table(
        "Layers in order; matrices are for y = M x, at the static part", header, rows, wrong
    )


def _upper(value: float, trivial: float, shown: str) -> str:
    """Return a bound; that nothing follows where it says no more than holds anyway."""
    return shown.format(value) if value < trivial else "nothing follows"


def _stack_table(ds: xr.Dataset) -> Table:
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
    count = int(ds.stacked.sum())
    return Table(
        f"The product of {count} layers; L: the depth at which little is left", header, rows
    )


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


def as_json(ds: xr.Dataset) -> dict[str, Any]:
    """Return an audit as plain values; a number that there is not is null."""
    last = int(np.flatnonzero(ds.stacked.values)[-1])
    columns = ("row_error", "col_error", "sigma2", "sigma2_converged", "sigma2_upper", "lambda2")
    layers = [
        {
            "name": one.name.item(),
            "layer": int(one.layer),
            "site": one.site.item(),
            "preset": one.preset.item(),
            "dynamic": bool(one.dynamic),
            **{name: _number(one[name]) for name in columns},
            "verdict": one.verdict.item(),
            "certainty": one.certainty.item(),
        }
        for one in (ds.isel(layer=i) for i in range(ds.sizes["layer"]))
    ]
    composite = {
        f"{name}{end}": _number(ds[f"composite_{name}{end}"][last])
        for name in ("sigma2", "dist_to_uniform")
        for end in ("", "_converged")
    }
    return {
        **{key: ds.attrs[key] for key in ("verdict", "certainty", "reason")},
        "layers": layers,
        "composite": {**composite, "unconverged_share": ds.attrs["unconverged_share"]},
        "skipped": json.loads(ds.attrs["skipped"]),
    }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
