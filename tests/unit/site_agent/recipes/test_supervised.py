"""Training on real digits: it learns, and interruptions leave no trace in the weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from rootstock.common.errors import ConfigurationError, StorageError
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.site_agent import scoring
from rootstock.site_agent.data.images import balanced_order
from rootstock.site_agent.recipes.fit import CHECKPOINT, schedule
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.state import Stopped
from tests.support import digits_lab
from tests.support.digits_lab import CONFIG, assert_same, train, weights

pytestmark = pytest.mark.slow


def test_it_learns_what_it_has_not_seen(tmp_path: Path) -> None:
    teacher = digits_lab.teacher(0, tmp_path)
    validation = digits_lab.data(0).validation
    logits = scoring.logits(teacher.category_module, teacher.task_modules, validation)
    assert scoring.error_percent(logits["classification"], validation.labels_N) < 10
    assert not any(p.requires_grad for p in teacher.category_module.parameters())


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_stop_between_epochs_leaves_no_trace(tmp_path: Path, optimiser: str) -> None:
    config = CONFIG.model_copy(update={"optimiser": optimiser, "epochs": 3})
    whole = train(tmp_path / "whole", config)
    stop = threading.Event()

    def stop_in_the_second_epoch(step: int, steps: int, _message: str) -> None:
        if step == steps // 2:
            stop.set()

    recipe = SupervisedRecipe(config, digits_lab.CPU)
    with pytest.raises(Stopped):
        recipe.train(
            digits_lab.start(),
            TrainingRun(digits_lab.data(1), tmp_path / "cut", stop_in_the_second_epoch, stop),
        )
    assert_same(train(tmp_path / "cut", config), whole)


SCRIPT = """
import sys
from pathlib import Path
from tests.support.digits_lab import train
train(Path(sys.argv[1]))
"""


def test_kill_9_in_training_leaves_no_trace(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "cut")])
    checkpoint = tmp_path / "cut" / CHECKPOINT
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert_same(train(tmp_path / "cut"), whole)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    whole = train(tmp_path)
    steps: list[int] = []
    recipe = SupervisedRecipe(CONFIG, digits_lab.CPU)
    again = recipe.train(
        digits_lab.start(),
        TrainingRun(digits_lab.data(1), tmp_path, lambda step, *_: steps.append(step)),
    )
    assert not steps
    assert_same(again, whole)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path, CONFIG.model_copy(update={"epochs": 1}))
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StorageError, match=r"checkpoint\.safetensors: is not a checkpoint.*remove"):
        train(tmp_path)


def test_an_epoch_shows_both_sides_equally_and_every_image() -> None:
    labels_N = torch.tensor([1.0] * 7 + [0.0] * 20)
    order = balanced_order(labels_N, torch.Generator().manual_seed(0))
    assert len(order) == 40
    assert labels_N[order].sum() == 20
    assert set(order.tolist()) == set(range(27))


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    rates = [schedule(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == 1.0
    assert rates[100] == pytest.approx(0.0)


def test_frozen_layers_and_statistics_stay_as_the_start_has_them(tmp_path: Path) -> None:
    changes = {"frozen": "block1_1", "frozen_statistics": True, "epochs": 1}
    config = CONFIG.model_copy(update=changes)
    spec = ArchitectureSpec(
        name="small-resnet", split="block2_1", settings={"blocks": 1, "width": 4}
    )
    f, task_modules = initial_modules(spec, [TaskSpec(name="classification")], seed=0)
    start = Teacher(f, task_modules)
    before = weights(start)
    before = {key: value.clone() for key, value in before.items()}
    data = digits_lab.data(0)
    run = TrainingRun(data, tmp_path)
    after = weights(SupervisedRecipe(config, torch.device("cpu")).train(start, run))
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert not [key for key in changed if key.endswith(statistics)]
    assert not [
        key
        for key in changed
        if key.startswith(("category/conv1", "category/bn1", "category/block1_1"))
    ]
    assert [key for key in changed if "block2_1.conv1" in key]


def test_an_unknown_frozen_layer_is_named(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"frozen": "block9"})
    with pytest.raises(ConfigurationError, match=r"'block9' is no layer.*give one of conv1"):
        train(tmp_path, config)
