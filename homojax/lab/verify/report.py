"""What a person sees of a verification: the table of claims in the terminal, and one HTML page with the map of tightness."""

from __future__ import annotations

import base64
import html
import io
import json
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from rich.console import Console

from homojax.lab import plots
from homojax.lab.cases import Case
from homojax.lab.sweep.report import PAGE, html_table, print_table
from homojax.lab.verify.run import isolated_units, outcome, replay
from homojax.theory import CLAIMS

TIGHTNESS = "n.a.: assumptions not met; best: lesser over greater side, 1 where a bound is attained; for = and ~ of the margin"
WIDE = 120  # columns of a terminal that have room for the worst cases
ISOLATED = "2.2: 1 ⊕ J keeps detail for good at nearly maximal entropy"


def claim_table(ds: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one per claim of a verification: its verdicts, how tight it is, and its worst case."""
    rows = []
    for name in ds.claim.values:
        row = ds.sel(claim=name)
        counts = {
            kind: int(row[kind].sum())
            for kind in ("holds", "violated", "undecidable", "not_applicable")
        }
        best = float(row.tightness_best.max()) if row.tightness_best.notnull().any() else np.nan
        slack = row.least_slack.where(np.isfinite(row.least_slack))
        worst = "–"
        if slack.notnull().any():
            family, n = np.unravel_index(np.nanargmin(slack.values), slack.shape)
            worst = f"{row.family.values[family]}, n = {row.n.values[n]}"
        median = (
            float(row.tightness_median.median()) if row.tightness_median.notnull().any() else np.nan
        )
        rows.append(
            [
                str(row.number.item()),
                str(name),
                str(row.statement.item()),
                str(row.status.item()),
                *(f"{counts[kind]:,}" for kind in counts),
                _tight(median),
                _tight(best),
                worst,
            ]
        )
    header = [
        "§",
        "claim",
        "statement",
        "status",
        "holds",
        "viol.",
        "undec.",
        "n.a.",
        "median",
        "best",
        "worst case",
    ]
    return header, rows


def mutant_table(ds: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one per wrong claim: how often it was found violated, and in which family most."""
    rows = []
    for name in ds.claim.values:
        violated = ds.violated.sel(claim=name)
        at = violated.sum("n").values
        caught = str(ds.family.values[int(at.argmax())]) if int(at.max()) else "not caught"
        judged = int((ds.violated + ds.undecidable + ds.holds).sel(claim=name).sum())
        rows.append(
            [
                str(ds.number.sel(claim=name).item()),
                str(name),
                f"{judged:,}",
                f"{int(violated.sum()):,}",
                caught,
            ]
        )
    return ["§", "mutant", "judged", "viol.", "caught in"], rows


def verification_headline(ds: xr.Dataset) -> tuple[bool, str]:
    """Whether all is as theory.md says, and what was found, in a few sentences."""
    as_expected, failures = outcome(ds)
    total = {
        kind: int(ds[kind].sum()) for kind in ("holds", "violated", "undecidable", "not_applicable")
    }
    if (ds.status == "mutant").any():
        text = (
            f"{ds.sizes['claim'] - len(failures)} of {ds.sizes['claim']} wrong claims were caught."
        )
    else:
        of = {
            status: int(ds.violated.where(ds.status == status, 0).sum())
            for status in ("theorem", "refuted", "conjecture")
        }
        text = (
            f"{sum(total.values()):,} comparisons: {total['holds']:,} hold, {total['undecidable']:,} are undecidable within "
            f"their error, {total['not_applicable']:,} do not meet the assumptions. Theorems violated: {of['theorem']:,}; "
            f"conjectures: {of['conjecture']:,}; claims known to be false: {of['refuted']:,}."
        )
    return as_expected, " ".join([text, *failures])


def print_verification(
    ds: xr.Dataset, cases: dict[tuple[str, int], Path], console: Console
) -> bool:
    """The table of a verification in the terminal, and how to replay violations. Returns whether all is as it should be."""
    as_expected, text = verification_headline(ds)
    mutants = bool((ds.status == "mutant").any())
    console.print()
    console.print(text, style="bold" if as_expected else "bold red", highlight=False)
    header, rows = mutant_table(ds) if mutants else claim_table(ds)
    wrong = [_is_wrong(header, row) for row in rows]
    hidden = (
        {"statement"} if console.width >= WIDE else {"statement", "median", "worst case"}
    )  # they are in the report
    kept = [i for i, column in enumerate(header) if column not in hidden]
    header, rows = [header[i] for i in kept], [[row[i] for i in kept] for row in rows]
    print_table(header, rows, wrong, None if mutants else TIGHTNESS, console)
    if not mutants and "normalised_entropy" in ds.claim.values:
        print_table(*_isolated_table(), [], ISOLATED, console)
    for (claim, n), path in cases.items():
        console.print(
            f"{claim}, n = {n}: homojax verify --replay {path}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return as_expected


def print_replay(case: Case, console: Console) -> None:
    """A saved case judged again in every precision."""
    claim = CLAIMS[case.claim]
    console.print(
        f"{claim.number} {claim.name}: {claim.statement}",
        style="bold",
        markup=False,
        highlight=False,
    )
    console.print(
        f"family {case.family}, {', '.join(f'{k} {list(v.shape)}' for k, v in case.arrays.items())}",
        markup=False,
    )
    written = case.about.get("versions", {}).get("homojax")
    if written != version("homojax"):
        console.print(
            f"saved by homojax {written}; judged by {version('homojax')}",
            style="yellow",
            markup=False,
        )
    if "logits" in case.arrays and case.arrays["logits"].size <= 64:
        console.print(
            f"ε = {float(case.arrays['epsilon']):.17g}, logits:\n{np.array2string(case.arrays['logits'])}",
            markup=False,
        )
    rows = [[precision, *row] for precision, row in replay(case).items()]
    print_table(["precision", "lesser", "greater", "margin", "verdict"], rows, [], None, console)


def write_verification(ds: xr.Dataset, cases: dict[tuple[str, int], str], folder: Path) -> None:
    """report.html of a verification: the headline, where bounds are tight, the table, and how to replay what was violated."""
    as_expected, text = verification_headline(ds)
    mutants = bool((ds.status == "mutant").any())
    header, rows = mutant_table(ds) if mutants else claim_table(ds)
    parts = [f"<p{'' if as_expected else ' class=bad'}>{html.escape(text)}</p>"]
    if not mutants:
        png = io.BytesIO()
        with plt.rc_context(plots.STYLE), plt.ioff():
            plots.tightness_map(ds).savefig(png, format="png")
        plt.close("all")
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "figures" / "tightness.png").write_bytes(png.getvalue())
        caption = "Best tightness of every bound in every family: 1 where it is attained. ✕: violated somewhere. Grey: no case."
        parts.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'
            f"<figcaption>{caption} <code>figures/tightness.png</code></figcaption></figure>"
        )
    wrong = [_is_wrong(header, row) for row in rows]
    parts.append(
        f"<h3>{'The mutants' if mutants else 'The claims'}</h3>{html_table(header, rows, wrong)}"
    )
    if not mutants and "normalised_entropy" in ds.claim.values:
        parts.append(f"<h3>{ISOLATED}</h3>{html_table(*_isolated_table(), [])}")
    if cases:
        lines = "\n".join(f"homojax verify --replay {path}" for path in cases.values())
        parts.append(f"<h3>Replay the worst violations</h3><pre>{html.escape(lines)}</pre>")
    config = json.dumps(json.loads(ds.attrs["config"]), indent=1, ensure_ascii=False)
    where = f"{html.escape(ds.attrs['dtype'])} on {html.escape(ds.attrs['device'])} · {html.escape(ds.attrs['versions'])}"
    parts.append(
        f"<details><summary>Run it again</summary><p>Data: <code>verify.zarr</code> · config hash "
        f"<code>{ds.attrs['config_hash']}</code> · {where}</p><pre>{html.escape(config)}</pre></details>"
    )
    sections = f"<section>{''.join(parts)}</section>"
    page = PAGE.substitute(
        title=ds.attrs["title"], heading="The theory on trial", sections=sections
    )
    (folder / "report.html").write_text(page, "utf-8")


def _isolated_table() -> tuple[list[str], list[list[str]]]:
    return ["n", "H/max H", "σ₂"], [
        [str(n), f"{share:.6f}", f"{sigma2:.6f}"] for n, share, sigma2 in isolated_units()
    ]


def _tight(value: float) -> str:
    return (
        "–"
        if np.isnan(value)
        else "∞"
        if np.isinf(value)
        else f"{value:.6f}"
        if abs(value - 1) < 0.01
        else f"{value:.3g}"
    )


def _is_wrong(header: list[str], row: list[str]) -> bool:
    """A theorem that is violated, a refuted claim or a mutant that is not."""
    found = row[header.index("viol.")] != "0"
    expected = "mutant" in header or row[header.index("status")] == "refuted"
    return (
        found != expected
        and (found or expected)
        and not ("status" in header and row[header.index("status")] == "conjecture")
    )
