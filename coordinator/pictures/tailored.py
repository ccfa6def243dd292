"""A tailored net: blocks as boxes, proxies as arcs (NetTailor, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve

from rootstock.common.nets.tailored.paths import KeptPath

_UNIVERSAL = "#2e6fb7"
_PROXY = "#f18f43"
_GONE = "#d9d9d9"
_WIDEST = 4.0
"""Points that a path with α = 1 is wide."""


def draw_tailored(axes: Axes, blocks: Sequence[str], paths: Sequence[KeptPath], title: str) -> None:
    """Draw a net of which some paths were kept.

    A node is a dot. A box is a universal block, dashed if it was left out; an arc is a proxy. Lines
    are as wide as α. `blocks` are the names of the backbone's, lowest first.
    """
    universal = {node: alpha for node, skip, alpha in paths if skip == 0}
    alive = {node for node, _, _ in paths}
    for node, name in enumerate(blocks, start=1):
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
    for node, skip, alpha in paths:
        if skip:
            curve = Curve(
                [(node - skip, 0), (node - skip / 2, 0.4 + 0.5 * skip), (node, 0)],
                [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3],
            )
            wide = max(0.5, _WIDEST * alpha)
            axes.add_patch(PathPatch(curve, fill=False, edgecolor=_PROXY, linewidth=wide))
    nodes = range(len(blocks) + 1)
    colours = ["black" if node == 0 or node in alive else _GONE for node in nodes]
    axes.scatter(list(nodes), [0] * len(nodes), s=14, c=colours, zorder=3)
    axes.set_xlim(-0.3, len(blocks) + 0.3)
    axes.set_ylim(-0.7, 1.1)
    axes.axis("off")
    axes.set_title(title, fontsize=8, loc="left")
