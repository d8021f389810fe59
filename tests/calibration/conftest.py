"""What the tests of calibration share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def counterexamples():
    """The folder of logits that refute σ₂'s monotony."""
    return Path(__file__).parents[2] / "docs" / "counterexamples"
