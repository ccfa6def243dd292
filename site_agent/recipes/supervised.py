"""Supervised training from the plan's initial weights: the category against the rest.

All tasks are learned at once, above one category module: a segmentation from the masks of the same
images.

N batch, C channels, H/W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from rootstock.common.distillation.problem import logits
from rootstock.common.nets.spec import Setting
from rootstock.common.nets.training import descend
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.images import Batch, batch_of
from rootstock.site_agent.recipes.fit import OPTIMISER, fit, ship_shape, train_shape
from rootstock.site_agent.recipes.frozen import KeptFeatures, Parts
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun


@dataclass(frozen=True)
class SupervisedRecipe:
    """Binary cross-entropy of every task, AdamW or SGD, cosine schedule, light augmentation.

    An epoch shows every training image of the larger side (category or rest) once and the
    smaller side's as often as it takes to balance, so that threshold 0 is fair. Nothing is chosen
    on validation images: the last epoch's weights are the teacher's.
    """

    config: TrainingConfig
    device: torch.device
    name = "supervised"

    def settings(self) -> dict[str, Setting]:
        """Return what the manifest says about the recipe."""
        return self.config.describe()

    def train(self, start: Teacher, run: TrainingRun) -> Teacher:
        """Train on `run.data.training`."""
        modules = start.modules()
        train_shape(modules, self.device)
        parts = Parts.of(start, self.config.frozen)
        still = parts.freeze(statistics=self.config.frozen_statistics)
        optimiser = self._optimiser(start)

        def losses(indices: Tensor, generator: torch.Generator) -> list[Tensor]:
            batch = batch_of(run.data, indices, self.config.augment, generator)
            f = start.category_module
            features_NCHW = f(batch.x_NCHW.to(self.device, memory_format=torch.channels_last))
            return self._losses(start, features_NCHW, batch, generator)

        def losses_above(indices: Tensor, generator: torch.Generator) -> list[Tensor]:
            features, batch = kept().batch(indices, generator)
            return [batch.loss(y) for y in parts.upper(features).values()]

        @cache  # a finished training needs none
        def kept() -> KeptFeatures:
            return KeptFeatures(parts, run, self.config, self.device)

        learned = losses_above if self.config.views else losses

        def step(indices: Tensor, generator: torch.Generator) -> float:
            for module in modules.values():
                module.train()
            for layer in still:
                layer.eval()
            loss = torch.stack(learned(indices, generator)).sum()
            descend(optimiser, loss)
            return float(loss.detach())

        fit(self.config, run, modules, {OPTIMISER: optimiser}, step)
        ship_shape(modules)
        return start

    def _losses(
        self,
        net: Teacher,
        features_NCHW: Tensor,
        batch: Batch,
        generator: torch.Generator,  # noqa: ARG002  # for what other recipes draw
    ) -> list[Tensor]:
        """Return the losses of a batch, of which f's features are given; their sum is learned."""
        return [batch.loss(logits(g(features_NCHW))) for g in net.task_modules.values()]

    def _optimiser(self, teacher: Teacher) -> torch.optim.Optimizer:
        config = self.config
        every = [p for module in teacher.modules().values() for p in module.parameters()]
        parameters = [p for p in every if p.requires_grad]
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
