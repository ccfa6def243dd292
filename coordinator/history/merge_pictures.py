"""The pictures of one merge: the net with what is new in red, and its errors."""

from __future__ import annotations

from pathlib import Path

from coordinator.history.content import ERROR_STAGES, TEACHER_ERROR
from coordinator.history.curves import draw_errors
from coordinator.history.record import MergeRecord
from coordinator.pictures.net import category_mark, draw_net, edge_mark, task_mark


def draw_merge(record: MergeRecord, folder: Path) -> list[Path]:
    """Draw `net.png` if the record has the tree, and `errors.png` if it has errors.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    pictures = []
    if record.tree is not None:
        version = "" if record.number is None else f", net version {record.number}"
        pictures.append(
            draw_net(
                record.tree, folder / "net.png", new_marks(record), title=f"{record.net}{version}"
            )
        )
    shown = {TEACHER_ERROR, *(key for key, _ in ERROR_STAGES)}
    if shown & record.numbers.keys():
        title = f"{record.category} → {record.task}: {record.state}"
        merges = [(record.category, record.numbers)]
        pictures.append(draw_errors(merges, folder / "errors.png", title=title))
    return pictures


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
