"""The layout of a net's picture: sizes and positions in inches, no drawing here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rootstock.common.nets.graph import NetTree

MARGIN = 0.45
LEGEND = 0.3
"""Height of the legend, below the net."""
TITLE = 0.75
"""Height of the title, above the net."""
TASK_HEIGHT = 0.62
CATEGORY_GAP = 0.3
RISE = 1.6
"""Height between the adapters and the task modules, where the edges run."""
MOST_IN_A_ROW = 10
"""With more categories than this the net is a table: curves would be one grey band."""
LINE = 0.3
"""Height of a category's line in the table."""
PANEL_GAP = 0.5
PAGE = 1.5
"""Width of the table for a height of 1, about."""
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
    tasks: tuple[tuple[str, Box], ...]
    """In a table each panel names them all."""
    adapters: dict[tuple[str, str], Box]
    """By (category, task); edges without an adapter have a box, too, which stays empty."""
    table: bool


def plan(tree: NetTree) -> Layout:
    """Place every module and every edge of a net, as its size asks for."""
    return _fan(tree) if len(tree.category_modules) <= MOST_IN_A_ROW else _table(tree)


def _fan(tree: NetTree) -> Layout:
    """Place category modules side by side, task modules above: the paper's figure 1."""
    categories = sorted(tree.category_modules)
    tasks = sorted(tree.task_modules)
    joined: dict[str, list[str]] = {name: [] for name in categories}
    for edge in sorted(tree.edges, key=lambda edge: (edge.category, edge.task)):
        joined[edge.category].append(edge.task)
    most = max((len(each) for each in joined.values()), default=1)
    slot = 0.62  # an adapter and its error
    box_width, box_height, task_width = max(1.3, most * slot), 0.62, 1.9
    row = len(categories) * box_width + max(0, len(categories) - 1) * CATEGORY_GAP
    task_row = len(tasks) * task_width + max(0, len(tasks) - 1) * 0.5
    width = max(row, task_row, 4.2) + 2 * MARGIN
    first = (width - row) / 2 + box_width / 2
    category_y = MARGIN + LEGEND + box_height / 2
    boxes = {
        name: Box(first + index * (box_width + CATEGORY_GAP), category_y, box_width, box_height)
        for index, name in enumerate(categories)
    }
    adapter_y = category_y + box_height / 2 + 0.45
    task_y = adapter_y + RISE + TASK_HEIGHT / 2
    adapters = {}
    for name, names in joined.items():
        for index, task in enumerate(names):
            x = boxes[name].x + (index - (len(names) - 1) / 2) * slot
            adapters[name, task] = Box(x, adapter_y, 0.32, 0.24)
    # Task modules share the width evenly, so that edges fan out instead of crossing at a point.
    pitch = (width - 2 * MARGIN) / max(1, len(tasks))
    task_boxes = tuple(
        (name, Box(MARGIN + pitch * (index + 0.5), task_y, min(task_width, pitch), TASK_HEIGHT))
        for index, name in enumerate(tasks)
    )
    height = task_y + TASK_HEIGHT / 2 + TITLE
    return Layout(width, height, boxes, task_boxes, adapters, table=False)


def _table(tree: NetTree) -> Layout:
    """Give each category a line and each task a column, in as many panels as make a page."""
    categories, tasks = sorted(tree.category_modules), sorted(tree.task_modules)
    box_width = _width_of(categories)
    column = max(1.0, _width_of(tasks) + 0.1)
    panel_width = box_width + 0.2 + column * len(tasks)
    wished = math.sqrt(len(categories) * (panel_width + PANEL_GAP) / (PAGE * LINE))
    lines = math.ceil(len(categories) / max(1, round(len(categories) / wished)))
    panels = math.ceil(len(categories) / lines)
    row = panels * panel_width + (panels - 1) * PANEL_GAP
    width = max(row, NARROWEST) + 2 * MARGIN
    left = (width - row) / 2
    head_y = MARGIN + LEGEND + (lines + 0.7) * LINE

    def column_x(panel: int, place: int) -> float:
        return left + panel * (panel_width + PANEL_GAP) + box_width + 0.2 + (place + 0.5) * column

    boxes = {}
    adapters = {}
    joined = {(edge.category, edge.task) for edge in tree.edges}
    for place, category in enumerate(categories):
        panel, line = divmod(place, lines)
        x = left + panel * (panel_width + PANEL_GAP) + box_width / 2
        y = MARGIN + LEGEND + (lines - line - 0.5) * LINE
        boxes[category] = Box(x, y, box_width, 0.8 * LINE)
        for index, task in enumerate(tasks):
            if (category, task) in joined:
                adapters[category, task] = Box(column_x(panel, index) - 0.25, y, 0.26, 0.2)
    heads = tuple(
        (task, Box(column_x(panel, index), head_y, column - 0.1, LINE))
        for panel in range(panels)
        for index, task in enumerate(tasks)
    )
    return Layout(width, head_y + LINE / 2 + TITLE, boxes, heads, adapters, table=True)


def _width_of(names: list[str]) -> float:
    return 0.25 + LETTER * min(MOST_LETTERS, max(map(len, names), default=0))
