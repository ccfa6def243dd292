"""Witnesses: other labs that say how often a new join says yes on images that show it not. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from rootstock.coordinator.config import WitnessesConfig


def chosen(merge_id: str, labs: Iterable[str], number: int) -> list[str]:
    """Return so many of the labs, or all: another choice for each merge, the same each time."""

    def draw(lab: str) -> bytes:
        return hashlib.sha256(f"{merge_id} {lab}".encode()).digest()

    return sorted(set(labs), key=draw)[:number]


def objection(policy: WitnessesConfig, yes: Iterable[float]) -> str | None:
    """Return why a join must not be merged, given the shares of yes in percent, or None."""
    most = max(yes, default=0.0)
    if most <= policy.max_yes:
        return None
    return (
        f"witnesses: another lab has the join say yes to {most:.1f}% of images that do not show "
        f"the category; at most {policy.max_yes:.1f}% may be merged (witnesses.max_yes)"
    )


def silence(policy: WitnessesConfig, asked: int, answered: int) -> str | None:
    """Return why a merge waits for the operator although nobody objects, or None."""
    if policy.missing == "rule" or asked == 0 or answered > 0:
        return None
    return (
        f"witnesses: none of {asked} labs that were asked has answered for "
        f"{policy.patience_days:g} days (witnesses.patience_days)"
    )
