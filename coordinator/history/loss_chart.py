"""Losses over steps as lines of an SVG: where they go, no drawing here. Pure.

The template draws them, so that the lines take the page's colours, in the dark as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rootstock.coordinator.jobs.model import CurvePoint

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 30

_FLOOR = 1e-8
"""Losses are drawn on a logarithmic scale; below this they are zero."""

_LINES: dict[str, tuple[str, Callable[[CurvePoint], float]]] = {
    "loss": ("loss", lambda point: point.loss),
    "task": ("task loss", lambda point: point.task_loss),
    "distillation": ("distillation loss", lambda point: point.distillation_loss),
}


@dataclass(frozen=True)
class Line:
    """One loss; `points` is what an SVG polyline takes."""

    name: str
    label: str
    points: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
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

    Parameters
    ----------
    curves
        The points of all stages.
    dream
        How many steps a stage dreamed images before it learned from them; none if not named.
    """
    stages = dict.fromkeys(point.stage for point in curves)
    found = {stage: [point for point in curves if point.stage == stage] for stage in stages}
    return {s: _chart(points, dream.get(s, 0)) for s, points in found.items() if len(points) > 1}


def _chart(points: Sequence[CurvePoint], dream: int) -> Chart:
    series = {
        name: [(point.step, value(point)) for point in points if value(point) > _FLOOR]
        for name, (_, value) in _LINES.items()
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
        Line(name, _LINES[name][0], " ".join(f"{across(s)},{up(v)}" for s, v in line))
        for name, line in series.items()
        if line
    ]
    middle = (first + last) // 2
    return Chart(
        lines=lines,
        x=[Tick(across(step), str(step)) for step in dict.fromkeys((first, middle, last))],
        dreamed=across(dream) if first <= dream < last else None,
        y=[Tick(up(10.0**power), _power(power)) for power in range(low, high + 1)],
        summary=(
            f"The loss goes from {points[0].loss:.3g} at step {first} to {points[-1].loss:.3g} at "
            f"step {last}; logarithmic scale."
        ),
    )


def _power(power: int) -> str:
    return f"{10.0**power:g}"
