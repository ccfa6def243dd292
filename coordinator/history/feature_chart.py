"""The feature space of a join as a picture (paper, figure 5): without and with its adapter."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.jobs.feature_space import FeatureSpaces, Space
from rootstock.coordinator.pictures.canvas import INK, QUIET, new_figure, save


def has_features(record: MergeRecord) -> bool:
    """Say whether there is a figure of a merge's join: it is a transplanted classification."""
    return record.features is not None or bool(record.no_features)


def draw_features(record: MergeRecord, path: Path) -> Path:
    """Draw where images lie on two principal components of g_S's last hidden features.

    Where they could not be computed, the picture says why.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    title = f"{record.category} → {record.task}: last hidden features of the net's task module"
    if record.features is None:
        return _said(f"{title}\ncannot be drawn: {record.no_features}", path)
    return _drawn(record.features, title, path)


def _drawn(spaces: FeatureSpaces, title: str, path: Path) -> Path:
    shown = [("with what joins them", spaces.joined)]
    if spaces.bare is not None:
        shown.insert(0, ("without the adapter", spaces.bare))
    figure = new_figure(7.2, 3.9)
    figure.suptitle(title, size=10, x=0.02, ha="left", color=INK)
    places = figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True)[0]
    limit = max(1e-6, *map(abs, spaces.teacher_answers))
    for axes, (label, space) in zip(places, shown, strict=True):
        dots = _scatter(axes, label, space, spaces, limit)
    bar = figure.colorbar(dots, ax=list(places), fraction=0.04, pad=0.02)
    bar.set_label("the teacher's answer y_T", size=8)
    bar.ax.tick_params(labelsize=7)
    figure.text(
        0.02,
        0.02,
        f"{len(spaces.teacher_answers)} synthetic images (dead leaves), nobody's; first two "
        "principal components.\nρ: rank correlation of the net's answers with the teacher's; 1 "
        "orders all images as the teacher does.",
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
        [x for x, _ in space.positions],
        [y for _, y in space.positions],
        c=spaces.teacher_answers,
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
