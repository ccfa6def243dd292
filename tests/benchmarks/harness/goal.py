"""What a measurement has to show, and whether it did."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass

_SIGNS = {"≤": operator.le, "≥": operator.ge, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Goal:
    """One bar."""

    what: str
    papers: str
    bar: str
    ours: str
    met: bool | None
    """None where the baseline leaves no room for it."""

    @property
    def verdict(self) -> str:
        """Say it in a word or two."""
        return {True: "met", False: "missed", None: "no room"}[self.met]


def compared(what: str, papers: str, bar: str, value: float, shown: str = "{:+.1f} points") -> Goal:
    """Hold a number against a bar that begins with ≤, ≥, < or > and a number: "≤ 5 points"."""
    found = re.match("([≤≥<>]) ([+−]?[0-9.]+)", bar)
    assert found is not None  # bars are written here, not read
    least = float(found[2].replace("−", "-"))
    return Goal(what, papers, bar, shown.format(value), _SIGNS[found[1]](value, least))


def markdown(goals: Sequence[Goal]) -> str:
    """Return the goals as a table; empty if there are none."""
    if not goals:
        return ""
    lines = ["| what | paper | must be | ours | |", "|---|---|---|---|---|"]
    lines += [f"| {g.what} | {g.papers} | {g.bar} | {g.ours} | {g.verdict} |" for g in goals]
    return "\n".join(lines) + "\n"
