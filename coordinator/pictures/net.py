"""Draws a net as a table: a line a category, a column a task, new modules in red."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch

from rootstock.common.nets.graph import Edge, NetTree
from rootstock.coordinator.pictures.canvas import (
    ADAPTER,
    CATEGORY,
    INK,
    NEW,
    NEW_FILL,
    TASK,
    new_figure,
    require_suffix,
    save,
    shortened,
)
from rootstock.coordinator.pictures.layout import MARGIN, MOST_LETTERS, Box, plan

DOT = 0.045
"""Radius of the dot for a join without an adapter."""


def category_mark(category: str) -> str:
    """Name a category module for `highlight`."""
    return f"category/{category}"


def task_mark(task: str) -> str:
    """Name a task module for `highlight`."""
    return f"task/{task}"


def edge_mark(category: str, task: str) -> str:
    """Name an edge with its adapter for `highlight`."""
    return f"edge/{category}/{task}"


def draw_net(
    tree: NetTree, path: Path, highlight: Collection[str] = (), *, title: str = ""
) -> Path:
    """Draw a transplant net to NAME.png or NAME.svg; return the file's path.

    `highlight` is what is new, in red: `category_mark`, `task_mark`, `edge_mark` of each.
    """
    require_suffix(path)
    layout = plan(tree)
    figure = new_figure(layout.width, layout.height)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, layout.width)
    axes.set_ylim(0, layout.height)
    axes.set_axis_off()
    axes.text(layout.width / 2, layout.height - 0.3, title, ha="center", va="center", size=12)
    for edge in tree.edges:
        box = layout.adapters[edge.category, edge.task]
        _draw_join(axes, box, edge, new=edge_mark(edge.category, edge.task) in highlight)
    for name, box in layout.categories.items():
        _draw_box(axes, box, name, CATEGORY, new=category_mark(name) in highlight)
    for name, box in layout.tasks:
        _draw_box(axes, box, name, TASK, new=task_mark(name) in highlight)
    direct = any(edge.adapter is None for edge in tree.edges)
    _draw_legend(axes, new=bool(highlight), direct=direct)
    return save(figure, path)


def _draw_box(axes: Axes, box: Box, text: str, fill: str, *, new: bool) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (box.left, box.bottom),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=NEW_FILL if new else fill,
            edgecolor=NEW if new else INK,
            linewidth=2.0 if new else 0.9,
        )
    )
    axes.text(
        box.x,
        box.y,
        shortened(text, MOST_LETTERS),
        ha="center",
        va="center",
        size=9,
        color=NEW if new else INK,
        weight="bold" if new else "normal",
    )


def _draw_join(axes: Axes, box: Box, edge: Edge, *, new: bool) -> None:
    colour = NEW if new else INK
    if edge.adapter is not None:
        _draw_box(axes, box, "h", ADAPTER, new=new)
    else:
        axes.add_patch(Circle((box.x, box.y), DOT, color=colour))
    if edge.error is not None:
        text = f"{edge.error:.1f}%"
        axes.text(box.right + 0.05, box.y, text, ha="left", va="center", size=7.5, color=colour)


def _draw_legend(axes: Axes, *, new: bool, direct: bool) -> None:
    entries = [("category module f", CATEGORY), ("adapter h", ADAPTER), ("task module g", TASK)]
    if new:
        entries.append(("new", NEW_FILL))
    x, y = MARGIN, 0.25
    for text, fill in entries:
        box = FancyBboxPatch(
            (x, y - 0.06),
            0.16,
            0.12,
            boxstyle="round,pad=0,rounding_size=0.03",
            facecolor=fill,
            edgecolor=NEW if fill == NEW_FILL else INK,
            linewidth=0.8,
        )
        axes.add_patch(box)
        axes.text(x + 0.22, y, text, ha="left", va="center", size=7.5, color=INK)
        x += 0.42 + 0.06 * len(text)
    if direct:
        axes.add_patch(Circle((x + 0.08, y), DOT, color=INK))
        axes.text(x + 0.22, y, "joined directly", ha="left", va="center", size=7.5, color=INK)
