"""Is a layer, or a stack, in the trap? The verdict, its certainty, and its reason in words."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from homojax.lab.audit.config import Audit

Verdict = Literal["healthy", "near-identity", "trap", "locked", "unconverged", "none"]
Certainty = Literal["every token", "recorded sample", "static part", "undecidable"]

WORDS: dict[Verdict, str] = {
    "healthy": "healthy",
    "near-identity": "near the identity",
    "trap": "in the trap",
    "locked": "locked",
    "unconverged": "not doubly stochastic",
    "none": "no mixing matrix",
}


class Span(NamedTuple):
    """What is known of a number: it is between these."""

    low: float
    high: float
    measured: float | None = None  # as the stored numbers have it, without their rounding

    def below(self, threshold: float) -> bool | None:
        """Whether the number is below a threshold; None where that cannot be told."""
        if self.high < threshold:
            return True
        return False if self.low >= threshold else None

    def likely_below(self, threshold: float) -> bool:
        """Whether the number is below a threshold, or likely is: as measured, else half-way."""
        below = self.below(threshold)
        middle = (self.low + self.high) / 2 if self.measured is None else self.measured
        return middle < threshold if below is None else below

    def __str__(self) -> str:
        low, high = f"{self.low:.3g}", f"{self.high:.3g}"
        if low == "0" and high not in ("0", "1"):
            stored = high if self.measured is None else f"{self.measured:.3g}"
            return f"at most {high}" + (stored != high) * f" (the stored numbers: {stored})"
        return high if low == high else f"between {low} and {high}"


class Facts(NamedTuple):
    """What a verdict about one layer rests on."""

    sum_error: Span  # the largest |sum − 1| as run
    leaving: Span  # the mean share of a stream that goes to others, converged
    response: Span  # ‖∂M/∂S‖₂, in units of ε, converged
    sigma2: Span  # converged


class Judged(NamedTuple):
    """A verdict."""

    verdict: Verdict
    certainty: Certainty
    reason: str


NO_MATRIX = Judged("none", "every token", "streams are read and written, and never mixed")


def judge_layer(facts: Facts, audit: Audit, certainty: Certainty) -> Judged:
    """Return the verdict about one layer: the first of these that holds.

    Not doubly stochastic, locked, near the identity, in the trap, healthy. Where a step cannot be
    told, the verdict is that of what is measured, else of the middle of what is known, and its
    certainty "undecidable".
    """
    told = True
    for verdict, span, threshold, above, reason in _steps(facts, audit):
        told = told and span.below(threshold) is not None
        if span.likely_below(threshold) != above:
            return Judged(verdict, certainty if told else "undecidable", reason)
    reason = f"σ₂ = {facts.sigma2} once converged"
    return Judged("healthy", certainty if told else "undecidable", reason)


def _steps(facts: Facts, audit: Audit) -> list[tuple[Verdict, Span, float, bool, str]]:
    """Return verdicts in their order: of which number, past which threshold, and why."""
    return [
        (
            "unconverged",
            facts.sum_error,
            audit.sum_error,
            True,
            f"a row or column sum misses 1 by {facts.sum_error}",
        ),
        (
            "locked",
            facts.response,
            audit.response,
            False,
            f"no entry moves by more than {facts.response} times a change of the logits",
        ),
        (
            "near-identity",
            facts.leaving,
            audit.near_identity,
            False,
            f"a share of {facts.leaving} of each stream goes to others",
        ),
        (
            "trap",
            facts.sigma2,
            audit.retention,
            False,
            f"σ₂ = {facts.sigma2} once converged",
        ),
    ]


def judge_tokens(values: dict[str, np.ndarray], audit: Audit) -> Judged:
    """Return the verdict that most recorded tokens have; of equally many, the first of the order.

    Args:
        values: [T] each, of ``recorded.Sample``; a token with a number that is not finite has none.
        audit: the thresholds.
    """
    there = np.isfinite(np.stack(list(values.values()))).all(0)
    if not there.any():
        return Judged("healthy", "undecidable", "no recorded token has a doubly stochastic limit")
    values = {name: x[there] for name, x in values.items()}
    error = np.maximum(values["row_error"], values["col_error"])
    names: list[Verdict] = ["unconverged", "locked", "near-identity", "trap", "healthy"]
    steps = (
        (error, error > audit.sum_error, "a row or column sum misses 1 by {}"),
        (
            values["response_converged"],
            values["response_converged"] < audit.response,
            "the entry that answers most moves by {} times a change of the logits",
        ),
        (
            values["leaving_converged"],
            values["leaving_converged"] < audit.near_identity,
            "a share of {} of each stream goes to others",
        ),
        (
            values["sigma2_converged"],
            values["sigma2_converged"] < audit.retention,
            "σ₂ = {} once converged",
        ),
    )
    which = np.select([holds for _, holds, _ in steps], range(len(steps)), len(steps))
    counts = np.bincount(which, minlength=len(names))
    most = int(counts.argmax())
    of, _, text = steps[min(most, len(steps) - 1)]
    low, middle, high = np.quantile(of[which == most], (0, 0.5, 1))
    shown = f"{middle:.3g} ({low:.3g} to {high:.3g})"
    share = f"{counts[most] / len(which):.0%} of {len(which):,} recorded tokens"
    return Judged(names[most], "recorded sample", f"of {share}, {text.format(shown)}")


class Stack(NamedTuple):
    """What a verdict about the stack rests on: its layers' verdicts, and the composite."""

    layers: list[Judged]
    sigma2: Span  # of the composite, converged
    unconverged_share: float  # of its collapse as run: what vanishes on convergence
    certainty: Certainty  # of what is known of the composite
    sigma2_upper: float  # of the composite, converged, for every token
    sum_error_upper: float  # of the layers as run, for every token
    sigma2_run: Span = Span(1.0, 1.0)  # of the composite, as run
    constants_share: float = 0.0  # of that collapse: what vanishes without the code's constants


