from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import StorageError
from coordinator.history.curves import draw_errors
from coordinator.history.merge_pictures import draw_merge, new_marks
from coordinator.pictures.boxes import Box
from coordinator.pictures.layout import plan
from coordinator.pictures.net import category_mark, draw_net, edge_mark, task_mark
from tests.unit.history.samples import net, record

NEW_RGB = (0xD6, 0x27, 0x28)


def red_share(path: Path) -> float:
    """Share of pixels in the red that marks what is new."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return float((np.abs(pixels - NEW_RGB).sum(axis=2) < 30).mean())


@pytest.mark.parametrize("count", [1, 5, 10, 11, 50])
@pytest.mark.parametrize("tasks", [["classification"], ["classification", "segmentation"]])
def test_no_two_boxes_overlap_and_all_are_inside(count: int, tasks: list[str]) -> None:
    layout = plan(net([f"c{i}" for i in range(count)], tasks))
    boxes: list[Box] = [
        *layout.categories.values(),
        *layout.tasks.values(),
        *layout.adapters.values(),
    ]
    assert len(boxes) == count + len(tasks) + count * len(tasks)
    for place, one in enumerate(boxes):
        assert one.x - one.width / 2 > 0
        assert one.x + one.width / 2 < layout.width
        assert one.bottom > 0
        assert one.top < layout.height
        for other in boxes[place + 1 :]:
            apart_x = abs(one.x - other.x) >= (one.width + other.width) / 2 - 1e-9
            apart_y = abs(one.y - other.y) >= (one.height + other.height) / 2 - 1e-9
            assert apart_x or apart_y


def test_category_modules_are_below_adapters_below_task_modules() -> None:
    layout = plan(net(["cat", "cow"]))
    adapter = layout.adapters["cow", "classification"]
    assert layout.categories["cow"].top < adapter.bottom
    assert adapter.top < layout.tasks["classification"].bottom


def test_only_what_is_new_is_red(tmp_path: Path) -> None:
    tree = net(["cat", "cow", "dog"])
    plain = draw_net(tree, tmp_path / "plain.png")
    marks = {category_mark("dog"), edge_mark("dog", "classification")}
    marked = draw_net(tree, tmp_path / "marked.png", marks)
    assert red_share(plain) == 0
    assert red_share(marked) > 0.001


def test_the_same_net_gives_the_same_bytes(tmp_path: Path) -> None:
    tree = net(["cat", "cow"])
    one = draw_net(tree, tmp_path / "one.png", title="a")
    two = draw_net(tree, tmp_path / "two.png", title="a")
    assert one.read_bytes() == two.read_bytes()
    assert draw_net(tree, two, title="b").read_bytes() != one.read_bytes()


def test_an_empty_net_is_drawn(tmp_path: Path) -> None:
    tree = net(["cat"]).model_copy(update={"category_modules": {}, "edges": ()})
    assert draw_net(tree, tmp_path / "net.png").stat().st_size > 0


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        draw_net(net(["cat"]), tmp_path / "file" / "deeper" / "net.png")


def test_the_founding_merge_marks_the_task_module_too() -> None:
    founding = record(["cat"])
    assert task_mark("classification") in new_marks(founding)
    later = record(["cat", "cow"])
    assert new_marks(later) == {category_mark("cow"), edge_mark("cow", "classification")}


def test_a_rejected_merge_marks_nothing() -> None:
    rejected = record(["cat", "cow"], number=None, digest=None, state="rejected")
    assert new_marks(rejected) == set()


def test_a_merge_is_drawn_as_net_and_errors(tmp_path: Path) -> None:
    pictures = draw_merge(record(["cat", "cow"]), tmp_path)
    assert [path.name for path in pictures] == ["net.png", "errors.png"]
    bare = record(["cat", "cow"], tree=None, numbers={"seconds": 1.0})
    assert draw_merge(bare, tmp_path) == []


@pytest.mark.parametrize("count", [0, 1, 5, 50])
def test_errors_are_drawn_for_any_number_of_merges(tmp_path: Path, count: int) -> None:
    numbers = {"teacher_error": 2.0, "no_adapter_error": 50.0, "refined_error": 4.0}
    merges = [(f"category-{i}", numbers) for i in range(count)]
    path = draw_errors(merges, tmp_path / "errors.png", title="digits")
    with Image.open(path) as image:
        assert image.width > 400
