"""What a person sees of a probe or a training: tables in the terminal, and a folder with data, a figure and one HTML page."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

from homojax.calibration import CalibrationStatus
from homojax.calibration.sensitivity import sensitivity, trainable_band
from homojax.lab import plots
from homojax.lab.cases import save_case
from homojax.lab.probe.calibrate import ANSWERS
from homojax.lab.probe.run import Finding
from homojax.lab.sweep.report import PAGE, html_table, print_table
from homojax.networks.mixing import tempered

Table = tuple[list[str], list[list[str]]]


def show(text: str, tables: list[tuple[str, Table]], bad: bool, console: Console) -> None:
    """The sentence and the tables in the terminal."""
    console.print()
    console.print(text, style="bold red" if bad else "bold", markup=False, highlight=False)
    for caption, (header, rows) in tables:
        console.print(f"\n{caption}", style="dim", markup=False, highlight=False)
        print_table(header, rows, [], None, console)


def write(
    folder: Path,
    heading: str,
    text: str,
    tables: list[tuple[str, Table]],
    figure: Figure,
    about: dict,
) -> None:
    """figure.png and report.html of a probe, a training or an experiment."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    plt.close(figure)
    (folder / "figure.png").write_bytes(png.getvalue())
    picture = base64.b64encode(png.getvalue()).decode()
    parts = [
        f"<p>{html.escape(text)}</p>",
        f'<figure><img alt="{html.escape(heading)}" src="data:image/png;base64,{picture}"></figure>',
    ]
    parts += [
        f"<p class=source>{html.escape(caption)}</p>{html_table(header, rows, [])}"
        for caption, (header, rows) in tables
    ]
    config = html.escape(json.dumps(about, indent=1, ensure_ascii=False, default=str))
    parts.append(f"<details><summary>Run it again</summary><pre>{config}</pre></details>")
    page = PAGE.substitute(
        title=heading, heading=html.escape(heading), sections=f"<section>{''.join(parts)}</section>"
    )
    (folder / "report.html").write_text(page, "utf-8")


# ---------------------------------------------------------------- tighten, refute


def describe(finding: Finding) -> tuple[str, list[tuple[str, Table]]]:
    """What a search found, in a sentence or two, and the tables: both sides, and the logits."""
    claim, goal, n = finding.claim, finding.goal, f"n = {finding.search.n}"
    name, lesser, greater = (
        f"{claim.number} {claim.name}",
        f"{finding.lesser:.9g}",
        f"{finding.greater:.9g}",
    )
    if goal == "tighten":
        text = f"{name}: {lesser} of {greater} at {n}, {finding.score:.6f} of the bound; "
        text += f"{finding.share:.0%} of the starts came within 1e-3 of it."
    elif finding.refuted:
        text = f"{name} is VIOLATED at {n}: {lesser} > {greater}"
        text += (
            " (in 50 digits too)."
            if finding.exact is not None
            else " (in float64 alone: there is no referee for it)."
        )
        text += f" {finding.share:.0%} of the starts broke it."
        if claim.status == "theorem":
            text += " It is marked a theorem: THIS IS A BUG OF OURS until shown otherwise; please report it with the saved case."
        if claim.status == "conjecture":
            text += " It was a conjecture: this case decides it."
        if claim.name == "sigma2_falls":
            slope = sensitivity(
                finding.case.arrays["logits"], finding.case.arrays["epsilon"]
            ).epsilon_slope
            text += (
                f" dσ₂/dε = {float(slope):+.4f} at ε = {float(finding.case.arrays['epsilon']):g}."
            )
    else:
        text = f"{name} was not refuted at {n}: the nearest came to {finding.score:.3g} ({finding.verdict})."
        if finding.verdict == "violated":
            text += (
                f" float64 found a violation, which 50 digits take back: {finding.exact_verdict}."
            )
        if claim.status == "refuted":
            text += " It is known to be false: give the search more starts or steps, or another n."
    sides = [
        [
            "float64",
            f"{finding.lesser:.12g}",
            f"{finding.greater:.12g}",
            f"{finding.margin:.2g}",
            finding.verdict,
        ]
    ]
    if finding.exact is not None:
        sides.append(
            ["50 digits", *(str(x)[:24] for x in finding.exact), "0", str(finding.exact_verdict)]
        )
    tables = [("both sides", (["precision", "lesser", "greater", "margin", "verdict"], sides))]
    case = finding.case if finding.reduced is None else finding.reduced
    logits = np.asarray(case.about.get("logits", case.arrays.get("logits")))
    logits = logits.reshape(-1, *logits.shape[-2:])
    if logits.shape[-1] <= 16:
        digits = 4 if finding.digits is None else finding.digits
        epsilon = float(case.about.get("epsilon", case.arrays.get("epsilon")))
        short = (
            "logits"
            if finding.reduced is None
            else "logits, with the fewest digits that keep the violation"
        )
        rest = "".join(
            f", {key} = {np.round(case.arrays[key], max(digits, 2)).tolist()}"
            for key in ("alpha", "probe")
            if key in case.arrays
        )
        rows = [[f"{x:.{digits}f}" for x in row] for layer in logits for row in layer]
        tables.append(
            (
                f"{short}, ε = {epsilon:g}{rest}",
                ([str(j + 1) for j in range(logits.shape[-1])], rows),
            )
        )
    return text, tables


