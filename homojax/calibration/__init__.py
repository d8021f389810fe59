"""The ε at which a projection, or a stack of them, keeps a given share of detail."""

from homojax.calibration import sensitivity
from homojax.calibration.epsilon import (
    Calibration,
    calibrate_depth,
    calibrate_epsilon,
    epsilon_schedule,
)
from homojax.calibration.status import CalibrationStatus

__all__ = [
    "Calibration",
    "CalibrationStatus",
    "calibrate_depth",
    "calibrate_epsilon",
    "epsilon_schedule",
    "sensitivity",
]
