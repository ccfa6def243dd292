from pathlib import Path

import pytest
from PIL import Image

from rootstock.coordinator.history.charts import draw_errors
from rootstock.coordinator.history.files import (
    file_names,
    new_marks,
    remove_scratch,
    scratch_folder,
    write_files,
)
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.pictures.net import category_mark, edge_mark, task_mark
from tests.support.merge_records import record


def written(merge: MergeRecord, folder: Path) -> set[str]:
    write_files(merge, folder)
    return {path.name for path in folder.iterdir()}


def test_a_merge_is_its_record_a_report_the_net_and_errors(tmp_path: Path) -> None:
    merge = record(["cat", "cow"])
    assert written(merge, tmp_path) == {"merge.json", "report.html", "net.png", "errors.png"}
    assert file_names(merge) == {path.name for path in tmp_path.iterdir()}
    assert MergeRecord.parse((tmp_path / "merge.json").read_bytes(), what="record") == merge


def test_what_is_not_known_is_not_drawn(tmp_path: Path) -> None:
    bare = record(["cat", "cow"], tree=None, numbers={"seconds": 1.0})
    assert written(bare, tmp_path) == {"merge.json", "report.html"} == file_names(bare)


def test_the_same_merge_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_files(record(["cat", "cow"]), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_founding_merge_marks_the_task_module_too() -> None:
    founding = record(["cat"])
    assert task_mark("classification") in new_marks(founding)
    later = record(["cat", "cow"])
    assert new_marks(later) == {category_mark("cow"), edge_mark("cow", "classification")}


def test_a_rejected_merge_marks_nothing() -> None:
    rejected = record(["cat", "cow"], number=None, digest=None, state="rejected")
    assert new_marks(rejected) == set()


@pytest.mark.parametrize("earlier", [0, 1, 50])
@pytest.mark.parametrize("numbers", [{"teacher_error": 2.0}, {"no_adapter_error": 50.0}])
def test_errors_are_drawn_for_any_number_of_joins(
    tmp_path: Path, earlier: int, numbers: dict[str, float]
) -> None:
    merge = record([f"category-{i}" for i in range(earlier + 1)], numbers=numbers)
    path = draw_errors(merge, tmp_path / "errors.png")
    with Image.open(path) as image:
        assert image.width > 400
        assert image.height > 30 * earlier


def test_only_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    scratch = tmp_path / "history"
    with scratch_folder(scratch) as folder:
        name = folder.name
    (scratch / name).mkdir()
    (scratch / name / "merge.json").touch()
    (scratch / "notes.txt").touch()  # of an operator who has named a folder in use
    remove_scratch(scratch)
    assert [path.name for path in scratch.iterdir()] == ["notes.txt"]
    (scratch / "notes.txt").unlink()
    remove_scratch(scratch)
    assert not scratch.exists()
    remove_scratch(scratch)
