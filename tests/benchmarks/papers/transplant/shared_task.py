"""Experiment 4's task module: one g for many categories, the new one left out (paper, section 4.4).

None of its images shows the category that is left out, not even as "the rest".

Each category has a category module of its own, all begin with the common start, and one task module
above them serves all: a batch of one category after a batch of the next.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.augmentation import augment
from rootstock.common.images import normalise
from rootstock.site_agent.recipes.interface import Teacher
from tests.benchmarks.harness.cache import cached
from tests.benchmarks.harness.training import adamw
from tests.benchmarks.papers.shared.datasets import Dataset, Lab, Labelled, lab
from tests.benchmarks.papers.transplant import teachers

_BATCH = 64
STEPS = 1000
"""Batches in all, whatever the number of categories."""


def shared_task_module(left_out: Lab) -> tuple[nn.Sequential, dict[str, Tensor]]:
    """Return g, and its categories' mean feature statistics (`site_agent.teacher.statistics`).

    The data set's similar and dissimilar categories are learned, but for the lab's.
    """
    dataset, seed = left_out.dataset, left_out.seed
    categories = [c for c in (*dataset.similar, *dataset.dissimilar) if c != left_out.category]
    start = teachers.common_start(left_out)
    task_module = start.task_modules[teachers.TASK.name]
    modules = {name: copy.deepcopy(start.category_module) for name in categories}
    splits = {
        name: lab(dataset, name, seed=seed, without=left_out.category).training
        for name in categories
    }
    _, training = teachers.SETTINGS[dataset.name]
    config = teachers.TeacherConfig(
        data=dataset.name,
        architecture=dataset.architecture,
        category=f"all but {left_out.category}",
        start_epochs=STEPS,
        training=training,
        seed=seed,
    )
    everything = {"task/": task_module, **{f"{name}/": m for name, m in modules.items()}}

    def train() -> None:
        _train(modules, task_module, splits, dataset, seed)

    cached(left_out.folders, config, everything, train)
    statistics = [
        teachers.named_statistics(
            Teacher(modules[name], {teachers.TASK.name: task_module}), splits[name]
        )
        for name in categories
    ]
    means = {key: torch.stack([s[key] for s in statistics]).mean(0) for key in statistics[0]}
    return task_module, means


def _train(
    modules: dict[str, nn.Sequential],
    task_module: nn.Sequential,
    splits: dict[str, Labelled],
    dataset: Dataset,
    seed: int,
) -> None:
    _, config = teachers.SETTINGS[dataset.name]
    generator = torch.Generator().manual_seed(seed)
    names = sorted(modules)

    def loss(step: int) -> Tensor:
        name = names[step % len(names)]
        images = splits[name]
        chosen = torch.randint(len(images), (_BATCH,), generator=generator)
        x_NCSS = augment(
            normalise(images.images_NCSS[chosen]),
            config.augment,
            mirror=dataset.mirror,
            generator=generator,
        )
        y_N = task_module(modules[name](x_NCSS)).flatten()
        return F.binary_cross_entropy_with_logits(y_N, images.classes_N[chosen].float())

    adamw(
        [task_module, *modules.values()],
        loss,
        steps=STEPS,
        rate=config.learning_rate,
        weight_decay=config.weight_decay,
        seed=seed,
    )
