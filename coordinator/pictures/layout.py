"""Where the boxes of a net's picture stand; sizes and places in inches, no drawing here."""

from __future__ import annotations

from dataclasses import dataclass

from common.nets.graph import NetTree

MARGIN = 0.45
TASK_HEIGHT = 0.62
CATEGORY_GAP = 0.3
RISE = 1.6
"""Height between the adapters and the task modules, where the edges run."""

NARROW_ABOVE = 10
"""With more categories than this their boxes stand upright, names turned."""


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
    def bottom(self) -> float:
        """The lower edge."""
        return self.y - self.height / 2


@dataclass(frozen=True)
class Layout:
    """The picture's plan: category modules below, adapters between, task modules above."""

    width: float
    height: float
    turned: bool
    """Whether names of categories and errors are written upright."""
    categories: dict[str, Box]
    tasks: dict[str, Box]
    adapters: dict[tuple[str, str], Box]
    """By (category, task); also edges without an adapter have a place, which stays empty."""


def plan(tree: NetTree) -> Layout:
    """Place every module and every edge of a net."""
    categories = sorted(tree.category_modules)
    tasks = sorted(tree.task_modules)
    joined: dict[str, list[str]] = {name: [] for name in categories}
    for edge in sorted(tree.edges, key=lambda edge: (edge.category, edge.task)):
        joined[edge.category].append(edge.task)
    most = max((len(each) for each in joined.values()), default=1)
    turned = len(categories) > NARROW_ABOVE
    slot = 0.3 if turned else 0.62  # an adapter and its error
    gap = 0.07 if turned else CATEGORY_GAP
    box_width = max(0.3 if turned else 1.3, most * slot)
    box_height = 1.45 if turned else 0.62
    row = len(categories) * box_width + max(0, len(categories) - 1) * gap
    # Many edges need a broad task module: bundled at a point they would be one grey band.
    task_width = max(1.9, 0.6 * row / max(1, len(tasks))) if turned else 1.9
    task_row = len(tasks) * task_width + max(0, len(tasks) - 1) * 0.5
    width = max(row, task_row, 4.2) + 2 * MARGIN
    first = (width - row) / 2 + box_width / 2
    category_y = MARGIN + 0.3 + box_height / 2  # the legend is below
    boxes = {
        name: Box(first + index * (box_width + gap), category_y, box_width, box_height)
        for index, name in enumerate(categories)
    }
    adapter_y = category_y + box_height / 2 + 0.45
    task_y = adapter_y + RISE + TASK_HEIGHT / 2
    adapters = {}
    for name, names in joined.items():
        for index, task in enumerate(names):
            x = boxes[name].x + (index - (len(names) - 1) / 2) * slot
            size = 0.24 if turned else 0.32
            adapters[name, task] = Box(x, adapter_y, size, 0.24)
    # Task modules share the width evenly, so that edges fan out instead of crossing at a point.
    pitch = (width - 2 * MARGIN) / max(1, len(tasks))
    task_boxes = {
        name: Box(MARGIN + pitch * (index + 0.5), task_y, min(task_width, pitch), TASK_HEIGHT)
        for index, name in enumerate(tasks)
    }
    return Layout(
        width=width,
        height=task_y + TASK_HEIGHT / 2 + 0.75,
        turned=turned,
        categories=boxes,
        tasks=task_boxes,
        adapters=adapters,
    )
