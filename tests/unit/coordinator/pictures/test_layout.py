from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rootstock.common.errors import StorageError
from rootstock.coordinator.pictures.layout import Box, plan
from rootstock.coordinator.pictures.net import category_mark, draw_net, edge_mark
from tests.support.merge_records import net

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
        *(box for _, box in layout.tasks),
        *layout.adapters.values(),
    ]
    assert {name for name, _ in layout.tasks} == set(tasks)
    assert len(boxes) == count + len(layout.tasks) + count * len(tasks)
    for place, one in enumerate(boxes):
        assert one.x - one.width / 2 > 0
        assert one.x + one.width / 2 < layout.width
        assert one.bottom > 0
        assert one.y + one.height / 2 < layout.height
        for other in boxes[place + 1 :]:
            apart_x = abs(one.x - other.x) >= (one.width + other.width) / 2 - 1e-9
            apart_y = abs(one.y - other.y) >= (one.height + other.height) / 2 - 1e-9
            assert apart_x or apart_y


def test_category_modules_are_left_of_adapters_and_task_modules_above() -> None:
    layout = plan(net(["cat", "cow"]))
    adapter = layout.adapters["cow", "classification"]
    assert layout.categories["cow"].right < adapter.left
    assert adapter.y + adapter.height / 2 < dict(layout.tasks)["classification"].bottom


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
