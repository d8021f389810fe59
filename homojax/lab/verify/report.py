"""What a person sees of a verification: the claims, where they are tight, what was violated."""

from __future__ import annotations

import shlex
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr
from rich.console import Console

from homojax.lab import page
from homojax.lab.cases import Case, load_case, save_case
from homojax.lab.page import Section, Table
from homojax.lab.progress import progress_bar
from homojax.lab.runs import run_folder
from homojax.lab.verify import plots
from homojax.lab.verify.command import VerifyCommand
from homojax.lab.verify.config import Verification
from homojax.lab.verify.outcome import isolated_units, outcome, replay, worst_cases
from homojax.lab.verify.run import verify
from homojax.theory import CLAIMS
from homojax.theory.claim import VERDICTS

CLAIM_CAPTION = (
    "The claims. n.a.: what the claim assumes is not met, or its bound says nothing there; best: "
    "lesser over greater side, 1 where a bound is attained; for = and ~: the difference over the "
    "margin"
)
MAP_CAPTION = (
    "Best tightness of every bound in every family: 1 where it is attained. ✕: violated somewhere. "
    "Grey: no case."
)
ISOLATED = "High entropy does not force collapse (2.2): 1 ⊕ J keeps detail for good"
WIDE = 120  # columns of a terminal that have room for the worst cases


def run_command(command: VerifyCommand, console: Console) -> bool:
    """Run a verification, or replay a case. Returns whether all is as theory.md says."""
    import jax

    jax.config.update("jax_enable_x64", True)
    if command.replay is not None:
        show_replay(load_case(command.replay.expanduser()), console)
        return True
    asked = command.verification
    identity = {"verb": "verify", **asked.as_dict()}
    folder = run_folder(command, identity)
    with progress_bar(console, "verify") as progress:
        dataset = verify(asked, folder.part / "verify.zarr", progress=progress)
    cases = _save_worst(asked, dataset, folder.part)
    section = describe(dataset, cases, folder.name)
    drawn = [] if asked.mutants else [("figures/tightness.png", MAP_CAPTION, plots.tightness_map)]
    pictures = page.draw_all([(*one, dataset) for one in drawn])
    section = section._replace(pictures=pictures)
    files = page.write_page(folder.part, "The theory on trial", [section])
    folder.finish(*files, "verify.zarr", *cases.values())
    page.show(_for_terminal(section, console.width), console)
    page.show_place(folder.name, console)
    return section.as_expected


def _save_worst(asked: Verification, ds: xr.Dataset, folder: Path) -> dict[tuple[str, int], str]:
    """Save the worst case of each violation, and return the files by (claim, n)."""
    cases = {}
    if not asked.mutants:
        for claim, n, case in worst_cases(asked, ds):
            cases[claim, n] = f"violations/{claim}-{n}.npz"
            save_case(case, folder / cases[claim, n])
    return cases


def describe(
    ds: xr.Dataset, cases: dict[tuple[str, int], str] | None = None, out: Path = Path()
) -> Section:
    """Return what a verification found; ``cases`` are the files in ``out`` to be replayed."""
    mutants = is_of_mutants(ds)
    tables = [mutant_table(ds) if mutants else claim_table(ds)]
    if not mutants and "normalised_entropy" in ds.claim.values:
        tables.append(_isolated_table())
    return Section(
        heading="",
        text=headline(ds),
        as_expected=outcome(ds)[0],
        tables=tables,
        commands=[
            f"homojax verify --replay {shlex.quote(str(out / file))}"
            for file in (cases or {}).values()
        ],
        about=page.about(ds.attrs, "verify.zarr"),
    )


def headline(ds: xr.Dataset) -> str:
    """Say what was found, and what is not as theory.md says, in a few sentences."""
    _, failures = outcome(ds)
    total = {kind: int(ds[kind].sum()) for kind in VERDICTS}
    if is_of_mutants(ds):
        caught = ds.sizes["claim"] - len(failures)
        text = f"{caught} of {ds.sizes['claim']} wrong claims were caught."
    else:
        violated = {
            status: int(ds.violated.where(ds.status == status, 0).sum())
            for status in ("theorem", "refuted", "conjecture")
        }
        text = (
            f"{sum(total.values()):,} comparisons: {total['holds']:,} hold, "
            f"{total['undecidable']:,} are undecidable within their error, "
            f"{total['not_applicable']:,} do not meet the assumptions. Violations of theorems: "
            f"{violated['theorem']:,}; of conjectures: {violated['conjecture']:,}; of claims known "
            f"to be false: {violated['refuted']:,}."
        )
    return " ".join([text, *failures])


