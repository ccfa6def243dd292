"""What trainings have in common: minibatches without end, and the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from rootstock.common.nets.training import descend
from rootstock.site_agent.recipes.fit import schedule


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
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    for module in modules:
        module.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(steps):
            descend(optimiser, loss(step), rate * schedule(step, steps))
