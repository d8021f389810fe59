"""What a person sees of a sweep: what survives, how the laws fared, and the figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from rich.console import Console

from homojax.lab import page
from homojax.lab.blocks import writing
from homojax.lab.page import Picture, Section, Table
from homojax.lab.progress import progress_bar
from homojax.lab.runs import RunFolder, holds_finished, run_folder
from homojax.lab.sources import load_source
from homojax.lab.store import config_of
from homojax.lab.sweep import plots
from homojax.lab.sweep.as_run_plot import as_run_against_converged
from homojax.lab.sweep.boundary_tables import boundary_tables, refined_sentence
from homojax.lab.sweep.command import SweepCommand, shard_of
from homojax.lab.sweep.config import figures_of
from homojax.lab.sweep.dataset import KS_ROUNDING, LAWS
from homojax.lab.sweep.run import sweep as run_sweep
from homojax.projection.result import Status
from homojax.theory import CLAIMS
from homojax.theory.claim import VERDICTS, Verdict

KS_FALSE_ALARM = 0.01  # the chance, for a whole sweep, that a true law is rejected
CONVERGENCE = {  # how a projection did not end well, and what to try
    Status.STEP_LIMIT: "stopped at the step limit: raise max_steps or ε",
    Status.STALLED: "stalled at this precision: use float64, or raise tol or ε",
    Status.INFEASIBLE: "have no doubly stochastic matrix on their support",
    Status.NOT_FINITE: "are not finite",
}
SUMMARY = "{title}. Medians; error: the worst |row or column sum − 1|"
SUMMARY_DEPTH = "; L: the depth in layers at which {retention:.0%} of detail is left"
LAW_CAPTION = (
    "The laws. undec.: undecidable, equal within the error of the matrix and of rounding; n.a.: "
    "an assumption is not met"
)
TEST_CAPTION = ". A test of cosines can refute the law of layer norm, and not show it"
FIGURES = {  # name, as in config.FIGURES -> (how it is drawn, caption)
    "phase": (
        plots.phase_diagram,
        "Share of detail that survives, by entropy weight and depth, with the contours that the "
        "product bound (3.1) and the Lyapunov rate (3.3) predict.",
    ),
    "survival": (
        plots.survival,
        "Share of detail that survives, with the product bound (3.1).",
    ),
    "entropy": (
        plots.entropy_against_sigma2,
        "Every matrix of the sweep. High entropy alone does not force σ₂ down (2.2): the starred "
        "matrix has σ₂ = 1.",
    ),
    "layernorm": (
        plots.cosine_against_snr,
        "Layer norm's output against the signal, simulated, on the exact law (4.2). Left of the "
        "critical SNR (4.5) a 5 % test misses it more than 5 % of the time.",
    ),
    "residual": (
        plots.retention_against_turn,
        "Residual weights α trade what is kept (5.1) against what is changed (5.2).",
    ),
}
INTRODUCTION = (
    "Each law's prediction beside its measurement. A comparison holds or is violated only where "
    "its slack exceeds the error that missed sums and rounding can cause; equality, where a bound "
    "is attained, is undecidable."
)


def run_command(command: SweepCommand, console: Console) -> bool:
    """Run the sweeps of a command into its folder, and show them. Returns True."""
    import jax

    shard = shard_of(command)  # before JAX is asked for anything else
    # As they run here; a mistake in the last one is told before the first one runs.
    settled = [sweep.settled(load_source(sweep).layers) for sweep in command.sweeps]
    asked = {sweep.label: {**sweep.as_dict(), "hash": sweep.digest} for sweep in settled}
    identity = {"verb": "sweep", "sweeps": asked}
    if command.is_shared and command.out and holds_finished(command.out, identity):
        spared = ", and no shard replaces it: remove it to start anew" if command.overwrite else ""
        console.print(f"{command.out} is finished already{spared}.", highlight=False)
        return True
    folder = run_folder(command, identity, shared=command.is_shared)
    jax.config.update("jax_enable_x64", any(s.dtype == "float64" for s in settled))
    datasets, sections = {}, []
    for sweep in settled:
        with progress_bar(console, sweep.label) as progress:
            store = folder.part / f"{sweep.label}.zarr"
            ds = datasets[sweep.label] = run_sweep(sweep, store, shard=shard, progress=progress)
        if shard is None:
            sections.append(_show(sweep.label, ds, console))  # at once: the next may take hours
    if shard is None:
        _finish(folder, datasets, sections, console)
        return True
    return _finish_last(folder, datasets, console)


def _show(label: str, ds: xr.Dataset, console: Console) -> Section:
    """Print what a sweep found. Returns it as the page's section, without pictures."""
    section = describe(ds)._replace(heading=label)
    page.show(section, console)
    return section


def _finish_last(folder: RunFolder, datasets: dict[str, xr.Dataset], console: Console) -> bool:
    """Finish a run that several processes made, if this one is the last; else say what is left."""
    left = [f"{name}: {ds.unfinished}" for name, ds in datasets.items() if "unfinished" in ds.attrs]
    if left:
        console.print(f"This shard is done; others are not ({'; '.join(left)}).", highlight=False)
        return True
    with writing(folder.out, wait=True):
        if folder.part.exists():
            sections = [_show(label, ds, console) for label, ds in datasets.items()]
            _finish(folder, datasets, sections, console)
        else:
            console.print(f"{folder.name} was finished by another shard.", highlight=False)
    return True


