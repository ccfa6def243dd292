"""Where the boxes of a net's picture stand; sizes and places in inches, no drawing here."""

from __future__ import annotations

from rootstock.common.nets.graph import NetTree
from rootstock.coordinator.pictures.boxes import LEGEND, MARGIN, TASK_HEIGHT, TITLE, Box, Layout
from rootstock.coordinator.pictures.crossbar import crossbar

CATEGORY_GAP = 0.3
RISE = 1.6
"""Height between the adapters and the task modules, where the edges run."""

MOST_IN_A_ROW = 10
"""With more categories than this each has a line of its own: curves would be one grey band."""


def plan(tree: NetTree) -> Layout:
    """Place every module and every edge of a net, as its size asks for."""
    return fan(tree) if len(tree.category_modules) <= MOST_IN_A_ROW else crossbar(tree)


def fan(tree: NetTree) -> Layout:
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
    task_boxes = {
        name: Box(MARGIN + pitch * (index + 0.5), task_y, min(task_width, pitch), TASK_HEIGHT)
        for index, name in enumerate(tasks)
    }
    return Layout(
        width=width,
        height=task_y + TASK_HEIGHT / 2 + TITLE,
        categories=boxes,
        tasks=task_boxes,
        adapters=adapters,
    )
