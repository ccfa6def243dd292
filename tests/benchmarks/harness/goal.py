"""What a measurement has to show, and whether its seeds support that it does."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from scipy import stats

_SIGNS = {"≤": operator.le, "≥": operator.ge, "<": operator.lt, ">": operator.gt}
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Goal:
    """One bar."""

    what: str
    papers: str
    bar: str
    ours: str
    met: bool | None
    """By the mean over seeds; None where the baseline leaves no room for it."""
    value: float | None = None
    """The number that is held against the bar; None where it is an order of several."""
    supported: bool | None = None
    """Whether the seeds support that it is met, with a confidence of 95%; None: not asked yet."""

    @property
    def verdict(self) -> str:
        """Say it in a word or two."""
        if self.met and self.supported is False:
            return "open"
        return {True: "met", False: "missed", None: "no room"}[self.met]


def compared(what: str, papers: str, bar: str, value: float, shown: str = "{:+.1f} points") -> Goal:
    """Hold a number against a bar that begins with ≤, ≥, < or > and a number: "≤ 5 points"."""
    sign, least = _limit(bar)
    met = _SIGNS[sign](value, least)
    return Goal(what, papers, bar, shown.format(value), met, value)


def by_seeds(goals: Sequence[Goal], by_seed: Sequence[Sequence[Goal]]) -> list[Goal]:
    """Say of goals that are met by their means whether the seeds support it.

    `by_seed` holds the same goals, each read off one seed's rows alone, so that what is compared is
    compared within a seed. A number is supported where a one-sided t-test of the seeds' numbers
    against the bar has p ≤ 0.05; an order of several where it holds in every seed, and would by
    chance (one half each) in 5% of cases at most: from five seeds on.
    """
    found = []
    for goal in goals:
        own = [one for seed in by_seed for one in seed if one.what == goal.what]
        whole = len(own) == len(by_seed) >= 2
        found.append(replace(goal, supported=whole and _supported(goal, own)))
    return found


def _supported(goal: Goal, by_seed: Sequence[Goal]) -> bool:
    values = [one.value for one in by_seed if one.value is not None]
    if goal.value is None or len(values) < len(by_seed):
        return all(one.met for one in by_seed) and 0.5 ** len(by_seed) <= 1 - _CONFIDENCE
    sign, least = _limit(goal.bar)
    room = [value - least if sign in "≥>" else least - value for value in values]
    if stdev(room) == 0:
        return all(one.met for one in by_seed)
    quantile = float(stats.t.ppf(_CONFIDENCE, len(room) - 1))
    return mean(room) > quantile * stdev(room) / math.sqrt(len(room))


def _limit(bar: str) -> tuple[str, float]:
    found = re.match("([≤≥<>]) ([+−]?[0-9.]+)", bar)
    assert found is not None  # bars are written here, not read
    return found[1], float(found[2].replace("−", "-"))


def markdown(goals: Sequence[Goal]) -> str:
    """Return the goals as a table; empty if there are none."""
    if not goals:
        return ""
    lines = ["| what | paper | must be | ours | |", "|---|---|---|---|---|"]
    lines += [f"| {g.what} | {g.papers} | {g.bar} | {g.ours} | {g.verdict} |" for g in goals]
    if any(goal.verdict == "open" for goal in goals):
        lines += ["", "open: met by the mean, not supported at 95% (one-sided, paired by seed)."]
    return "\n".join(lines) + "\n"
