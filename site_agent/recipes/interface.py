"""What a way to train a teacher net looks like from outside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from torch import nn

from rootstock.common.nets.spec import ArchitectureSpec, Setting
from rootstock.site_agent.data.images import LabData

OnProgress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a sentence."""

MAX_METRICS = 64
"""Numbers that a manifest holds."""


@dataclass(frozen=True)
class Teacher:
    """A teacher net g_T∘f, or the plan's initial weights in its form."""

    category_module: nn.Sequential
    """f, from an image to features."""
    task_modules: dict[str, nn.Sequential]
    """g_T of every task that the lab teaches, from features to one logit, or to one a pixel."""
    numbers: dict[str, float] = field(default_factory=dict)
    """What the training came to, for the manifest's metrics."""
    extractor: ArchitectureSpec | None = None
    """What f is, if it is not of the plan's architecture."""

    @property
    def measured_task(self) -> str:
        """The task whose layers are measured: the first by name."""
        return min(self.task_modules)

    def modules(self) -> dict[str, nn.Sequential]:
        """Return all modules by the names that checkpoints give them."""
        named = {f"task/{task}": module for task, module in sorted(self.task_modules.items())}
        return {"category": self.category_module, **named}


@dataclass(frozen=True)
class TrainingRun:
    """What a recipe trains on, where it checkpoints, and who watches."""

    data: LabData
    """`data.training` is learned from, and nothing else."""
    folder: Path
    """Of the checkpoint, which an earlier run may have left there."""
    on_progress: OnProgress = lambda *_: None
    """Called after every step."""
    stop: threading.Event | None = None
    """Ends the training when it is set."""

    def phase(self, name: str, what: str) -> TrainingRun:
        """Return one of several phases of the run, with a folder of its own."""

        def on_progress(step: int, steps: int, message: str) -> None:
            self.on_progress(step, steps, f"{what}: {message}")

        return replace(self, folder=self.folder / name, on_progress=on_progress)


class Recipe(Protocol):
    """A way to train a teacher net from the plan's initial weights."""

    name: str

    def settings(self) -> dict[str, Setting]:
        """Return what the manifest says about the recipe."""

    def train(self, start: Teacher, run: TrainingRun) -> Teacher:
        """Train; checkpoint into the run's folder, and resume from it.

        Returns the trained net, in evaluation mode: the same with and without interruptions. Raises
        Stopped if `run.stop` is set; the checkpoint says where to go on.
        """


def room(tasks: int) -> int:
    """Return how many numbers a manifest holds besides its own: images, and two of every task."""
    return MAX_METRICS - 2 - 2 * tasks


def largest(named: Mapping[str, float], count: int, left_out: str) -> dict[str, float]:
    """Return at most `count` numbers: the largest, and under `left_out` how many are missing."""
    if len(named) <= count:
        return dict(named)
    chosen = sorted(named, key=lambda key: -named[key])[: count - 1]
    return {**{key: named[key] for key in chosen}, left_out: len(named) - count + 1.0}
