"""One target net: a method, sources, a number of training images and a seed.

Shapes: P pairs.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rootstock.common.documents import Document
from rootstock.common.l2t.taps import Source
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    initialise,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec, Name
from rootstock.site_agent.recipes.fit import schedule
from tests.benchmarks.harness.cache import cached
from tests.benchmarks.harness.request import Folders, Request
from tests.benchmarks.harness.training import Training
from tests.benchmarks.papers.l2t.budget import Budget
from tests.benchmarks.papers.l2t.methods import CLASSES, METHODS, Given, SourceNet
from tests.benchmarks.papers.l2t.tasks import limited, task
from tests.benchmarks.papers.shared import judging
from tests.benchmarks.papers.shared.data import minibatches, spread
from tests.benchmarks.papers.shared.training import Learner, train

TARGET_ARCHITECTURE = "small-vgg"
FORMAT = 1
"""Raised when sources are trained otherwise with the same configuration."""
_LAST = 0.1
"""Share of the steps, the last, that λ is averaged over."""


class SourceConfig(Document):
    """What decides a source's weights."""

    task: str
    architecture: ArchitectureSpec
    training: Training
    seed: int
    device: str
    format: int = FORMAT

    @property
    def name(self) -> Name:
        """What rows and pairs call it."""
        return self.task


@dataclass(frozen=True)
class Row:
    """One target net, judged."""

    source: str
    """Names of the sources with + between them; "" without."""
    target: str
    method: str
    samples_per_class: int
    seed: int
    accuracy: float
    """In percent on test images."""
    where: dict[str, float] = field(default_factory=dict)
    """λ by pair ("source/m->n"): mean over images and the last steps; empty unless learned."""


@dataclass(frozen=True)
class Cell:
    """One training."""

    request: Request[Budget]
    method: str
    sources: tuple[SourceConfig, ...]
    target: str
    samples: int
    seed: int


def trained(folders: Folders, config: SourceConfig) -> SourceNet:
    """Return a source, from the cache if it is there."""
    spec, own = config.architecture, task(config.task, folders)
    draw = 100 * config.seed + 50
    f = initialise(build_category_module(spec), draw)
    head = initialise(build_head(spec, len(own.classes)), draw + 1)
    device = torch.device(config.device)
    for module in (f, head):
        module.to(device)
    learner = Learner(f, own, draw + 2, head=head)
    modules = {"f.": f, "head.": head}
    cached(folders, config, modules, lambda: train([learner], config.training, device))
    net = nn.Sequential(OrderedDict([*f.named_children(), *head.named_children()]))
    source = Source(net.to(memory_format=torch.channels_last), None, input_shape(spec))
    return SourceNet(spec, f, source, len(own.classes))


def run(cell: Cell) -> Row:
    """Train the target and judge it."""
    folders, budget, device = cell.request.folders, cell.request.budget, cell.request.device
    own = limited(task(cell.target, folders), cell.samples, seed=cell.seed)
    training = budget.target
    sources = {config.name: trained(folders, config) for config in cell.sources}
    given = Given(
        budget.architecture(TARGET_ARCHITECTURE),
        len(own.classes),
        sources,
        training,
        cell.seed,
        torch.device(device),
    )
    learner = METHODS[cell.method](given)
    learner.student.to(memory_format=torch.channels_last).train()
    steps = training.minibatches(len(own.training))
    reader = minibatches(own, training.batch, seed=100 * cell.seed + 80, device=given.device)
    seen: list[Tensor] = []
    with torch.random.fork_rng(devices=[device] if device == "cuda" else []):
        torch.manual_seed(100 * cell.seed + 81)  # dropout's
        for step in range(steps):
            for group in learner.theta.param_groups:
                group["lr"] = training.rate * schedule(step, steps)
            where_P = learner.step(*next(reader), step)
            if step >= int((1 - _LAST) * steps):
                seen.append(where_P)
    where = torch.stack(seen).mean(0).tolist()
    test = spread(own.test, budget.test_images)
    head = learner.student.heads[learner.student.names.index(CLASSES)]
    net = nn.Sequential(learner.student.category_module, head).eval()
    return Row(
        source="+".join(sources),
        target=cell.target,
        method=cell.method,
        samples_per_class=cell.samples,
        seed=cell.seed,
        accuracy=judging.accuracy(judging.outputs(net, test.images_NCSS), test.classes_N),
        where={str(pair): value for pair, value in zip(learner.pairs, where, strict=True)},
    )
