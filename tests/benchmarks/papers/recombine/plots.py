"""Pictures of the settings: accuracies, and the paper's figure 3.

Shapes: C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.harness import plots
from tests.benchmarks.harness.rows import average, chosen, distinct
from tests.benchmarks.papers.recombine.rows import UPPER, Row

_OURS = "#2e6fb7"
_BOUND = "#c1272d"
_COLOURS = {
    "independent": "#4d4d4d",
    "new head": "#f18f43",
    UPPER: _BOUND,
    "iiw+rp": _OURS,
    "iiw+dcc": "#3a9d5d",
}


def methods(rows: Sequence[Row]) -> Figure:
    """Draw every method's accuracy beside chance and the upper bound (paper, figure 2)."""
    axes = _axes()
    names = [name for name in distinct(rows, "method") if name != UPPER]
    means = [average(chosen(rows, method=name), "accuracy") for name in names]
    titles = [name.replace("+", "\n+") for name in names]
    plots.bars(axes, titles, means, color=_OURS, width=0.6, capsize=3)
    bound = average(chosen(rows, method=UPPER), "accuracy")
    if bound is not None:
        axes.axhline(bound.mean, color=_BOUND, linewidth=1, label=UPPER)
    _chance(axes, rows)
    axes.set_ylim(bottom=0)  # of three seeds an interval may reach below
    axes.tick_params(axis="x", labelsize=8)
    return plots.legend(axes)


def over_cases(rows: Sequence[Row], *, x: str) -> Figure:
    """Draw the accuracy of each method over its cases; one without cases is a line across."""
    axes = _axes(x)
    cases = [case for case in distinct(rows, "case") if case]
    for method in distinct(rows, "method"):
        own, colour = chosen(rows, method=method), _COLOURS.get(method)
        points = [average(chosen(own, case=case), "accuracy") for case in cases]
        if any(points):
            plots.line(axes, enumerate(points), color=colour, label=method)
        elif (alone := average(own, "accuracy")) is not None:
            axes.axhline(alone.mean, color=colour, linestyle="--", linewidth=1, label=method)
    axes.set_xticks(range(len(cases)), cases, fontsize=8)
    _chance(axes, rows)
    return plots.legend(axes)


def groups(rows: Sequence[Row], *, by: str) -> Figure:
    """Draw a group of bars for each direction or case, a bar for each method (paper, figure 4)."""
    axes = _axes()
    columns, names = distinct(rows, by), distinct(rows, "method")
    width = 0.8 / len(names)
    for place, method in enumerate(names):
        own = chosen(rows, method=method)
        plots.bars(
            axes,
            [x - 0.4 + (place + 0.5) * width for x in range(len(columns))],
            [average(chosen(own, **{by: column}), "accuracy") for column in columns],
            width=width,
            capsize=2,
            color=_COLOURS.get(method),
            label=method,
        )
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    _chance(axes, rows)
    return plots.legend(axes)


def correlations(rows: Sequence[Row]) -> Figure:
    """Draw the channels' correlations between both extractors, sorted, a band for each method.

    The number is their mean; that of independent nets is shown under the best permutation, too
    (paper, figure 3).
    """
    bands, labels = [], []
    for name in distinct(rows, "method"):
        found = [row for row in chosen(rows, method=name) if row.channel_correlations]
        if not found:
            continue
        bands.append(np.mean([row.channel_correlations for row in found], axis=0))
        labels.append(f"{name}  {bands[-1].mean():.2f}")
        permuted = [r.permuted_correlation for r in found if r.permuted_correlation is not None]
        if permuted and name == "independent":
            labels[-1] += f"\n(permuted {np.mean(permuted):.2f})"
    figure = plots.figure(6.4, 0.4 * len(bands) + 0.9)
    axes = figure.add_subplot()
    picture = axes.imshow(bands, vmin=0, vmax=1, cmap="magma", aspect="auto")
    axes.set_yticks(range(len(bands)), labels, fontsize=8)
    axes.set_xticks([])
    axes.set_xlabel("channels, most alike first", fontsize=8)
    figure.colorbar(picture, ax=axes, label="correlation")
    return figure


def _axes(x: str = "") -> Axes:
    return plots.axes(6.4, 3.6, x=x, y="accuracy in %")


def _chance(axes: Axes, rows: Sequence[Row]) -> None:
    axes.axhline(rows[0].chance, color="black", linestyle=":", linewidth=1, label="chance")


DRAWN: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "analysis": methods,
    "incremental": methods,
    "bound": methods,
    "split": partial(over_cases, x="nets split after"),
    "classes": partial(over_cases, x="classes of the shared head"),
    "uda": partial(groups, by="direction"),
    "architectures": partial(groups, by="case"),
    "transfer": partial(over_cases, x="steps of fine-tuning"),
}
"""What shows each setting."""
