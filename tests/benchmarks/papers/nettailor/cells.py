"""One task and seed: fine-tune, augment, learn, prune, export, and judge.

Shapes: N images, C channels, S side, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.documents import Document
from rootstock.common.images.decode import normalise
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    initialise,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.nettailor.augmented import AugmentedNet
from rootstock.common.nettailor.complexity import path_costs
from rootstock.common.nettailor.learning import Settings
from rootstock.common.nettailor.pruning import SearchResult, search
from rootstock.common.nettailor.tailored import TailoredNet, card
from tests.benchmarks.harness.cache import cached
from tests.benchmarks.papers.nettailor import tasks
from tests.benchmarks.papers.nettailor.budget import Budget
from tests.benchmarks.papers.nettailor.goals import TOLERANCE
from tests.benchmarks.papers.nettailor.latency import latency_ratio
from tests.benchmarks.papers.nettailor.learning import learn
from tests.benchmarks.papers.nettailor.rows import Row
from tests.benchmarks.papers.nettailor.tasks import Split
from tests.benchmarks.papers.recombine import judging
from tests.benchmarks.papers.recombine.budget import Training
from tests.benchmarks.papers.recombine.data import minibatches, spread
from tests.benchmarks.papers.recombine.training import Learner, train
from tests.benchmarks.papers.transplant.datasets import Labelled

FORMAT = 1
"""Raised when nets are trained otherwise with the same configuration."""
BACKBONE_SEED = 0
"""One backbone serves every task and seed."""
_CPU = torch.device("cpu")
_TIMED = 8
"""Images of a pass that is timed: few, so that some passes are over before another process has the
core."""


class BackboneConfig(Document):
    """What decides the backbone's weights."""

    use: str = "nettailor/backbone"
    architecture: ArchitectureSpec
    training: Training
    seed: int = BACKBONE_SEED
    format: int = FORMAT


class NetConfig(Document):
    """What decides the weights of a teacher, or of a student before it is pruned."""

    use: str
    backbone: BackboneConfig
    task: str
    held: int
    batch: int
    teacher: Settings
    student: Settings | None = None
    seed: int
    format: int = FORMAT


@dataclass(frozen=True)
class Cell:
    """One task and seed."""

    task: str
    seed: int
    budget: Budget
    root: Path
    cache: Path


@dataclass(frozen=True)
class Net:
    """An extractor and its head."""

    f: nn.Sequential
    head: nn.Sequential


def prepare(cell: Cell) -> None:
    """Train the backbone, unless the cache has it."""
    backbone(cell.budget, cell.root, cell.cache)


def run(cell: Cell) -> Row:
    """Tailor the backbone to a task, and judge what comes out on test images.

    Raises
    ------
    DataError
        If the task has fewer training images than a minibatch.
    """
    budget = cell.budget
    whole = tasks.read(cell.task, cell.root, cell.cache)
    split = tasks.split(whole, held=budget.held, seed=cell.seed)
    teacher = fine_tuned(cell, split)
    found = tailored(cell, split, teacher)
    net = TailoredNet(found.net).to(memory_format=torch.channels_last)
    original = nn.Sequential(teacher.f, teacher.head)
    original = original.to(memory_format=torch.channels_last)
    timed_NCSS = normalise(split.held.images_NCSS[:_TIMED]).to(memory_format=torch.channels_last)
    described = card(net, original, timed_NCSS[:1])
    test = spread(whole.test, budget.test_images)
    return Row(
        task=cell.task,
        seed=cell.seed,
        accuracy=accuracy(net, test),
        finetune_accuracy=accuracy(original, test),
        params_removed=described.params_removed,
        flops_removed=described.flops_removed,
        new_params_share=described.new_params_share,
        latency_ratio=latency_ratio(net, original, timed_NCSS, repeats=budget.repeats),
        met=found.met,
        held_accuracy=100 - found.error,
        finetune_held_accuracy=accuracy(original, split.held),
        blocks=found.net.names,
        blocks_removed=described.blocks_removed,
        paths=tuple((p.target, p.skip, described.alphas[name]) for p, name in net.names.items()),
        tries=tuple((one.blocks, one.proxies, one.error) for one in found.tries),
    )


