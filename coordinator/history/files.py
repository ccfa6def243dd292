"""The files of a merge's run: its record, the report, the pictures."""

from __future__ import annotations

from pathlib import Path

from rootstock.common.files import write_bytes
from rootstock.coordinator.history.error_chart import draw_errors
from rootstock.coordinator.history.feature_chart import draw_features, has_features
from rootstock.coordinator.history.notes import STATES
from rootstock.coordinator.history.recipe_chart import draw_recipe, has_recipe
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.history.report import render
from rootstock.coordinator.pictures.net import category_mark, draw_net, edge_mark, task_mark

DOCUMENT = "merge.json"
REPORT = "report.html"
NET = "net.png"
ERRORS = "errors.png"
FEATURES = "features.png"
RECIPE = "recipe.png"


def file_names(record: MergeRecord) -> set[str]:
    """Return what `write_files` writes: a net if there is one, errors if any was measured."""
    measured = record.measured.candidates or record.measured.teacher_error is not None
    return (
        {DOCUMENT, REPORT}
        | ({NET} if record.tree is not None else set())
        | ({ERRORS} if measured else set())
        | ({RECIPE} if has_recipe(record) else set())
        | ({FEATURES} if has_features(record) else set())
    )


def write_files(record: MergeRecord, folder: Path) -> None:
    """Write a merge's files into a folder.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    names = file_names(record)
    net = folder / NET
    if record.tree is not None:
        held = record.number if record.number is not None else record.parent_number
        draw_net(record.tree, net, new_marks(record), title=f"{record.net}, net version {held}")
    if ERRORS in names:
        joined = f"{record.category} → {record.task}"
        title = f"{joined}: {STATES.get(record.state, record.state).lower()}"
        draw_errors(record, folder / ERRORS, title=title)
    if FEATURES in names:
        draw_features(record, folder / FEATURES)
    if RECIPE in names:
        draw_recipe(record, folder / RECIPE)
    shown = (NET, FEATURES, RECIPE)
    pictures = {name: (folder / name).read_bytes() for name in shown if name in names}
    report = render(
        record,
        net_png=pictures.get(NET),
        features_png=pictures.get(FEATURES),
        recipe_png=pictures.get(RECIPE),
    )
    write_bytes(folder / REPORT, report.encode())
    write_bytes(folder / DOCUMENT, record.canonical())


def new_marks(record: MergeRecord) -> set[str]:
    """Return what of the net the merge brought; nothing if it was not merged."""
    tree = record.tree
    if tree is None or record.number is None:
        return set()
    marks = set()
    if record.category in tree.category_modules:
        marks.add(category_mark(record.category))
    if any((e.category, e.task) == (record.category, record.task) for e in tree.edges):
        marks.add(edge_mark(record.category, record.task))
    if record.parent_number is None:  # the founding net brings its task modules too
        marks |= {task_mark(task) for task in tree.task_modules}
    return marks
