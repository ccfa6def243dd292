"""Weights of pairs of layers as a heat map (Learning What and Where to Transfer, figure 3d)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

MOST = 6.0
"""λ is a ReLU6's output."""


def heat_map(
    axes: Axes, by_pair: Mapping[tuple[str, str], float], title: str, brightest: float
) -> None:
    """Draw λ by source layer and target layer; pairs that there are not stay white.

    Parameters
    ----------
    axes
        Empty.
    by_pair
        λ, 0 to 6, by (source layer, target layer); at least one.
    title
        Above it.
    brightest
        λ that is drawn brightest, alike for maps that stand side by side.
    """
    layers, targets = (list(dict.fromkeys(pair[column] for pair in by_pair)) for column in range(2))
    values = np.full((len(layers), len(targets)), np.nan)
    brightest = max(brightest, 1e-6)
    for (layer, target), value in by_pair.items():
        row, column = layers.index(layer), targets.index(target)
        values[row, column] = value
        colour = "white" if value < 0.6 * brightest else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    axes.imshow(values, cmap="viridis", vmin=0, vmax=brightest, aspect="auto")
    axes.set_xticks(range(len(targets)), targets, fontsize=7)
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.set_xlabel("target layer", fontsize=8)
    axes.set_ylabel("source layer", fontsize=8)
    axes.set_title(title, fontsize=9)
