"""What the measurement has to show, read off its rows: a line each, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, pstdev

from tests.benchmarks.harness.goal import Goal, compared
from tests.benchmarks.harness.rows import average, chosen, distinct
from tests.benchmarks.papers.l2t.cells import Row
from tests.benchmarks.papers.l2t.methods import OURS

LIMITED = 250
"""Training images a class up to which data is limited (paper, figure 5)."""
UNEVEN = 0.1
"""Standard deviation of λ over pairs from which it was learned where to transfer; every pair
starts at 1."""


def goals(rows: Sequence[Row]) -> list[Goal]:
    ours = distinct(chosen(rows, method=OURS), "source")
    if not ours:
        return []
    single = next((source for source in ours if "+" not in source), ours[0])
    found = []
    for samples in counts(rows):
        if samples <= LIMITED:
            some = chosen(rows, samples_per_class=samples)
            found += _limited(some, f"{samples} a class: ", single)
    what = "λ is not uniform: standard deviation over pairs"
    spread = pstdev(where(rows, single).values())
    return [*found, compared(what, "0 to 1 and more (figure 3d)", f"≥ {UNEVEN}", spread, "{:.2f}")]


def _limited(rows: Sequence[Row], start: str, single: str) -> list[Goal]:
    """Hold what was learned from one source, and from several, against the other methods."""
    means = {
        (method, source): known.mean
        for method, source in distinct(rows, "method", "source")
        if (known := average(chosen(rows, method=method, source=source), "accuracy")) is not None
    }
    ours = {source: value for (method, source), value in means.items() if method == OURS}
    reached = ours.pop(single, None)
    if reached is None:
        return []
    others = {
        method: value
        for (method, source), value in means.items()
        if method != OURS and source in ("", single)
    }
    found = []
    if (scratch := others.pop("scratch", None)) is not None:
        found.append((f"{OURS} above scratch", "+3.3 to +26.2 points", "> 0", reached - scratch))
    if others:
        best = max(others, key=lambda method: others[method])
        what = f"{OURS} above every other ({best} is next)"
        found.append((what, "+0.7 to +6.2 points", "> 0", reached - others[best]))
    for several, both in ours.items():
        for (method, source), value in means.items():
            if source == several and method != OURS:
                what = f"{OURS} above {method}, both from {several}"
                found.append((what, "not measured", "> 0", both - value))
        what = f"{several} no worse than {single} alone"
        found.append((what, "+1.0 to +2.2 points", "≥ 0", both - reached))
    return [compared(start + what, papers, bar, value) for what, papers, bar, value in found]


def counts(rows: Sequence[Row]) -> list[int]:
    """Return the numbers of training images a class, fewest first."""
    return sorted(distinct(rows, "samples_per_class"))


def where(rows: Sequence[Row], source: str) -> dict[str, float]:
    """Return the mean λ of every pair over seeds and numbers of images; empty if not learned."""
    found = [row.where for row in chosen(rows, method=OURS, source=source)]
    return {pair: mean(one[pair] for one in found) for pair in (found[0] if found else {})}
