"""Recipe `compatible`: train below frozen auxiliary heads, too (Compatible Representations).

The lab's net learns its own tasks as under `supervised`, from the common initial weights (IIW).
Its category module learns from two losses more: that of the net's own task modules on its features
(DCC: what they discriminate is what labs have in common), and that of telling by how many quarter
turns an image was turned (RP). Both are taken through heads that stay as they are, the incremental
training of the paper's section 3.3: a category module that satisfies them fits the net with no
adapter, or a tiny one.

N batch, C channels, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.compatible.batchnorm import FEWEST, norms, re_estimate_below
from rootstock.common.compatible.rotation import TURNS, turned
from rootstock.common.distillation.problem import logits
from rootstock.common.errors import ConfigurationError, DataError
from rootstock.common.nets.architectures import build_head, build_task_module
from rootstock.common.protocol import Heads, Plan
from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.safetensors_io import load_frozen
from rootstock.site_agent.config import CompatibleConfig
from rootstock.site_agent.data.images import Batch
from rootstock.site_agent.recipes.fit import train_shape
from rootstock.site_agent.recipes.frozen import Parts
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.recipes.supervised import SupervisedRecipe
from rootstock.site_agent.state import check


@dataclass(frozen=True)
class FrozenHeads:
    """Published heads with their weights, in evaluation mode; gradients pass, none stays."""

    task_modules: dict[str, nn.Sequential]
    rotation: nn.Sequential | None


def load_heads(
    heads: Heads,
    plan: Plan,
    tasks: list[str],
    config: CompatibleConfig,
    fetch: Callable[[BlobEntry, nn.Module], Path],
) -> FrozenHeads:
    """Fetch the published heads that serve a lab's tasks and have a weight above 0; some must."""
    shared = [name for name in tasks if name in heads.task_modules]
    if config.task_weight == 0:
        shared = []
    rotation = heads.rotation if config.rotation_weight > 0 else None
    if not shared and rotation is None:
        raise ConfigurationError(
            f"recipe 'compatible': heads number {heads.number} ({heads.origin}) are for tasks "
            f"{sorted(heads.task_modules) or 'none'}, rotation: "
            f"{'yes' if heads.rotation else 'no'}; this lab's tasks are {tasks}, with weights "
            f"task_weight = {config.task_weight:g}, rotation_weight = {config.rotation_weight:g}: "
            "nothing is in common. Raise a weight, or set recipe = 'supervised'"
        )
    specs = {task.name: task for task in plan.tasks}
    modules = {}
    for name in shared:
        g, entry = build_task_module(plan.architecture, specs[name]), heads.task_modules[name]
        modules[name] = load_frozen(g, fetch(entry, g), entry)
    head = None
    if rotation is not None:
        head = build_head(plan.architecture, TURNS)
        head = load_frozen(head, fetch(rotation, head), rotation)
    return FrozenHeads(modules, head)


@dataclass(frozen=True)
class CompatibleRecipe(SupervisedRecipe):
    """`SupervisedRecipe` with the losses of frozen heads beside those of the lab's own tasks.

    With `batch_norm = "re-estimated"`, statistics are estimated anew at the end, on the training
    images as they are: a running mean is of augmented images and of weights that were still moving.
    """

    heads: FrozenHeads
    name = "compatible"

    def __post_init__(self) -> None:
        rotation = self.heads.rotation
        more = {} if rotation is None else {"rotation": rotation}
        train_shape({**self.heads.task_modules, **more}, self.device)

    def train(self, start: Teacher, run: TrainingRun) -> Teacher:
        """Train, and estimate BatchNorm statistics anew where that is asked for."""
        frozen = self.config.frozen
        if self.config.views or not len(Parts.of(start, frozen).features):
            raise ConfigurationError(
                f"training.frozen = '{frozen}', training.views = {self.config.views}: recipe "
                "'compatible' trains the category module below published heads, on images; take "
                "views out, freeze up to an earlier layer, or choose recipe 'supervised'"
            )
        if self.config.compatible.batch_norm == "re-estimated":
            count, nets = (
                len(run.data.training),
                [start.category_module, *start.task_modules.values()],
            )
            if count < FEWEST and any(norms(net) for net in nets):
                raise DataError(
                    f"batch_norm = 're-estimated': statistics from {count} training images would "
                    f"be noise; add images, {FEWEST} or more, or set it to 'running'"
                )
        teacher = super().train(start, run)
        if self.config.compatible.batch_norm == "re-estimated":
            check(run.stop)
            re_estimate_below(
                teacher.category_module,
                teacher.task_modules.values(),
                run.data.training.images_NCHW,
                self.device,
            )
        return teacher

    def _losses(
        self, net: Teacher, features_NCHW: Tensor, batch: Batch, generator: torch.Generator
    ) -> list[Tensor]:
        config, heads = self.config.compatible, self.heads
        losses = super()._losses(net, features_NCHW, batch, generator)
        losses += [
            config.task_weight * batch.loss(logits(g(features_NCHW)))
            for g in heads.task_modules.values()
        ]
        if heads.rotation is not None:
            # Every image once more, turned (paper, section 4): half the batch is upright otherwise.
            x_NCHW, turns_N = turned(batch.x_NCHW, generator)
            x_NCHW = x_NCHW.to(self.device, memory_format=torch.channels_last)
            y_N4 = heads.rotation(net.category_module(x_NCHW))
            losses.append(config.rotation_weight * F.cross_entropy(y_N4, turns_N.to(self.device)))
        return losses