def write_finding(finding: Finding, folder: Path) -> list[str]:
    """The page, history.npz and the cases; returns the names of the cases' files."""
    text, tables = describe(finding)
    with plt.rc_context(plots.STYLE), plt.ioff():
        figure = finding.plot()
        write(
            folder, f"{finding.goal} {finding.claim.name}", text, tables, figure, finding.case.about
        )
    np.savez(folder / "history.npz", history=finding.history)
    cases = {"case.npz": finding.case, "reduced.npz": finding.reduced}
    for name, case in cases.items():
        if case is not None:
            save_case(case, folder / name)
    return [name for name, case in cases.items() if case is not None]


# ---------------------------------------------------------------- frontier, calibrate, sensitivity, train


def describe_frontier(ds: xr.Dataset) -> tuple[str, list[tuple[str, Table]]]:
    """Whether anything lies above the isolated unit's curve, and by how much."""
    above, found = ds.excess > ds.excess_error, int(ds.excess.notnull().sum())
    if above.any():
        text = f"2.3 is BROKEN: {int(above.sum())} of {found} deficits have a larger σ₂ than the isolated unit, by up to "
        text += f"{float(ds.excess.max()):.3g}; the matrices are in the data."
    elif found:
        text = f"2.3 stands: at none of {found} deficits was a σ₂ found above the isolated unit's by more than the error; "
        text += f"the largest excess is {float(ds.excess.max()):.1e}, the largest shortfall {float(-ds.excess.min()):.1e}."
    else:
        text = "Nothing was found."
    if found < above.size:
        text += f" At {above.size - found} deficits no start met the deficit: give the search more starts or steps."
    rows = []
    for n in ds.n.values:
        for k in range(ds.sizes["deficit"]):
            cell = ds.sel(n=n).isel(deficit=k)
            values = (
                cell.entropy_deficit,
                cell.sigma2_largest,
                cell.isolated_unit,
                cell.sigma2_smallest,
            )
            numbers = [f"{float(x):.6f}" for x in values]
            rows.append(
                [
                    str(n),
                    *numbers,
                    f"{float(cell.excess):+.1e}",
                    f"{float(cell.excess_error):.0e}",
                    f"{float(cell.share):.0%}",
                ]
            )
    header = [
        "n",
        "ΔH",
        "largest σ₂",
        "isolated unit",
        "smallest σ₂",
        "excess",
        "error",
        "starts there",
    ]
    return text, [("σ₂ at each entropy deficit (nat)", (header, rows))]


