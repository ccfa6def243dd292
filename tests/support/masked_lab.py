"""A lab with masks: discs in VOC's layout, and a teacher of both tasks."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from rootstock.common.nets.architectures import image_form, initial_modules
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.protocol import Plan
from rootstock.site_agent.config import DataConfig, TrainingConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import load
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.teacher.package import write_blob
from tests.support import digits_lab
from tests.support.voc_layout import write_voc

SEGMENTATION = TaskSpec(name="segmentation", kind="binary-segmentation")
TASKS = (digits_lab.TASK, SEGMENTATION)


@cache
def data(category: str = "cat") -> LabData:
    """Return images of one kind of disc against another; the files are not needed again."""
    rest = {"cat": "dog", "cow": "dog"}[category]
    with tempfile.TemporaryDirectory() as folder:
        root = write_voc(Path(folder), {category: 40, rest: 40}, seed=len(category))
        config = DataConfig(kind="voc", path=root, rest=(rest,), context=0.4)
        return load(
            config,
            category,
            image_form(digits_lab.SPEC),
            batch_size=16,
            warn=lambda _: None,  # discs look alike
            masks=True,
        )


def start() -> Teacher:
    return Teacher(*initial_modules(digits_lab.SPEC, TASKS, 0))


def train(category: str, folder: Path, epochs: int) -> Teacher:
    recipe = SupervisedRecipe(
        TrainingConfig(epochs=epochs, batch_size=16, learning_rate=3e-3), digits_lab.CPU
    )
    return recipe.train(start(), TrainingRun(data(category), folder))


@cache
def teacher(category: str) -> Teacher:
    with tempfile.TemporaryDirectory() as folder:
        return train(category, Path(folder), 15)


def plan(folder: Path) -> Plan:
    """Return a plan of both tasks; its blobs go into `folder`."""
    folder.mkdir(exist_ok=True)
    first = start()
    return Plan(
        net="animals",
        architecture=digits_lab.SPEC,
        tasks=TASKS,
        initial_category_module=write_blob(folder, first.category_module.state_dict()),
        initial_task_modules={
            name: write_blob(folder, module.state_dict())
            for name, module in first.task_modules.items()
        },
    )
