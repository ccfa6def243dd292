"""Real digits, small nets, and a signed teacher to put into spools."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.architectures import image_form, initial_modules
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import Recipe, TeacherManifest
from rootstock.site_agent.config import DataConfig, SiteConfig, TrainingConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import load
from rootstock.site_agent.lab import Lab
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.teacher.package import build, write_blob
from rootstock.site_agent.wire.client import Published

CPU = torch.device("cpu")
SPEC = ArchitectureSpec(name="small-vgg", settings={"input_size": 32, "width": 8}, split="pool1")
TASK = TaskSpec(name="classification")
PLAN_DIGEST = "ab" * 32
SUPERVISED = Recipe(name="supervised", settings={})


def digits(digit: int, **changes: object) -> DataConfig:
    values: dict[str, object] = {
        "kind": "digits",
        "class_name": str(digit),
        "rest": tuple("56789"),
        "part": digit + 1,
        "parts": 5,
    }
    return DataConfig.model_validate(values | changes)


@cache
def data(digit: int) -> LabData:
    return load(digits(digit), str(digit), image_form(SPEC), batch_size=32, warn=fail)


def fail(text: str) -> None:
    raise AssertionError(text)


def start() -> Teacher:
    return Teacher(*initial_modules(SPEC, [TASK], 0))


@cache
def teacher(digit: int, folder: Path) -> Teacher:
    recipe = SupervisedRecipe(TrainingConfig(epochs=5), CPU)
    return recipe.train(start(), TrainingRun(data(digit), folder))


def config(state: Path, **changes: object) -> SiteConfig:
    values: dict[str, object] = {
        "site": "lab-0",
        "state": state,
        "category": "zero",
        "data": digits(0),
    }
    return SiteConfig.model_validate(values | changes)


def plan(folder: Path) -> Plan:
    folder.mkdir(exist_ok=True)
    first = start()
    return Plan(
        net="digits",
        architecture=SPEC,
        tasks=(TASK,),
        initial_category_module=write_blob(folder, first.category_module.state_dict()),
        initial_task_modules={
            TASK.name: write_blob(folder, first.task_modules[TASK.name].state_dict())
        },
    )


def lab(config: SiteConfig, plan: Plan, digest: str = "") -> Lab:
    """Return a lab whose plan's blobs are in its state folder, as after a first start."""
    published = Published(plan, digest or plan.content_digest(), None)
    return Lab(
        config, published, CPU, lambda blob, folder: config.state / folder / blob.digest, fail
    )


def untrained(folder: Path, **changes: object) -> TeacherManifest:
    """Write the initial net as if it were a teacher; blobs go into `folder`."""
    own = lab(config(folder, **changes), plan(folder / "plan"), PLAN_DIGEST)
    return build(own, Teacher(*(eval_all(start()))), data(0), SUPERVISED, folder)


def eval_all(net: Teacher) -> tuple[torch.nn.Sequential, dict[str, torch.nn.Sequential]]:
    return net.category_module.eval(), {k: v.eval() for k, v in net.task_modules.items()}


KEY = SigningKey.generate()

COORDINATOR = SigningKey.generate()
"""Of the coordinator that spools are opened for."""


CONFIG = TrainingConfig(epochs=4, checkpoint_epochs=1)


def train(folder: Path, config: TrainingConfig = CONFIG) -> Teacher:
    return SupervisedRecipe(config, CPU).train(start(), TrainingRun(data(1), folder))


def weights(teacher: Teacher) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value
        for name, module in teacher.modules().items()
        for key, value in module.state_dict().items()
    }


def assert_same(first: Teacher, second: Teacher) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.equal(value, two[key]), key
