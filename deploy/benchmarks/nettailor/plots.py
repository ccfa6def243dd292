"""Tailored nets as the paper's figure 4 draws them: blocks as boxes, proxies as arcs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve

from deploy.benchmarks.nettailor.rows import Row, names

_UNIVERSAL = "#2e6fb7"
_PROXY = "#f18f43"
_GONE = "#d9d9d9"
_WIDEST = 4.0
"""Points that a path with α = 1 is wide."""


def nets(rows: Sequence[Row], path: Path) -> None:
    """Draw one tailored net of every task: its lowest seed's.

    A node is a dot. A box is a universal block, grey if it was left out; an arc is a proxy. Lines
    are as wide as α.
    """
    shown = [min((r for r in rows if r.task == task), key=lambda r: r.seed) for task in names(rows)]
    figure = Figure(figsize=(8, 1.9 * len(shown)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for place, row in enumerate(shown, start=1):
        _net(figure.add_subplot(len(shown), 1, place), row)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _net(axes: Axes, row: Row) -> None:
    universal = {node: alpha for node, skip, alpha in row.paths if skip == 0}
    alive = {node for node, _, _ in row.paths}
    for node, name in enumerate(row.blocks, start=1):
        alpha = universal.get(node)
        if alpha is not None:
            axes.plot([node - 1, node], [0, 0], color=_UNIVERSAL, linewidth=_WIDEST * alpha)
        axes.add_patch(
            Rectangle(
                (node - 0.75, -0.22),
                0.5,
                0.44,
                facecolor="white" if alpha is None else _UNIVERSAL,
                edgecolor=_GONE if alpha is None else _UNIVERSAL,
                linestyle="--" if alpha is None else "-",
                zorder=2,
            )
        )
        axes.text(node - 0.5, -0.5, name.removeprefix("block"), ha="center", fontsize=7)
    for node, skip, alpha in row.paths:
        if skip:
            curve = Curve(
                [(node - skip, 0), (node - skip / 2, 0.4 + 0.5 * skip), (node, 0)],
                [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3],
            )
            arc = PathPatch(
                curve, fill=False, edgecolor=_PROXY, linewidth=max(0.5, _WIDEST * alpha)
            )
            axes.add_patch(arc)
    nodes = range(len(row.blocks) + 1)
    colours = ["black" if node == 0 or node in alive else _GONE for node in nodes]
    axes.scatter(list(nodes), [0] * len(nodes), s=14, c=colours, zorder=3)
    axes.set_xlim(-0.3, len(row.blocks) + 0.3)
    axes.set_ylim(-0.7, 1.1)
    axes.axis("off")
    said = "" if row.met else "; no net within the tolerance"
    axes.set_title(
        f"{row.task}: {row.blocks_removed} of {len(row.blocks)} blocks, "
        f"{row.params_removed:.0f}% of parameters, {row.flops_removed:.0f}% of FLOPs removed{said}",
        fontsize=8,
        loc="left",
    )
