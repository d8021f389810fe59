"""Claims about doubly stochastic matrices, asked of truncated ones: how often there is no answer, and what truncation violates.

20 alternations, columns last, as mHC runs them; normal logits of scale 1, 3 and 6 at ε = 1; float64. theory.md 1.7.

    python experiments/truncation.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import jax
import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

import homojax as hj
from homojax.theory.claim import HOLDS, NOT_APPLICABLE, UNDECIDABLE, VIOLATED

KINDS = {
    "undecidable": UNDECIDABLE,
    "assumption not met": NOT_APPLICABLE,
    "holds": HOLDS,
    "violated": VIOLATED,
}
MEMBERS = (
    "hilbert",
    "dobrushin",
    "doeblin",
    "pinsker",
    "logit_budget",
    "frontier",
)  # they assume M ∈ 𝔅ₙ


def main(out: Path = Path("runs/truncation.json"), cells: int = 5_000) -> None:
    """Args: out: the JSON to write, a row for each n, scale and claim; cells: matrices of each n and scale."""
    jax.config.update("jax_enable_x64", True)

    @jax.jit
    @jax.vmap
    def judge(logits):
        result = hj.truncated_sinkhorn(logits, 1.0, 20)
        case = hj.theory.matrix.matrix_case(logits, 1.0, cast(jax.Array, result.matrix))
        return result.row_error, [hj.CLAIMS[name].judge(case)[1] for name in MEMBERS]

    rows = []
    for n in (4, 16):
        for scale in (1, 3, 6):
            logits = scale * np.random.default_rng([n, scale]).standard_normal((cells, n, n))
            row_error, verdicts = judge(logits)
            for name, verdict in zip(MEMBERS, verdicts, strict=True):
                share = {key: float((verdict == value).mean()) for key, value in KINDS.items()}
                rows.append(
                    {
                        "n": n,
                        "scale": scale,
                        "claim": name,
                        "row_error": float(np.median(row_error)),
                        **share,
                    }
                )
    table = Table(
        title="20 alternations: share of cells without an answer", box=box.SIMPLE_HEAD, padding=0
    )
    for column in ("n", "logit scale", "median row error", *MEMBERS, "violated"):
        table.add_column(column.replace(" ", "\n").replace("_", "_\n"), justify="right")
    for first in range(0, len(rows), len(MEMBERS)):
        group = rows[first : first + len(MEMBERS)]
        silent = (f"{row['undecidable'] + row['assumption not met']:.1%}" for row in group)
        violated = round(cells * sum(row["violated"] for row in group))
        table.add_row(
            str(group[0]["n"]),
            str(group[0]["scale"]),
            f"{group[0]['row_error']:.1e}",
            *silent,
            str(violated),
        )
    Console().print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
