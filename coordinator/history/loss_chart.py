"""Lays out losses over steps as lines of an SVG. Pure.

The template draws them, so that the lines take the page's colours, in the dark as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rootstock.coordinator.jobs.model import CurvePoint

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 30

_FLOOR = 1e-8
"""Losses are drawn on a logarithmic scale; below this they are zero."""

_LINES = {"loss": "loss", "task": "task_loss", "distillation": "distillation_loss"}
"""Fields of a curve's point, by the line's name."""


class Line(NamedTuple):
    """One loss; `points` is what an SVG polyline takes."""

    name: str
    label: str
    points: str


class Tick(NamedTuple):
    """A mark on an axis."""

    at: float
    text: str


class Chart(NamedTuple):
    """Lines and axes in units of a view box of `WIDTH` × `HEIGHT`."""

    lines: Sequence[Line]
    x: Sequence[Tick]
    y: Sequence[Tick]
    dreamed: float | None
    """Where the steps that dreamed images end, if there are any."""
    summary: str
    """What the lines show, in words."""


def charts(curves: Sequence[CurvePoint], dream: Mapping[str, int]) -> dict[str, Chart]:
    """Return a chart for every stage that has a curve of at least two points.

    `dream` is how many steps a stage dreamed images before it learned from them; 0 if not named.
    """
    stages: dict[str, list[CurvePoint]] = {}
    for point in curves:
        stages.setdefault(point.stage, []).append(point)
    return {s: _chart(points, dream.get(s, 0)) for s, points in stages.items() if len(points) > 1}


def _chart(points: Sequence[CurvePoint], dream: int) -> Chart:
    series: dict[str, list[tuple[int, float]]] = {
        name: [(p.step, loss) for p in points if (loss := getattr(p, field)) > _FLOOR]
        for name, field in _LINES.items()
    }
    if series["loss"] == series["distillation"] or series["loss"] == series["task"]:
        # One of the two parts is all there is: one line says it.
        series = {"loss": series["loss"]}
    values = [value for line in series.values() for _, value in line] or [1.0]
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    first, last = points[0].step, points[-1].step

    def across(step: float) -> float:
        share = (step - first) / max(1, last - first)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def up(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    lines = [
        Line(
            name, _LINES[name].replace("_", " "), " ".join(f"{across(s)},{up(v)}" for s, v in line)
        )
        for name, line in series.items()
        if line
    ]
    middle = (first + last) // 2
    return Chart(
        lines=lines,
        x=[Tick(across(step), str(step)) for step in dict.fromkeys((first, middle, last))],
        dreamed=across(dream) if first <= dream < last else None,
        y=[Tick(up(10.0**power), f"{10.0**power:g}") for power in range(low, high + 1)],
        summary=(
            f"The loss goes from {points[0].loss:.3g} at step {first} to {points[-1].loss:.3g} at "
            f"step {last}; logarithmic scale."
        ),
    )
