"""Rows into means with intervals, beside the paper's figures. Pure.

The unit of a mean is a seed: first over categories, then over seeds, with Student's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import mean

from tests.benchmarks.harness.intervals import Interval, over_seeds
from tests.benchmarks.papers.transplant.cells import Row

PAPER: dict[tuple[int, str, str], dict[int, float]] = {
    (1, "direct-learn", "3x3"): {10: 38.76, 20: 25.98, 50: 14.84, 100: 9.79},
    (1, "back-distill", "3x3"): {0: 1.75, 10: 1.65, 20: 1.55, 50: 1.65, 100: 1.65},
    (1, "direct-learn", "3x3 x3"): {10: 33.92, 20: 25.15, 50: 11.96, 100: 8.66},
    (1, "back-distill", "3x3 x3"): {0: 49.90, 10: 11.65, 20: 5.77, 50: 3.40, 100: 2.37},
    (2, "direct-learn", "1x1 x3"): {10: 39.31, 20: 36.08, 50: 19.07, 100: 15.72},
    (2, "back-distill", "1x1 x3"): {10: 38.66, 20: 27.96, 50: 11.98, 100: 7.09},
    (3, "direct-learn", "1x1"): {10: 74.99, 20: 75.15, 50: 75.34, 100: 77.63},
    (3, "distill", "1x1"): {10: 75.09, 20: 75.04, 50: 76.01, 100: 78.35},
    (3, "back-distill", "1x1"): {10: 85.32, 20: 86.66, 50: 87.30, 100: 87.97},
    (4, "direct-learn", "1x1 x3"): {10: 39.69, 20: 28.10, 50: 17.65, 100: 15.98},
    (4, "back-distill", "1x1 x3"): {10: 33.51, 20: 18.82, 50: 7.73, 100: 4.64},
}
"""The paper's averages over categories (tables 2 to 4): errors, in Experiment 3 pixel accuracies,
both in percent. VGG-16 from ImageNet at 224 pixels: to be compared in shape, not in value."""

Value = Callable[[Row], float | None]


def interval(rows: Iterable[Row], value: Value) -> Interval | None:
    """Return the mean over seeds of the mean over categories; None if a value is missing."""
    return over_seeds((row.seed, value(row)) for row in rows)


def error(row: Row) -> float | None:
    """Return the error in percent, or the pixel accuracy in Experiment 3."""
    return row.pixel_accuracy if row.experiment == 3 else row.error


def calibrated(row: Row) -> float | None:
    """Return the error with the lab's calibration."""
    return row.calibrated_error


def teacher(row: Row) -> float | None:
    """Return the teacher's error, or pixel accuracy in Experiment 3."""
    return row.teacher_pixel_accuracy if row.experiment == 3 else row.teacher_error


def chosen(rows: Sequence[Row], method: str, adapter: str, samples: int) -> list[Row]:
    """Return the rows of one method, adapter and number of samples."""
    wanted = (method, adapter, samples)
    return [row for row in rows if (row.method, row.adapter, row.samples) == wanted]


def kinds(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return (method, adapter) in the order in which they come."""
    return list(dict.fromkeys((row.method, row.adapter) for row in rows))


def sample_counts(rows: Sequence[Row]) -> list[int]:
    """Return the numbers of samples, fewest first; the ceiling's, all, is no number."""
    return sorted({row.samples for row in rows if row.samples >= 0})


def ratio(
    rows: Sequence[Row],
    ours: tuple[str, str],
    other: tuple[str, str],
    samples: int,
    value: Value = error,
) -> float | None:
    """Return (ours − teacher) / (other − teacher), each a mean over categories and seeds."""
    means = []
    for method, adapter in (ours, other):
        found = chosen(rows, method, adapter, samples)
        if not found:
            return None
        numbers = [value(row) for row in found]
        teachers = [teacher(row) for row in found]
        if None in numbers or None in teachers:
            return None
        means.append(
            mean(n for n in numbers if n is not None) - mean(t for t in teachers if t is not None)
        )
    # Where the other is no worse than the teacher there is nothing to be a ratio of.
    return None if means[1] <= 0 else means[0] / means[1]
