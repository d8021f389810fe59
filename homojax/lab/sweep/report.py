"""What a person sees of a run: tables in the terminal, and one HTML page that opens from disk with nothing else."""

from __future__ import annotations

import base64
import html
import io
import json
import string
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from homojax.lab import plots
from homojax.lab.sweep.run import FLAGS, LAWS

KS_FALSE_ALARM = 0.01  # chance, for a whole sweep, that a true law is rejected; a test can reject 4.1, and never prove it
TEXT_COLUMNS = (
    "law",
    "claim",
    "statement",
    "status",
    "worst case",
    "precision",
    "verdict",
    "mutant",
    "caught in",
    "logits",
)
SUMMARY_CAPTION = "medians; error: worst |row or column sum − 1|; L: depth in layers at which {retention:.0%} of detail is left"

# figure -> (what it shows, claim)
CAPTIONS = {
    "phase": (
        plots.phase_diagram,
        "Share of detail that survives, by entropy weight and depth, with the contours that the laws predict.",
        "3.1, 3.3",
    ),
    "entropy": (
        plots.entropy_against_sigma2,
        "Every matrix of the sweep. High entropy alone does not force σ₂ down: the starred matrix has σ₂ = 1.",
        "2.2, 2.3, pinsker",
    ),
    "layernorm": (
        plots.cosine_against_snr,
        "Layer norm's output against the signal, simulated, on the exact law. Left of the critical SNR a 5 % test misses it "
        "more than 5 % of the time.",
        "4.1, 4.2, 4.5",
    ),
    "residual": (
        plots.retention_against_turn,
        "Residual weights α trade what is kept against what is changed.",
        "5.1 – 5.3",
    ),
}


