"""What a way to train a teacher net looks like from outside."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import nn

from rootstock.common.nets.spec import ArchitectureSpec, Setting
from rootstock.site_agent.data.images import LabData

OnProgress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a sentence."""


@dataclass(frozen=True)
class Teacher:
    """A teacher net g_T∘f, or the plan's initial weights in its form.

    Attributes
    ----------
    category_module
        f, from an image to features.
    task_modules
        g_T of every task that the lab teaches, from features to one logit, or to one a pixel.
    numbers
        What the training came to, for the manifest's metrics.
    extractor
        What f is, if it is not of the plan's architecture.
    """

    category_module: nn.Sequential
    task_modules: dict[str, nn.Sequential]
    numbers: dict[str, float] = field(default_factory=dict)
    extractor: ArchitectureSpec | None = None

    def modules(self) -> dict[str, nn.Sequential]:
        """Return all modules by the names that checkpoints give them."""
        named = {f"task/{task}": module for task, module in sorted(self.task_modules.items())}
        return {"category": self.category_module, **named}


class Recipe(Protocol):
    """A way to train a teacher net from the plan's initial weights."""

    name: str

    def settings(self) -> dict[str, Setting]:
        """Return what the manifest says about the recipe."""

    def train(
        self,
        start: Teacher,
        data: LabData,
        folder: Path,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> Teacher:
        """Train on `data.training` alone; checkpoint into `folder`, and resume from it.

        Returns
        -------
        The trained net, in evaluation mode. The same with and without interruptions.

        Raises
        ------
        Stopped
            If `stop` is set; the checkpoint says where to go on.
        StorageError
            If a checkpoint cannot be written; the one before is still there.
        """