def backbone(budget: Budget, root: Path, cache: Path) -> tuple[BackboneConfig, Net]:
    """Return the universal blocks, from the cache if they are there."""
    spec = ArchitectureSpec(
        name="small-resnet",
        split=f"block3_{budget.blocks}",
        settings={"blocks": budget.blocks, "width": budget.width},
    )
    config = BackboneConfig(architecture=spec, training=budget.backbone)
    f = initialise(build_category_module(spec), BACKBONE_SEED)
    head = initialise(build_head(spec, 10), BACKBONE_SEED + 1)

    def learned() -> None:
        learner = Learner(f, tasks.backbone_task(root, cache), BACKBONE_SEED, head=head)
        train([learner], config.training, _CPU)

    cached(cache, config, {"f.": f, "head.": head}, learned)
    return config, Net(f, head)


def fine_tuned(cell: Cell, split: Split) -> Net:
    """Return the teacher: the whole backbone, trained on with a new head (paper, step 1)."""
    config, start = backbone(cell.budget, cell.root, cell.cache)
    head = initialise(build_head(config.architecture, len(split.task.classes)), cell.seed + 2)
    net = Net(start.f, head)
    settings = cell.budget.teacher

    def learned() -> None:
        both = nn.Sequential(net.f, net.head).train().requires_grad_()
        both = both.to(memory_format=torch.channels_last)
        optimiser = torch.optim.SGD(
            both.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
        for _, (x_NCSS, classes_N) in zip(
            range(settings.steps), _minibatches(cell, split, 0), strict=False
        ):
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(both(x_NCSS), classes_N).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rates.step()

    known = _config(cell, config, "teacher")
    cached(cell.cache, known, {"f.": net.f, "head.": net.head}, learned)
    return net


def tailored(cell: Cell, split: Split, teacher: Net) -> SearchResult:
    """Return the leanest net within the tolerance of the teacher (paper, steps 2 to 5).

    The student's head begins as the teacher's: that is what mimicry leads the last block to.
    """
    budget = cell.budget
    config, start = backbone(budget, cell.root, cell.cache)
    shape_CSS = input_shape(config.architecture)
    student = AugmentedNet(start.f, teacher.head, shape_CSS, seed=cell.seed)
    student.to(memory_format=torch.channels_last)
    costs = path_costs(student, shape_CSS)
    both = (teacher.f, teacher.head)

    def learned() -> None:
        learn(student, both, _minibatches(cell, split, 1), costs, budget.student)

    known = _config(cell, config, "student").model_copy(update={"student": budget.student})
    cached(cell.cache, known, {"": student}, learned)

    def tuned(net: AugmentedNet, _: int, number: int) -> None:
        learn(net, both, _minibatches(cell, split, 2 + number), costs, budget.tuning)

    original = nn.Sequential(teacher.f, teacher.head)
    bar = error(original, split.held) + TOLERANCE
    return search(student, bar, tuned, lambda net: error(net, split.held))


def accuracy(net: nn.Module, images: Labelled) -> float:
    """Return the accuracy in percent."""
    return judging.accuracy(judging.outputs(net, images.images_NCSS), images.classes_N)


def error(net: nn.Module, images: Labelled) -> float:
    """Return the error in percent."""
    return 100 - accuracy(net, images)


def _config(cell: Cell, start: BackboneConfig, use: str) -> NetConfig:
    budget = cell.budget
    return NetConfig(
        use=f"nettailor/{use}",
        backbone=start,
        task=cell.task,
        held=budget.held,
        batch=budget.batch,
        teacher=budget.teacher,
        seed=cell.seed,
    )


def _minibatches(cell: Cell, split: Split, draw: int) -> Iterator[tuple[Tensor, Tensor]]:
    return minibatches(split.task, cell.budget.batch, seed=10 * cell.seed + draw, device=_CPU)
