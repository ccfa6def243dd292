"""The loss of a tailored net: learn the task, be cheap, do as the teacher (paper, section 3.4).

Shapes: N batch, C channels, H/W height and width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.nettailor.augmented import Activations, AugmentedNet
from rootstock.common.nettailor.complexity import Costs, expected_complexity


@dataclass(frozen=True)
class Settings:
    """Settings of one training by SGD, the rate falling as half a cosine.

    The defaults are those of the authors' published runs.
    """

    steps: int
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    """For the task's own weights; attention has none."""
    attention_rate: float = 1.0
    """Multiplies attention's learning rate: short trainings need more to move it."""
    complexity: float = 0.3
    """γ1; 0 where a pruned net is tuned."""
    mimicry: float = 10.0
    """γ2."""


def mimicry(student: Activations, teacher: Activations) -> Tensor:
    """Return T, how far a student is from its teacher (paper, Eq. 11), without a shape.

    The mean over nodes that the student has and over each task's logits of the mean squared
    difference.
    """
    pairs = [(x_NCHW, teacher.nodes[node]) for node, x_NCHW in student.nodes.items()]
    pairs += zip(student.logits, teacher.logits, strict=True)
    return torch.stack([F.mse_loss(ours, theirs) for ours, theirs in pairs]).mean()


def loss(
    net: AugmentedNet,
    student: Activations,
    teacher: Activations,
    task_loss: Tensor,
    costs: Costs,
    settings: Settings,
) -> Tensor:
    """Return L = task loss + γ1 C + γ2 T (paper, Eq. 12), without a shape."""
    total = task_loss
    if settings.complexity:
        expected = expected_complexity(net.alphas(), costs, len(net.names))
        total = total + settings.complexity * expected
    return total + settings.mimicry * mimicry(student, teacher)


def optimiser_of(net: AugmentedNet, settings: Settings) -> torch.optim.SGD:
    """Return SGD over what is a task's own; attention is not decayed.

    A group's "factor" is what the learning rate is multiplied by in it.
    """
    rate = settings.learning_rate
    groups = (
        (net.own(), 1.0, settings.weight_decay),
        (net.attention.parameters(), settings.attention_rate, 0.0),
    )
    return torch.optim.SGD(
        [
            {"params": list(own), "lr": rate * factor, "factor": factor, "weight_decay": decay}
            for own, factor, decay in groups
        ],
        lr=rate,
        momentum=settings.momentum,
    )
