"""Weights of pairs of layers as a heat map (Learning What and Where to Transfer, figure 3d)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rootstock.coordinator.pictures.canvas import shortened

_LETTERS = 28
"""The most that are shown of a layer's name."""

MOST = 6.0
"""λ is a ReLU6's output."""


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
    """Draw λ by source layer and target layer; pairs that there are not stay white.

    Parameters
    ----------
    by_pair
        λ, 0 to 6, by (source layer, target layer); at least one.
    layers, targets
        Source layers from the top down, target layers from left to right, as `ends` has them or in
        another order. Plain text without "$", which matplotlib reads as a formula.
    brightest
        λ that is drawn brightest, alike for maps that stand side by side.
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
    longest = max(map(len, targets))
    slanted: dict[str, Any] = (
        {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if longest > 10 else {}
    )
    axes.set_xticks(range(len(targets)), _short(targets), fontsize=7, **slanted)
    axes.set_yticks(range(len(layers)), _short(layers), fontsize=7)
    axes.set_xlabel("target layer", fontsize=8)
    axes.set_ylabel("source layer", fontsize=8)
    axes.set_title(title, fontsize=9)


def _short(names: Sequence[str]) -> list[str]:
    return [shortened(name, _LETTERS) for name in names]
