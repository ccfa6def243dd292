"""What a recipe tells besides errors: as many numbers as a manifest holds."""

from __future__ import annotations

from collections.abc import Mapping

MAX_METRICS = 64
"""Of a manifest."""


def room(tasks: int) -> int:
    """Return how many numbers a manifest holds besides its own: images, and two of every task."""
    return MAX_METRICS - 2 - 2 * tasks


def largest(named: Mapping[str, float], count: int, left_out: str) -> dict[str, float]:
    """Return numbers, the largest of them if they are too many.

    Parameters
    ----------
    named
        By the name that they have in the manifest.
    count
        As many at most.
    left_out
        Name of the number that says how many are not there, if they are not all.
    """
    if len(named) <= count:
        return dict(named)
    chosen = sorted(named, key=lambda key: -named[key])[: count - 1]
    return {**{key: named[key] for key in chosen}, left_out: len(named) - count + 1.0}
