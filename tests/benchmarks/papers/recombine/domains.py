"""Nets of the applications: an extractor, a classifier and a rotation head, trained on one task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from rootstock.common.compatible.rotation import TURNS
from rootstock.common.documents import Document
from rootstock.common.nets.architectures import build_category_module, build_head, initialise
from rootstock.common.nets.spec import ArchitectureSpec
from tests.benchmarks.harness.cache import cached
from tests.benchmarks.harness.request import Folders, Request
from tests.benchmarks.harness.training import Training
from tests.benchmarks.papers.recombine.budget import Budget
from tests.benchmarks.papers.shared.digits import NAMES, grey_task
from tests.benchmarks.papers.shared.training import Learner, freeze, train

FORMAT = 1
"""Raised when nets are trained otherwise with the same configuration."""


class DomainConfig(Document):
    """What decides the weights of one task's net."""

    task: str
    architecture: ArchitectureSpec
    training: Training
    seed: int
    start: int
    """Seed of the initial weights of f."""
    founder: DomainConfig | None = None
    """The net whose rotation head this one learns against, frozen; None: it learns one itself."""
    device: str
    format: int = FORMAT


@dataclass(frozen=True)
class Domain:
    """A trained net."""

    f: nn.Sequential
    head: nn.Sequential
    rotation: nn.Sequential


def configured(
    request: Request[Budget],
    task: str,
    seed: int,
    *,
    founder: DomainConfig | None = None,
    same: bool = False,
) -> DomainConfig:
    """Return what decides a net: with `same`, nets of all tasks have identical initial weights."""
    budget = request.budget
    return DomainConfig(
        task=task,
        architecture=budget.resnet(in_channels=1),
        training=budget.grey,
        seed=seed,
        start=100 * seed + 50 + (0 if same else 1 + NAMES.index(task)),
        founder=founder,
        device=request.device,
    )


def trained(folders: Folders, config: DomainConfig) -> Domain:
    """Return a net, from the cache if it is there."""
    spec, task = config.architecture, grey_task(config.task, folders)
    draw = 100 * config.seed + 80
    f = initialise(build_category_module(spec), config.start)
    head = initialise(build_head(spec, len(task.classes)), draw + NAMES.index(config.task))
    modules = {"f.": f, "head.": head}
    if config.founder is None:
        rotation = initialise(build_head(spec, TURNS), config.start + 20)
        modules["rotation."] = rotation
    else:
        rotation = trained(folders, config.founder).rotation
        freeze(rotation)
    device = torch.device(config.device)
    for module in (*modules.values(), rotation):
        module.to(device)
    learner = Learner(f, task, draw + 10, head=head, rotation=rotation)
    cached(folders, config, modules, lambda: train([learner], config.training, device))
    return Domain(f, head, rotation)