def is_of_mutants(ds: xr.Dataset) -> bool:
    """Return whether wrong claims were tried, to test the instrument."""
    return bool((ds.status == "mutant").any())


# ---------------------------------------------------------------- tables


def claim_table(ds: xr.Dataset) -> Table:
    """Return one row for each claim: its verdicts, how tight it is, and its worst case."""
    header = ["§", "claim", "statement", "status", "holds", "viol.", "undec.", "n.a."]
    header += ["median", "best", "worst case", "assumes"]
    rows = [_claim_row(ds.sel(claim=name)) for name in ds.claim.values]
    return Table(CLAIM_CAPTION, header, rows, [_is_wrong(header, row) for row in rows])


def _claim_row(row: xr.Dataset) -> list[str]:
    kinds = ("holds", "violated", "undecidable", "not_applicable")
    slack = row.least_slack.where(np.isfinite(row.least_slack))
    worst = "–"
    if slack.notnull().any():
        family, n = np.unravel_index(np.nanargmin(slack.values), slack.shape)
        worst = f"{row.family.values[family]}, n = {row.n.values[n]}"
    return [
        str(row.number.item()),
        str(row.claim.item()),
        str(row.statement.item()),
        str(row.status.item()),
        *(f"{int(row[kind].sum()):,}" for kind in kinds),
        _tight(float(row.tightness_median.median())),
        _tight(float(row.tightness_best.max())),
        worst,
        str(row.assumes.item()),
    ]


def mutant_table(ds: xr.Dataset) -> Table:
    """Return one row for each wrong claim: how often it was caught, and in which family most."""
    rows = []
    for name in ds.claim.values:
        row = ds.sel(claim=name)
        by_family = row.violated.sum("n").values
        caught = str(ds.family.values[int(by_family.argmax())]) if by_family.any() else "not caught"
        judged = int((row.violated + row.undecidable + row.holds).sum())
        counts = f"{judged:,}", f"{int(row.violated.sum()):,}"
        rows.append([str(row.number.item()), str(name), *counts, caught])
    header = ["§", "mutant", "judged", "viol.", "caught in"]
    return Table("The mutants", header, rows, [_is_wrong(header, row) for row in rows])


def _isolated_table() -> Table:
    rows = [[str(n), f"{share:.6f}", f"{kept:.6f}"] for n, share, kept in isolated_units()]
    return Table(ISOLATED, ["n", "H/max H", "σ₂"], rows)


def _for_terminal(section: Section, width: int) -> Section:
    """Return the section without the columns that a terminal has no room for."""
    hidden = {"statement", "assumes"} | (set() if width >= WIDE else {"median", "worst case"})
    first, *rest = section.tables
    kept = [i for i, column in enumerate(first.header) if column not in hidden]
    narrow = first._replace(
        header=[first.header[i] for i in kept], rows=[[row[i] for i in kept] for row in first.rows]
    )
    return section._replace(tables=[narrow, *rest])


def _tight(value: float) -> str:
    if np.isnan(value):
        return "–"
    if np.isinf(value):
        return "∞"
    return f"{value:.6f}" if abs(value - 1) < 0.01 else f"{value:.3g}"


def _is_wrong(header: list[str], row: list[str]) -> bool:
    """Return whether a theorem is violated, or a refuted claim or a mutant is not."""
    violated = row[header.index("viol.")] != "0"
    if "mutant" in header:
        return not violated
    status = row[header.index("status")]
    return violated if status == "theorem" else status == "refuted" and not violated


# ---------------------------------------------------------------- replay


def show_replay(case: Case, console: Console) -> None:
    """Print a saved case, judged again in every precision."""
    claim = CLAIMS[case.claim]
    shapes = ", ".join(f"{key} {list(array.shape)}" for key, array in case.arrays.items())
    title = f"{claim.number} {claim.name}: {claim.statement}"
    console.print(title, style="bold", markup=False, highlight=False)
    console.print(f"family {case.family}, {shapes}", markup=False)
    written = case.about.get("versions", {}).get("homojax")
    if written != version("homojax"):
        text = f"saved by homojax {written}; judged by {version('homojax')}"
        console.print(text, style="yellow", markup=False)
    if "logits" in case.arrays and case.arrays["logits"].size <= 64:
        epsilon, logits = float(case.arrays["epsilon"]), np.array2string(case.arrays["logits"])
        console.print(f"ε = {epsilon:.17g}, logits:\n{logits}", markup=False)
    rows = [[precision, *row] for precision, row in replay(case).items()]
    page.print_table(
        Table("", ["precision", "lesser", "greater", "margin", "verdict"], rows), console
    )
