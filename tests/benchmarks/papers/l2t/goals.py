"""What the measurement has to show, read off its rows: a line each, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import pstdev

from tests.benchmarks.harness.goal import Goal
from tests.benchmarks.papers.l2t.methods import OURS
from tests.benchmarks.papers.l2t.rows import Kind, Row, accuracy, counts, kinds, where

LIMITED = 250
"""Training images a class up to which data is limited (paper, figure 5)."""
UNEVEN = 0.1
"""Standard deviation of λ over pairs from which it was learned where to transfer; every pair
starts at 1."""


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Return the goals that the rows say something about."""
    ours = [kind for kind in kinds(rows) if kind[0] == OURS]
    if not ours:
        return []
    single = next((kind for kind in ours if "+" not in kind[1]), ours[0])
    found = []
    for samples in (count for count in counts(rows) if count <= LIMITED):
        found += _limited(rows, samples, single, [kind for kind in ours if kind != single])
    spread = pstdev(where(rows, single).values())
    found.append(
        Goal(
            "λ is not uniform: standard deviation over pairs",
            "0 to 1 and more (figure 3d)",
            f"≥ {UNEVEN}",
            f"{spread:.2f}",
            spread >= UNEVEN,
        )
    )
    return found


def _limited(rows: Sequence[Row], samples: int, ours: Kind, several: Sequence[Kind]) -> list[Goal]:
    reached = _mean(rows, ours, samples)
    others = {
        kind: mean
        for kind in kinds(rows)
        if kind[0] != OURS and kind[1] in ("", ours[1])
        if (mean := _mean(rows, kind, samples)) is not None
    }
    if reached is None:
        return []
    found = []
    scratch = others.pop(("scratch", ""), None)
    if scratch is not None:
        found.append(
            _above(f"{OURS} above scratch", samples, "+3.3 to +26.2 points", reached - scratch)
        )
    if others:
        best = max(others, key=lambda kind: others[kind])
        what = f"{OURS} above every other ({best[0]} is next)"
        found.append(_above(what, samples, "+0.7 to +6.2 points", reached - others[best]))
    for kind in several:
        both = _mean(rows, kind, samples)
        if both is None:
            continue
        alike = [(m, source) for m, source in kinds(rows) if source == kind[1] and m != OURS]
        for other in alike:
            mean = _mean(rows, other, samples)
            if mean is not None:
                what = f"{OURS} above {other[0]}, both from {kind[1]}"
                found.append(_above(what, samples, "not measured", both - mean))
        better = both - reached
        found.append(
            Goal(
                f"{samples} a class: {kind[1]} no worse than {ours[1]} alone",
                "+1.0 to +2.2 points",
                "≥ 0",
                f"{better:+.1f} points",
                better >= 0,
            )
        )
    return found


def _above(what: str, samples: int, papers: str, better: float) -> Goal:
    ours = f"{better:+.1f} points"
    return Goal(f"{samples} a class: {what}", papers, "> 0", ours, better > 0)


def _mean(rows: Sequence[Row], kind: Kind, samples: int) -> float | None:
    found = accuracy(rows, kind, samples)
    return None if found is None else found.mean
