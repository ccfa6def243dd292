"""What an experiment is asked for: data sets, cache, how long and how often, where it runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from rootstock.common.errors import ConfigurationError

DEFAULT = "default"
"""The size that no word and no name mentions."""


@dataclass(frozen=True)
class Folders:
    """Where data sets are read from, and what is made of them is kept."""

    root: Path
    cache: Path


@dataclass(frozen=True)
class Budget:
    """Everything that decides how long a run takes; papers add what is theirs."""

    name: str
    seeds: int


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
    """Fill in what was left out."""
    import torch  # a command line is read without it

    if device not in ("cpu", "cuda"):
        raise ConfigurationError(f"--device {device} is not there; known are cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("--device cuda: PyTorch finds no GPU here; use --device cpu")
    budget = next(budget for budget in budgets if budget.name == size)
    cores = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    budget = replace(budget, seeds=seeds or budget.seeds)
    return Request(folders, budget, workers or cores, device)
