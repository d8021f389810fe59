"""How often truncation leaves claims about doubly stochastic matrices without an answer.

20 alternations, columns last, as mHC runs them; normal logits of scale 1, 3 and 6 at ε = 1.
Law 1.7 (a truncated projection is not doubly stochastic).

    python experiments/truncation.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console

import homojax as hj
from homojax.lab.page import Table, print_table
from homojax.theory.cases.matrix import matrix_case
from homojax.theory.claim import VERDICTS

# claims that assume M ∈ 𝔅ₙ
MEMBERS = ("hilbert", "dobrushin", "doeblin", "pinsker", "logit_budget", "frontier")
TITLE = "20 alternations: share of cells without an answer, by claim"


@jax.jit
@jax.vmap
def judge(logits: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Return the row error of the truncated projection, and each claim's verdict on it."""
    result = hj.truncated_sinkhorn(logits, 1.0, 20)
    case = matrix_case(logits, 1.0, result.matrix)
    return result.row_error, [hj.CLAIMS[name].judge(case)[1] for name in MEMBERS]


def measure(cells: int) -> list[dict[str, Any]]:
    """Return a row for each n, scale and claim: the share of cells with each verdict."""
    rows = []
    for n in (4, 16):
        for scale in (1, 3, 6):
            logits = scale * np.random.default_rng([n, scale]).standard_normal((cells, n, n))
            row_error, verdicts = judge(logits)
            about = {"n": n, "scale": scale, "row_error": float(np.median(row_error))}
            for name, verdict in zip(MEMBERS, verdicts, strict=True):
                share = {kind: float((verdict == v).mean()) for kind, v in VERDICTS.items()}
                rows.append({**about, "claim": name, **share})
    return rows


def table(rows: list[dict[str, Any]], cells: int) -> Table:
    """Return the rows as a table with one line for each n and scale."""
    lines = []
    for first in range(0, len(rows), len(MEMBERS)):
        group = rows[first : first + len(MEMBERS)]
        silent = (f"{row['undecidable'] + row['not_applicable']:.1%}" for row in group)
        violated = round(cells * sum(row["violated"] for row in group))
        head = group[0]
        about = str(head["n"]), str(head["scale"]), f"{head['row_error']:.1e}"
        lines.append([*about, *silent, str(violated)])
    return Table(TITLE, ["n", "logit scale", "median row error", *MEMBERS, "violated"], lines)


def main(out: Path = Path("runs/truncation.json"), cells: int = 5_000) -> None:
    """Measure, print the table, and write the rows as JSON.

    Args:
        out: the JSON to write, a row for each n, scale and claim.
        cells: matrices of each n and scale.
    """
    jax.config.update("jax_enable_x64", True)
    rows = measure(cells)
    print_table(table(rows, cells), Console())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
