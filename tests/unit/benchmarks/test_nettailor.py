"""Tailoring to tasks that are learned in seconds: a pattern says the class."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from rootstock.common.errors import ConfigurationError, DataError, SchemaError
from rootstock.common.nettailor.learning import Settings
from rootstock.deploy.cli.commands import app
from tests.benchmarks.harness import tables
from tests.benchmarks.harness.experiment import made
from tests.benchmarks.harness.request import Folders, Request, requested
from tests.benchmarks.harness.training import Training
from tests.benchmarks.papers.nettailor import cells, experiment, goals, tasks
from tests.benchmarks.papers.nettailor.budget import BUDGETS, QUICK, Budget
from tests.benchmarks.papers.nettailor.cells import Cell, Row
from tests.benchmarks.papers.nettailor.experiment import NetTailor
from tests.benchmarks.papers.shared.datasets import Labelled
from tests.support.benchmark_images import decoded, grey

pytestmark = pytest.mark.slow

TINY = replace(
    QUICK,
    width=4,
    batch=16,
    backbone=Training(steps=20, batch=16, learning_rate=0.02),
    teacher=Settings(steps=25, learning_rate=0.05),
    student=Settings(steps=15, learning_rate=0.05, attention_rate=100, complexity=1),
    tuning=Settings(steps=5, learning_rate=0.02, complexity=0),
    repeats=1,
)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folder = decoded(tmp_path / "cache")
    grey(folder, "mnist", classes=4)
    return Folders(tmp_path, folder)


def asked(folders: Folders, budget: Budget = TINY) -> Request[Budget]:
    return Request(folders, budget, workers=1)


def each(shown: Labelled) -> set[bytes]:
    return {image.contiguous().numpy().tobytes() for image in shown.images_NCSS}


def test_no_image_is_in_two_parts(folders: Folders) -> None:
    backbone = tasks.backbone_task(folders)
    whole = tasks.read("cifar10", folders)
    split = tasks.split(whole, held=10, seed=0)
    parts = [each(s) for s in (backbone.training, split.task.training, split.held, whole.test)]
    assert [len(part) for part in parts] == [320, 70, 10, 100]
    assert len(set.union(*parts)) == 500
    again = tasks.split(whole, held=10, seed=1)
    assert each(again.held) != parts[2]
    assert each(again.task.test) == parts[3]


def test_a_small_task_keeps_four_fifths_of_its_images(folders: Folders) -> None:
    split = tasks.split(tasks.read("cifar10", folders), held=2000, seed=0)
    assert (len(split.held), len(split.task.training)) == (16, 64)


def test_grey_images_have_three_equal_channels(folders: Folders) -> None:
    task = tasks.read("mnist", folders)
    assert task.training.images_NCSS.shape == (200, 3, 32, 32)
    assert torch.equal(task.test.images_NCSS[:, 0], task.test.images_NCSS[:, 2])
    assert not task.photographs


def test_a_task_is_tailored_and_a_second_run_finds_the_same(
    folders: Folders, tmp_path: Path
) -> None:
    cell = Cell(asked(folders), "mnist", 0)
    row = cells.run(cell)
    assert row.finetune_accuracy > 50  # of four classes
    assert row.blocks == ("block1_1", "block2_1", "block3_1")
    universal = [node for node, skip, _ in row.paths if skip == 0]
    assert row.blocks_removed == 3 - len(universal)
    assert all(0 < alpha <= 1 for _, _, alpha in row.paths)
    bar = 100 - row.finetune_held_accuracy + 0.5
    assert row.met is (100 - row.held_accuracy <= bar)
    assert (row.blocks_removed == 0) or min(error for *_, error in row.tries) <= bar
    assert row.new_params_share > 0
    kept = {path.name for path in folders.cache.glob("*.safetensors")}
    again = cells.run(cell)
    assert replace(again, latency_ratio=0) == replace(row, latency_ratio=0)
    assert {path.name for path in folders.cache.glob("*.safetensors")} == kept
    # One backbone: another task and seed train a teacher and a student of their own alone.
    cells.run(replace(cell, task="cifar10", seed=1))
    assert len({path.name for path in folders.cache.glob("*.safetensors")} - kept) == 2


def test_a_task_with_fewer_images_than_a_minibatch_is_refused(
    folders: Folders, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"task 'cifar10' has 64 training images.* takes 65"):
        cells.run(Cell(asked(folders, replace(TINY, batch=65)), "cifar10", 0))


def test_what_is_not_known_or_missing_is_refused(tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path / "none")
    with pytest.raises(SchemaError, match="unknown task 'svhn'; known are digits, mnist"):
        experiment.requested(asked(folders), ("digits", "svhn"))
    with pytest.raises(SchemaError, match="unknown task 'svhn'"):
        tasks.read("svhn", folders)
    with pytest.raises(DataError, match="give --root"):
        tasks.read("cifar10", folders)
    done = CliRunner().invoke(app, ["bench", "nettailor", "--quick", "--full"])
    assert isinstance(done.exception, ConfigurationError)
    for size, names, seeds in (("default", experiment.DEFAULT_TASKS, 3), ("quick", ("digits",), 1)):
        found = experiment.requested(requested(BUDGETS, folders, size=size), ())
        assert (found.tasks, found.request.budget.seeds) == (names, seeds)


def row(task: str, seed: int, teacher: float, gone: float, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "task": task, "seed": seed, "accuracy": teacher - 0.3 + seed / 10,
        "finetune_accuracy": teacher, "params_removed": gone, "flops_removed": gone / 2,
        "new_params_share": 5.0 + seed, "latency_ratio": 1 - gone / 200, "met": True,
        "held_accuracy": teacher, "finetune_held_accuracy": teacher,
        "blocks": ("block1_1", "block2_1", "block3_1"), "blocks_removed": 1,
        "paths": ((1, 0, 0.9), (1, 1, 0.1), (3, 2, 1.0)), "tries": ((1, 3, 3.0),),
    }  # fmt: skip
    return Row(**{**values, **changes})


MEASURED = [
    row(task, seed, teacher, gone)
    for task, teacher, gone in (
        ("digits", 98.0, 70.0), ("fashion-mnist", 90.0, 50.0), ("cifar10", 75.0, 20.0),
    )
    for seed in range(3)
]  # fmt: skip


def test_goals_say_met_and_missed() -> None:
    found = {goal.what: goal.verdict for goal in goals.goals(MEASURED)}
    assert set(found.values()) == {"met"}
    assert len(found) == 7
    worse = [
        replace(r, params_removed=10.0, latency_ratio=1.2, new_params_share=12.0, accuracy=97.0)
        if r.task == "digits"
        else r
        for r in MEASURED
    ]
    missed = [g.what for g in goals.goals(worse) if g.verdict == "missed"]
    order = "digits > fashion-mnist > cifar10"
    assert missed == [
        "parameters removed on digits",
        "digits: error above fine-tuning's",
        "new parameters a task, the most",
        f"parameters removed, {order}",
        "latency by FLOPs removed, digits, fashion-mnist, cifar10",
    ]
    one_task = goals.goals([r for r in MEASURED if r.task == "cifar10"])
    assert [g.what for g in one_task] == [
        "cifar10: error above fine-tuning's", "new parameters a task, the most",
    ]  # fmt: skip


def test_the_table_fits_a_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    shown = experiment.requested(asked(Folders(Path(), Path())), ())
    console.print(tables.terminal(shown.grid(MEASURED)))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    digits = next(line for line in lines if "digits" in line)
    for number in ("2.0 ±0.0", "2.2 ±0.2", "70 ±0", "35 ±0", "6.0 ±2.5", "0.65 ±0.00"):
        assert number in digits
    assert "| cifar10 | 25.0 ±0.0 | 25.2 ±0.2 | 20 ±0 |" in tables.markdown(shown.grid(MEASURED))


def test_a_search_that_found_nothing_is_said() -> None:
    shown = experiment.requested(asked(Folders(Path(), Path())), ())
    assert shown.notes(MEASURED) == []
    failed = row("cifar10", 1, 75.0, -13.0, met=False, held_accuracy=70.0)
    assert shown.notes([*MEASURED, failed]) == [
        "cifar10, seed 1: no net is within the tolerance of the original (25.0% on images held "
        "apart); the full augmented net was kept (30.0%)"
    ]


def test_tasks_are_measured_written_and_drawn(folders: Folders, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    outcome = made(NetTailor(asked(folders), ("mnist", "cifar10")), tmp_path / "page", console)
    outcome.show(console)
    found = json.loads(json.dumps(outcome.as_json()))
    keys = {
        "task", "seed", "accuracy", "finetune_accuracy", "params_removed", "flops_removed",
        "new_params_share", "latency_ratio",
    }  # fmt: skip
    assert all(keys <= one.keys() for one in found["rows"])
    assert [one["task"] for one in found["rows"]] == ["mnist", "cifar10"]
    assert {goal["verdict"] for goal in found["goals"]} <= {"met", "open", "missed"}
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    assert "`rootstock bench nettailor --task mnist,cifar10 --seeds 1 --quick`" in page
    assert (tmp_path / "page" / "figures" / "nettailor-quick.png").stat().st_size > 5000
