import io
import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from rootstock.common.errors import DataError, SchemaError
from rootstock.deploy.cli.commands import app
from tests.benchmarks.harness import results, tables
from tests.benchmarks.harness.experiment import Outcome
from tests.benchmarks.harness.request import Folders, requested
from tests.benchmarks.harness.rows import average
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.transplant import experiment, goals
from tests.benchmarks.papers.transplant.cells import CEILING, Row
from tests.benchmarks.papers.transplant.experiment import BUDGETS, Transplant

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)


def asked(number: int = 2, data: str = "cifar10", **options: Any) -> Transplant:
    request = requested(BUDGETS, Folders(Path(), Path()))
    return experiment.requested(request, number, data, **options)


def row(
    method: str,
    samples: int,
    error: float,
    *,
    seed: int = 0,
    category: str = "cat",
    adapter: str = "3x3",
) -> Row:
    return Row(
        experiment=2,
        data="cifar10",
        category=category,
        method=method,
        adapter=adapter,
        samples=samples,
        seed=seed,
        error=error,
        teacher_error=10.0,
        calibrated_error=error - 1,
    )


ROWS = [
    row("direct-learn", count, error + seed, seed=seed, category=category, adapter="1x1 x3")
    for count, error in ((10, 40.0), (100, 20.0))
    for seed in range(3)
    for category in ("cat", "horse")
] + [
    row("auto", count, error + seed, seed=seed, category=category)
    for count, error in ((0, 19.0), (10, 15.0), (100, 13.0))
    for seed in range(3)
    for category in ("cat", "horse")
]


def test_the_interval_is_students_over_seeds_not_over_rows() -> None:
    found = average(goals.of(ROWS, ("auto", "3x3"), 10), "measured")
    assert found is not None
    assert found.mean == 16.0
    assert found.half == pytest.approx(4.303 * stdev([15.0, 16.0, 17.0]) / math.sqrt(3))
    single = average([row("auto", 10, 15.0)], "measured")
    assert str(single) == "15.0"


def test_the_ratio_is_of_distances_to_the_teacher() -> None:
    ratio = goals.ratio(ROWS, ("auto", "3x3"), ("direct-learn", "1x1 x3"), 10)
    assert ratio == pytest.approx((16 - 10) / (41 - 10))
    assert goals.ratio(ROWS, ("auto", "3x3"), ("distill", "1x1 x3"), 10) is None


def test_goals_say_met_and_missed() -> None:
    by_name = {goal.what: goal for goal in goals.goals(ROWS)}
    assert by_name["10 samples: (auto − teacher) / (direct-learn − teacher)"].met
    assert by_name["0 samples, auto against direct-learn with 100"].met  # 20 against 21
    worse = [replace(r, error=35.0) if r.method == "auto" else r for r in ROWS]
    assert not any(goal.met for goal in goals.goals(worse) if "100" in goal.what)


def test_a_goal_that_the_baseline_leaves_no_room_for_is_neither_met_nor_missed() -> None:
    def pixels(method: str, accuracy: float) -> Row:
        return replace(
            row(method, 10, 0.0, adapter="1x1"), experiment=3, data="voc-animals",
            pixel_accuracy=accuracy, teacher_pixel_accuracy=90.0,
        )  # fmt: skip

    def verdicts(theirs: float, ours: float) -> list[str]:
        return [
            g.verdict for g in goals.goals([pixels("direct-learn", theirs), pixels("auto", ours)])
        ]

    assert verdicts(85.0, 89.0) == ["no room"]
    assert verdicts(75.0, 89.0) == ["met"]
    assert verdicts(75.0, 80.0) == ["missed"]


def test_the_table_fits_a_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    shown = asked().grid([*ROWS, row(CEILING, -1, 11.0)])
    console.print(tables.terminal(shown, left=Transplant.left))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("16.0 ±2.5" in line for line in lines)
    assert any(line.startswith(" ceiling 3x3") for line in lines)


def test_a_section_is_replaced_where_it_stands(tmp_path: Path) -> None:
    section = Outcome(asked(), ROWS, 1.0).section(["a.png"])
    first = replace(section, name="one", command="first")
    other = replace(first, name="other", title="Other", command="kept")
    results.write(tmp_path, first)
    results.write(tmp_path, other)
    page = results.write(tmp_path, replace(first, command="second")).read_text()
    assert "`second`" in page
    assert "`first`" not in page
    assert page.index("`second`") < page.index("`kept`")
    assert page.count("<!-- begin ") == 2
    assert "| *the paper's* | 1x1 x3 | – | 39.31 | 15.72 |" in page