def summary(ds: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one per n and (at most six, evenly chosen) ε: what the matrices are and what survives.

    Medians over seeds and layers; the worst marginal error; verdicts of every law counted.
    """
    header = [
        "n",
        "ε",
        "ε/spread",
        "σ₂",
        "error",
        "L bound",
        "L typical",
        "L measured",
        "holds",
        "undec.",
        "viol.",
    ]
    chosen = np.unique(np.linspace(0, ds.sizes["epsilon"] - 1, 6).round().astype(int))
    rows = []
    for n in ds.n.values:
        for e in chosen:
            cells = ds.sel(n=n).isel(epsilon=e)
            counts = _counts(cells, LAWS)
            depths = [
                float(cells[f"effective_depth_{kind}"].median())
                for kind in ("bound", "lyapunov", "measured")
            ]
            deepest = int(ds.depth.max())
            rows.append(
                [
                    str(n),
                    f"{float(cells.epsilon):.3g}",
                    f"{float(cells.relative_epsilon.median()):.3g}",
                    _share(float(cells.sigma2.median())),
                    f"{float(np.maximum(cells.row_error, cells.col_error).max()):.1e}",
                    *(_depth(depth) for depth in depths[:2]),
                    f"> {deepest}" if np.isinf(depths[2]) else _depth(depths[2]),
                    *(f"{counts[kind]:,}" for kind in ("holds", "undecidable", "violated")),
                ]
            )
    return header, rows


def law_table(ds: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one per law: its statement and how often each verdict was given."""
    rows = []
    for law, (_, statement) in LAWS.items():
        counts = _counts(ds, [law])
        rows.append(
            [
                law,
                statement,
                *(
                    f"{counts[kind]:,}"
                    for kind in ("holds", "undecidable", "violated", "not_applicable")
                ),
            ]
        )
    rejected, points = ks_rejections(ds)
    rows.append(
        [
            "layer norm",
            "cos θ has law 4.1 (KS)",
            "–",
            f"{points - rejected:,}",
            f"{rejected:,}",
            "0",
        ]
    )
    return ["law", "statement", "holds", "undec.", "viol.", "no premise"], rows


def ks_rejections(ds: xr.Dataset) -> tuple[int, int]:
    """(points whose Monte Carlo cosines reject the exact law, points in all), by the Dvoretzky-Kiefer-Wolfowitz inequality."""
    samples = json.loads(ds.attrs["config"])["samples"]
    limit = np.sqrt(np.log(2 * ds.cosine_ks.size / KS_FALSE_ALARM) / (2 * samples))
    return int((ds.cosine_ks > limit).sum()), ds.cosine_ks.size


def headline(ds: xr.Dataset) -> str:
    """What the sweep found, in a sentence or two: convergence first, because nothing else counts without it."""
    status = {name: int((ds.status == flag).sum()) for name, flag in FLAGS["status"].items()}
    total = ds.status.size
    worst = float(np.maximum(ds.row_error, ds.col_error).max())
    if status["truncated_as_asked"]:
        text = f"{total:,} matrices truncated as asked; the worst misses a row or column sum by {worst:.2g}, and where that leaves "
        text += "no room the laws of doubly stochastic matrices are undecidable."
    else:
        text = (
            f"{status['converged']:,} of {total:,} projections converged (worst error {worst:.1e})."
        )
        if status["step_limit"]:
            text += f" {status['step_limit']:,} stopped at the step limit: raise max_steps or ε."
        if status["stalled"]:
            text += (
                f" {status['stalled']:,} stalled at this precision: use float64, or raise tol or ε."
            )
        if status["infeasible"]:
            text += f" {status['infeasible']:,} have no doubly stochastic matrix on their support."
        if status["not_finite"]:
            text += f" {status['not_finite']:,} are not finite."
    counts = _counts(ds, LAWS)
    undecidable = f"{counts['undecidable']:,} are undecidable within their error"
    return f"{text} {counts['holds']:,} comparisons hold, {undecidable}, {counts['violated']:,} violated."


def print_tables(ds: xr.Dataset, console: Console) -> None:
    """The summary and the laws of one sweep in the terminal."""
    console.print()
    console.print(
        Text(ds.attrs["title"].removeprefix("homojax sweep: "), style="bold"),
        Text(f"  {ds.attrs['source']}", style="dim"),
    )
    console.print(headline(ds))
    retention = json.loads(ds.attrs["config"])["retention"]
    for (header, rows), caption in (
        (summary(ds), SUMMARY_CAPTION.format(retention=retention)),
        (
            law_table(ds),
            "undec.: undecidable, equal within the error of the matrix and of rounding",
        ),
    ):
        print_table(header, rows, _violated(header, rows), caption, console)


def write_figures(datasets: dict[str, xr.Dataset], folder: Path) -> list[tuple[str, str, bytes]]:
    """Draws every figure that the datasets allow into ``folder``; returns (file name, caption, PNG) of each."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []

    def draw(name: str, caption: str, make: Callable, *args) -> None:
        png = io.BytesIO()
        try:
            with plt.rc_context(plots.STYLE), plt.ioff():
                make(*args).savefig(png, format="png")
        except (
            Exception
        ) as error:  # data, tables and the other figures are worth having all the same
            warnings.warn(f"the figure {name} could not be drawn: {error}", stacklevel=2)
            return
        finally:
            plt.close("all")
        (folder / name).write_bytes(png.getvalue())
        drawn.append((name, caption, png.getvalue()))

    datasets = {
        label: ds.sortby(["n", "epsilon", "depth", "snr", "alpha"])
        for label, ds in datasets.items()
    }
    for label, ds in datasets.items():
        converged = [d for d in datasets.values() if _is_converged_twin(ds, d)]
        if converged:
            text = f"Claims 1.7, 3.4. {label}, and the same logits projected to the end: only the right half is about mixing."
            draw(f"{label}-truncation.png", text, plots.as_run_against_converged, ds, converged[0])
        if ds.sizes["epsilon"] < 2 or ds.sizes["depth"] < 2:
            continue
        for name, (make, caption, claims) in CAPTIONS.items():
            draw(f"{label}-{name}.png", f"Claims {claims}. {label}: {caption}", make, ds)
    return drawn


def write_report(
    datasets: dict[str, xr.Dataset], figures: list[tuple[str, str, bytes]], path: Path
) -> None:
    """One self-contained HTML page: headline, figures, tables and how to run it again, source by source."""
    sections = []
    for label, ds in datasets.items():
        pictures = "".join(
            f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
            f"<figcaption>{html.escape(caption)} <code>figures/{html.escape(name)}</code></figcaption></figure>"
            for name, caption, png in figures
            if name.startswith(f"{label}-")
            and name.removeprefix(f"{label}-").removesuffix(".png") in {*CAPTIONS, "truncation"}
        )
        config = json.loads(ds.attrs["config"])
        what, laws = summary(ds), law_table(ds)
        retention, config = config["retention"], json.dumps(config, indent=1, ensure_ascii=False)
        sections.append(
            f"<section><h2>{html.escape(label)}</h2><p class=source>{html.escape(ds.attrs['source'])}</p>"
            f"<p>{html.escape(headline(ds))}</p>"
            f"{pictures}<h3>What survives</h3>{html_table(*what, _violated(*what))}"
            f"<p class=source>{html.escape(SUMMARY_CAPTION.format(retention=retention))}</p>"
            f"<h3>The laws</h3>{html_table(*laws, _violated(*laws))}"
            f"<details><summary>Run it again</summary><p>Data: <code>{html.escape(label)}.zarr</code> · config hash "
            f"<code>{ds.attrs['config_hash']}</code> · {html.escape(ds.attrs['dtype'])} on {html.escape(ds.attrs['device'])} · "
            f"{html.escape(ds.attrs['versions'])}</p><pre>{html.escape(config)}</pre></details></section>"
        )
    path.write_text(
        PAGE.substitute(
            title="homojax sweep", heading="The map of the trap", sections="\n".join(sections)
        ),
        "utf-8",
    )


def print_table(
    header: list[str],
    rows: list[list[str]],
    wrong: list[bool],
    caption: str | None,
    console: Console,
) -> None:
    """A table in the terminal, wrong rows (none, if that is empty) in red; texts to the left, numbers to the right."""
    table = Table(
        caption=caption, caption_style="dim", caption_justify="left", box=box.SIMPLE_HEAD, padding=0
    )
    for column in header:
        justify = "left" if column in TEXT_COLUMNS else "right"
        table.add_column(
            column.replace("/", " /").replace(" ", "\n"), justify=justify, no_wrap=True
        )
    for row, bad in zip(rows, wrong or [False] * len(rows), strict=True):
        table.add_row(*(Text(cell) for cell in row), style="bold red" if bad else None)
    needed = console.measure(table, options=console.options.update(width=500)).maximum
    console.print(
        table, width=None if console.is_terminal else max(needed, console.width), crop=False
    )  # a file has no edge


def _counts(ds: xr.Dataset, laws) -> dict[str, int]:
    return {
        name: sum(int((ds[f"verdict_{law}"] == flag).sum()) for law in laws)
        for name, flag in FLAGS["verdict"].items()
    }


def _is_converged_twin(as_run: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether ``other`` is the converged projection of the logits that ``as_run`` truncates, at its ε and depths."""
    a, b = json.loads(as_run.attrs["config"]), json.loads(other.attrs["config"])
    same = all(a[key] == b[key] for key in ("source", "path", "array", "orientation", "seed"))
    return bool(
        same
        and a["iterations"] is not None
        and b["iterations"] is None
        and as_run.sizes["n"] == 1
        and float(as_run.epsilon[0]) in other.epsilon.values
        and np.array_equal(as_run.depth, other.depth)
    )


def _share(value: float) -> str:
    return f"1−{1 - value:.0e}" if 0.99995 < value < 1 else f"{value:.4f}"


def _depth(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:.3g}" if value < 1e4 else f"{value:.1e}"


def _violated(header: list[str], rows: list[list[str]]) -> list[bool]:
    return [row[header.index("viol.")] != "0" for row in rows]


def html_table(header: list[str], rows: list[list[str]], wrong: list[bool]) -> str:
    """The same as HTML."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr{' class=violated' if bad else ''}>"
        + "".join(
            f"<td{' class=text' if column in TEXT_COLUMNS else ''}>{html.escape(cell)}</td>"
            for column, cell in zip(header, row, strict=True)
        )
        + "</tr>"
        for row, bad in zip(rows, wrong or [False] * len(rows), strict=True)
    )
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


PAGE = string.Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
 body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
 h1 { font-size: 1.6rem } h2 { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1.2rem } .source { color: #555 }
 figure { margin: 1.5rem 0 } img { max-width: 100%; height: auto } figcaption { color: #444; font-size: .92rem }
 .scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
 th, td { padding: .25rem .7rem; border-bottom: 1px solid #e5e5e5; text-align: right } th { background: #f6f6f6 }
 td { white-space: nowrap } td.text { text-align: left; white-space: normal } .bad { color: #a40000; font-weight: 600 }
 tr.violated { background: #fdeaea; font-weight: 600 }
 pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .82rem } code { font-size: .9em }
 details { margin: 1.5rem 0 }
</style></head><body>
<h1>$heading</h1>
<p>Each law's prediction beside its measurement. A comparison <em>holds</em> or is <em>violated</em> only where its slack
exceeds the error that the matrix's missed sums and rounding can cause; equality, where a bound is attained, is
<em>undecidable</em>.</p>
$sections
</body></html>
""")


def markdown_table(header: list[str], *rows: list[str]) -> str:
    """The same in Markdown, for the documents.

    >>> print(markdown_table(["§", "σ₂"], ["1.4", "0.5"]))
    | § | σ₂ |
    |---|---|
    | 1.4 | 0.5 |
    """
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    head, *body = (f"| {' | '.join(row)} |" for row in escaped)
    return "\n".join([head, "|" + "---|" * len(header), *body])
