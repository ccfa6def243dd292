"""Pictures: accuracy over training images, and λ by pair (paper, figures 5 and 3d)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rootstock.coordinator.pictures.recipes import ends, heat_map
from tests.benchmarks.papers.l2t.methods import OURS
from tests.benchmarks.papers.l2t.rows import Row, accuracy, counts, kinds, where


def over_samples(rows: Sequence[Row], path: Path) -> None:
    """Draw every method's accuracy over training images a class."""
    figure = Figure(figsize=(7.2, 3.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    columns = counts(rows)
    for kind in kinds(rows):
        points = [(n, found) for n in columns if (found := accuracy(rows, kind, n)) is not None]
        axes.errorbar(
            [n for n, _ in points],
            [found.mean for _, found in points],
            yerr=[found.half or 0 for _, found in points],
            marker="o",
            markersize=4,
            capsize=2,
            linewidth=2 if kind[0] == OURS else 1,
            linestyle="--" if "+" in kind[1] else "-",
            label=" ".join(kind).strip(),
        )
    axes.set_xscale("log")
    axes.set_xticks(columns, [str(count) for count in columns])
    axes.minorticks_off()
    axes.set_xlabel("training images a class")
    axes.set_ylabel("accuracy in %")
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def lambdas(rows: Sequence[Row], path: Path) -> None:
    """Draw the mean λ of every pair: source layers × target layers, a panel for each choice."""
    learned = [kind for kind in kinds(rows) if where(rows, kind)]
    figure = Figure(figsize=(3.4 * len(learned) + 0.6, 3.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(learned), squeeze=False)[0]
    brightest = max(value for kind in learned for value in where(rows, kind).values())
    for axes, kind in zip(panels, learned, strict=True):
        by_pair = {_pair(pair): value for pair, value in where(rows, kind).items()}
        layers, targets = ends(by_pair)
        heat_map(axes, by_pair, layers, targets, title=f"λ, {kind[1]}", brightest=brightest)
    _save(figure, path)


def _pair(pair: str) -> tuple[str, str]:
    layer, _, target = pair.partition("->")
    return layer, target


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
