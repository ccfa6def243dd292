"""Training nets with auxiliary heads that they share (paper, sections 3.1, 3.2 and 3.4).

Shapes: N images, C channels, S side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.compatible.batchnorm import norms
from rootstock.common.compatible.rotation import turned
from rootstock.common.nets.training import descend
from tests.benchmarks.harness.training import Training
from tests.benchmarks.papers.shared.data import Task, minibatches


@dataclass(frozen=True)
class Learner:
    """One net at its training. Heads that several learners hold are shared."""

    f: nn.Module
    task: Task
    seed: int
    """Of its minibatches and turns."""
    head: nn.Module | None = None
    """The target head; None: only auxiliary tasks are learned."""
    rotation: nn.Module | None = None
    """RP: every image once more, turned."""
    common: nn.Module | None = None
    """DCC: images of the first `common_classes` classes."""
    common_classes: int = 0

    def modules(self) -> list[nn.Module]:
        """Return the extractor and its heads."""
        heads = (self.head, self.rotation, self.common)
        return [self.f, *(head for head in heads if head is not None)]

    def loss(self, x_NCSS: Tensor, classes_N: Tensor, generator: torch.Generator) -> Tensor:
        """Return the sum of the tasks' losses, each with weight 1 (paper, appendix C).

        Images and turned images pass apart: BatchNorm normalises each by its own statistics, as it
        will once nets are recombined.
        """
        total = x_NCSS.new_zeros(())
        if self.head is not None or self.common is not None:
            features = self.f(x_NCSS)
            if self.head is not None:
                total = total + F.cross_entropy(self.head(features), classes_N)
            inside_N = classes_N < self.common_classes
            if self.common is not None and bool(inside_N.any()):
                scores = self.common(features[inside_N])
                total = total + F.cross_entropy(scores, classes_N[inside_N])
        if self.rotation is not None:
            turned_NCSS, turns_N = turned(x_NCSS, generator)
            scores = self.rotation(self.f(turned_NCSS))
            total = total + F.cross_entropy(scores, turns_N.to(x_NCSS.device))
        return total


def freeze(*heads: nn.Module) -> None:
    """Hold modules as they are while others learn above or below them: weights and statistics.

    BatchNorm keeps normalising by each batch, as it did when the module learned.
    """
    for head in heads:
        head.requires_grad_(False)
        for layer in norms(head):
            layer.track_running_stats = False


def train(learners: Sequence[Learner], training: Training, device: torch.device) -> None:
    """Train nets jointly: their minibatches take turns, shared heads learn from all of them."""
    for _ in steps(learners, training, device):
        pass


def steps(learners: Sequence[Learner], training: Training, device: torch.device) -> Iterator[int]:
    """Train as `train` does, and return after each step how many are done."""
    modules = list(dict.fromkeys(module for one in learners for module in one.modules()))
    for module in modules:
        module.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(
        [p for module in modules for p in module.parameters() if p.requires_grad],
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
    )
    readers = [
        minibatches(one.task, training.batch, seed=one.seed, device=device) for one in learners
    ]
    # Turns have draws of their own, so that with and without them images come in one order.
    turns = [torch.Generator().manual_seed(one.seed + 1) for one in learners]
    for step in range(training.steps):
        for learner, reader, generator in zip(learners, readers, turns, strict=True):
            x_NCSS, classes_N = next(reader)
            # The other nets have no gradients then, not zeros: Adam leaves them alone.
            descend(optimiser, learner.loss(x_NCSS, classes_N, generator), training.rate(step))
        yield step + 1
