"""Pictures of the settings: accuracies, and the paper's figure 3.

Shapes: C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.benchmarks.papers.recombine.rows import UPPER, Row, average, chosen

_OURS = "#2e6fb7"
_BOUND = "#c1272d"
_COLOURS = {
    "independent": "#4d4d4d",
    "new head": "#f18f43",
    UPPER: _BOUND,
    "iiw+rp": _OURS,
    "iiw+dcc": "#3a9d5d",
}
_OVER = {
    "split": "nets split after",
    "classes": "classes of the shared head",
    "transfer": "steps of fine-tuning",
}
"""What settings with cases vary."""


def methods(rows: Sequence[Row], path: Path) -> None:
    """Draw every method's accuracy beside chance and the upper bound (paper, figure 2)."""
    figure, axes = _axes((6.4, 3.6))
    names = [name for name in dict.fromkeys(row.method for row in rows) if name != UPPER]
    means = [average(chosen(rows, name)) for name in names]
    shown = [(name, found) for name, found in zip(names, means, strict=True) if found is not None]
    axes.bar(
        [name.replace("+", "\n+") for name, _ in shown],
        [found.mean for _, found in shown],
        yerr=[found.half or 0 for _, found in shown],
        color=_OURS,
        width=0.6,
        capsize=3,
    )
    bound = average(chosen(rows, UPPER))
    if bound is not None:
        axes.axhline(bound.mean, color=_BOUND, linewidth=1, label=UPPER)
    axes.axhline(rows[0].chance, color="black", linestyle=":", linewidth=1, label="chance")
    axes.set_ylabel("accuracy in %")
    axes.set_ylim(bottom=0)  # of three seeds an interval may reach below
    axes.tick_params(axis="x", labelsize=8)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def over_cases(rows: Sequence[Row], path: Path) -> None:
    """Draw the accuracy of each method over its cases; one without cases is a line across."""
    figure, axes = _axes((6.4, 3.6))
    cases = list(dict.fromkeys(row.case for row in rows if row.case))
    for method in dict.fromkeys(row.method for row in rows):
        points = [(case, average(chosen(rows, method, case))) for case in cases]
        shown = [(case, found) for case, found in points if found is not None]
        colour = _COLOURS.get(method)
        if shown:
            axes.errorbar(
                [cases.index(case) for case, _ in shown],
                [found.mean for _, found in shown],
                yerr=[found.half or 0 for _, found in shown],
                marker="o",
                markersize=4,
                capsize=2,
                color=colour,
                label=method,
            )
        elif (alone := average(chosen(rows, method))) is not None:
            axes.axhline(alone.mean, color=colour, linestyle="--", linewidth=1, label=method)
    axes.set_xticks(range(len(cases)), cases, fontsize=8)
    axes.set_xlabel(_OVER[rows[0].setting])
    axes.axhline(rows[0].chance, color="black", linestyle=":", linewidth=1, label="chance")
    axes.set_ylabel("accuracy in %")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def groups(rows: Sequence[Row], path: Path) -> None:
    """Draw a group of bars for each direction or case, a bar for each method (paper, figure 4)."""
    figure, axes = _axes((6.4, 3.6))
    columns = list(dict.fromkeys(row.case or row.direction for row in rows))
    names = list(dict.fromkeys(row.method for row in rows))
    width = 0.8 / len(names)
    for place, method in enumerate(names):
        means = [
            average([r for r in chosen(rows, method) if (r.case or r.direction) == column])
            for column in columns
        ]
        axes.bar(
            [x - 0.4 + (place + 0.5) * width for x in range(len(columns))],
            [0.0 if found is None else found.mean for found in means],
            yerr=[0.0 if found is None else found.half or 0 for found in means],
            width=width,
            capsize=2,
            color=_COLOURS.get(method),
            label=method,
        )
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.axhline(rows[0].chance, color="black", linestyle=":", linewidth=1, label="chance")
    axes.set_ylabel("accuracy in %")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def correlations(rows: Sequence[Row], path: Path) -> None:
    """Draw the channels' correlations between both extractors, sorted, a band for each method.

    The number is their mean; that of independent nets is shown under the best permutation, too
    (paper, figure 3).
    """
    bands: list[tuple[str, float, list[float]]] = []
    for name in dict.fromkeys(row.method for row in rows):
        found = [row for row in chosen(rows, name) if row.channel_correlations]
        if not found:
            continue
        channels_C = np.mean([row.channel_correlations for row in found], axis=0)
        bands.append((name, float(channels_C.mean()), channels_C.tolist()))
    figure = Figure(figsize=(6.4, 0.4 * len(bands) + 0.9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(
        [band for _, _, band in bands], vmin=0, vmax=1, cmap="magma", aspect="auto"
    )
    labels = [f"{name}  {value:.2f}" for name, value, _ in bands]
    alone = [r.permuted_correlation for r in chosen(rows, "independent")]
    permuted = [value for value in alone if value is not None]
    if permuted:
        place = [name for name, _, _ in bands].index("independent")
        labels[place] += f"\n(permuted {mean(permuted):.2f})"
    axes.set_yticks(range(len(bands)), labels, fontsize=8)
    axes.set_xticks([])
    axes.set_xlabel("channels, most alike first", fontsize=8)
    figure.colorbar(picture, ax=axes, label="correlation")
    _save(figure, path)


DRAWN: dict[str, Callable[[Sequence[Row], Path], None]] = {
    "analysis": methods,
    "incremental": methods,
    "bound": methods,
    "split": over_cases,
    "classes": over_cases,
    "uda": groups,
    "architectures": groups,
    "transfer": over_cases,
}
"""What shows each setting."""


def _axes(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