def _finish(
    folder: RunFolder, datasets: dict[str, xr.Dataset], sections: list[Section], console: Console
) -> None:
    """Draw the figures of a run that is whole, and write its report of these sections."""
    with progress_bar(console, "figures") as progress:
        drawn = []
        for section in sections:
            progress(len(drawn), len(sections), section.heading)
            drawn.append(section._replace(pictures=draw(section.heading, datasets)))
        files = page.write_page(folder.part, "The map of the trap", drawn, INTRODUCTION)
        progress(len(drawn), len(sections), "done")
    folder.finish(*files, *(f"{label}.zarr" for label in datasets))
    figures = any(section.pictures for section in drawn)
    page.show_place(folder.name, console, figures=figures)


def describe(ds: xr.Dataset) -> Section:
    """Return what a sweep found, without figures."""
    return Section(
        heading=plots.label_of(ds),
        source=f"{ds.attrs['source']}; {ds.attrs['dtype']}",
        text=headline(ds),
        tables=[summary(ds), *boundary_tables(ds), law_table(ds)],
        about=page.about(ds.attrs, f"{plots.label_of(ds)}.zarr"),
    )


def headline(ds: xr.Dataset) -> str:
    """Say what the sweep found; convergence first, because nothing else counts without it."""
    statuses = ds.status.values
    counts = {status: int(np.count_nonzero(statuses == status)) for status in Status}
    total, worst = sum(counts.values()), float(np.maximum(ds.row_error, ds.col_error).max())
    iterations, converged = config_of(ds)["iterations"], counts[Status.CONVERGED]
    if iterations is None:
        text = f"{converged:,} of {total:,} projections converged (worst error {worst:.1e})."
        told = CONVERGENCE
    else:
        text = (
            f"{total:,} matrices of {iterations} alternation{'s' * (iterations > 1)}, as asked; "
            f"{converged:,} of them converged, and the worst misses a row or column sum by "
            f"{worst:.2g}. Where that leaves no room, the laws of doubly stochastic matrices do "
            "not apply, or are undecidable."
        )
        told = {status: CONVERGENCE[status] for status in (Status.INFEASIBLE, Status.NOT_FINITE)}
    if "unfinished" in ds.attrs:
        text = f"The sweep is unfinished: {ds.unfinished}. {text}"
    text = f"{text} {refined_sentence(ds)}".rstrip()
    distinct = int(ds.attrs["distinct_layers"])
    if distinct < ds.sizes["layer"]:
        text += f" The {distinct} layers of the source are repeated in order."
    for status, remedy in told.items():
        if counts[status]:
            text += f" {counts[status]:,} {remedy}."
    holds, undecidable, violated = judged(ds, ds)
    return (
        f"{text} {holds:,} comparisons hold, {undecidable:,} are undecidable within their error, "
        f"{violated:,} violated."
    )


def judged(cells: xr.Dataset, whole: xr.Dataset) -> tuple[int, int, int]:
    """Return how many comparisons hold, are undecidable, are violated; layer norm's among them."""
    verdicts = _verdicts(cells)
    rejected, points = ks_rejections(cells, whole)
    undecidable = verdicts["undecidable"] + points - rejected
    return verdicts["holds"], undecidable, verdicts["violated"] + rejected


def summary(ds: xr.Dataset) -> Table:
    """Return what the matrices are and what survives, by n and (at most six, evenly chosen) ε."""
    chosen = np.unique(np.linspace(0, ds.sizes["epsilon"] - 1, 6).round().astype(int))
    rows = [_summary_row(ds.sel(n=n).isel(epsilon=e), ds) for n in ds.n.values for e in chosen]
    header = list(rows[0])
    survives = "sigma2" in ds or "effective_depth_bound" in ds
    caption = SUMMARY.format(title="What survives" if survives else "The matrices")
    if "effective_depth_bound" in ds:
        caption += SUMMARY_DEPTH.format(retention=config_of(ds)["retention"])
    texts = [list(row.values()) for row in rows]
    return Table(caption, header, texts, _violated(header, texts))


def _summary_row(cells: xr.Dataset, whole: xr.Dataset) -> dict[str, str]:
    """Return one n and ε, column -> text: medians over seeds and layers, and verdicts counted."""
    spread = cells.relative_epsilon
    row = {
        "n": str(int(cells.n)),
        "ε": f"{float(cells.epsilon):.3g}",
        "ε/spread": "–" if (spread == 0).any() else f"{float(spread.median()):.3g}",
    }
    if "sigma2" in cells:
        row["σ₂"] = _share(float(cells.sigma2.median()))
    row["error"] = f"{float(np.maximum(cells.row_error, cells.col_error).max()):.1e}"
    if "effective_depth_bound" in cells:
        bound, typical, measured = (
            float(cells[f"effective_depth_{kind}"].median())
            for kind in ("bound", "lyapunov", "measured")
        )
        deepest = int(cells.depth.max())
        row["L bound"], row["L typical"] = _depth(bound), _depth(typical)
        if (cells.verdict_product.isel(depth=-1) == Verdict.NOT_APPLICABLE).all():
            # Of matrices that are not doubly stochastic neither rate says anything.
            row["L bound"] = row["L typical"] = "n.a."
        row["L measured"] = f"> {deepest}" if np.isinf(measured) else _depth(measured)
    if _laws(cells) or "cosine_ks" in cells:
        holds, undecidable, violated = judged(cells, whole)
        row |= {"holds": f"{holds:,}", "undec.": f"{undecidable:,}", "viol.": f"{violated:,}"}
    return row


