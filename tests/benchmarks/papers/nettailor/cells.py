"""One task and seed: fine-tune, augment, learn, prune, export, and judge.

Shapes: N images, C channels, S side, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.documents import Document
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    initialise,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.nets.training import descend
from rootstock.common.nettailor.augmented import AugmentedNet
from rootstock.common.nettailor.learning import Settings, path_costs
from rootstock.common.nettailor.pruning import SearchResult, search
from rootstock.common.nettailor.tailored import TailoredNet, card
from tests.benchmarks.harness import timing
from tests.benchmarks.harness.cache import cached
from tests.benchmarks.harness.request import Request
from tests.benchmarks.harness.training import Training
from tests.benchmarks.papers.nettailor import tasks
from tests.benchmarks.papers.nettailor.budget import Budget
from tests.benchmarks.papers.nettailor.learning import learn
from tests.benchmarks.papers.nettailor.tasks import Split
from tests.benchmarks.papers.shared import judging
from tests.benchmarks.papers.shared.data import minibatches, spread
from tests.benchmarks.papers.shared.datasets import Labelled
from tests.benchmarks.papers.shared.training import Learner, train

TOLERANCE = 0.5
"""Points that a tailored net's error may be above its teacher's (paper, section 4.1)."""
FORMAT = 1
"""Raised when nets are trained otherwise with the same configuration."""
BACKBONE_SEED = 0
"""One backbone serves every task and seed."""
WARM_UP = 2
"""Passes before the first that is timed."""
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
class Row:
    """One tailored net, in percent where nothing else is said."""

    task: str
    seed: int
    accuracy: float
    """Of the tailored net on test images."""
    finetune_accuracy: float
    """Of the fine-tuned original, the teacher."""
    params_removed: float
    flops_removed: float
    new_params_share: float
    """Parameters of this task alone, by all of the backbone's."""
    latency_ratio: float
    """Seconds a pass, by the original's; not in percent."""
    met: bool
    """Whether the search found a net within the tolerance, on the images held apart."""
    held_accuracy: float
    """On those."""
    finetune_held_accuracy: float
    blocks: tuple[str, ...]
    """Names of the backbone's, lowest first."""
    blocks_removed: int
    """Not in percent."""
    paths: tuple[tuple[int, int, float], ...]
    """(node, skip, α) of each path that was kept."""
    tries: tuple[tuple[int, int, float], ...]
    """(blocks left out, proxies kept, error on the images held apart) of each net of the search."""

    @property
    def error(self) -> float:
        return 100 - self.accuracy

    @property
    def teacher_error(self) -> float:
        return 100 - self.finetune_accuracy


@dataclass(frozen=True)
class Cell:
    """One task and seed."""

    request: Request[Budget]
    task: str
    seed: int


@dataclass(frozen=True)
class Net:
    """An extractor and its head."""

    f: nn.Sequential
    head: nn.Sequential


def run(cell: Cell) -> Row:
    """Tailor the backbone to a task, and judge what comes out on test images."""
    budget = cell.request.budget
    whole = tasks.read(cell.task, cell.request.folders)
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


def backbone(request: Request[Budget]) -> tuple[BackboneConfig, Net]:
    """Return the universal blocks, from the cache if they are there."""
    budget, folders = request.budget, request.folders
    spec = ArchitectureSpec(
        name="small-resnet",
        split=f"block3_{budget.blocks}",
        settings={"blocks": budget.blocks, "width": budget.width},
    )
    config = BackboneConfig(architecture=spec, training=budget.backbone)
    f = initialise(build_category_module(spec), BACKBONE_SEED)
    head = initialise(build_head(spec, 10), BACKBONE_SEED + 1)

    def learned() -> None:
        learner = Learner(f, tasks.backbone_task(folders), BACKBONE_SEED, head=head)
        train([learner], config.training, _CPU)

    cached(folders, config, {"f.": f, "head.": head}, learned)
    return config, Net(f, head)


def fine_tuned(cell: Cell, split: Split) -> Net:
    """Return the teacher: the whole backbone, trained on with a new head (paper, step 1)."""
    config, start = backbone(cell.request)
    head = initialise(build_head(config.architecture, len(split.task.classes)), cell.seed + 2)
    net = Net(start.f, head)
    settings = cell.request.budget.teacher

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
        batches = _minibatches(cell, split, 0)
        for _, (x_NCSS, classes_N) in zip(range(settings.steps), batches, strict=False):
            descend(optimiser, F.cross_entropy(both(x_NCSS), classes_N))
            rates.step()

    known = _config(cell, config, "teacher")
    cached(cell.request.folders, known, {"f.": net.f, "head.": net.head}, learned)
    return net


def tailored(cell: Cell, split: Split, teacher: Net) -> SearchResult:
    """Return the leanest net within the tolerance of the teacher (paper, steps 2 to 5).

    The student's head begins as the teacher's: that is what mimicry leads the last block to.
    """
    budget = cell.request.budget
    config, start = backbone(cell.request)
    shape_CSS = input_shape(config.architecture)
    student = AugmentedNet(start.f, teacher.head, shape_CSS, seed=cell.seed)
    student.to(memory_format=torch.channels_last)
    costs = path_costs(student, shape_CSS)
    both = (teacher.f, teacher.head)

    def learned() -> None:
        learn(student, both, _minibatches(cell, split, 1), costs, budget.student)

    known = _config(cell, config, "student").model_copy(update={"student": budget.student})
    cached(cell.request.folders, known, {"": student}, learned)

    def tuned(net: AugmentedNet, _: int, number: int) -> None:
        learn(net, both, _minibatches(cell, split, 2 + number), costs, budget.tuning)

    original = nn.Sequential(teacher.f, teacher.head)
    bar = error(original, split.held) + TOLERANCE
    return search(student, bar, tuned, lambda net: error(net, split.held))


@torch.no_grad()
def latency_ratio(net: nn.Module, other: nn.Module, x_NCHW: Tensor, *, repeats: int = 20) -> float:
    """Return how long one net takes by how long another does, both in evaluation mode on the CPU.

    The fastest pass of each counts: what else a machine does only ever adds time.
    """
    works = [lambda: net(x_NCHW), lambda: other(x_NCHW)]
    ours, theirs = (min(each) for each in timing.rounds(works, repeats, warm_up=WARM_UP))
    return ours / theirs


def accuracy(net: nn.Module, images: Labelled) -> float:
    return judging.accuracy(judging.outputs(net, images.images_NCSS), images.classes_N)


def error(net: nn.Module, images: Labelled) -> float:
    return 100 - accuracy(net, images)


def _config(cell: Cell, start: BackboneConfig, use: str) -> NetConfig:
    budget = cell.request.budget
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
    return minibatches(
        split.task, cell.request.budget.batch, seed=10 * cell.seed + draw, device=_CPU
    )
