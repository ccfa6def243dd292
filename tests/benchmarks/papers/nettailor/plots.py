"""Tailored nets as the paper's figure 4 draws them: blocks as boxes, proxies as arcs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rootstock.coordinator.pictures.recipes import draw_tailored
from tests.benchmarks.papers.nettailor.rows import Row, names


def nets(rows: Sequence[Row], path: Path) -> None:
    """Draw one tailored net of every task: its lowest seed's."""
    shown = [min((r for r in rows if r.task == task), key=lambda r: r.seed) for task in names(rows)]
    figure = Figure(figsize=(8, 1.9 * len(shown)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for place, row in enumerate(shown, start=1):
        draw_tailored(figure.add_subplot(len(shown), 1, place), row.blocks, row.paths, _title(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _title(row: Row) -> str:
    said = "" if row.met else "; no net within the tolerance"
    return (
        f"{row.task}: {row.blocks_removed} of {len(row.blocks)} blocks, "
        f"{row.params_removed:.0f}% of parameters, {row.flops_removed:.0f}% of FLOPs removed{said}"
    )