@pytest.mark.parametrize(
    ("number", "data", "changes", "message"),
    [
        (2, "imagenet", {}, "cifar10, voc-animals, voc-pretrained, digits"),
        (3, "cifar10", {}, "only voc-animals has masks"),
        (2, "cifar10", {"methods": ("magic",)}, "it has identity"),
        (2, "cifar10", {"categories": ("dog",)}, "cat, deer, horse, frog"),
        (4, "voc-animals", {}, "no dissimilar"),
        (2, "cifar10", {"samples": (2000,)}, "0 to 1000"),
    ],
)
def test_what_is_not_known_is_refused(
    number: int, data: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        asked(number, data, **changes)


@pytest.mark.parametrize("data", ["cifar10", "voc-animals"])
def test_missing_data_is_named(data: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give --root"):
        datasets.load(data, Folders(tmp_path, tmp_path / "cache"))


def test_a_lab_shares_no_image_between_what_it_trains_on_and_what_it_is_tested_on(
    tmp_path: Path,
) -> None:
    dataset = datasets.load("digits", Folders(tmp_path, tmp_path))
    split = datasets.lab(dataset, "three", seed=0)
    parts = [
        {bytes(image.numpy().tobytes()) for image in part.images_NCSS}
        for part in (split.training, split.held, split.test)
    ]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    for part in (split.training, split.test):
        assert 0.4 < float(part.classes_N.float().mean()) < 0.6
    again = datasets.lab(dataset, "three", seed=1)
    assert torch.equal(split.test.images_NCSS, again.test.images_NCSS)  # seeds share the judge


def test_a_lab_with_few_images_is_judged_as_the_others_are(tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path)
    whole, few = (datasets.load("digits", folders, images=count) for count in (0, 7))
    every, own = (datasets.lab(one, "three", seed=1) for one in (whole, few))
    assert (len(own.training), int(own.training.classes_N.sum())) == (14, 7)
    taken = {image.numpy().tobytes() for image in own.training.images_NCSS}
    assert taken < {image.numpy().tobytes() for image in every.training.images_NCSS}
    assert torch.equal(own.held.images_NCSS, every.held.images_NCSS)
    assert torch.equal(own.test.images_NCSS, every.test.images_NCSS)
    few_asked = asked(2, "voc-pretrained", images=20, samples=(0, 10))
    assert few_asked.name == "transplant-2-voc-pretrained-20-images"
    assert "--images 20" in few_asked.command
    with pytest.raises(SchemaError, match="--images 20: labs with few images begin with"):
        asked(2, "digits", images=20)
    with pytest.raises(SchemaError, match="--images 8: a lab makes a batch of 16 or more"):
        asked(2, "voc-pretrained", images=8)
    with pytest.raises(SchemaError, match="a lab with 20 images of each side has 40"):
        asked(2, "voc-pretrained", images=20, samples=(10, 50))


def test_the_command_trains_transplants_and_prints_one_json_object(tmp_path: Path) -> None:
    arguments = [
        "bench", "transplant", "--experiment", "2", "--data", "digits", "--samples", "0,10",
        "--methods", "identity,closed-form,direct-learn,auto", "--categories", "one",
        "--quick", "--json", "--root", str(tmp_path), "--cache", str(tmp_path / "cache"),
        "--results", str(tmp_path / "page"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    by_kind = {(r["method"], r["adapter"], r["samples"]): r for r in rows}
    teacher = by_kind["identity", "3x3", 0]["teacher_error"]
    assert teacher <= 5
    assert by_kind["identity", "3x3", 0]["error"] > 30
    assert by_kind["auto", "3x3", 10]["error"] <= 15
    assert {"experiment", "data", "category", "pixel_accuracy", "seed"} <= rows[0].keys()
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    assert "rootstock bench transplant --experiment 2 --data digits --samples 0,10" in page
    for picture in ("transplant-2-digits-quick.png", "transplant-2-digits-quick-features.png"):
        assert (tmp_path / "page" / "figures" / picture).stat().st_size > 5000