def describe_calibration(ds: xr.Dataset) -> tuple[str, list[tuple[str, Table]]]:
    """How many found an ε, how many are certified, and every answer (at most 24 a table)."""
    found = ds.status == CalibrationStatus.FOUND
    sure = found & ds.certified
    text = f"{int(found.sum())} of {found.size} found an ε, {int(sure.sum())} of them certified."
    for status, meaning in ANSWERS.items():
        count = int((ds.status == status).sum())
        if count and status != CalibrationStatus.FOUND:
            text += f" {count}: {meaning}."
    rows = []
    for index in np.ndindex(*ds.status.shape):
        cell = ds.isel(n=index[0], seed=index[1], layer=index[2])
        state = CalibrationStatus(int(cell.status)).name.lower().replace("_", " ")
        ok = bool(found.values[index])
        numbers = [f"{float(cell.epsilon):.8g}", f"{float(cell.kept):.8g}"] if ok else ["–", "–"]
        proof = f"{float(cell.shortfall):.1e}" if ok and np.isfinite(cell.shortfall) else "–"
        labels = [str(int(cell[name])) for name in ("n", "seed", "layer")]
        rows.append(
            [
                *labels,
                *numbers,
                "yes" if ok and cell.certified else "no",
                proof,
                f"{float(cell.ceiling):.5g}",
                state,
            ]
        )
    caption = "certified: the promise of the root is proved, to the shortfall; ceiling: the worst-case rule 2.1"
    caption += "" if len(rows) <= 24 else f"; 24 of {len(rows)}, all are in the data"
    header = ["n", "seed", "layer", "ε", "kept", "certified", "shortfall", "ceiling", "status"]
    return text, [(caption, (header, rows[:24]))]


def describe_sensitivity(ds: xr.Dataset) -> tuple[str, list[tuple[str, Table]]]:
    """The trainable band of each case, and whether the ε that it is used at lies in it."""
    rows, outside = [], []
    for case in ds.case.values:
        cells = ds.sel(case=case)
        started = float(cells.started)
        at = np.exp(
            np.interp(
                np.log(started), np.log(ds.epsilon), np.log(np.maximum(cells.gradient_norm, 1e-300))
            )
        )
        low, high = (
            float(x)
            for x in trainable_band(cells.epsilon.values, gradient_norms=cells.gradient_norm.values)
        )
        inside = low <= started <= high
        if float(cells.sigma2.max()) < 1e-12:  # J at every ε: there is nothing to train away from
            rows.append([str(case), f"{started:g}", f"{at:.1e}", "–", "–", "σ₂ = 0"])
            continue
        if not inside:
            outside.append(str(case))
        rows.append(
            [
                str(case),
                f"{started:g}",
                f"{at:.1e}",
                f"{low:.3g}",
                f"{high:.3g}",
                "yes" if inside else "no",
            ]
        )
    text = "Outside their trainable band: " + ("; ".join(outside) if outside else "none") + "."
    header = ["logits", "ε", "‖∂σ₂/∂S‖", "band from", "to", "inside"]
    return text, [
        ("band: where ‖∂σ₂/∂S‖ keeps a tenth of its maximum over ε (6.2)", (header, rows))
    ]


