"""Recipe `compatible` on real digits: what it ships fits another lab's task module as it is."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rootstock.common.compatible.rotation import TURNS, RotationSettings, learn_rotation_head
from rootstock.common.errors import ConfigurationError, DataError, SchemaError
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import build_head, image_form, initial_modules, initialise
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.protocol import Heads
from rootstock.site_agent import scoring
from rootstock.site_agent.config import CompatibleConfig, TrainingConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import load
from rootstock.site_agent.recipes.compatible import CompatibleRecipe, FrozenHeads, load_heads
from rootstock.site_agent.recipes.interface import Recipe, Teacher, TrainingRun
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.state import Stopped
from rootstock.site_agent.teacher.package import write_blob
from tests.support import digits_lab

pytestmark = pytest.mark.slow

SPEC = digits_lab.SPEC.model_copy(update={"split": "pool2"})
TASK = digits_lab.TASK.name
CONFIG = TrainingConfig(recipe="compatible", epochs=15)


def begin(seed: int = 0) -> Teacher:
    return Teacher(*initial_modules(SPEC, [digits_lab.TASK], seed))


def trained(recipe: Recipe, digit: int, folder: Path, seed: int = 0) -> Teacher:
    data = digits_lab.data(digit)
    return recipe.train(begin(seed), TrainingRun(data, folder))


@cache
def founder(folder: Path) -> Teacher:
    return trained(SupervisedRecipe(CONFIG, digits_lab.CPU), 0, folder / "founder")


def heads(folder: Path, *, rotation: bool = False) -> FrozenHeads:
    net = founder(folder)
    head = None
    if rotation:
        head = initialise(build_head(SPEC, TURNS), 0)
        images = normalise(digits_lab.data(0).training.images_NCHW)
        learn_rotation_head(head, net.category_module, images, RotationSettings(steps=200))
    return FrozenHeads(dict(net.task_modules), head)


def error(category_module: nn.Sequential, g: nn.Sequential, data: LabData) -> float:
    y = scoring.logits(category_module, {TASK: g}, data.validation)
    return scoring.error_percent(y[TASK], data.validation.labels_N)


def test_it_fits_the_nets_task_module_with_no_adapter(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "compatible"
    g_s, data = founder(folder).task_modules[TASK], digits_lab.data(1)
    before = {name: value.clone() for name, value in g_s.state_dict().items()}
    plain = trained(SupervisedRecipe(CONFIG, digits_lab.CPU), 1, folder / "plain")
    recipe = CompatibleRecipe(CONFIG, digits_lab.CPU, heads(folder))
    fitting = trained(recipe, 1, folder / "fitting")
    assert error(plain.category_module, g_s, data) > 25
    assert error(fitting.category_module, g_s, data) < 12
    assert error(fitting.category_module, fitting.task_modules[TASK], data) < 5
    assert all(torch.equal(value, g_s.state_dict()[name]) for name, value in before.items())


def test_the_rotation_head_has_its_say(tmp_path_factory: pytest.TempPathFactory) -> None:
    """From initial weights of its own, too, f learns what that head can read."""
    folder = tmp_path_factory.getbasetemp() / "compatible"
    frozen = heads(folder, rotation=True)
    head = frozen.rotation
    assert head is not None
    images = normalise(digits_lab.data(1).validation.images_NCHW)

    def told(teacher: Teacher) -> float:
        right = [
            head(teacher.category_module(torch.rot90(images, turns, (2, 3)))).argmax(1) == turns
            for turns in range(TURNS)
        ]
        return float(torch.stack(right).float().mean())

    only = CONFIG.model_copy(update={"compatible": CompatibleConfig(task_weight=0)})
    shared = FrozenHeads({}, frozen.rotation)
    fitting = trained(CompatibleRecipe(only, digits_lab.CPU, shared), 1, folder / "turned", 9)
    plain = trained(SupervisedRecipe(CONFIG, digits_lab.CPU), 1, folder / "alone", 9)
    assert told(fitting) > 0.5  # a one upside down is a one
    assert told(plain) < 0.35


def test_an_interruption_leaves_no_trace(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 3, "checkpoint_epochs": 1})
    frozen = FrozenHeads(
        {TASK: initial_modules(SPEC, [digits_lab.TASK], 5)[1][TASK].eval().requires_grad_(False)},
        initialise(build_head(SPEC, TURNS), 5).eval().requires_grad_(False),
    )
    whole = trained(CompatibleRecipe(config, digits_lab.CPU, frozen), 1, tmp_path / "whole")
    stop = threading.Event()

    def halfway(step: int, steps: int, _message: str) -> None:
        if step == steps // 2:
            stop.set()

    recipe = CompatibleRecipe(config, digits_lab.CPU, frozen)
    with pytest.raises(Stopped):
        recipe.train(begin(), TrainingRun(digits_lab.data(1), tmp_path / "cut", halfway, stop))
    resumed = trained(recipe, 1, tmp_path / "cut")
    for name, module in whole.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, resumed.modules()[name].state_dict()[key]), (name, key)


def published(folder: Path, spec: ArchitectureSpec = SPEC, **changes: object) -> Heads:
    folder.mkdir(exist_ok=True)
    _, modules = initial_modules(spec, [digits_lab.TASK], 1)
    entries = {name: write_blob(folder, module.state_dict()) for name, module in modules.items()}
    rotation = write_blob(folder, build_head(spec, TURNS).state_dict())
    values = {"number": 1, "origin": "test", "task_modules": entries, "rotation": rotation}
    return Heads.model_validate(values | changes)


def load_into(
    folder: Path, heads: Heads, config: CompatibleConfig, tasks: list[str] | None = None
) -> FrozenHeads:
    plan = digits_lab.plan(folder / "plan").model_copy(update={"architecture": SPEC})
    fetch = lambda entry, _module: folder / entry.digest  # noqa: E731
    return load_heads(heads, plan, tasks or [TASK], config, fetch)


def test_heads_of_weight_0_are_not_even_fetched(tmp_path: Path) -> None:
    found = load_into(tmp_path, published(tmp_path), CompatibleConfig(rotation_weight=0))
    assert list(found.task_modules) == [TASK]
    assert found.rotation is None
    found = load_into(tmp_path, published(tmp_path), CompatibleConfig(task_weight=0))
    assert found.task_modules == {}
    assert found.rotation is not None
    assert not any(p.requires_grad for p in found.rotation.parameters())


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        ({"rotation": None}, CompatibleConfig(task_weight=0)),
        ({"task_modules": {}}, CompatibleConfig(rotation_weight=0)),
        ({}, CompatibleConfig(task_weight=0, rotation_weight=0)),
    ],
)
def test_nothing_in_common_is_refused(
    tmp_path: Path, changes: dict[str, Any], config: CompatibleConfig
) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing is in common. Raise a weight, or"):
        load_into(tmp_path, published(tmp_path, **changes), config)


def test_heads_of_another_architecture_are_refused(tmp_path: Path) -> None:
    wide = SPEC.model_copy(update={"settings": {"input_size": 32, "width": 16}})
    with pytest.raises(SchemaError, match="shape"):
        load_into(tmp_path, published(tmp_path, wide), CompatibleConfig())


def test_batch_norm_statistics_can_be_those_of_the_images_as_they_are(tmp_path: Path) -> None:
    spec = ArchitectureSpec(
        name="small-resnet", settings={"input_size": 32, "width": 4, "blocks": 1}, split="block2_1"
    )
    _, modules = initial_modules(spec, [digits_lab.TASK], 1)
    frozen = FrozenHeads({TASK: modules[TASK].eval().requires_grad_(False)}, None)
    config = TrainingConfig(
        recipe="compatible", epochs=1, compatible=CompatibleConfig(batch_norm="re-estimated")
    )
    data = load(digits_lab.digits(0), "0", image_form(spec), batch_size=32, warn=digits_lab.fail)
    start = Teacher(*initial_modules(spec, [digits_lab.TASK], 0))
    recipe = CompatibleRecipe(config, digits_lab.CPU, frozen)
    teacher = recipe.train(start, TrainingRun(data, tmp_path))
    f = teacher.category_module
    with torch.no_grad():
        maps = f.get_submodule("conv1")(normalise(data.training.images_NCHW))
    assert torch.allclose(f.get_buffer("bn1.running_mean"), maps.mean((0, 2, 3)), atol=1e-4)
    assert recipe.settings()["compatible.batch_norm"] == "re-estimated"
    few = LabData(
        data.training.subset([*range(4), *range(-4, 0)]),
        data.holdout,
        data.validation,
        data.mirror,
    )
    again = Teacher(*initial_modules(spec, [digits_lab.TASK], 0))
    small = config.model_copy(update={"batch_size": 4})
    with pytest.raises(DataError, match="statistics from 8 training images would be noise"):
        CompatibleRecipe(small, digits_lab.CPU, frozen).train(
            again, TrainingRun(few, tmp_path / "few")
        )


def test_settings_say_what_the_recipe_did() -> None:
    recipe = CompatibleRecipe(CONFIG, digits_lab.CPU, FrozenHeads({}, None))
    settings = recipe.settings()
    assert settings["compatible.task_weight"] == 1.0
    assert settings["epochs"] == 15
    assert "compatible.wait_seconds" not in settings
    assert not any(key.startswith("compatible") for key in plain_settings())


def plain_settings() -> dict[str, object]:
    return dict(SupervisedRecipe(TrainingConfig(), digits_lab.CPU).settings())


@pytest.mark.parametrize("changes", [{"frozen": "pool2"}, {"frozen": "flatten"}, {"views": 2}])
def test_a_category_module_that_learns_nothing_needs_no_heads(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = CONFIG.model_copy(update=changes)
    recipe = CompatibleRecipe(config, digits_lab.CPU, FrozenHeads({}, None))
    with pytest.raises(ConfigurationError, match="or choose recipe 'supervised'"):
        trained(recipe, 1, tmp_path)
