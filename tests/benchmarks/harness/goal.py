"""What a measurement has to show, and whether it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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


def markdown(goals: Sequence[Goal]) -> str:
    """Return the goals as a table; empty if there are none."""
    if not goals:
        return ""
    lines = ["| what | paper | must be | ours | |", "|---|---|---|---|---|"]
    lines += [f"| {g.what} | {g.papers} | {g.bar} | {g.ours} | {g.verdict} |" for g in goals]
    return "\n".join(lines) + "\n"
