"""What a run measures, a line a target net, and means over seeds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean

from tests.benchmarks.harness.intervals import Interval, over_seeds


@dataclass(frozen=True)
class Row:
    """One target net, judged."""

    source: str
    """Names of the sources with + between them; "" without."""
    target: str
    method: str
    samples_per_class: int
    seed: int
    accuracy: float
    """In percent on test images."""
    where: dict[str, float] = field(default_factory=dict)
    """λ by pair ("source/m->n"): mean over images and the last steps; empty unless learned."""


Kind = tuple[str, str]
"""A method and its sources."""


def kinds(rows: Iterable[Row]) -> list[Kind]:
    """Return what was compared, in the rows' order."""
    return list(dict.fromkeys((row.method, row.source) for row in rows))


def counts(rows: Iterable[Row]) -> list[int]:
    """Return the numbers of training images a class, fewest first."""
    return sorted({row.samples_per_class for row in rows})


def accuracy(rows: Iterable[Row], kind: Kind, samples: int) -> Interval | None:
    """Return the mean accuracy over seeds; None if that was not measured."""
    return over_seeds(
        (row.seed, row.accuracy)
        for row in rows
        if (row.method, row.source) == kind and row.samples_per_class == samples
    )


def where(rows: Sequence[Row], kind: Kind) -> dict[str, float]:
    """Return the mean λ of every pair over seeds and numbers of images; empty if not learned."""
    found = [row.where for row in rows if (row.method, row.source) == kind]
    return {pair: mean(one[pair] for one in found) for pair in (found[0] if found else {})}
