"""What a recipe learned, drawn from numbers that a lab says of itself."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rootstock.coordinator.history.charts import draw_recipe, has_recipe, lambdas, lowest_first
from rootstock.coordinator.history.files import RECIPE, file_names, write_files
from rootstock.coordinator.history.record import MergeRecord, Tailored
from rootstock.coordinator.pictures.canvas import new_figure
from rootstock.coordinator.pictures.recipes import ends, heat_map
from tests.support.merge_records import record

LAMBDAS = {
    f"lambda/{source}/block{m}_1->relu{n}_2": value
    for source, value in (("mnist", 2.5), ("fashion", 0.5))
    for m in (1, 2, 3)
    for n in (1, 2, 3)
}
TAILORED = Tailored(
    blocks=("block1_1", "block1_2", "block2_1", "block2_2"),
    paths=((1, 0, 0.9), (1, 1, 0.1), (3, 2, 1.0), (4, 0, 0.6), (4, 1, 0.3), (4, 3, 0.1)),
)


def transferred(**changes: object) -> MergeRecord:
    return record(["cat", "cow"], **{"teacher_numbers": LAMBDAS, **changes})


def test_lambda_is_read_by_source_and_pair_and_what_cannot_be_is_left_out() -> None:
    odd = {
        "lambda/mnist/block1_1->relu1_2": 7.0,
        "lambda/mnist/nothing": 1.0,
        "lambda/left_out": 3.0,
        "lambda/fashion/block2_1->relu1_2": -1.0,
        "error/classification": 3.0,
    }
    found = lambdas(transferred(teacher_numbers=LAMBDAS | odd))
    assert list(found) == ["mnist", "fashion"]
    assert found["mnist"]["block2_1", "relu3_2"] == 2.5
    assert (len(found["mnist"]), len(found["fashion"])) == (8, 8)
    assert not has_recipe(transferred(teacher_numbers=odd))


@pytest.mark.parametrize("changes", [{}, {"tailored": TAILORED}])
def test_the_picture_is_in_the_run_and_in_the_report(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    merge = transferred(**changes)
    assert RECIPE in file_names(merge)
    write_files(merge, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == file_names(merge)
    with Image.open(tmp_path / RECIPE) as image:
        assert image.width > 500
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 100
    report = (tmp_path / "report.html").read_text()
    assert "How the teacher net was made" in report
    assert ("tailored net" in report) is bool(changes)
    assert "lambda/mnist/block1_1-&gt;relu1_2" in report
    assert MergeRecord.parse((tmp_path / "merge.json").read_bytes(), what="record") == merge


def test_a_merge_without_a_recipe_s_numbers_has_no_picture(tmp_path: Path) -> None:
    merge = transferred(teacher_numbers={"error/classification": 3.0})
    assert RECIPE not in file_names(merge)
    write_files(merge, tmp_path)
    assert "How the teacher net was made" not in (tmp_path / "report.html").read_text()


def test_many_sources_and_one_pair_can_be_drawn(tmp_path: Path) -> None:
    many = {f"lambda/s{i}/a->b": i % 6 + 0.5 for i in range(30)}
    draw_recipe(transferred(teacher_numbers=many), tmp_path / "many.png")
    draw_recipe(transferred(teacher_numbers={"lambda/s/a->b": 0.0}), tmp_path / "one.png")
    assert (tmp_path / "many.png").stat().st_size > (tmp_path / "one.png").stat().st_size > 3000


ODD = [
    "lambda/mnist/$\\frac$->relu1_2",  # a formula that matplotlib cannot read
    "lambda/$x/block1_1->relu1_2",
    "lambda/mnist/block1_1->relu\n1",
    "lambda/mnist/层->relu1_2",
    "lambda/mnist/block1_1->a\x00",
    "lambda/mnist/" + "x" * 5000 + "->relu1_2",
    "lambda/mnist/a->b->c",
]


@pytest.mark.parametrize("key", ODD, ids=range(len(ODD)))
def test_a_key_that_no_picture_takes_is_a_number_alone(tmp_path: Path, key: str) -> None:
    merge = transferred(teacher_numbers=LAMBDAS | {key: 1.0})
    assert lambdas(merge) == lambdas(transferred())
    assert not has_recipe(transferred(teacher_numbers={key: 1.0}))
    write_files(merge, tmp_path)
    said = html.unescape((tmp_path / "report.html").read_text())
    assert key.strip("\x00") in said.replace("\x00", "")


def test_layers_stand_in_the_order_of_their_numbers() -> None:
    figure = new_figure(4, 3)
    with_tens = {
        f"lambda/s/layer{m}->{n}": 1.0
        for m in (10, 2, 1)
        for n in ("task/relu3_1", "relu10_1", "relu2_1")
    }
    del with_tens["lambda/s/layer1->relu2_1"]  # the first row lacks the first column
    (pairs,) = lambdas(transferred(teacher_numbers=dict(sorted(with_tens.items())))).values()
    axes = figure.add_subplot()
    layers, targets = map(lowest_first, ends(pairs))
    heat_map(axes, pairs, layers, targets, title="", brightest=1.0)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["layer1", "layer2", "layer10"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["relu2_1", "relu10_1", "task/relu3_1"]
    values = axes.get_images()[0].get_array()
    assert values is not None
    assert np.argwhere(np.ma.getmaskarray(values)).tolist() == [[0, 0]]


@pytest.mark.parametrize("share", [45.0, 1e9])
def test_what_is_removed_is_said_if_it_can_be(tmp_path: Path, share: float) -> None:
    numbers = {"nettailor/params_removed": share}
    paths = [tmp_path / "with.png", tmp_path / "without.png"]
    draw_recipe(transferred(teacher_numbers=numbers, tailored=TAILORED), paths[0])
    draw_recipe(transferred(teacher_numbers={}, tailored=TAILORED), paths[1])
    one, other = (path.read_bytes() for path in paths)
    assert (one == other) is (share > 100)
