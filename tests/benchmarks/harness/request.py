"""What an experiment is asked for: data sets, cache, how long and how often, where it runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

import torch

from rootstock.common.errors import ConfigurationError
from rootstock.site_agent.recipes.fit import schedule
from tests.benchmarks.harness.cache import Folders

DEFAULT = "default"
"""The size that no word and no name mentions."""


@dataclass(frozen=True)
class Budget:
    """Everything that decides how long a run takes; papers add what is theirs."""

    name: str
    seeds: int


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


BudgetT = TypeVar("BudgetT", bound=Budget)


@dataclass(frozen=True)
class Request(Generic[BudgetT]):
    """What every experiment is asked for, whole."""

    folders: Folders
    budget: BudgetT
    workers: int
    device: str = "cpu"

    @property
    def seeds(self) -> range:
        return range(self.budget.seeds)


def requested(
    budgets: Sequence[BudgetT],
    folders: Folders,
    *,
    size: str = DEFAULT,
    seeds: int | None = None,
    workers: int | None = None,
    device: str = "cpu",
) -> Request[BudgetT]:
    """Fill in what was left out.

    Raises
    ------
    ConfigurationError
        If the device is not known or not there.
    """
    if device not in ("cpu", "cuda"):
        raise ConfigurationError(f"--device {device} is not there; known are cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("--device cuda: PyTorch finds no GPU here; use --device cpu")
    budget = next(budget for budget in budgets if budget.name == size)
    cores = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    budget = replace(budget, seeds=seeds or budget.seeds)
    return Request(folders, budget, workers or cores, device)
