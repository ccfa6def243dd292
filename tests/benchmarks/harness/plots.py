"""Pictures of the results page: axes, lines with intervals, groups of bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.benchmarks.harness.rows import Interval


def figure(width: float, height: float) -> Figure:
    """Return an empty picture; width and height in inches."""
    made = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(made)
    return made


def axes(width: float, height: float, *, y: str, x: str = "") -> Axes:
    """Return axes that fill a picture, without a frame above and on the right."""
    made: Axes = figure(width, height).add_subplot()
    made.spines[["top", "right"]].set_visible(False)
    made.set_xlabel(x)
    made.set_ylabel(y)
    return made


def line(on: Axes, points: Iterable[tuple[float, Interval | None]], **style: Any) -> None:
    """Draw means with their intervals, from left to right; without those that are missing."""
    found = [(x, y) for x, y in points if y is not None]
    style = {"marker": "o", "markersize": 4, "capsize": 2, **style}
    on.errorbar(
        [x for x, _ in found],
        [y.mean for _, y in found],
        yerr=[y.half or 0 for _, y in found],
        **style,
    )


def bars(on: Axes, xs: Sequence[Any], heights: Sequence[Interval | None], **style: Any) -> None:
    """Draw means with their intervals as bars; one that is missing has no height."""
    on.bar(
        xs,
        [0.0 if y is None else y.mean for y in heights],
        yerr=[0.0 if y is None else y.half or 0 for y in heights],
        **style,
    )


def legend(on: Axes, size: int = 8) -> Figure:
    """Put the legend beside the axes; return the whole picture."""
    on.legend(fontsize=size, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    whole = on.get_figure()
    assert isinstance(whole, Figure)  # not in a part of one
    return whole
