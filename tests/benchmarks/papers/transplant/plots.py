"""Pictures of the experiments: error over samples, and the paper's figure 5.

Shapes: N images, F features of the last hidden layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tests.benchmarks.harness import plots
from tests.benchmarks.harness.rows import average
from tests.benchmarks.papers.transplant.cells import ALL, CEILING, Row, Space
from tests.benchmarks.papers.transplant.goals import counts, kinds, of, teacher

_COLOURS = {
    "auto": "#c1272d",
    "dream": "#f18f43",
    "closed-form": "#8e44ad",
    "back-distill": "#2e6fb7",
    "direct-learn": "#4d4d4d",
    "distill": "#3a9d5d",
    "jacobian": "#b8860b",
    "identity": "#aaaaaa",
}


def over_samples(rows: Sequence[Row]) -> Figure:
    """Draw every method's error (Experiment 3: pixel accuracy) over the number of samples."""
    columns, (first, *_) = counts(rows), kinds(rows)
    accuracy = rows[0].experiment == 3
    axes = plots.axes(7.2, 4.4, x="samples", y="pixel accuracy in %" if accuracy else "error in %")
    for method, adapter in kinds(rows):
        means = [average(of(rows, (method, adapter), count), "measured") for count in columns]
        if method == CEILING or not any(means):
            continue
        plots.line(
            axes,
            enumerate(means),
            color=_COLOURS.get(method, "black"),
            linestyle="-" if adapter == first[1] or method == "auto" else "--",
            marker="o" if len([mean for mean in means if mean]) > 1 else "s",
            linewidth=2 if method == "auto" else 1.2,
            label=f"{method} {adapter}",
        )
    axes.axhline(teacher(rows).mean, color="black", linewidth=0.8, linestyle=":", label="teacher")
    for method, adapter in kinds(rows):
        found = average(of(rows, (method, adapter), ALL), "measured")
        if method == CEILING and found is not None:
            axes.axhline(
                found.mean,
                color="#c1272d",
                linewidth=0.8,
                linestyle="-." if adapter.startswith("3") else (0, (1, 3)),
                label=f"ceiling {adapter}",
            )
    axes.set_xticks(range(len(columns)), [str(count) for count in columns])
    return plots.legend(axes, 7)


def feature_spaces(spaces: dict[str, Space]) -> Figure:
    """Draw the first two principal components of the last hidden features (paper, figure 5)."""
    figure = plots.figure(2.4 * len(spaces), 2.6)
    for place, (category, (ours_NF, theirs_NF)) in enumerate(spaces.items(), start=1):
        axes = figure.add_subplot(1, len(spaces), place)
        both = np.concatenate((ours_NF, theirs_NF))
        centre_F = both.mean(0)
        _, _, axes_FF = np.linalg.svd(both - centre_F, full_matrices=False)
        for features_NF, colour, label in (
            (ours_NF, "#2e6fb7", "auto"),
            (theirs_NF, "#c1272d", "direct-learn"),
        ):
            projected = (features_NF - centre_F) @ axes_FF[:2].T
            x_N, y_N = projected.T
            axes.scatter(x_N, y_N, s=3, color=colour, alpha=0.4, linewidths=0, label=label)
        axes.set_title(category, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        if place == 1:
            axes.legend(fontsize=7, frameon=False, markerscale=3)
    return figure
