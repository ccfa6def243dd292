"""Layers that stay, and what they say, computed once."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rootstock.common.distillation.settings import STILL
from rootstock.common.errors import ConfigurationError
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.images import batch_of
from rootstock.site_agent.recipes import frozen
from rootstock.site_agent.recipes.frozen import Parts
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.state import Stopped
from tests.support import digits_lab
from tests.support.digits_lab import CPU, assert_same, weights

SPEC = ArchitectureSpec(name="small-resnet", split="block2_1", settings={"blocks": 1, "width": 8})
TASKS = [TaskSpec(name="classification")]
QUICK = TrainingConfig(epochs=2, frozen="block1_1", frozen_statistics=True, views=2)


def start() -> Teacher:
    f, task_modules = initial_modules(SPEC, TASKS, seed=0)
    return Teacher(f, task_modules)


def trained(folder: Path, config: TrainingConfig, stop: threading.Event | None = None) -> Teacher:
    def halfway(step: int, steps: int, message: str) -> None:
        if stop is not None and message.startswith("epoch 2") and step > steps // 2:
            stop.set()

    run = TrainingRun(digits_lab.data(0), folder, halfway, stop)
    return SupervisedRecipe(config, CPU).train(start(), run)


def changed(teacher: Teacher) -> set[str]:
    before, after = weights(start()), weights(teacher)
    return {key for key in after if not torch.equal(before[key], after[key])}


@pytest.mark.parametrize("frozen", ["block1_1", "block2_1", "block3_1", "flatten"])
def test_what_is_frozen_stays_and_all_behind_it_learns(tmp_path: Path, frozen: str) -> None:
    learned = changed(trained(tmp_path, QUICK.model_copy(update={"frozen": frozen})))
    whole = start()
    layers = [("category", name, layer) for name, layer in whole.category_module.named_children()]
    g = whole.task_modules["classification"]
    layers += [("task/classification", name, layer) for name, layer in g.named_children()]
    place = [name for _, name, _ in layers].index(frozen) + 1
    for module, name, layer in layers[:place]:
        assert not {key for key in learned if key.startswith(f"{module}/{name}.")}, name
        assert layer is not None
    for module, name, layer in layers[place:]:
        if any(True for _ in layer.parameters()):
            assert {key for key in learned if key.startswith(f"{module}/{name}.")}, name


def test_kept_features_teach_what_images_do(tmp_path: Path) -> None:
    """Without augmentation, a view is the image: only the rounding differs, and the draws."""
    still = {"augment": STILL, "views": 1, "epochs": 6}
    kept = trained(tmp_path / "kept", QUICK.model_copy(update=still))
    whole = trained(tmp_path / "whole", QUICK.model_copy(update={**still, "views": 0}))
    begun = weights(start())
    moved, other = (
        torch.cat([(weights(net)[key] - begun[key]).flatten() for key in sorted(changed(whole))])
        for net in (kept, whole)
    )
    assert float(torch.cosine_similarity(moved, other, dim=0)) > 0.95


def test_a_training_on_kept_features_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"epochs": 3, "checkpoint_epochs": 1})
    whole = trained(tmp_path / "whole", config)
    with pytest.raises(Stopped):
        trained(tmp_path / "cut", config, threading.Event())
    assert_same(trained(tmp_path / "cut", config), whole)


def test_a_task_module_without_the_layer_learns_all_of_its_own() -> None:
    f, task_modules = initial_modules(
        SPEC, [*TASKS, TaskSpec(name="mask", kind="binary-segmentation")], seed=0
    )
    net = Teacher(f, task_modules)
    parts = Parts.of(net, "flatten")
    assert len(parts.below["mask"]) == 0
    assert len(parts.above["mask"]) == len(task_modules["mask"])
    x_NCHW = torch.rand(2, 3, 32, 32)
    for module in (f, *task_modules.values()):
        module.eval()
    found = parts.upper(parts.lower(x_NCHW))
    assert found["classification"].shape == (2,)
    assert found["mask"].shape == (2, 32, 32)
    assert torch.allclose(found["mask"], task_modules["mask"](f(x_NCHW))[:, 0], atol=1e-5)


def test_masks_move_with_their_views_and_void_pixels_stay_void(tmp_path: Path) -> None:
    data = digits_lab.data(0)
    values = torch.tensor([0, 1, NO_LABEL], dtype=torch.uint8)
    masks_NHW = values[torch.arange(32 * 32).reshape(1, 32, 32).remainder(3)]
    training = replace(
        data.training, masks_NHW=masks_NHW.expand(len(data.training), -1, -1).contiguous()
    )
    f, task_modules = initial_modules(
        SPEC, [*TASKS, TaskSpec(name="mask", kind="binary-segmentation")], seed=0
    )
    net = Teacher(f.eval(), task_modules)
    for g in task_modules.values():
        g.eval()
    config = QUICK.model_copy(update={"frozen": "flatten", "views": 1})
    run = TrainingRun(replace(data, training=training), tmp_path)
    kept = frozen.KeptFeatures(Parts.of(net, "flatten"), run, config, CPU)
    chosen = torch.arange(5)
    features, batch = kept.batch(chosen, torch.Generator())
    assert set(features) == {"", "classification"}  # one copy for all that begin at f's output
    still = batch_of(run.data, chosen, STILL, torch.Generator())
    assert batch.labels_NHW is not None
    assert still.labels_NHW is not None
    assert torch.equal(batch.labels_NHW.nan_to_num(9), still.labels_NHW.nan_to_num(9))
    assert batch.labels_NHW.isnan().any()
    assert torch.equal(batch.labels_N, still.labels_N)


def test_a_frozen_layer_that_leaves_nothing_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'fc' leaves nothing of task module"):
        Parts.of(start(), "fc")


def test_more_features_than_memory_may_hold_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "MAX_BYTES", 10_000)
    with pytest.raises(ConfigurationError, match=r"training\.views = 2: .* lower it"):
        trained(tmp_path, QUICK)
