"""Rows of a measurement: chosen by their values, and their means over seeds. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass
from operator import attrgetter
from statistics import stdev
from typing import Any, ClassVar, Protocol, TypeVar

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

    def __format__(self, spec: str) -> str:
        """Return "12.3 ±0.4", both numbers by the specification."""
        spec = spec or ".1f"
        return format(self.mean, spec) + ("" if self.half is None else f" ±{self.half:{spec}}")

    def __str__(self) -> str:
        return format(self)


class Row(Protocol):
    """What a run measured once: a frozen dataclass, which also is a line of the JSON."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def seed(self) -> int: ...


RowT = TypeVar("RowT", bound=Row)
Value = str | Callable[[Any], float | None]
"""A number of a row: an attribute's name, or a function of the row."""


def chosen(rows: Iterable[RowT], **wanted: object) -> list[RowT]:
    """Return the rows whose attributes have these values."""
    return [
        row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())
    ]


def distinct(rows: Iterable[Row], *names: str) -> list[Any]:
    """Return the values of an attribute, or tuples of several, each once, in the rows' order."""
    return list(dict.fromkeys(map(attrgetter(*names), rows)))


def read(value: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what reads an attribute of a row, or the function itself."""
    return attrgetter(value) if isinstance(value, str) else value


def average(rows: Iterable[Row], value: Value) -> Interval | None:
    """Return the mean over seeds of the mean of each seed's values.

    None if there are none, or one of them is missing.
    """
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        number = read(value)(row)
        if number is None:
            return None
        by_seed.setdefault(row.seed, []).append(number)
    if not by_seed:
        return None
    means = [statistics.mean(numbers) for numbers in by_seed.values()]
    if len(means) == 1:
        return Interval(means[0], None)
    quantile = _STUDENT_95[min(len(means) - 1, len(_STUDENT_95)) - 1]
    return Interval(statistics.mean(means), quantile * stdev(means) / math.sqrt(len(means)))


def mean(rows: Iterable[Row], value: Value) -> float:
    """Return the mean over seeds alone, of rows that all have the value."""
    found = average(rows, value)
    assert found is not None
    return found.mean


def over(rows: Iterable[Row]) -> str:
    """Say which seeds a mean is over."""
    seeds = ", ".join(map(str, sorted(set(distinct(rows, "seed")))))
    return f"seeds {seeds}; ± half a 95% interval over seeds"
