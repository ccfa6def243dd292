from __future__ import annotations

import pytest

from rootstock.common.nets.calibration import MIN_SCALE
from rootstock.site_agent.consent.rounding import rounded


@pytest.mark.parametrize(
    ("value", "leaves"),
    [
        (100 / 41, 2.439),
        (12.345678, 12.35),
        (-0.00123456, -0.001235),
        (123456.7, 123500.0),
        (100.0, 100.0),
        (0.0, 0.0),
        (1_234_567.0, 1_234_567.0),  # a count
        (MIN_SCALE * 1.00004, MIN_SCALE),
    ],
)
def test_four_digits_leave(value: float, leaves: float) -> None:
    assert rounded(value) == leaves
