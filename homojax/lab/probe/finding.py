"""What a search found: its best case, judged as ``verify`` judges, and in many digits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from homojax.lab.cases import Case, up_to_comparison
from homojax.lab.judging import Judged, judge_cells
from homojax.lab.probe import plots
from homojax.lab.probe.config import Goal, Search
from homojax.lab.probe.objective import case_arrays, score_sides
from homojax.lab.referee import decided, in_many_digits
from homojax.lab.store import provenance, versions
from homojax.theory.claim import Claim, Verdict

REFEREED_SIZE = 12  # n up to which many digits are asked: a finding is worth their seconds
SHARE_TOLERANCE = 1e-3  # a start this near the best score, relatively, counts as having come there


class Finding(NamedTuple):
    """What a search came back with."""

    goal: Goal
    claim: Claim
    search: Search
    history: np.ndarray  # [steps + polish, starts], the best score of each start so far
    score: float  # of the best case, as ``objective.score_sides`` says
    lesser: float
    greater: float
    margin: float
    verdict: str  # in float64
    exact: tuple[Any, Any] | None  # (lesser, greater) in 50 digits, where the referee knows them
    exact_verdict: str | None  # in 50 digits
    share: float  # of the starts that came near the best score, or broke the claim
    case: Case  # the best one
    reduced: Case | None = None  # the violation with the fewest digits that keep it
    digits: int | None = None  # of the reduced case's entries, behind the point

    def __repr__(self) -> str:
        """Return one line: the claim, its verdict, and both sides of the best case."""
        digits = f", {self.exact_verdict} in 50 digits" if self.exact_verdict else ""
        return (
            f"Finding: {self.goal} {self.label}: {self.verdict}{digits}; "
            f"lesser side {self.lesser:.6g}, greater {self.greater:.6g}"
        )

    @property
    def refuted(self) -> bool:
        """Whether a violation was found, and many digits did not take it back."""
        return self.verdict == "violated" and self.exact_verdict in (None, "violated")

    @property
    def label(self) -> str:
        """The claim's name and the number of its law."""
        return f"{self.claim.name} (law {self.claim.number})"

    def plot(self, ax: Axes | None = None) -> Figure:
        """Return a figure of the best score of every start against the steps; or draw on ``ax``."""
        return plots.search_history(
            self.history,
            goal=self.goal,
            title=f"{self.goal} {self.label}: {self.claim.statement}",
            first_order_steps=self.search.steps,
            ax=ax,
        )


def judge(claim: Claim, cells: dict[str, np.ndarray]) -> Judged:
    """Return what a claim says of cells [cells, …] in float64, the same that ``verify`` says."""
    return judge_cells(claim.scope, (claim,), case_arrays(cells), "float64")[claim.name]


def judge_best(
    goal: Goal, claim: Claim, search: Search, cells: dict[str, np.ndarray], history: np.ndarray
) -> Finding:
    """Return the best of the cells; where there are violations, the worst of these."""
    judged = judge(claim, cells)
    scores = np.asarray(score_sides(claim, goal, judged.comparison, np))
    broken = (judged.verdict == Verdict.VIOLATED) & (goal == "refute")
    ranked = np.where(np.isnan(scores) | (broken.any() & ~broken), -np.inf, scores)
    best = np.unravel_index(int(ranked.argmax()), ranked.shape)  # (start, its comparison …)
    score, start = float(ranked[best]), int(best[0])
    near = broken if broken.any() else ranked >= score - SHARE_TOLERANCE * abs(score)
    case = make_case(goal, claim, search, {key: x[start] for key, x in cells.items()})
    case = up_to_comparison(case, ranked.shape[1:], int(ranked[start].argmax()))
    exact, exact_verdict = ask_many_digits(case)
    return Finding(
        goal=goal,
        claim=claim,
        search=search,
        history=history,
        score=score,
        lesser=float(judged.comparison.lesser[best]),
        greater=float(judged.comparison.greater[best]),
        margin=float(judged.comparison.margin[best]),
        verdict=Verdict(int(judged.verdict[best])).label,
        exact=exact,
        exact_verdict=exact_verdict,
        share=float(near.reshape(len(near), -1).any(1).mean()),
        case=case,
    )


def make_case(goal: Goal, claim: Claim, search: Search, cell: dict[str, np.ndarray]) -> Case:
    """Return a cell as a case that can be saved, with all that is needed to search it again."""
    about = provenance(f"probe {goal} {claim.name}", search, dtype="float64")
    about |= {"config": search.as_dict(), "versions": versions()}
    if claim.scope == "stack":  # its arrays are matrices, without the logits that made them
        about |= {"logits": cell["logits"].tolist(), "epsilon": float(cell["epsilon"])}
    return Case(
        claim=claim.name,
        scope=claim.scope,
        family="probe",
        arrays=case_arrays(cell),
        about=about,
    )


def ask_many_digits(case: Case) -> tuple[tuple[Any, Any] | None, str | None]:
    """Return both sides and the verdict in 50 digits; None where the referee says nothing."""
    sides = in_many_digits(case, REFEREED_SIZE)
    return sides, None if sides is None else Verdict(decided(case.claim, *sides)).label
