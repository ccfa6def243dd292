from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rootstock.common.errors import ConfigurationError
from rootstock.common.nets.graph import NetTree
from rootstock.coordinator.pictures.layout import plan
from rootstock.coordinator.pictures.net import draw_net, edge_mark
from rootstock.coordinator.pictures.overlay import COLOURS, draw_overlay
from tests.support.grown_net import Command, GrownNet, animals
from tests.support.merge_records import net


def large(categories: int, *tasks: str) -> NetTree:
    return net([f"category-{place}" for place in range(categories)], list(tasks))


@pytest.mark.parametrize("tasks", [("classification",), ("classification", "segmentation")])
@pytest.mark.parametrize("categories", [1, 3, 11, 60])
def test_every_join_is_in_its_categorys_line_and_its_tasks_column(
    categories: int, tasks: tuple[str, ...]
) -> None:
    tree = large(categories, *tasks)
    layout = plan(tree)
    assert layout.adapters.keys() == {(edge.category, edge.task) for edge in tree.edges}
    for (category, task), box in layout.adapters.items():
        own = layout.categories[category]
        assert box.y == own.y
        heads = [head for name, head in layout.tasks if name == task and head.x > own.right]
        head = min(heads, key=lambda head: head.x)  # of the category's own panel
        assert head.x - head.width / 2 < box.x < head.right


def test_a_net_of_hundreds_stays_a_page() -> None:
    layout = plan(large(500, "classification", "segmentation"))
    assert 1 < layout.width / layout.height < 2


def test_a_few_categories_stand_one_below_the_other() -> None:
    layout = plan(large(10, "classification"))
    assert len({box.x for box in layout.categories.values()}) == 1


def test_what_is_not_joined_stays_empty() -> None:
    tree = large(20, "classification", "segmentation")
    without = tree.model_copy(update={"edges": tree.edges[1:]})
    missing = (tree.edges[0].category, tree.edges[0].task)
    assert plan(tree).adapters.keys() - plan(without).adapters.keys() == {missing}


@pytest.mark.parametrize("categories", [3, 30])
def test_names_and_errors_can_be_searched_in_an_svg(tmp_path: Path, categories: int) -> None:
    tree = large(categories, "classification")
    marks = {edge_mark("category-1", "classification")}
    one = draw_net(tree, tmp_path / "one.svg", marks, title="animals").read_text(encoding="utf-8")
    words = set(re.findall(r">([^<>\n]+)</text>", one))
    assert {f"category-{place}" for place in range(categories)} <= words
    assert {"classification", "animals", "2.5%", "h"} <= words
    two = draw_net(tree, tmp_path / "two.svg", marks, title="animals").read_text(encoding="utf-8")
    assert one == two


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    for name in ("net.pdf", "net"):
        with pytest.raises(ConfigurationError, match=r"written as \.png or \.svg, .* net\.png"):
            draw_net(large(3, "classification"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_show_draws_the_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grown: GrownNet = animals(tmp_path)
    command = Command(capsys)
    picture = tmp_path / "out" / "net.png"
    assert command.text("net", "show", "-c", grown.config, "--picture", picture) == ""
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 400
    svg = tmp_path / "net.svg"
    printed = command.json("net", "show", "-c", grown.config, "--picture", svg)
    assert printed["version"] == 3
    assert "animals, net version 3" in svg.read_text(encoding="utf-8")


def test_an_overlay_tints_each_category_in_its_colour(tmp_path: Path) -> None:
    labels_HW = np.array([[0, 1], [2, 11]])
    path = draw_overlay(Image.new("RGB", (512, 512)), labels_HW, tmp_path / "overlay.png")
    with Image.open(path) as image:
        assert image.size == (512, 512)
        corners = [image.getpixel(at) for at in ((9, 9), (500, 9), (9, 500), (500, 500))]
    tints = [tuple(round(value / 2) for value in COLOURS[k]) for k in (0, 1, 0)]
    assert corners == [(0, 0, 0), *tints]
