"""The plan of a large net's picture: a line a category, a column a task, adapters on the crossings.

Lines stand in as many panels as give a page. Every category module's line runs right to its
joins; each join goes on up its task's column, along the task's trunk, and into the task module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rootstock.common.nets.graph import NetTree
from rootstock.coordinator.pictures.boxes import (
    LEGEND,
    MARGIN,
    TASK_HEIGHT,
    TITLE,
    Box,
    Layout,
    Point,
)

LINE = 0.3
"""Height of a category's line."""
COLUMN = 0.95
"""Width of a task's column: an adapter and its error."""
PANEL_GAP = 0.5
TRUNK = 0.16
"""Height between two tasks' trunks."""
PAGE = 1.5
"""Width of the page for a height of 1, about."""
NARROWEST = 5.2
"""Room for the legend."""
LETTER = 0.085
"""Width of a letter of a name."""
MOST_LETTERS = 26


def crossbar(tree: NetTree) -> Layout:
    """Place every module and every edge of a net."""
    categories, tasks = sorted(tree.category_modules), sorted(tree.task_modules)
    longest = min(MOST_LETTERS, max(map(len, categories), default=0))
    box_width = 0.25 + LETTER * longest
    panel_width = box_width + 0.25 + COLUMN * len(tasks)
    lines = _lines(len(categories), panel_width + PANEL_GAP)
    panels = math.ceil(len(categories) / lines)
    row = panels * panel_width + (panels - 1) * PANEL_GAP
    width = max(row, NARROWEST) + 2 * MARGIN
    left = (width - row) / 2
    trunks_y = MARGIN + LEGEND + lines * LINE + 0.2
    tasks_y = trunks_y + TRUNK * len(tasks) + 0.2 + TASK_HEIGHT / 2
    task_boxes = _task_boxes(tasks, width, tasks_y)
    boxes: dict[str, Box] = {}
    adapters: dict[tuple[str, str], Box] = {}
    routes: dict[tuple[str, str], tuple[Point, ...]] = {}
    joined = {(edge.category, edge.task) for edge in tree.edges}
    for place, category in enumerate(categories):
        panel, line = divmod(place, lines)
        start = left + panel * (panel_width + PANEL_GAP)
        y = MARGIN + LEGEND + (lines - line - 0.5) * LINE
        box = boxes[category] = Box(start + box_width / 2, y, box_width, 0.8 * LINE)
        for column, task in enumerate(tasks):
            if (category, task) not in joined:
                continue
            x = start + box_width + 0.25 + (column + 0.3) * COLUMN
            adapters[category, task] = Box(x, y, 0.26, 0.2)
            target = task_boxes[task]
            # The first task's trunk is the highest: its column ends above the others'.
            trunk_y = trunks_y + TRUNK * (len(tasks) - 1 - column)
            corners = [(box.right, y), (x, y), (x, trunk_y), (target.x, trunk_y)]
            routes[category, task] = (*corners, (target.x, target.bottom))
    return Layout(
        width=width,
        height=tasks_y + TASK_HEIGHT / 2 + TITLE,
        categories=boxes,
        tasks=task_boxes,
        adapters=adapters,
        routes=routes,
    )


def _lines(categories: int, panel_width: float) -> int:
    """Return how many lines a panel has, so that the panels side by side make a page."""
    wished = math.sqrt(categories * panel_width / (PAGE * LINE))
    panels = max(1, round(categories / wished))
    return math.ceil(categories / panels)


def _task_boxes(tasks: Sequence[str], width: float, y: float) -> dict[str, Box]:
    pitch = (width - 2 * MARGIN) / max(1, len(tasks))
    return {
        name: Box(MARGIN + pitch * (index + 0.5), y, min(2.2, 0.9 * pitch), TASK_HEIGHT)
        for index, name in enumerate(tasks)
    }
