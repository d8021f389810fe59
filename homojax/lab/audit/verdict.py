"""Is a layer, or a stack, in the trap? The verdict, its certainty, and its reason in words."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from homojax.lab.audit.config import Audit

Verdict = Literal["healthy", "near-identity", "trap", "locked", "unconverged", "none"]
Certainty = Literal["every token", "static part", "recorded sample", "undecidable"]

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

    def below(self, threshold: float) -> bool | None:
        """Whether the number is below a threshold; None where that cannot be told."""
        if self.high < threshold:
            return True
        return False if self.low >= threshold else None

    def __str__(self) -> str:
        near = self.high - self.low <= 2e-3 * max(abs(self.high), 1e-300)
        return f"{self.high:.3g}" if near else f"between {self.low:.3g} and {self.high:.3g}"


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
    told, the verdict is that of the middle of what is known, and its certainty "undecidable".
    """
    told = True
    for verdict, span, threshold, above, reason in _steps(facts, audit):
        below = span.below(threshold)
        told = told and below is not None
        below = (span.low + span.high) / 2 < threshold if below is None else below
        if below != above:
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


class Stack(NamedTuple):
    """What a verdict about the stack rests on: its layers' verdicts, and the composite."""

    layers: list[Judged]
    sigma2: Span  # of the composite, converged
    unconverged_share: float
    dynamic: bool  # whether any layer depends on the token
    sigma2_upper: float = np.inf  # of the composite, converged, for every token


def judge_stack(stack: Stack, audit: Audit) -> Judged:
    """Return the verdict about a stack.

    No mixing matrix; not doubly stochastic (a layer is not, and half or more of the composite's
    collapse vanishes on convergence); in the trap, by the converged composite; else what most
    layers are: locked, or near the identity; else healthy.
    """
    count = {name: sum(x.verdict == name for x in stack.layers) for name in WORDS}
    whole: Certainty = "static part" if stack.dynamic else "every token"
    if count["none"] == len(stack.layers):
        return NO_MATRIX
    if count["unconverged"] and stack.unconverged_share >= 0.5:
        told = [x.certainty for x in stack.layers if x.verdict == "unconverged"]
        certainty: Certainty = whole if set(told) != {"undecidable"} else "undecidable"
        return Judged("unconverged", certainty, _unconverged(stack, count["unconverged"]))
    below = stack.sigma2.below(audit.retention)
    if below is None:
        middle = (stack.sigma2.low + stack.sigma2.high) / 2
        verdict: Verdict = "trap" if middle < audit.retention else "healthy"
        return Judged(verdict, "undecidable", f"the composite keeps {stack.sigma2} of the detail")
    depth = len(stack.layers)
    if below:
        certainty = "every token" if stack.sigma2_upper < audit.retention else whole
        reason = f"after {depth} layers {stack.sigma2} of the detail is left, once converged"
        return Judged("trap", certainty, reason)
    for verdict in ("locked", "near-identity"):
        if count[verdict] * 2 >= depth:
            told = [x.certainty for x in stack.layers if x.verdict == verdict]
            sure = sum(x == "every token" for x in told) * 2 >= depth
            reason = f"{count[verdict]} of {depth} layers are {WORDS[verdict]}"
            return Judged(verdict, "every token" if sure and not stack.dynamic else whole, reason)
    return Judged("healthy", whole, f"after {depth} layers {stack.sigma2} of the detail is left")


def _unconverged(stack: Stack, count: int) -> str:
    return (
        f"{count} of {len(stack.layers)} matrices are not doubly stochastic as run: what looks "
        f"like collapse is an unconverged projection. Of the composite's collapse, "
        f"{stack.unconverged_share:.0%} vanishes on convergence"
    )
