"""`bench which`: how answers become one, and a whole small run."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.deploy.cli.commands import app
from rootstock.site_agent.config import TrainingConfig
from tests.benchmarks.harness.request import Folders, requested
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.shared.datasets import Labelled
from tests.benchmarks.papers.transplant import teachers, which
from tests.benchmarks.papers.transplant.cells import CEILING
from tests.benchmarks.papers.transplant.which import BUDGETS, CENTRAL, TEACHERS, Row, Which

TRUE = torch.tensor([0, 0, 1, 1])


def asked(**options: object) -> Which:
    request = requested(BUDGETS, Folders(Path(), Path()))
    return which.requested(request, "digits", **options)  # type: ignore[arg-type]


def test_the_most_probable_category_is_the_answer() -> None:
    first = torch.tensor([2.0, -1.0, -3.0, 0.5])
    second = torch.tensor([1.0, 0.0, 4.0, 0.0])
    found = [{(TEACHERS, 0): (first, first)}, {(TEACHERS, 0): (second, second + 1)}]
    (row,) = which.combined(found, TRUE, "digits", 3)
    # 0, 1, 1, 0 as they are; 0, 1, 1, 1 with the second one's bias.
    assert (row.accuracy, row.calibrated, row.images, row.seed) == (50.0, 75.0, 4, 3)
    (row,) = which.combined(found[:1] + found[:1], TRUE, "digits", 0)
    assert row.accuracy == 50.0  # the first of two that say the same


def test_categories_count_alike_in_their_mean() -> None:
    always = torch.tensor([1.0, 1.0, 1.0, 1.0])
    found = [{("auto", 0): (always, always)}, {("auto", 0): (-always, -always)}]
    (row,) = which.combined(found, torch.tensor([0, 0, 0, 1]), "digits", 0)
    assert (row.accuracy, row.by_category) == (75.0, 50.0)


def test_a_method_without_an_answer_for_one_category_has_no_line() -> None:
    some = torch.zeros(4)
    found = [
        {("auto", 0): (some, some), (TEACHERS, 0): (some, some)},
        {(TEACHERS, 0): (some, some)},
    ]
    assert [row.method for row in which.combined(found, TRUE, "digits", 0)] == [TEACHERS]


def test_only_images_of_the_categories_are_asked_about() -> None:
    dataset = datasets.load("digits", Folders(Path(), Path("/nonexistent")))
    test = which.tested(dataset, ("three", "one"))
    assert set(test.classes_N.tolist()) == {0, 1}
    wanted = dataset.test.classes_N[torch.isin(dataset.test.classes_N, torch.tensor([1, 3]))]
    assert torch.equal(test.classes_N == 1, wanted == 1)


def row(method: str, accuracy: float, calibrated: float | None = None) -> Row:
    return Row("digits", method, 0, 0, accuracy, calibrated, 80.0, 100)


def test_the_goal_is_the_distance_to_central_training() -> None:
    rows = [row(CEILING, 80.0, 88.0), row(CENTRAL, 92.5)]
    goal, by_category = asked().goals(rows)
    assert (goal.ours, goal.met) == ("+4.5 points", True)
    assert (by_category.ours, by_category.met) == ("+0.0 points", True)
    assert asked().goals(rows[:1]) == []


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(SchemaError, match="no method 'dream'; it has identity, auto, ceiling"):
        asked(methods=("dream",))
    with pytest.raises(SchemaError, match="numbers from 0 to 1000"):
        asked(samples=(-1,))


@pytest.mark.parametrize(("frozen", "views"), [("conv1_1", 0), ("pool2", 2), ("flatten", 2)])
def test_classes_are_learned_above_what_is_frozen(frozen: str, views: int) -> None:
    """The central net's labs freeze what theirs do, wherever the net splits."""
    spec = ArchitectureSpec(name="small-vgg", split="pool2", settings={"width": 4})
    f, modules = initial_modules(spec, [teachers.TASK], 0)
    head = teachers.classifier(modules[teachers.TASK.name], 3, 0)
    g = torch.Generator().manual_seed(0)
    shape = (40, 3, 32, 32)
    images = Labelled(
        torch.randint(0, 256, shape, generator=g, dtype=torch.uint8), torch.arange(40) % 3
    )
    config = TrainingConfig(epochs=1, batch_size=8, frozen=frozen, views=views)
    layers = dict([*f.named_children(), *head.named_children()])
    before = {name: copy.deepcopy(layer.state_dict()) for name, layer in layers.items()}
    teachers.learn_classes(f, head, images, config, mirror=False, seed=0)
    still = list(layers)[: list(layers).index(frozen) + 1]
    for name, layer in layers.items():
        same = all(torch.equal(before[name][key], v) for key, v in layer.state_dict().items())
        assert same is (name in still or not before[name]), name


@pytest.mark.slow
def test_a_run(tmp_path: Path) -> None:
    """Nets of digits, trained here: each digit's own net and the central one tell them apart."""
    words = ["bench", "which", "--data", "digits", "--quick", "--methods", "identity", "--json"]
    ran = CliRunner().invoke(app, [*words, "--cache", str(tmp_path), "--workers", "2"])
    assert ran.exit_code == 0, ran.output
    rows = {made["method"]: made for made in json.loads(ran.stdout)["rows"]}
    assert rows[TEACHERS]["accuracy"] > 90
    assert rows[CENTRAL]["accuracy"] > 90
    assert rows["identity"]["accuracy"] < 60
    assert len({made["images"] for made in rows.values()}) == 1
