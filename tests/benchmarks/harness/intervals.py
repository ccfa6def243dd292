"""Means over seeds with Student's 95% interval. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, stdev

_STUDENT_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Two-sided 95% quantiles for 1 to 30 degrees of freedom (seeds − 1); the last serves beyond."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and half the width of its 95% interval, None with one seed."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        """Return "12.3 ±0.4"."""
        return f"{self.mean:.1f}" + ("" if self.half is None else f" ±{self.half:.1f}")


def over_seeds(values: Iterable[tuple[int, float | None]]) -> Interval | None:
    """Return the mean over seeds of the mean of each seed's values.

    Parameters
    ----------
    values
        (seed, value) each, any number a seed.

    Returns
    -------
    None if there are none, or one of them is missing.
    """
    by_seed: dict[int, list[float]] = {}
    for seed, value in values:
        if value is None:
            return None
        by_seed.setdefault(seed, []).append(value)
    if not by_seed:
        return None
    means = [mean(numbers) for numbers in by_seed.values()]
    if len(means) == 1:
        return Interval(means[0], None)
    quantile = _STUDENT_95[min(len(means) - 1, len(_STUDENT_95)) - 1]
    return Interval(mean(means), quantile * stdev(means) / math.sqrt(len(means)))
