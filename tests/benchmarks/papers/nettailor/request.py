"""What was asked for, checked and whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rootstock.common.errors import SchemaError
from tests.benchmarks.papers.nettailor.budget import BUDGETS, Budget
from tests.benchmarks.papers.nettailor.tasks import NAMES

DEFAULT_TASKS = ("mnist", "fashion-mnist", "cifar10")
QUICK_TASKS = ("digits",)
"""A minute is enough for one task alone."""


@dataclass(frozen=True)
class Request:
    """Tasks at a size."""

    tasks: tuple[str, ...]
    budget: Budget
    seeds: int
    root: Path
    cache: Path
    workers: int


def requested(
    tasks: tuple[str, ...],
    *,
    size: str = "default",
    seeds: int | None = None,
    root: Path,
    cache: Path,
    workers: int | None = None,
) -> Request:
    """Check what was asked for and fill in what was left out.

    Raises
    ------
    SchemaError
        If a task is not known; names those that are.
    """
    for name in tasks:
        if name not in NAMES:
            raise SchemaError(f"unknown task '{name}'; known are {', '.join(NAMES)}")
    budget = BUDGETS[size]
    default = QUICK_TASKS if size == "quick" else DEFAULT_TASKS
    return Request(
        tasks=tasks or default,
        budget=budget,
        seeds=seeds or budget.seeds,
        root=root,
        cache=cache,
        workers=workers or len(os.sched_getaffinity(0)),
    )