def describe_training(ds: xr.Dataset) -> tuple[str, list[tuple[str, Table]]]:
    """How well the networks do, what their mixing kept before and after, and how the laws fared on it."""
    failed = int((ds.failed_step >= 0).sum())
    best = float(ds.accuracy.max())
    text = f"{ds.accuracy.size} network{' was' if ds.accuracy.size == 1 else 's were'} trained: {ds.attrs['statement']}. "
    text += "None gives numbers" if np.isnan(best) else f"The best is right in {best:.1%}"
    text += f" (blind: {ds.attrs['chance']:.1%})."
    for index in np.argwhere(ds.failed_step.values >= 0)[:3]:
        run = ds.isel(dict(zip(ds.failed_step.dims, index, strict=True)))
        where = ", ".join(f"{name} {run[name].item():g}" for name in ds.failed_step.dims)
        layer = int(run.failed_layer)
        after = (
            "beyond the layers"
            if layer > run.depth
            else "in the embedding"
            if layer == 0
            else f"after layer {layer}"
        )
        after = f"in the gradient of layer {layer}" if run.failed_backward else after
        text += f" The one of {where} STOPPED at step {int(run.failed_step)}: a number was not finite, first {after}."
    if failed:
        learning = float(ds.failed_step.max()) > 0
        remedy = (
            "a smaller learning rate, or float32 mixing"
            if learning
            else "a larger ε, less noise, or float32 mixing"
        )
        text += f" {failed} stopped in all: try {remedy}."
    rows, varied = [], [name for name in _VARIED if name == "depth" or ds.sizes[name] > 1]
    measures, architecture = (
        {"sigma2": "σ₂", "kept": "kept", "depth_typical": "depth"},
        plots.config(ds)["architecture"],
    )
    if architecture["learned_alpha"]:
        measures = {"alpha": "α", **measures}
    for depth, epsilon, alpha, noise in np.ndindex(*ds.accuracy.shape[:4]):
        runs = ds.isel(depth=depth, epsilon=epsilon, alpha=alpha, noise=noise)
        rows.append(
            [
                *(f"{runs[name].item():.3g}" for name in varied),
                f"{float(runs.accuracy.mean()):.3f}",
                f"{float(runs.accuracy.std()):.3f}",
                *(
                    f"{float(runs[f'{name}_{when}'].median()):.3g}"
                    for name in measures
                    for when in ("start", "end")
                ),
                f"{float(np.maximum(runs.row_error_end, runs.col_error_end).max()):.0e}",
            ]
        )
    header = [*(_VARIED[name] for name in varied), "accuracy", "±"]
    header += [f"{name} {when}" for name in measures.values() for when in ("start", "end")] + [
        "sums off"
    ]
    caption = (
        "±: standard deviation over seeds; σ₂ and α: median of layers; kept: σ₂ of the composite; "
    )
    caption += "depth: at which ½ is left (3.3)"
    for name, sign in _VARIED.items():
        if name not in varied:
            own = name == "epsilon" and not tempered(architecture["mixer"])
            caption += f"; {sign}: its own, or none" if own else f"; {sign} = {ds[name].item():g}"
    caption += (
        "; the first and the last layer's matrices of streams have nothing to do"
        if architecture["over"] == "streams"
        else ""
    )
    caption += "" if len(rows) <= 40 else f"; 40 of {len(rows)} rows, all are in the data"
    tables = [(caption, (header, rows[:40]))]
    if "holds" in ds:
        text += " " + judged(theorems_judged(ds))
        counts = ("holds", "violated", "undecidable", "not_applicable")
        rows = [
            [
                str(claim),
                str(ds.status.sel(claim=claim).item()),
                *(f"{int(ds[c].sel(claim=claim).sum()):,}" for c in counts),
            ]
            for claim in ds.claim.values
        ]
        header = ["claim", "status", "holds", "viol.", "undec.", "n.a."]
        tables.append(
            (
                "the claims about matrices and stacks on the trained ones; n.a.: assumptions not met",
                (header, rows),
            )
        )
    return text, tables


_VARIED = {"depth": "layers", "epsilon": "ε", "alpha": "α", "noise": "noise"}


def training_as_expected(ds: xr.Dataset) -> bool:
    """Whether every network was trained to the end, and no theorem was violated on what came out."""
    finished = (ds.failed_step < 0) & np.isfinite(
        ds.test_loss
    )  # the last step's own numbers are seen in the test alone
    return ("holds" not in ds or theorems_judged(ds)[1] == 0) and bool(finished.all())


def theorems_judged(ds: xr.Dataset) -> tuple[int, int, int]:
    """(holds, violated, undecidable): comparisons of theorems with the matrices of a training."""
    theorems = ds.isel(claim=ds.status == "theorem")
    return int(theorems.holds.sum()), int(theorems.violated.sum()), int(theorems.undecidable.sum())


def judged(counts: tuple[int, int, int]) -> str:
    """A sentence on (holds, violated, undecidable)."""
    _, violated, undecidable = counts
    every = sum(counts)
    share = f"{undecidable / max(every, 1):.1%} undecidable"
    return (
        f"Theorems violated on the trained matrices: {violated} of {every:,} comparisons; {share}."
    )


DESCRIPTIONS = {
    "frontier": (describe_frontier, plots.frontier, "The entropy–σ₂ frontier"),
    "calibrate": (describe_calibration, plots.calibration, "Calibrated ε"),
    "sensitivity": (describe_sensitivity, plots.sensitivity, "Where gradients reach the logits"),
    "train": (describe_training, plots.training, "Trained networks against the laws"),
}


def write_page(kind: str, ds: xr.Dataset, folder: Path) -> None:
    """The page and the figure of a frontier, a calibration, a sensitivity or a training."""
    description, draw, heading = DESCRIPTIONS[kind]
    text, tables = description(ds)
    with plt.rc_context(plots.STYLE), plt.ioff():
        figure = draw(ds)
        about = {
            **json.loads(ds.attrs.get("config", "{}")),
            "versions": json.loads(ds.attrs["versions"]),
        }
        write(folder, heading, text, tables, figure, about)
