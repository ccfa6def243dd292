"""The net as a picture, in the manner of the paper's figure 1, new modules in red.

A net of many categories is drawn as a table: a line a category, a column a task.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from rootstock.common.nets.graph import NetTree
from rootstock.coordinator.pictures.canvas import (
    ADAPTER,
    CATEGORY,
    INK,
    NEW,
    NEW_FILL,
    QUIET,
    TASK,
    new_figure,
    require_suffix,
    save,
    shortened,
)
from rootstock.coordinator.pictures.layout import MARGIN, MOST_LETTERS, Box, Layout, plan

DOT = 0.045
"""Radius of what stands in a table for a join without an adapter."""


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
    tree: NetTree,
    path: Path,
    highlight: Collection[str] = (),
    errors: Mapping[tuple[str, str], float] | None = None,
    *,
    title: str = "",
) -> Path:
    """Draw a transplant net as PNG or SVG; return the file's path.

    Parameters
    ----------
    path
        NAME.png or NAME.svg.
    highlight
        What is new, in red: `category_mark`, `task_mark`, `edge_mark` of each.
    errors
        Errors in percent by (category, task); those of the tree's edges if None.
    title
        Written on top.
    """
    require_suffix(path)
    layout = plan(tree)
    if errors is None:
        errors = {
            (edge.category, edge.task): edge.error for edge in tree.edges if edge.error is not None
        }
    figure = new_figure(layout.width, layout.height)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, layout.width)
    axes.set_ylim(0, layout.height)
    axes.set_axis_off()
    if title:
        axes.text(layout.width / 2, layout.height - 0.3, title, ha="center", va="center", size=12)
    # New edges last: they lie on top of the others.
    for edge in sorted(
        tree.edges, key=lambda e: (edge_mark(e.category, e.task) in highlight, e.category, e.task)
    ):
        _draw_edge(
            axes,
            layout,
            (edge.category, edge.task),
            adapter=edge.adapter is not None,
            new=edge_mark(edge.category, edge.task) in highlight,
            error=errors.get((edge.category, edge.task)),
        )
    for name, box in layout.categories.items():
        letters = MOST_LETTERS if layout.table else max(13, int(box.width * 10))
        _draw_box(
            axes, box, shortened(name, letters), CATEGORY, new=category_mark(name) in highlight
        )
    for name, box in layout.tasks:
        letters = MOST_LETTERS if layout.table else max(6, int(box.width * 10))
        _draw_box(axes, box, shortened(name, letters), TASK, new=task_mark(name) in highlight)
    direct = layout.table and any(edge.adapter is None for edge in tree.edges)
    _draw_legend(axes, new=bool(highlight), direct=direct)
    return save(figure, path)


def _draw_box(axes: Axes, box: Box, text: str, fill: str, *, new: bool) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (box.x - box.width / 2, box.bottom),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=NEW_FILL if new else fill,
            edgecolor=NEW if new else INK,
            linewidth=2.0 if new else 0.9,
            zorder=4,
        )
    )
    axes.text(
        box.x,
        box.y,
        text,
        ha="center",
        va="center",
        size=9,
        color=NEW if new else INK,
        weight="bold" if new else "normal",
        zorder=5,
    )


def _draw_edge(
    axes: Axes,
    layout: Layout,
    key: tuple[str, str],
    *,
    adapter: bool,
    new: bool,
    error: float | None,
) -> None:
    place = layout.adapters[key]
    if not layout.table:
        axes.add_patch(
            PathPatch(
                _curve(layout, key),
                fill=False,
                edgecolor=NEW if new else QUIET,
                linewidth=1.8 if new else 0.9,
                zorder=3 if new else 2,
            )
        )
    if adapter:
        _draw_box(axes, place, "h", ADAPTER, new=new)
    elif layout.table:
        axes.add_patch(Circle((place.x, place.y), DOT, color=NEW if new else INK, zorder=4))
    if error is not None:
        axes.text(
            place.right + 0.05 if layout.table else place.x,
            place.y if layout.table else place.top + 0.06,
            f"{error:.1f}%",
            ha="left" if layout.table else "center",
            va="center" if layout.table else "bottom",
            size=7.5,
            color=NEW if new else INK,
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )


def _curve(layout: Layout, key: tuple[str, str]) -> Curve:
    category, task = layout.categories[key[0]], dict(layout.tasks)[key[1]]
    place = layout.adapters[key]
    # Edges reach a task module side by side, in the order of their categories.
    spread = 0.8 * task.width * (place.x / layout.width - 0.5)
    start, end = place.y, task.bottom
    middle = (start + end) / 2
    points = [
        (place.x, category.top),
        (place.x, start + 0.5),
        (place.x, middle + 0.45),
        (task.x + spread, middle + 0.1),
        (task.x + spread, end),
    ]
    return Curve(points, [Curve.MOVETO, Curve.LINETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])


def _draw_legend(axes: Axes, *, new: bool, direct: bool) -> None:
    entries = [("category module f", CATEGORY), ("adapter h", ADAPTER), ("task module g", TASK)]
    if new:
        entries.append(("new", NEW_FILL))
    x, y = MARGIN, 0.25
    for text, fill in entries:
        edge = NEW if fill == NEW_FILL else INK
        box = FancyBboxPatch(
            (x, y - 0.06),
            0.16,
            0.12,
            boxstyle="round,pad=0,rounding_size=0.03",
            facecolor=fill,
            edgecolor=edge,
            linewidth=0.8,
        )
        axes.add_patch(box)
        axes.text(x + 0.22, y, text, ha="left", va="center", size=7.5, color=INK)
        x += 0.42 + 0.06 * len(text)
    if direct:
        axes.add_patch(Circle((x + 0.08, y), DOT, color=INK))
        axes.text(x + 0.22, y, "joined directly", ha="left", va="center", size=7.5, color=INK)
