"""Errors before and after a merge: the new join stage by stage, every earlier one unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.pictures.canvas import INK, NEW, QUIET, new_figure, save, shortened

_EARLIER = "#d5dade"

_ROW = 0.27
"""Inches a bar."""
_NAME = 28
"""Characters of a row's name."""


@dataclass(frozen=True)
class _Bar:
    name: str
    error: float | None
    teacher: float | None
    colour: str
    new: bool


def draw_errors(record: MergeRecord, path: Path, *, title: str = "") -> Path:
    """Draw a bar a stage of the new join above a bar a join that the net held before.

    Parameters
    ----------
    record
        The merge; what was not measured has no bar. Red lines are the teachers' errors.
    path
        Where the PNG goes.
    title
        Written on top.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    bars = [*_new_bars(record), *_earlier_bars(record)]
    new = sum(bar.new for bar in bars)
    # Half a row between what is new and what was there.
    places = [-(row + (0.7 if row >= new else 0.0)) for row in range(len(bars))]
    height = 1.5 + _ROW * (len(bars) + 0.7)
    figure = new_figure(7.2, height)
    axes = figure.add_subplot()
    label = "error of the teacher"
    for y, bar in zip(places, bars, strict=True):
        if bar.error is not None:
            axes.barh(y, bar.error, 0.72, color=bar.colour)
            axes.annotate(
                f"{bar.error:.1f}",
                (bar.error, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                size=7.5,
                color=INK,
            )
        if bar.teacher is not None:
            axes.vlines(bar.teacher, y - 0.48, y + 0.48, color=NEW, linewidth=1.6, label=label)
            label = "_nolegend_"
    axes.set_yticks(places, [bar.name for bar in bars])
    for tick, bar in zip(axes.get_yticklabels(), bars, strict=True):
        tick.set(color=INK if bar.new else "#666c73")
    axes.set_ylim(places[-1] - 0.6 if places else -0.6, 0.6)
    axes.set_xlim(left=0)
    axes.margins(x=0.1)
    axes.set_xlabel("error on the owning lab's private validation data, %", size=8)
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", color=QUIET, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False, fontsize=7.5)
    if title:
        axes.set_title(title, size=10, loc="left")
    figure.tight_layout()
    return save(figure, path)


def _new_bars(record: MergeRecord) -> list[_Bar]:
    measured = record.measured
    teacher, category = measured.teacher_error, shortened(record.category, _NAME - 14)
    return [
        _Bar(f"{category}, {candidate.label}", error, teacher, candidate.colour, new=True)
        for candidate, error in measured.shown_errors.items()
    ] or [_Bar(f"{category}, as trained", teacher, teacher, Candidate.REFINED.colour, new=True)]


def _earlier_bars(record: MergeRecord) -> list[_Bar]:
    one_task = len({join.task for join in record.earlier} | {record.task}) == 1
    return [
        _Bar(
            shortened(join.category if one_task else f"{join.category} → {join.task}", _NAME)
            + ", unchanged",
            join.error,
            join.teacher_error,
            _EARLIER,
            new=False,
        )
        for join in record.earlier
    ]
