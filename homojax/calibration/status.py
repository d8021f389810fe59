"""How a calibration ended, and why, in words."""

from __future__ import annotations

import enum


class CalibrationStatus(enum.IntEnum):
    """How a calibration ended. ε is NaN with every status but ``FOUND``.

    >>> CalibrationStatus(2).name
    'NO_DETAIL'
    """

    FOUND = 0
    UNREACHABLE = 1  # root="first": by no ε that floats resolve; "last": by none that was tried
    NO_DETAIL = 2  # a layer's logits are row and column shifts, to rounding: σ₂ = 0 at every ε
    BAD_TARGET = 3  # outside (0, 1), or NaN
    NOT_FINITE = 4  # a logit is NaN or +∞, or two differ by more than the largest number
    NOT_CONVERGED = 5  # a projection on the way did not, or the last interval did not close
    # root="first": every ε tried meets the target. "last": the hottest does. Logits of −inf keep
    # that much detail however large ε is.
    ALWAYS_MET = 6
    INFEASIBLE = 7  # no doubly stochastic matrix is 0 wherever the logits are −inf


_REASONS = {
    CalibrationStatus.UNREACHABLE: "no ε keeps so much: a smaller target, or other logits",
    CalibrationStatus.NO_DETAIL: "logits of a layer are row and column shifts: σ₂ = 0 at every ε",
    CalibrationStatus.BAD_TARGET: "it must be strictly between 0 and 1",
    CalibrationStatus.NOT_FINITE: "a logit is NaN or +inf, or two are too far apart",
    CalibrationStatus.NOT_CONVERGED: "try float64, or a larger max_projections",
    CalibrationStatus.ALWAYS_MET: "every ε keeps more: a larger target, or fewer logits of −inf",
    CalibrationStatus.INFEASIBLE: "too many logits are −inf",
}
CALIBRATION_WORDS = tuple(
    f"{status.name} ({_REASONS[status]})" if status in _REASONS else status.name
    for status in CalibrationStatus
)