def law_table(ds: xr.Dataset) -> Table:
    """Return how often each verdict was given, law by law, of the laws that were measured."""
    kinds = ("holds", "undecidable", "violated", "not_applicable")
    rows = []
    for law in _laws(ds):
        verdicts = _verdicts(ds, [law])
        rows.append([law, CLAIMS[law].statement, *(f"{verdicts[kind]:,}" for kind in kinds)])
    caption = LAW_CAPTION
    if "cosine_ks" in ds:
        caption += TEST_CAPTION
        rejected, points = ks_rejections(ds, ds)
        kept = f"{points - rejected:,}"
        rows.append(["layer norm", "cos θ has law 4.1 (KS test)", "–", kept, f"{rejected:,}", "0"])
    header = ["law", "statement", "holds", "undec.", "viol.", "n.a."]
    return Table(caption, header, rows, _violated(header, rows))


def ks_rejections(ds: xr.Dataset, whole: xr.Dataset) -> tuple[int, int]:
    """Return (points whose Monte Carlo cosines reject the exact law 4.1, points in all).

    ``whole`` is the sweep that they are of: the more points it has, the more each may miss. By the
    Dvoretzky-Kiefer-Wolfowitz inequality. A test can reject the law, and never prove it.
    ``cosine_ks`` is never above the distance, so its error rejects nothing.
    """
    if "cosine_ks" not in ds:
        return 0, 0
    samples, points = config_of(ds)["samples"], int(ds.cosine_ks.notnull().sum())
    limit = np.sqrt(np.log(2 * whole.cosine_ks.size / KS_FALSE_ALARM) / (2 * samples))
    limit += KS_ROUNDING
    return int((ds.cosine_ks > limit).sum()), points


def draw(label: str, datasets: dict[str, xr.Dataset]) -> list[Picture]:
    """Return every figure that the sweep of this label allows."""
    order = ["n", "epsilon", "depth", "snr", "alpha"]
    ds = datasets[label].sortby(order)
    wanted = []
    twins = [other for other in datasets.values() if _is_converged_twin(ds, other)]
    if twins:
        text = (
            f"Laws 1.7 and 3.4. {label}, and the same logits projected to the end: only the right "
            "half is about mixing."
        )
        file = f"figures/{label}-truncation.png"
        wanted.append((file, text, as_run_against_converged, ds, twins[0].sortby(order)))
    is_map = ds.sizes["epsilon"] > 1 and ds.sizes["depth"] > 1
    for name in figures_of(config_of(ds)):
        make, caption = FIGURES[name]
        if name != ("survival" if is_map else "phase"):
            wanted.append((f"figures/{label}-{name}.png", f"{label}: {caption}", make, ds))
    return page.draw_all(wanted)


def _is_converged_twin(as_run: xr.Dataset, other: xr.Dataset) -> bool:
    """Return whether ``other`` projects to the end the logits that ``as_run`` truncates."""
    a, b = config_of(as_run), config_of(other)
    same = all(a[key] == b[key] for key in ("source", "path", "array", "orientation", "seed"))
    return bool(
        same
        and all("composite_sigma2" in ds for ds in (as_run, other))
        and a["iterations"] is not None
        and b["iterations"] is None
        and as_run.sizes["n"] == 1
        and float(as_run.epsilon[0]) in other.epsilon.values
        and np.array_equal(as_run.depth, other.depth)
    )


def _laws(ds: xr.Dataset) -> list[str]:
    """Return the laws that the sweep has verdicts on."""
    return [law for law in LAWS if f"verdict_{law}" in ds]


def _verdicts(ds: xr.Dataset, laws: Sequence[str] | None = None) -> dict[str, int]:
    """Return how many comparisons of these laws, or of all, got each verdict."""
    counts = dict.fromkeys(VERDICTS, 0)
    for law in _laws(ds) if laws is None else laws:
        given = ds[f"verdict_{law}"].values  # read once: it may be on the disk
        for name, verdict in VERDICTS.items():
            counts[name] += int(np.count_nonzero(given == verdict))
    return counts


def _violated(header: list[str], rows: list[list[str]]) -> list[bool]:
    return [row[header.index("viol.")] != "0" for row in rows] if "viol." in header else []


def _share(value: float) -> str:
    return f"1−{1 - value:.0e}" if 0.99995 < value < 1 else f"{value:.4f}"


def _depth(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:.3g}" if value < 1e4 else f"{value:.1e}"
