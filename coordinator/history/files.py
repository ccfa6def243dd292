"""The files of a merge's run: its record, the report, the pictures."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rootstock.common.files import storage_errors, write_bytes
from rootstock.coordinator.history.charts import (
    draw_errors,
    draw_features,
    draw_recipe,
    has_features,
    has_recipe,
)
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.history.report import render
from rootstock.coordinator.pictures.net import category_mark, draw_net, edge_mark, task_mark

DOCUMENT = "merge.json"
REPORT = "report.html"
NET = "net.png"
ERRORS = "errors.png"
FEATURES = "features.png"
RECIPE = "recipe.png"

_SCRATCH = "merge-files-"
"""Beginning of the names of folders for files on their way to MLflow."""


@contextmanager
def scratch_folder(scratch: Path) -> Iterator[Path]:
    """Give a new folder below `scratch`, which is made, for files on their way to MLflow."""
    with storage_errors(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=scratch)
    with folder as name:
        yield Path(name)


def remove_scratch(scratch: Path) -> None:
    """Delete what a killed process has left below `scratch`, and nothing else.

    An operator may have named a folder as the state that has a `history` of its own.
    """
    for folder in scratch.glob(f"{_SCRATCH}*"):
        shutil.rmtree(folder, ignore_errors=True)  # follows no link
    with suppress(OSError):  # of what has something else in it, or is not there
        scratch.rmdir()


def file_names(record: MergeRecord) -> set[str]:
    """Return what `write_files` writes: a net if there is one, errors if any was measured."""
    pictures = {
        NET: record.tree is not None,
        ERRORS: record.measured.candidates or record.measured.teacher_error is not None,
        FEATURES: has_features(record),
        RECIPE: has_recipe(record),
    }
    return {DOCUMENT, REPORT, *(name for name, there in pictures.items() if there)}


def write_files(record: MergeRecord, folder: Path) -> None:
    """Write a merge's files into a folder; StorageError if its disk is full."""
    with storage_errors(folder):
        _write_files(record, folder)


def _write_files(record: MergeRecord, folder: Path) -> None:
    names = file_names(record)
    if record.tree is not None:
        title = f"{record.net}, net version {record.tree_number}"
        draw_net(record.tree, folder / NET, new_marks(record), title=title)
    for name, draw in ((ERRORS, draw_errors), (FEATURES, draw_features), (RECIPE, draw_recipe)):
        if name in names:
            draw(record, folder / name)
    shown = names & {NET, FEATURES, RECIPE}
    report = render(record, {name: (folder / name).read_bytes() for name in shown})
    write_bytes(folder / REPORT, report.encode())
    write_bytes(folder / DOCUMENT, record.canonical())


def new_marks(record: MergeRecord) -> set[str]:
    """Return what a merge added to the net; nothing if it was not merged."""
    tree = record.tree
    if tree is None or record.number is None:
        return set()
    marks = set()
    if record.category in tree.category_modules:
        marks.add(category_mark(record.category))
    if any((e.category, e.task) == (record.category, record.task) for e in tree.edges):
        marks.add(edge_mark(record.category, record.task))
    if record.parent_number is None:  # the founding net adds its task modules too
        marks |= {task_mark(task) for task in tree.task_modules}
    return marks
