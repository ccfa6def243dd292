"""Transfer measured, on images that are learned in seconds: a pattern says the class."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from rootstock.common.errors import ConfigurationError, DataError, SchemaError
from rootstock.deploy.cli.commands import app
from tests.benchmarks.harness import request, tables
from tests.benchmarks.harness.experiment import Outcome
from tests.benchmarks.harness.pool import workers
from tests.benchmarks.harness.request import Folders
from tests.benchmarks.harness.rows import average, chosen
from tests.benchmarks.harness.training import Training
from tests.benchmarks.papers.l2t import cells, goals, methods, speed, tasks
from tests.benchmarks.papers.l2t.budget import BUDGETS, QUICK, TargetTraining
from tests.benchmarks.papers.l2t.cells import Row
from tests.benchmarks.papers.l2t.experiment import L2t, requested
from tests.benchmarks.papers.l2t.methods import METHODS, OURS, Given
from tests.support.benchmark_images import decoded, grey

CPU = torch.device("cpu")
TRAINING = TargetTraining(batch=8, rate=0.02, meta_rate=1e-2, steps=3)
BUDGET = replace(
    QUICK, samples=(4,), width=4, vgg_width=4, target=TRAINING,
    source=Training(steps=3, batch=8, learning_rate=1e-2), test_images=50,
)  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folder = decoded(tmp_path / "cache")
    grey(folder, "usps")
    return Folders(folder, folder)


def experiment(folders: Folders, **changes: Any) -> L2t:
    asked = request.requested([BUDGET], folders, size=BUDGET.name, workers=1)
    made = requested(asked, sources=["cifar10-even", "usps"], target="cifar10-odd")
    return replace(made, **changes)


def given(folders: Folders, count: int = 1) -> Given:
    wanted = experiment(folders).trained(0)[:count]
    nets = {config.name: cells.trained(folders, config) for config in wanted}
    return Given(BUDGET.architecture("small-vgg"), 5, nets, TRAINING, 0, CPU)


def test_tasks_share_no_class_and_limited_ones_no_more_images_than_asked(folders: Folders) -> None:
    even, odd = (tasks.task(f"cifar10-{name}", folders) for name in ("even", "odd"))
    assert not set(even.classes) & set(odd.classes)
    assert len(even.classes) == len(odd.classes) == 5
    own = tasks.limited(odd, 7, seed=1)
    assert own.training.classes_N.bincount().tolist() == [7] * 5
    assert torch.equal(own.test.images_NCSS, odd.test.images_NCSS)
    other = tasks.limited(odd, 7, seed=2)
    assert not torch.equal(own.training.images_NCSS, other.training.images_NCSS)
    with pytest.raises(DataError, match="has 40 training images of 'automobile', 99 are asked"):
        tasks.limited(odd, 99, seed=0)
    assert tasks.task("usps", folders).training.images_NCSS.shape[1:] == (3, 32, 32)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "fine-tune"])
def test_every_method_steps_the_target_from_one_start_and_leaves_sources_alone(
    folders: Folders, method: str
) -> None:
    start = given(folders, 2)
    nets = [net.source for net in start.sources.values()]
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in nets]
    torch.manual_seed(0)
    learner = METHODS[method](start)
    initial = start.f().state_dict()
    f = learner.student.category_module
    assert all(torch.equal(v, initial[k]) for k, v in f.state_dict().items())
    where = learner.step(torch.randn(8, 3, 32, 32), torch.arange(8) % 5)
    assert where.shape == (len(learner.pairs),)
    assert bool(learner.pairs) is (method == OURS)
    assert not torch.equal(f.get_parameter("conv1_1.weight"), initial["conv1_1.weight"])
    for net, state in zip(nets, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_penalties_are_what_tells_methods_apart(folders: Folders) -> None:
    start = given(folders)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8) % 5
    after = {}
    for name in METHODS:
        if name == "fine-tune":
            continue
        torch.manual_seed(0)
        learner = METHODS[name](start)
        learner.student.eval()  # without dropout: what differs is the method
        for _ in range(2):
            torch.manual_seed(0)
            learner.step(x, y)
        after[name] = learner.student.category_module.get_parameter("conv1_1.weight").detach()
    names = list(after)
    for place, name in enumerate(names):
        for other in names[:place]:
            assert not torch.equal(after[name], after[other]), (name, other)


def test_fine_tuning_begins_with_the_source_and_needs_its_architecture(folders: Folders) -> None:
    with pytest.raises(SchemaError, match="a small-resnet where the target is a small-vgg"):
        methods.fine_tune(given(folders))
    one = replace(experiment(folders), sources=(("usps", "small-vgg"),))
    (config,) = one.trained(0)
    net = cells.trained(folders, config)
    start = Given(config.architecture, 5, {"usps": net}, TRAINING, 0, CPU)
    f = methods.fine_tune(start).student.category_module
    assert all(torch.equal(v, net.f.state_dict()[k]) for k, v in f.state_dict().items())


def test_cells_pair_methods_with_sources(folders: Folders) -> None:
    made = experiment(folders, methods=("scratch", "fm", OURS))
    found = [(c.method, [s.name for s in c.sources]) for c in made.cells()]
    assert found == [
        ("scratch", []),
        ("fm", ["cifar10-even"]),
        ("fm", ["cifar10-even", "usps"]),
        (OURS, ["cifar10-even"]),
        (OURS, ["cifar10-even", "usps"]),
    ]


def test_a_run_is_repeatable_and_writes_its_section(folders: Folders, tmp_path: Path) -> None:
    cell = experiment(folders, methods=(OURS,)).cells()[1]
    row = cells.run(cell)
    assert row == cells.run(cell)
    assert row.source == "cifar10-even+usps"
    assert len(row.where) == 18
    assert 0 < row.where["usps/block2_1->relu3_2"] < 6
    rows = [row, cells.run(experiment(folders).cells()[0])]
    outcome = Outcome(experiment(folders), rows, 1.0)
    with workers(1, Console(quiet=True)) as pool:
        page = outcome.write(tmp_path, pool).read_text()
    pictures = sorted(tmp_path.glob("figures/*"))
    assert all(picture.stat().st_size > 5000 for picture in pictures)
    assert len(pictures) == 2
    assert "| l2t-ww | cifar10-even+usps |" in page
    json.dumps(outcome.as_json())
    outcome.show(Console(quiet=True))


def rows(**accuracies: tuple[float, float]) -> list[Row]:
    made = []
    for name, values in accuracies.items():
        method, _, more = name.partition("__")
        method = method.replace("_", "-")
        source = "" if method == "scratch" else "a" + ("+b" if more else "")
        where = {"a/m->n": 1.5, "a/m->o": 0.5} if method == OURS else {}
        made += [Row(source, "t", method, 50, seed, v, where) for seed, v in enumerate(values)]
    return made


def test_goals_are_read_off_the_rows() -> None:
    measured = rows(
        scratch=(40, 42), at=(50, 52), fm=(44, 45), l2t_ww=(52, 54), l2t_ww__two=(51, 54)
    )
    found = {g.what: g for g in goals.goals(measured)}
    assert [g.verdict for g in found.values()] == ["met", "met", "missed", "met"]
    assert found["50 a class: l2t-ww above every other (at is next)"].ours == "+2.0 points"
    assert found["50 a class: a+b no worse than a alone"].ours == "-0.5 points"
    several = {g.what: g for g in goals.goals([*measured, *rows(fm__two=(50, 54))])}
    assert several.keys() - found.keys() == {"50 a class: l2t-ww above fm, both from a+b"}
    assert several["50 a class: l2t-ww above fm, both from a+b"].ours == "+0.5 points"
    even = [replace(row, where=dict.fromkeys(row.where, 0.7)) for row in measured]
    assert goals.goals(even)[-1].verdict == "missed"
    assert goals.goals([row for row in measured if row.method != OURS]) == []
    above = [replace(row, samples_per_class=1000) for row in measured]
    assert len(goals.goals(above)) == 1  # not limited: only λ


def test_the_table_has_the_papers_form(tmp_path: Path) -> None:
    measured = rows(scratch=(40, 42), l2t_ww=(52, 54), l2t_ww__two=(51, 54))
    ours = average(chosen(measured, method="l2t-ww", source="a"), "accuracy")
    assert ours is not None
    assert ours.mean == 53
    lines = tables.markdown(asked(tmp_path).page_grid(measured)).splitlines()
    assert lines[0] == "| method | source | 50 | paper: CIFAR-100 | STL-10 |"
    assert lines[2] == "| scratch | – | 41.0 ±12.7 | 67.7 | 65.2 |"
    assert lines[4] == "| l2t-ww | a+b | 52.5 ±19.1 | – | – |"


def asked(folder: Path, **options: Any) -> L2t:
    return requested(request.requested(BUDGETS, Folders(folder, folder)), **options)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sources": ["imagenet"]}, "unknown task 'imagenet'; known are cifar10"),
        ({"sources": ["mnist:alexnet"]}, "unknown architecture 'alexnet'"),
        ({"sources": ["mnist", "mnist"]}, "other than the target, each once"),
        ({"sources": ["cifar10-odd"]}, "other than the target"),
        ({"target": "stl10"}, "unknown task 'stl10'"),
        ({"methods": ["ft"]}, "unknown method 'ft'; known are scratch, fine-tune"),
        ({"methods": ["fine-tune"]}, "give --sources cifar10-even:small-vgg"),
        ({"samples": [0]}, "give numbers from 1 on"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        asked(tmp_path, **changes)


def test_fine_tuning_is_measured_where_architectures_agree(tmp_path: Path) -> None:
    assert "fine-tune" in asked(tmp_path, sources=["mnist:small-vgg"]).methods
    assert "fine-tune" not in asked(tmp_path).methods


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--device tpu is not there"):
        request.requested(BUDGETS, Folders(tmp_path, tmp_path), device="tpu")


def test_both_ways_that_are_timed_give_one_gradient() -> None:
    case = speed.Case(2, 2, torch.float64)
    found, expected = case.used(), case.plain()
    assert float((found - expected).norm() / expected.norm()) < 1e-9


def test_the_command_refuses_what_does_not_go_together() -> None:
    for words, said in (
        (["--quick", "--full"], "two sizes"),
        (["--samples-per-class", "ten"], "whole numbers"),
    ):
        outcome = CliRunner().invoke(app, ["bench", "l2t", *words])
        assert said in str(outcome.exception)
