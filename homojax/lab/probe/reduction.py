"""Make a violation short: round its numbers to the fewest digits that keep it."""

from __future__ import annotations

import numpy as np

from homojax.lab.cases import Case, up_to_comparison
from homojax.lab.probe.finding import Finding, ask_many_digits, judge, make_case
from homojax.lab.probe.objective import project_stacks
from homojax.theory.claim import Verdict

MOST_DIGITS = 12  # behind the point; more of them are no reduction
LEAST_OTHER_DIGITS = 2  # of ε, which at fewer would become 0


def reduce_digits(finding: Finding) -> Finding:
    """Return the finding with its violation in the fewest digits that keep it, if any do.

    The violation is kept in float64 and, where the referee knows the claim, in 50 digits.
    """
    claim, search = finding.claim, finding.search
    candidates = _round_all(finding.case)
    cells = {key: np.stack([cell[key] for cell in candidates]) for key in candidates[0]}
    if claim.scope == "stack":
        cells["matrices"] = np.asarray(project_stacks(cells["logits"], cells["epsilon"]))
    judged = judge(claim, _pad(cells, search.starts))
    for i in range(len(candidates)):
        violated = np.flatnonzero(judged.verdict[i] == Verdict.VIOLATED)
        if not len(violated):
            continue
        cell = {key: x[i] for key, x in cells.items()}
        case = make_case(finding.goal, claim, search, cell)
        case = up_to_comparison(case, judged.verdict.shape[1:], int(violated[-1]))
        if ask_many_digits(case)[1] in (None, "violated"):
            digits = i // len(_gauges(cell["logits"]))
            return finding._replace(reduced=case, digits=digits)
    return finding


def _round_all(case: Case) -> list[dict[str, np.ndarray]]:
    """Return the cells of a case, rounded: fewest digits first, each in every gauge."""
    source = {key: x for key, x in case.arrays.items() if key != "matrices"}
    if "matrices" in case.arrays:
        depth = len(case.arrays["matrices"])
        source["logits"] = np.asarray(case.about["logits"])[:depth]
        source["epsilon"] = np.asarray(case.about["epsilon"])
    cells = []
    for digits in range(MOST_DIGITS + 1):
        cell = {key: np.round(x, digits) for key, x in source.items()}
        cell["epsilon"] = np.round(source["epsilon"], max(digits, LEAST_OTHER_DIGITS))
        for logits in _gauges(source["logits"]):
            cells.append({**cell, "logits": np.round(logits, digits) + 0.0})  # no −0
    return cells


def _gauges(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of one projection, [..., n, n]: with a first row and column of 0, and as is."""
    corner = logits[..., :1, :1]
    return logits - logits[..., :1, :] - logits[..., :, :1] + corner, logits


def _pad(cells: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Return at least ``count`` cells, the last one repeated.

    As many cells as there were starts are judged by a program that is compiled already.
    """
    missing = max(0, count - len(next(iter(cells.values()))))
    return {key: np.concatenate([x, np.repeat(x[-1:], missing, 0)]) for key, x in cells.items()}
