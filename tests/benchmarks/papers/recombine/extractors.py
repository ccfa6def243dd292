"""One classifier for extractors of several architectures (paper, section 5.2 and figure 4).

Three extractors learn five classes together, below one shared DCC head. The head is then extended
to ten classes and learns them above one of the extractors, which is frozen; the others take the
new head as it is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from rootstock.common.compatible.rotation import TURNS
from rootstock.common.documents import Document
from rootstock.common.errors import TransplantError
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    feature_shape,
    initialise,
    projected,
)
from rootstock.common.nets.spec import ArchitectureSpec
from tests.benchmarks.harness.cache import cached
from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Folders, Request
from tests.benchmarks.harness.training import Training
from tests.benchmarks.papers.recombine.budget import Budget
from tests.benchmarks.papers.recombine.rows import UPPER, Row
from tests.benchmarks.papers.shared import data, datasets, judging
from tests.benchmarks.papers.shared.datasets import CIFAR10
from tests.benchmarks.papers.shared.training import Learner, freeze, train

FORMAT = 1
"""Raised when nets are trained otherwise with the same configuration."""
BEFORE = CIFAR10[:5]
"""The classes that the extractors learn; all ten are known later."""
REFERENCE = "wide-resnet"
"""Above whose extractor the head learns the new classes."""
CARRIED = "carried over"
INDEPENDENT = "independent"


class ExtractorsConfig(Document):
    """What decides the weights of extractors that were trained together."""

    extractors: tuple[ArchitectureSpec, ...]
    head: ArchitectureSpec
    """Whose layers above its split are the head's."""
    classes: tuple[str, ...]
    rotation: bool
    """Whether a rotation head learns as well, as the upper bound's does."""
    training: Training
    seed: int
    device: str
    format: int = FORMAT


@dataclass(frozen=True)
class Extractors:
    """Extractors by architecture, and the head above all of them."""

    by_name: dict[str, nn.Sequential]
    head: nn.Sequential


@dataclass(frozen=True)
class ExtractorsCell:
    """One seed."""

    request: Request[Budget]
    together: ExtractorsConfig
    alone: tuple[ExtractorsConfig, ...]


def measure(request: Request[Budget], run: Workers) -> list[Row]:
    """Return the rows of every architecture, seed by seed."""
    datasets.load("cifar10", request.folders)  # once, before the processes start
    wanted = [cell(request, seed) for seed in request.seeds]
    nets = [config for one in wanted for config in (one.together, *one.alone)]
    run.fill("nets", partial(trained, request.folders), nets)
    return run.rows("heads", judged, wanted)


def cell(request: Request[Budget], seed: int) -> ExtractorsCell:
    """Return one seed's trainings: all extractors together, and each alone on all classes."""
    budget = request.budget
    specs = architectures(budget)

    def config(
        extractors: tuple[ArchitectureSpec, ...], classes: tuple[str, ...], *, rotation: bool
    ) -> ExtractorsConfig:
        return ExtractorsConfig(
            extractors=extractors,
            head=specs[0],
            classes=classes,
            rotation=rotation,
            training=budget.extractors,
            seed=seed,
            device=request.device,
        )

    return ExtractorsCell(
        request,
        config(specs, BEFORE, rotation=False),
        tuple(config((spec,), CIFAR10, rotation=True) for spec in specs),
    )


def architectures(budget: Budget) -> tuple[ArchitectureSpec, ...]:
    """Return the extractors; the head is the first one's.

    The paper's head is MobileNetV2's; here it is the small ResNet's, which costs less.
    """
    resnet = budget.resnet()
    full = budget.blocks > 1
    return (
        resnet,
        ArchitectureSpec(
            name=REFERENCE,
            split=resnet.split,
            settings={"blocks": budget.blocks, "widen": 4 if full else 2},
        ),
        ArchitectureSpec(
            name="mobilenetv2",
            split="block11" if full else "block6",
            settings={"input_size": 32, "output_stride": 8, "width": 1.0 if full else 0.25},
        ),
    )


def trained(folders: Folders, config: ExtractorsConfig) -> Extractors:
    """Return extractors and the head that they share, from the cache if they are there."""
    task = data.whole(folders, config.classes)
    width, _, _ = feature_shape(config.head)
    draw = 100 * config.seed + 30
    found = {}
    for place, spec in enumerate(config.extractors):
        f = projected(build_category_module(spec), spec, width)
        found[spec.name] = initialise(f, draw + 10 + place)
    head = initialise(build_head(config.head, len(config.classes)), draw)
    rotation = initialise(build_head(config.head, TURNS), draw + 1) if config.rotation else None
    device = torch.device(config.device)
    modules = {**{f"{name}.": f for name, f in found.items()}, "head.": head}
    for module in modules.values():
        module.to(device)
    learners = [
        Learner(f, task, draw + 2 + 2 * place, head=head, rotation=rotation)
        for place, f in enumerate(found.values())
    ]
    cached(folders, config, modules, lambda: train(learners, config.training, device))
    return Extractors(found, head)


def judged(cell: ExtractorsCell) -> list[Row]:
    """Extend the head above the reference, and judge it above every extractor."""
    folders, budget = cell.request.folders, cell.request.budget
    together = trained(folders, cell.together)
    task = data.whole(folders, CIFAR10)
    seed = cell.together.seed
    f = copy.deepcopy(together.by_name[REFERENCE])
    freeze(f)
    head = extended(together.head, len(CIFAR10), seed=seed).to(cell.together.device)
    learner = Learner(f, task, 100 * seed + 40, head=head)
    train([learner], budget.extractors, torch.device(cell.together.device))
    alone = {config.extractors[0].name: trained(folders, config) for config in cell.alone}
    unlabelled = data.drawn(task.training, budget.unlabelled, seed=seed)
    test = data.spread(task.test, budget.test_images)
    rows = []
    for name, extractor in together.by_name.items():
        for method, below, above in (
            (CARRIED, extractor, head),
            (INDEPENDENT, alone[name].by_name[name], alone[REFERENCE].head),
            (UPPER, alone[name].by_name[name], alone[name].head),
        ):
            if method == INDEPENDENT and name == REFERENCE:
                continue  # its own head: the upper bound
            net = judging.recombined(below, above, unlabelled)
            accuracy = judging.accuracy(judging.outputs(net, test.images_NCSS), test.classes_N)
            rows.append(
                Row(
                    setting="architectures",
                    method=method,
                    case=name,
                    direction=f"{name}>{name if method == UPPER else REFERENCE}",
                    seed=seed,
                    accuracy=accuracy,
                    chance=100 / len(CIFAR10),
                )
            )
    return rows


def extended(head: nn.Sequential, outputs: int, *, seed: int) -> nn.Sequential:
    """Return a copy of a head with more classes: the first are those that it has."""
    made = copy.deepcopy(head)
    name, last = list(made.named_children())[-1]
    if not isinstance(last, nn.Linear) or last.out_features >= outputs:
        raise TransplantError(
            f"a head that ends in {last} cannot be extended to {outputs} classes; give it one that "
            "ends in a linear layer with fewer"
        )
    with torch.random.fork_rng(devices=[]):
        wider = nn.Linear(last.in_features, outputs)
    initialise(nn.Sequential(wider), seed)
    with torch.no_grad():
        wider.weight[: last.out_features] = last.weight
        wider.bias[: last.out_features] = last.bias
    made.add_module(name, wider)
    return made.requires_grad_(True)
