"""Supervised training from the plan's initial weights: the category against the rest.

All tasks are learned at once, above one category module: a segmentation from the masks of the same
images.

N batch, C channels, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rootstock.common.distillation.problem import logits
from rootstock.common.nets.spec import Setting
from rootstock.common.nets.training import descend
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.batches import Batch, batch_of
from rootstock.site_agent.recipes.fit import OPTIMISER, fit, ship_shape, train_shape
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun

Auxiliary = Callable[[nn.Module, Tensor, Batch, torch.Generator], list[Tensor]]
"""Weighted losses of a category module beside those of its tasks: of f, f's features of a batch
(N,C,H,W), that batch, and a generator for what is drawn."""


class SupervisedRecipe:
    """Binary cross-entropy of every task, AdamW or SGD, cosine schedule, light augmentation.

    An epoch shows every training image of the larger side (category or rest) once and the
    smaller side's as often as it takes to balance, so that threshold 0 is fair. Nothing is chosen
    on validation images: the last epoch's weights are the teacher's.
    """

    name = "supervised"

    def __init__(
        self, config: TrainingConfig, device: torch.device, auxiliary: Auxiliary | None = None
    ) -> None:
        self._config = config
        self._device = device
        self._auxiliary = auxiliary

    def settings(self) -> dict[str, Setting]:
        """Return what the manifest says about the recipe."""
        return self._config.describe()

    def train(self, start: Teacher, run: TrainingRun) -> Teacher:
        """Train on `run.data.training`; see `Recipe.train`."""
        modules = start.modules()
        train_shape(modules, self._device)
        optimiser = self._optimiser(start)

        def step(indices: Tensor, generator: torch.Generator) -> float:
            for module in modules.values():
                module.train()
            batch = batch_of(run.data, indices, self._config.augment, generator)
            features_NCHW = start.category_module(
                batch.x_NCHW.to(self._device, memory_format=torch.channels_last)
            )
            losses = [batch.loss(logits(g(features_NCHW))) for g in start.task_modules.values()]
            if self._auxiliary is not None:
                losses += self._auxiliary(start.category_module, features_NCHW, batch, generator)
            loss = torch.stack(losses).sum()
            descend(optimiser, loss)
            return float(loss.detach())

        fit(self._config, run, modules, {OPTIMISER: optimiser}, step)
        ship_shape(modules)
        return start

    def _optimiser(self, teacher: Teacher) -> torch.optim.Optimizer:
        config = self._config
        parameters = [p for module in teacher.modules().values() for p in module.parameters()]
        if config.optimiser == "sgd":
            return torch.optim.SGD(
                parameters,
                lr=config.learning_rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
            )
        return torch.optim.AdamW(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
