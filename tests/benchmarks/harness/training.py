"""What trainings have in common: how they are optimised, minibatches without end, the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rootstock.common.nets.training import descend
from rootstock.site_agent.recipes.fit import schedule


@dataclass(frozen=True)
class Training:
    """How one training is optimised: with Adam, alike for every condition of a run."""

    steps: int
    """Minibatches of each net."""
    batch: int
    """Images a minibatch."""
    learning_rate: float
    weight_decay: float = 1e-7
    decay: Literal["cosine", "tenths", "constant"] = "cosine"
    """Of the learning rate: a short rise and half a cosine, ÷10 after each quarter of the steps
    (compatible representations, appendix C), or none."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, from 0."""
        if self.decay == "cosine":
            return self.learning_rate * schedule(step, self.steps)
        if self.decay == "tenths":
            return float(self.learning_rate * 0.1 ** (4 * step // self.steps))
        return self.learning_rate


def epochs(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield a minibatch's indices without end, every epoch's in another order."""
    while True:
        order = torch.randperm(count, generator=generator)
        yield from torch.split(order[: count // batch * batch], batch)


def adamw(
    modules: Sequence[nn.Module],
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    rate: float,
    weight_decay: float,
    seed: int,
) -> None:
    """Train modules together on each step's loss: a short rise, half a cosine; left in training.

    The seed is dropout's.
    """
    every = [parameter for module in modules for parameter in module.parameters()]
    parameters = [parameter for parameter in every if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    for module in modules:
        module.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(steps):
            descend(optimiser, loss(step), rate * schedule(step, steps))
