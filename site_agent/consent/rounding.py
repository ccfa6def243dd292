"""Numbers are rounded before they leave: digits that no count of images supports tell of images."""

from __future__ import annotations

DIGITS = 4
"""Significant digits. A share of 1,000 validation images has three."""


def rounded(value: float) -> float:
    """Return a number with four significant digits; whole numbers are counts, and stay."""
    return value if value == int(value) else float(f"{value:.{DIGITS}g}")
