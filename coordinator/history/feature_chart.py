"""The feature space of a join as a picture (paper, figure 5): without and with its adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import IntegrityError, NotFoundError, SchemaError
from rootstock.common.nets.graph import NetTree
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.jobs.feature_space import FeatureSpaces, Space, feature_spaces
from rootstock.coordinator.pictures.canvas import INK, QUIET, new_figure, save

KIND = "binary-classification"
"""Of tasks whose answers are one number an image."""


def has_features(record: MergeRecord) -> bool:
    """Say whether a merge made a join of which there is a figure: a transplanted classification."""
    if (
        record.tree is None
        or record.number is None
        or record.operation != OperationKind.NEW_CATEGORY
    ):
        return False
    return any(task.name == record.task and task.kind == KIND for task in record.tree.tasks)


def draw_features(tree: NetTree, store: BlobStore, category: str, task: str, path: Path) -> Path:
    """Draw where images lie on two principal components of g_S's last hidden features.

    A blob that is gone costs the picture, not the record: the picture then says so.

    Parameters
    ----------
    tree, store
        The net and where its blobs are.
    category, task
        Of the join; the task is of `KIND`.
    path
        Where the PNG goes.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    title = f"{category} → {task}: last hidden features of the net's task module"
    try:
        spaces = feature_spaces(tree, store, category, task)
    except (NotFoundError, IntegrityError, SchemaError) as error:
        return _said(f"{title}\ncannot be drawn: {error}", path)
    return _drawn(spaces, title, path)


def _drawn(spaces: FeatureSpaces, title: str, path: Path) -> Path:
    shown = [("with what joins them", spaces.joined)]
    if spaces.bare is not None:
        shown.insert(0, ("without the adapter", spaces.bare))
    figure = new_figure(7.2, 3.9)
    figure.suptitle(title, size=10, x=0.02, ha="left", color=INK)
    places = figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True)[0]
    limit = max(float(np.abs(spaces.y_T_N).max()), 1e-6)
    for axes, (label, space) in zip(places, shown, strict=True):
        dots = _scatter(axes, label, space, spaces, limit)
    bar = figure.colorbar(dots, ax=list(places), fraction=0.04, pad=0.02)
    bar.set_label("the teacher's answer y_T", size=8)
    bar.ax.tick_params(labelsize=7)
    figure.text(
        0.02,
        0.02,
        f"{len(spaces.y_T_N)} synthetic images (dead leaves), nobody's; first two principal "
        "components.\nρ: rank correlation of the net's answers with the teacher's; 1 orders all "
        "images as the teacher does.",
        size=7,
        color=QUIET,
        ha="left",
        va="bottom",
    )
    figure.subplots_adjust(left=0.04, right=0.86, top=0.84, bottom=0.16, wspace=0.06)
    return save(figure, path)


def _scatter(
    axes: Axes, label: str, space: Space, spaces: FeatureSpaces, limit: float
) -> PathCollection:
    dots = axes.scatter(
        space.places_N2[:, 0],
        space.places_N2[:, 1],
        c=spaces.y_T_N,
        cmap="coolwarm",
        vmin=-limit,
        vmax=limit,
        s=13,
        linewidths=0.25,
        edgecolors=INK,
    )
    axes.set_title(f"{label}   ρ = {space.agreement:.2f}", size=9, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(QUIET)
        side.set_linewidth(0.6)
    return dots


def _said(text: str, path: Path) -> Path:
    figure = new_figure(7.2, 1.4)
    figure.text(0.02, 0.5, text, size=8, color=INK, ha="left", va="center", wrap=True)
    return save(figure, path)
