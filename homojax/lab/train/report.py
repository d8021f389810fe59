"""What a person sees of a training: how well networks do, what they keep, how the laws fared."""

from __future__ import annotations

import numpy as np
import xarray as xr
from rich.console import Console

from homojax.lab import page
from homojax.lab.page import Section, Table
from homojax.lab.progress import progress_bar
from homojax.lab.runs import run_folder
from homojax.lab.store import config_of
from homojax.lab.train import plots
from homojax.lab.train.command import TrainCommand

TITLE = "Trained networks against the laws"
CAPTION = (
    "The loss along training; the accuracy over the grid; σ₂ of every layer, before training and "
    "after; and the share of the best-kept detail that is left after it, with its bound."
)
CLAIM_CAPTION = (
    "The claims about matrices and stacks, on the trained ones. n.a.: what the claim "
    "assumes is not met, or its bound says nothing there"
)
VARIED = {"depth": "layers", "epsilon": "ε", "alpha": "α", "noise": "noise"}
MOST_ROWS = 40  # of a table
MOST_FAILURES = 3  # that are told one by one


def run_command(command: TrainCommand, console: Console) -> bool:
    """Run a training. Returns whether all networks were trained and no theorem was violated."""
    import jax

    from homojax.lab.train.run import train, trainer_of  # a page is made without the networks

    jax.config.update("jax_enable_x64", True)  # for the laws; networks are float32 all the same
    config = command.config
    trainer_of(config, min(config.all_depths))  # refuse what cannot be before a folder is made
    folder = run_folder(command, config.identity)
    with progress_bar(console, "train") as progress:
        dataset = train(config, folder.part, progress=progress)
    section = describe(dataset)
    pictures = page.draw_all([("figure.png", CAPTION, plots.training, dataset)])
    files = page.write_page(folder.part, TITLE, [section._replace(pictures=pictures)])
    folder.finish(*files, "train.zarr", "checkpoints")
    page.show(section, console)
    page.show_place(folder.name, console)
    return section.as_expected


def describe(ds: xr.Dataset) -> Section:
    """Return what a training found, without its figure."""
    tables = [network_table(ds)]
    if "holds" in ds:
        tables.append(claim_table(ds))
    return Section(
        heading="",
        text=headline(ds),
        as_expected=training_as_expected(ds),
        tables=tables,
        about=page.about(ds.attrs, "train.zarr"),
    )


def headline(ds: xr.Dataset) -> str:
    """Say how well the networks do, which of them broke, and how the theorems fared."""
    count, best = ds.accuracy.size, float(ds.accuracy.max())
    trained = "1 network was" if count == 1 else f"{count} networks were"
    right = "None gives numbers" if np.isnan(best) else f"The best is right in {best:.1%}"
    text = f"{trained} trained: {ds.attrs['statement']}. {right} (blind: {ds.attrs['chance']:.1%})."
    sentences = [text, *_failures(ds)]
    if "holds" in ds:
        sentences.append(theorem_sentence(theorems_judged(ds)))
    return " ".join(sentences)


def _failures(ds: xr.Dataset) -> list[str]:
    """Return sentences on runs that met a number that was not finite: the first ones, and all."""
    failed = np.argwhere(ds.failed_step.values >= 0)
    if not len(failed):
        return []
    told = [
        _failure(ds.isel(dict(zip(ds.failed_step.dims, index, strict=True))))
        for index in failed[:MOST_FAILURES]
    ]
    learning = float(ds.failed_step.max()) > 0
    remedy = "a smaller learning rate" if learning else "a larger ε, less noise"
    return [*told, f"{len(failed)} stopped in all: try {remedy}, or float32 mixing."]


def _failure(run: xr.Dataset) -> str:
    values = ", ".join(f"{name} {run[name].item():g}" for name in (*VARIED, "seed"))
    layer = int(run.failed_layer)
    if run.failed_backward:
        place = f"in the gradient of layer {layer}"
    elif layer > run.depth:
        place = "beyond the layers"
    else:
        place = f"after layer {layer}" if layer else "in the embedding"
    return (
        f"The network of {values} STOPPED at step {int(run.failed_step)}: a number was not finite, "
        f"first {place}."
    )


# ---------------------------------------------------------------- verdicts


