"""Pictures of the experiments: error over samples, and the paper's figure 5.

Shapes: N images, F features of the last hidden layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tests.benchmarks.papers.transplant import summary
from tests.benchmarks.papers.transplant.cells import ALL, CEILING, Row

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


def error_over_samples(rows: Sequence[Row], path: Path) -> None:
    """Draw every method's error (Experiment 3: pixel accuracy) over the number of samples."""
    counts = summary.sample_counts(rows)
    paths = {count: place for place, count in enumerate(counts)}
    figure = Figure(figsize=(7.2, 4.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method, adapter in summary.kinds(rows):
        points = [
            (paths[count], found)
            for count in counts
            if (
                found := summary.interval(
                    summary.chosen(rows, method, adapter, count), summary.error
                )
            )
        ]
        if not points or method == CEILING:
            continue
        axes.errorbar(
            [x for x, _ in points],
            [y.mean for _, y in points],
            yerr=[y.half or 0 for _, y in points],
            color=_COLOURS.get(method, "black"),
            linestyle="-" if adapter == summary.kinds(rows)[0][1] or method == "auto" else "--",
            marker="o" if len(points) > 1 else "s",
            markersize=4,
            linewidth=2 if method == "auto" else 1.2,
            capsize=2,
            label=f"{method} {adapter}",
        )
    teacher = summary.interval(
        list({(r.category, r.seed): r for r in rows}.values()), summary.teacher
    )
    if teacher is not None:
        axes.axhline(teacher.mean, color="black", linewidth=0.8, linestyle=":", label="teacher")
    for method, adapter in summary.kinds(rows):
        found = summary.interval(summary.chosen(rows, method, adapter, ALL), summary.error)
        if method == CEILING and found is not None:
            axes.axhline(
                found.mean,
                color="#c1272d",
                linewidth=0.8,
                linestyle="-." if adapter.startswith("3") else (0, (1, 3)),
                label=f"ceiling {adapter}",
            )
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.set_xlabel("samples")
    accuracy = rows[0].experiment == 3
    axes.set_ylabel("pixel accuracy in %" if accuracy else "error in %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def feature_spaces(
    spaces: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]], path: Path
) -> None:
    """Draw the first two principal components of the last hidden features (paper, figure 5).

    Parameters
    ----------
    spaces
        By category: features (N, F) with our adapter, and with direct-learn's.
    path
        PNG.
    """
    figure = Figure(figsize=(2.4 * len(spaces), 2.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
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
            axes.scatter(
                projected[:, 0],
                projected[:, 1],
                s=3,
                color=colour,
                alpha=0.4,
                linewidths=0,
                label=label,
            )
        axes.set_title(category, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        if place == 1:
            axes.legend(fontsize=7, frameon=False, markerscale=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
