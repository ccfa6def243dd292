"""Lays out a net's picture: sizes and positions in inches, no drawing here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rootstock.common.nets.graph import NetTree

MARGIN = 0.45
LEGEND = 0.3
"""Height of the legend, below the net."""
TITLE = 0.75
"""Height of the title, above the net."""
LINE = 0.3
"""Height of a category's line."""
NAME_GAP = 0.2
"""Between a category module and its first join."""
PANEL_GAP = 0.5
PAGE = 1.5
"""Width of the picture for a height of 1, about."""
NARROWEST = 5.2
"""Room for the legend."""
LETTER = 0.085
"""Width of a letter of a name."""
MOST_LETTERS = 26


@dataclass(frozen=True)
class Box:
    """A box by its centre and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width / 2

    @property
    def left(self) -> float:
        """The left edge."""
        return self.x - self.width / 2

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y - self.height / 2


@dataclass(frozen=True)
class Layout:
    """A table: category modules on the left, task modules on top, each join where they meet."""

    width: float
    height: float
    categories: dict[str, Box]
    tasks: tuple[tuple[str, Box], ...]
    """Each panel names them all."""
    adapters: dict[tuple[str, str], Box]
    """By (category, task); edges without an adapter have a box, too, which stays empty."""


def plan(tree: NetTree) -> Layout:
    """Give each category a line and each task a column, in as many panels as make a page."""
    categories, tasks = sorted(tree.category_modules), sorted(tree.task_modules)
    count = max(1, len(categories))
    box_width = _width_of(categories)
    column = max(1.0, _width_of(tasks) + 0.1)
    pitch = box_width + NAME_GAP + column * len(tasks) + PANEL_GAP
    wished = math.sqrt(count * pitch / (PAGE * LINE))
    lines = math.ceil(count / max(1, round(count / wished)))
    panels = math.ceil(count / lines)
    row = panels * pitch - PANEL_GAP
    width = max(row, NARROWEST) + 2 * MARGIN
    lefts = [(width - row) / 2 + panel * pitch for panel in range(panels)]
    head_y = MARGIN + LEGEND + (lines + 0.7) * LINE

    def column_x(left: float, index: int) -> float:
        return left + box_width + NAME_GAP + (index + 0.5) * column

    boxes, adapters = {}, {}
    joined = {(edge.category, edge.task) for edge in tree.edges}
    for number, category in enumerate(categories):
        panel, line = divmod(number, lines)
        y = MARGIN + LEGEND + (lines - line - 0.5) * LINE
        boxes[category] = Box(lefts[panel] + box_width / 2, y, box_width, 0.8 * LINE)
        for index, task in enumerate(tasks):
            if (category, task) in joined:
                x = column_x(lefts[panel], index) - 0.25  # the error is to the right of it
                adapters[category, task] = Box(x, y, 0.26, 0.2)
    heads = tuple(
        (task, Box(column_x(left, index), head_y, column - 0.1, LINE))
        for left in lefts
        for index, task in enumerate(tasks)
    )
    return Layout(width, head_y + LINE / 2 + TITLE, boxes, heads, adapters)


def _width_of(names: list[str]) -> float:
    return 0.25 + LETTER * min(MOST_LETTERS, max(map(len, names), default=0))