def judge_stack(stack: Stack, audit: Audit) -> Judged:
    """Return the verdict about a stack.

    No mixing matrix; not doubly stochastic (a layer is not, and on convergence the composite leaves
    the trap, or half or more of its collapse vanishes); in the trap, by the composite converged or
    as run; else what most layers are: locked, or near the identity; else healthy.
    """
    depth, whole = len(stack.layers), stack.certainty
    count = {name: sum(x.verdict == name for x in stack.layers) for name in WORDS}
    if count["none"] == depth:
        return NO_MATRIX
    unsure = [x for x in stack.layers if x.certainty == "undecidable"]

    def told(verdict: Verdict, certainty: str, reason: str, decided: bool) -> Judged:
        if verdict != "unconverged" and count["unconverged"]:
            of = "matrix is" if depth == 1 else "matrices are"
            reason += f"; {count['unconverged']} of {depth} {of} not doubly stochastic as run"
        return Judged(verdict, certainty if decided else "undecidable", reason)  # type: ignore

    kept = stack.sigma2, stack.sigma2_run
    below, run_below = (span.below(audit.retention) for span in kept)
    little, little_run = (span.likely_below(audit.retention) for span in kept)
    leaves_the_trap = little_run and not little
    cut_short = stack.unconverged_share >= 0.5 or leaves_the_trap
    if count["unconverged"] and cut_short:
        sure = any(x.verdict == "unconverged" and x not in unsure for x in stack.layers)
        sure = sure and (stack.unconverged_share >= 0.5 or (run_below and below is False))
        return told("unconverged", whole, _unconverged(stack, count["unconverged"]), bool(sure))
    converged = not cut_short or not unsure
    layers = counted(depth, "layer")
    reason = f"after {layers} {stack.sigma2} of the detail is left, once converged"
    if little:
        proved = stack.sigma2_upper < audit.retention and stack.sum_error_upper < audit.sum_error
        if proved and whole != "every token":
            whole, most = "every token", f"{stack.sigma2_upper:.3g}"
            reason = f"after {layers} at most {most} of any token's detail is left, once converged"
        return told("trap", whole, reason, converged and bool(below))
    converged = converged and below is False
    if little_run:
        reason = f"after {layers} {stack.sigma2_run} of the detail is left as run, and "
        reason += f"{stack.sigma2} once converged{_constants(stack, '; ')}"
        return told("trap", whole, reason, converged and bool(run_below))
    converged = converged and run_below is False
    for verdict in ("locked", "near-identity"):
        most = f"{count[verdict]} of {depth} layers are {WORDS[verdict]}"
        least = sum(x.verdict == verdict and x not in unsure for x in stack.layers)
        if count[verdict] * 2 >= depth:
            return told(verdict, whole, most, converged and least * 2 >= depth)
        converged = converged and (least + len(unsure)) * 2 < depth
    return told("healthy", whole, reason, converged)


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    >>> counted(1, "layer"), counted(2000, "layer")
    ('1 layer', '2,000 layers')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _unconverged(stack: Stack, count: int) -> str:
    told = f"{count} of {len(stack.layers)} matrices are not doubly stochastic as run: "
    if stack.unconverged_share < 0.5:
        return f"{told}{stack.sigma2_run} of the detail is left, and {stack.sigma2} once converged"
    return (
        f"{told}what looks like collapse is an unconverged projection. Of the composite's "
        f"collapse, {stack.unconverged_share:.0%} vanishes on "
        f"convergence{_constants(stack, ', and ')}"
    )


def _constants(stack: Stack, joint: str) -> str:
    """Return how much of the collapse the code's constants make, where that is half or more."""
    if stack.constants_share < 0.5:
        return ""
    return (
        f"{joint}{stack.constants_share:.0%} of the collapse as run vanishes without the constants "
        "that the code adds to entries and sums"
    )
