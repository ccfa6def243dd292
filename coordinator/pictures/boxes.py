"""Boxes of a net's picture; sizes and places in inches."""

from __future__ import annotations

from dataclasses import dataclass

MARGIN = 0.45
LEGEND = 0.3
"""Height of the legend, below the net."""
TITLE = 0.75
"""Height of the title, above the net."""
TASK_HEIGHT = 0.62

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A box by its centre and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def top(self) -> float:
        """The upper edge."""
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y - self.height / 2


@dataclass(frozen=True)
class Layout:
    """The picture's plan: task modules on top, adapters on the way to them from the categories."""

    width: float
    height: float
    categories: dict[str, Box]
    tasks: dict[str, Box]
    adapters: dict[tuple[str, str], Box]
    """By (category, task); also edges without an adapter have a place, which stays empty."""
    routes: dict[tuple[str, str], tuple[Point, ...]] | None = None
    """Corners of every edge's line by (category, task), where lines run straight; None where each
    is a curve of its own, from the category module up through the adapter."""
