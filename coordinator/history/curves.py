"""Errors before and after, merge by merge, as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from coordinator.history.content import ERROR_STAGES, TEACHER_ERROR
from coordinator.pictures.canvas import INK, NEW, QUIET, new_figure, save, shortened

_FILLS = ("#c9ced6", "#f6c77d", "#9dc3e6", "#4f8f5b")


def draw_errors(
    merges: Sequence[tuple[str, Mapping[str, float]]], path: Path, *, title: str = ""
) -> Path:
    """Draw a group of bars a merge: no adapter, zero-sample, few-sample, refined.

    Parameters
    ----------
    merges
        How each is called, and its errors in percent by the keys of `ERROR_STAGES`; `TEACHER_ERROR`
        is the line that the bars are held against. What was not measured has no bar.
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
    stages = [
        (index, key, label)
        for index, (key, label) in enumerate(ERROR_STAGES)
        if any(key in numbers for _, numbers in merges)
    ]
    figure = new_figure(max(4.5, 1.2 + len(merges) * (0.35 * len(stages) + 0.4)), 3.6)
    axes = figure.add_subplot()
    width = 0.8 / max(1, len(stages))
    for place, (index, key, label) in enumerate(stages):
        at = [
            (group + (place - (len(stages) - 1) / 2) * width, numbers[key])
            for group, (_, numbers) in enumerate(merges)
            if key in numbers
        ]
        xs, heights = [x for x, _ in at], [height for _, height in at]
        bars = axes.bar(xs, heights, width * 0.92, color=_FILLS[index], label=label)
        axes.bar_label(bars, fmt="%.1f", size=7, color=INK, padding=1)
    label = "teacher"
    for group, (_, numbers) in enumerate(merges):
        if TEACHER_ERROR in numbers:
            error = numbers[TEACHER_ERROR]
            axes.hlines(error, group - 0.42, group + 0.42, color=NEW, label=label, linewidth=1.4)
            label = "_nolegend_"
    axes.set_xticks(range(len(merges)), [shortened(name, 14) for name, _ in merges])
    if len(merges) > 12:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlim(-0.6, max(1, len(merges)) - 0.4)
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("error on private validation data, %", size=8)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=QUIET, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="lower center", ncols=5, frameon=False, fontsize=7.5)
    if title:
        axes.set_title(title, size=10)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    return save(figure, path)
