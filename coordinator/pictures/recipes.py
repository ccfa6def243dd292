"""What a recipe learned besides weights: where it learned from, or which paths it kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve

from rootstock.common.nets.tailored.paths import KeptPath
from rootstock.coordinator.pictures.canvas import shortened

MOST = 6.0
"""λ is a ReLU6's output."""
_LETTERS = 28
"""The most that are shown of a layer's name."""
_SLANTED: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}

_UNIVERSAL = "#2e6fb7"
_PROXY = "#f18f43"
_REMOVED = "#d9d9d9"
_WIDEST = 4.0
"""Points that a path with α = 1 is wide."""


def ends(by_pair: Mapping[tuple[str, str], float]) -> tuple[list[str], list[str]]:
    """Return the source layers and the target layers of pairs, each in the pairs' order."""
    layers, targets = (list(dict.fromkeys(pair[end] for pair in by_pair)) for end in range(2))
    return layers, targets


def heat_map(
    axes: Axes,
    by_pair: Mapping[tuple[str, str], float],
    layers: Sequence[str],
    targets: Sequence[str],
    *,
    title: str,
    brightest: float,
) -> None:
    """Draw λ by source layer and target layer (Learning What and Where to Transfer, figure 3d).

    `by_pair` has λ, 0 to 6, of at least one pair; others stay white. `layers` are drawn from the
    top down, `targets` from left to right: plain text without "$", which matplotlib reads as a
    formula. `brightest` is alike for maps side by side.
    """
    values = np.full((len(layers), len(targets)), np.nan)
    brightest = max(brightest, 1e-6)
    for (layer, target), value in by_pair.items():
        row, column = layers.index(layer), targets.index(target)
        values[row, column] = value
        colour = "white" if value < 0.6 * brightest else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    axes.imshow(values, cmap="viridis", vmin=0, vmax=brightest, aspect="auto")
    # Long names, as of a task module's layers, would run into each other.
    slanted = _SLANTED if max(map(len, targets)) > 10 else {}
    names = [[shortened(name, _LETTERS) for name in side] for side in (targets, layers)]
    axes.set_xticks(range(len(targets)), names[0], fontsize=7, **slanted)
    axes.set_yticks(range(len(layers)), names[1], fontsize=7)
    axes.set_xlabel("target layer", fontsize=8)
    axes.set_ylabel("source layer", fontsize=8)
    axes.set_title(title, fontsize=9)


def draw_tailored(axes: Axes, blocks: Sequence[str], paths: Sequence[KeptPath], title: str) -> None:
    """Draw a net of which some paths were kept (NetTailor, figure 4).

    A node is a dot. A box is a universal block, dashed if it was left out; an arc is a proxy. Lines
    are as wide as α. `blocks` are the names of the backbone's, lowest first.
    """
    universal = {node: alpha for node, skip, alpha in paths if skip == 0}
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
                edgecolor=_REMOVED if alpha is None else _UNIVERSAL,
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
    reached = {0} | {node for node, _, _ in paths}
    nodes = range(len(blocks) + 1)
    colours = ["black" if node in reached else _REMOVED for node in nodes]
    axes.scatter(list(nodes), [0] * len(nodes), s=14, c=colours, zorder=3)
    axes.set_xlim(-0.3, len(blocks) + 0.3)
    axes.set_ylim(-0.7, 1.1)
    axes.axis("off")
    axes.set_title(title, fontsize=8, loc="left")