def training_as_expected(ds: xr.Dataset) -> bool:
    """Return whether every network was trained to the end, and no theorem was violated."""
    # Numbers that break in the last step are seen in the test alone.
    finished = (ds.failed_step < 0) & np.isfinite(ds.test_loss)
    return bool(finished.all()) and ("holds" not in ds or theorems_judged(ds)[1] == 0)


def theorems_judged(ds: xr.Dataset) -> tuple[int, int, int]:
    """Return how many comparisons of theorems hold, are violated, and are undecidable."""
    theorems = ds.isel(claim=ds.status == "theorem")
    return int(theorems.holds.sum()), int(theorems.violated.sum()), int(theorems.undecidable.sum())


def theorem_sentence(counts: tuple[int, int, int]) -> str:
    """Return a sentence on how many comparisons of theorems hold, are violated, are undecidable.

    >>> theorem_sentence((6, 1, 3))
    'Theorems violated on the trained matrices: 1 of 10 comparisons; 30.0% undecidable.'
    """
    total, (_, violated, undecidable) = sum(counts), counts
    share = undecidable / max(total, 1)
    return (
        f"Theorems violated on the trained matrices: {violated} of {total:,} comparisons; "
        f"{share:.1%} undecidable."
    )


# ---------------------------------------------------------------- tables


def network_table(ds: xr.Dataset) -> Table:
    """Return one row for each value of the grid: accuracy, and what the mixing kept."""
    varied = [name for name in VARIED if name == "depth" or ds.sizes[name] > 1]
    measures = {"sigma2": "σ₂", "kept": "kept", "depth_typical": "depth"}
    if config_of(ds)["architecture"]["learned_alpha"]:
        measures = {"alpha": "α", **measures}
    rows = [
        _network_row(ds.isel(dict(zip(VARIED, index, strict=True))), varied, list(measures))
        for index in np.ndindex(*ds.accuracy.shape[:4])
    ]
    header = [*(VARIED[name] for name in varied), "accuracy", "±"]
    header += [f"{sign} {when}" for sign in measures.values() for when in ("start", "end")]
    return Table(_network_caption(ds, varied, len(rows)), [*header, "sums off"], rows[:MOST_ROWS])


def _network_row(runs: xr.Dataset, varied: list[str], measures: list[str]) -> list[str]:
    return [
        *(f"{runs[name].item():.3g}" for name in varied),
        f"{float(runs.accuracy.mean()):.3f}",
        f"{float(runs.accuracy.std()):.3f}" if runs.sizes["seed"] > 1 else "–",
        *(
            f"{float(runs[f'{name}_{when}'].median()):.3g}"
            for name in measures
            for when in ("start", "end")
        ),
        f"{float(np.maximum(runs.row_error_end, runs.col_error_end).max()):.0e}",
    ]


def _network_caption(ds: xr.Dataset, varied: list[str], rows: int) -> str:
    """Return what the columns are, and the values that all networks share."""
    parts = [
        "±: standard deviation over seeds",
        "σ₂ and α: median of layers",
        "kept: σ₂ of the composite",
        "depth: layers at which ½ is left (law 3.3, three depths)",
    ]
    for name in VARIED:
        if name not in varied:
            own = name == "epsilon" and not ds.attrs["tempered"]
            value = ": its own, or none" if own else f" = {ds[name].item():g}"
            parts.append(VARIED[name] + value)
    if config_of(ds)["architecture"]["over"] == "streams":
        parts.append("the first and the last layer's matrices of streams have no effect")
    if rows > MOST_ROWS:
        parts.append(f"{MOST_ROWS} of {rows} rows; the data has all")
    return "; ".join(parts)


def claim_table(ds: xr.Dataset) -> Table:
    """Return one row for each claim: how many comparisons had each verdict."""
    kinds = ("holds", "violated", "undecidable", "not_applicable")
    rows = []
    for name in ds.claim.values:
        counts = ds.sel(claim=name)
        verdicts = [f"{int(counts[kind].sum()):,}" for kind in kinds]
        rows.append([str(name), str(counts.status.item()), *verdicts])
    wrong = [row[1] == "theorem" and row[3] != "0" for row in rows]
    header = ["claim", "status", "holds", "viol.", "undec.", "n.a."]
    return Table(CLAIM_CAPTION, header, rows, wrong)
