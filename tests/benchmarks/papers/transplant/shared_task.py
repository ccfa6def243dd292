"""Experiment 4's task module: one g for many categories, the new one left out (paper, section 4.4).

None of its images shows the category that is left out, not even as "the rest".

Each category has a category module of its own, all begin with the common start, and one task module
above them serves all: a batch of one category after a batch of the next.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.augmentation import augment
from rootstock.common.images.decode import normalise
from rootstock.site_agent.config import StatisticsConfig
from rootstock.site_agent.data.images import ImageSet
from rootstock.site_agent.recipes.fit import schedule
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.teacher.statistics import statistics
from tests.benchmarks.harness.cache import cached
from tests.benchmarks.papers.transplant import teachers
from tests.benchmarks.papers.transplant.datasets import Dataset, Labelled, lab

_BATCH = 64
STEPS = 1000
"""Batches in all, whatever the number of categories."""


def shared_task_module(
    dataset: Dataset, left_out: str, *, seed: int, root: Path, cache: Path
) -> tuple[nn.Sequential, dict[str, Tensor]]:
    """Return g, and its categories' mean feature statistics (`site_agent.teacher.statistics`).

    Parameters
    ----------
    dataset
        Its similar and dissimilar categories are learned.
    left_out
        The category that will be transplanted.
    seed
        Of the start and of the draws.
    root, cache
        Of data sets; of trained nets.
    """
    categories = [c for c in (*dataset.similar, *dataset.dissimilar) if c != left_out]
    start = teachers.common_start(dataset, seed=seed, root=root, cache=cache)
    task_module = start.task_modules[teachers.TASK.name]
    modules = {name: copy.deepcopy(start.category_module) for name in categories}
    splits = {name: lab(dataset, name, seed=seed, without=left_out).training for name in categories}
    _, training = teachers.SETTINGS[dataset.name]
    config = teachers.TeacherConfig(
        data=dataset.name,
        architecture=dataset.architecture,
        category=f"all but {left_out}",
        start_epochs=STEPS,
        training=training,
        seed=seed,
    )
    everything = {"task/": task_module, **{f"{name}/": m for name, m in modules.items()}}

    def train() -> None:
        _train(modules, task_module, splits, dataset, training.learning_rate, seed)

    cached(cache, config, everything, train)
    statistics = [
        named_statistics(Teacher(modules[name], {teachers.TASK.name: task_module}), splits[name])
        for name in categories
    ]
    means = {key: torch.stack([s[key] for s in statistics]).mean(0) for key in statistics[0]}
    return task_module, means


def _train(
    modules: dict[str, nn.Sequential],
    task_module: nn.Sequential,
    splits: dict[str, Labelled],
    dataset: Dataset,
    learning_rate: float,
    seed: int,
) -> None:
    _, config = teachers.SETTINGS[dataset.name]
    parameters = [p for m in (task_module, *modules.values()) for p in m.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    names = sorted(modules)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout's
        for module in (task_module, *modules.values()):
            module.train()
        for step in range(STEPS):
            name = names[step % len(names)]
            images = splits[name]
            chosen = torch.randint(len(images), (_BATCH,), generator=generator)
            x_NCSS = augment(
                normalise(images.images_NCSS[chosen]),
                config.augment,
                mirror=dataset.mirror,
                generator=generator,
            )
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * schedule(step, STEPS)
            y_N = task_module(modules[name](x_NCSS)).flatten()
            loss = F.binary_cross_entropy_with_logits(y_N, images.classes_N[chosen].float())
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def named_statistics(teacher: Teacher, training: Labelled) -> dict[str, Tensor]:
    """Return what the lab's agent would ship."""
    keys = tuple(str(place) for place in range(len(training)))
    images = ImageSet(training.images_NCSS, training.classes_N.float(), keys)
    return statistics(teacher, images, StatisticsConfig())
