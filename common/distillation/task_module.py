"""Learn a task module on frozen category modules (METHODS, "Growing": way 1; or fine-tune one).

What a category module gives, through the adapter that joins it if there is one, is computed once:
g alone is trained, on a batch of one category after a batch of the next.

Shapes: N samples, C channels that g takes, H/W height and width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.problem import Samples
from rootstock.common.distillation.settings import TaskLearningSettings
from rootstock.common.errors import TransplantError
from rootstock.common.nets.training import cosine, descend


def learn_task_module(
    start: nn.Sequential, samples: Mapping[str, Samples], settings: TaskLearningSettings
) -> nn.Sequential:
    """Return a task module that serves all categories.

    `start` is where g begins, and stays as it is: the plan's initial weights, or a task module to
    be fine-tuned. Samples are, by category, what g is to take (N, C, H, W), and labels (N) of both
    sides.
    """
    if not samples:
        raise TransplantError("a task module needs samples of one category at least; give some")
    sides = {name: _sides(name, found) for name, found in samples.items()}
    g = copy.deepcopy(start)
    generator = torch.Generator().manual_seed(settings.seed)
    names = sorted(samples)

    def loss_at(step: int) -> Tensor:
        name = names[step % len(names)]
        chosen = _batch(sides[name], settings.batch_size, generator)
        y_N = g(samples[name].features_NCHW[chosen]).flatten()
        return F.binary_cross_entropy_with_logits(y_N, samples[name].labels_N[chosen])

    train_module(g, settings, loss_at)
    return g


def train_module(
    module: nn.Module, settings: TaskLearningSettings, loss_at: Callable[[int], Tensor]
) -> None:
    """Train a module in place by AdamW on the loss of every step, from 0; then freeze it.

    The rate falls as half a cosine. The same settings give the same bits on one device.
    """
    module.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # dropout's
        for step in range(settings.steps):
            rate = settings.learning_rate * cosine(step, settings.steps)
            descend(optimiser, loss_at(step), rate)
    module.eval().requires_grad_(False)


def _sides(name: str, samples: Samples) -> tuple[Tensor, Tensor]:
    sides = tuple(torch.nonzero(samples.labels_N == label).flatten() for label in (1.0, 0.0))
    if any(len(side) == 0 for side in sides):
        raise TransplantError(
            f"the samples of '{name}' show one side only ({len(sides[0])} of it, {len(sides[1])} "
            "of the rest); give some of both"
        )
    return sides[0], sides[1]


def _batch(sides: tuple[Tensor, Tensor], size: int, generator: torch.Generator) -> Tensor:
    halves = (size - size // 2, size // 2)
    return torch.cat(
        [
            side[torch.randint(len(side), (count,), generator=generator)]
            for side, count in zip(sides, halves, strict=True)
        ]
    )
