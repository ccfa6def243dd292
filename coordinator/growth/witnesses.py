"""Witnesses: other labs that say how often a new join says yes on images that show it not. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable

from rootstock.coordinator.config import WitnessesConfig

CONFIDENCE_Z = 1.645
"""Standard normal deviate of a one-sided confidence of 95%."""


@dataclasses.dataclass(frozen=True, slots=True)
class YesShare:
    """What one witness has answered."""

    yes: float
    """Percent of its images."""
    samples: int

    @property
    def at_least(self) -> float:
        """The lower bound, in percent, of the share on all images like these (Wilson, 95%)."""
        n, share, z = self.samples, self.yes / 100, CONFIDENCE_Z
        middle = share + z * z / (2 * n)
        margin = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return max(0.0, 100 * (middle - margin) / (1 + z * z / n))


def chosen(merge_id: str, labs: Iterable[str], number: int) -> list[str]:
    """Return so many of the labs, or all: another choice for each merge, the same each time."""

    def draw(lab: str) -> bytes:
        return hashlib.sha256(f"{merge_id} {lab}".encode()).digest()

    return sorted(set(labs), key=draw)[:number]


def objection(
    policy: WitnessesConfig,
    shares: Iterable[YesShare],
    error: float | None,
    *,
    may_learn: bool = False,
) -> str | None:
    """Return why a join must not be merged, or None.

    Only a share that is above the rule beyond chance objects: a witness may have few images. Nor
    does one that the lab's own report explains, where the operator is asked instead: `error`, in
    percent, is the join's on the lab's validation images, of which half are of the category, so
    that it may say yes to twice that share of the others. Whether so bad a join is wanted is his
    to say: where nobody is asked (`unsure = "rule"`), and while a better one may be learned, a
    report explains nothing.
    """
    worst = max(shares, key=lambda share: share.at_least, default=None)
    asks = policy.unsure == "review" and not may_learn
    allowed = max(policy.max_yes, _explained(error)) if asks else policy.max_yes
    if worst is None or worst.at_least <= allowed:
        return None
    told = "" if error is None else f", and its lab reports an error of {error:.1f}%"
    return (
        f"{_stated(worst)}{told}; at most {policy.max_yes:.1f}% may be merged (witnesses.max_yes)"
    )


def doubt(
    policy: WitnessesConfig, asked: int, shares: Iterable[YesShare], error: float | None
) -> str | None:
    """Return why a merge waits for the operator although nobody objects, or None."""
    if policy.unsure == "rule" or asked == 0:
        return None
    given = list(shares)
    if not given:
        return (
            f"witnesses: of {asked} labs that were asked none has given an answer that counts: "
            f"they cannot, have too few images (acceptance.min_samples), or were silent for "
            f"{policy.patience_days:g} days (witnesses.patience_days)"
        )
    certain = max(given, key=lambda share: share.at_least)
    if error is not None and certain.at_least > policy.max_yes:
        why = f"the error of {error:.1f}% that its lab reports allows for it"
        return _above(policy, certain, why)
    worst = max(given, key=lambda share: share.yes)
    return _above(policy, worst, "may be chance") if worst.yes > policy.max_yes else None


def _above(policy: WitnessesConfig, share: YesShare, why: str) -> str:
    return f"{_stated(share)}; that is above {policy.max_yes:.1f}% (witnesses.max_yes), and {why}"


def _explained(error: float | None) -> float:
    """Return the percent of images without the category that a join with that error may take."""
    return 0.0 if error is None else min(100.0, 2 * error)


def _stated(share: YesShare) -> str:
    return (
        f"witnesses: another lab has the join say yes to {share.yes:.1f}% of {share.samples} "
        "images that do not show the category"
    )
