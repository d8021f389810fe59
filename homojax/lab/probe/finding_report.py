"""What a person reads of a finding: what the search found, both sides, and the logits."""

from __future__ import annotations

import numpy as np

from homojax.calibration.sensitivity import sensitivity
from homojax.lab.page import Section, Table
from homojax.lab.probe.finding import Finding

WIDEST_TABLE = 16  # n up to which logits are printed
DIGITS = 4  # of logits that were not reduced
BUG = (
    "It is marked a theorem: THIS IS A BUG OF OURS until shown otherwise; please report it with "
    "the saved case."
)


def describe_finding(finding: Finding) -> Section:
    """Return what a search found. Its text is a warning where the theory says otherwise."""
    known_false = finding.claim.status == "refuted"
    return Section(
        heading="",
        text=_tightened(finding) if finding.goal == "tighten" else _hunted(finding),
        as_expected=finding.goal == "tighten" or finding.refuted == known_false,
        tables=[_both_sides(finding), *_logits(finding)],
        about={"claim": finding.claim.name, **finding.case.about},
    )


def _tightened(finding: Finding) -> str:
    return (
        f"{finding.label} at n = {finding.search.n}: the lesser side reaches "
        f"{finding.lesser:.9g} where the greater is {finding.greater:.9g}, {finding.score:.6f} of "
        f"the bound. {finding.share:.0%} of the starts came within 1e-3 of that."
    )


def _hunted(finding: Finding) -> str:
    """Say whether a violation was found, and what that means for the claim."""
    name, n = finding.label, finding.search.n
    if not finding.refuted:
        text = (
            f"{name} was not refuted at n = {n}: the nearest case scored {finding.score:.3g} "
            f"({finding.verdict})."
        )
        if finding.verdict == "violated":
            text += (
                f" float64 found a violation, and 50 digits take it back: {finding.exact_verdict}."
            )
        if finding.claim.status == "refuted":
            text += " It is known to be false: give the search more starts or steps, or another n."
        return text
    exact = "in 50 digits, too" if finding.exact else "in float64 alone: it has no referee"
    text = (
        f"{name} is VIOLATED at n = {n}: {finding.lesser:.9g} > {finding.greater:.9g} ({exact}). "
        f"{finding.share:.0%} of the starts broke it."
    )
    if finding.claim.status == "theorem":
        text += f" {BUG}"
    if finding.claim.status == "conjecture":
        text += " It was a conjecture: this case decides it."
    if finding.claim.name == "sigma2_falls":
        logits, epsilon = (finding.case.arrays[key] for key in ("logits", "epsilon"))
        slope = float(sensitivity(logits, epsilon).epsilon_slope)
        text += f" dσ₂/dε = {slope:+.4f} at ε = {float(epsilon):g}."
    return text


def _both_sides(finding: Finding) -> Table:
    rows = [
        [
            "float64",
            f"{finding.lesser:.12g}",
            f"{finding.greater:.12g}",
            f"{finding.margin:.2g}",
            finding.verdict,
        ]
    ]
    if finding.exact is not None:
        sides = (str(side)[:24] for side in finding.exact)
        rows.append(["50 digits", *sides, "0", str(finding.exact_verdict)])
    header = ["precision", "lesser", "greater", "margin", "verdict"]
    return Table("Both sides of the comparison", header, rows)


def _logits(finding: Finding) -> list[Table]:
    """Return a table of the logits, the shortest there are; none where n is large."""
    case = finding.case if finding.reduced is None else finding.reduced
    values = {**case.about, **case.arrays}  # a stack has its logits beside its arrays
    logits = np.asarray(values["logits"])
    n = logits.shape[-1]
    if n > WIDEST_TABLE:
        return []
    digits = DIGITS if finding.digits is None else finding.digits
    short = "" if finding.reduced is None else ", with the fewest digits that keep the violation"
    caption = f"Logits{short}; ε = {float(values['epsilon']):g}"
    for key in ("alpha", "probe"):
        if key in values:
            caption += f", {key} = {np.round(values[key], max(digits, 2)).tolist()}"
    rows = [[f"{x:.{digits}f}" for x in row] for row in logits.reshape(-1, n)]
    return [Table(caption, [str(j + 1) for j in range(n)], rows)]
