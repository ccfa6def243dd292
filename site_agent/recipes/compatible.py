"""Recipe `compatible`: train below frozen auxiliary heads, too (Compatible Representations).

The lab's net learns its own tasks as under `supervised`, from the common initial weights (IIW).
Its category module is told two things more: what the net's own task modules make of its features
(DCC: what they discriminate is what labs have in common), and by how many quarter turns an image
was turned (RP). Both are told through heads that stay as they are, the incremental training of the
paper's section 3.3: a category module that satisfies them fits the net with no adapter, or a tiny
one.

N batch, C channels, H/W height and width.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.compatible.batchnorm import re_estimate_below
from rootstock.common.compatible.rotation import TURNS, turned
from rootstock.common.distillation.problem import cross_entropy, logits
from rootstock.common.errors import ConfigurationError
from rootstock.common.nets.architectures import build_head, build_task_module
from rootstock.common.nets.spec import Setting
from rootstock.common.protocol import Heads, Plan
from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.safetensors_io import load_frozen
from rootstock.site_agent.config import CompatibleConfig, TrainingConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.recipes.interface import OnProgress, Teacher
from rootstock.site_agent.recipes.supervised import Batch, SupervisedRecipe
from rootstock.site_agent.stopping import check


@dataclass(frozen=True)
class FrozenHeads:
    """Published heads with their weights, in evaluation mode; gradients pass, none stays."""

    task_modules: dict[str, nn.Sequential]
    rotation: nn.Sequential | None

    def to(self, device: torch.device) -> None:
        """Move them, in the memory order that training uses."""
        for module in self._modules():
            module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _modules(self) -> list[nn.Sequential]:
        rotation = [] if self.rotation is None else [self.rotation]
        return [*self.task_modules.values(), *rotation]


def load_heads(
    heads: Heads,
    plan: Plan,
    tasks: list[str],
    config: CompatibleConfig,
    fetch: Callable[[BlobEntry], Path],
) -> FrozenHeads:
    """Fetch the published heads that serve a lab's tasks and have a weight.

    Parameters
    ----------
    heads, plan
        As published.
    tasks
        Of the lab.
    config
        A head of weight 0 is left out.
    fetch
        Returns the file of a blob, verified.

    Raises
    ------
    ConfigurationError
        If no published head serves: no task is shared, and no rotation is asked for.
    SchemaError
        If a head does not fit the plan's architecture.
    """
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
    modules = {
        name: load_frozen(build_task_module(plan.architecture, specs[name]), fetch(entry), entry)
        for name, entry in heads.task_modules.items()
        if name in shared
    }
    head = None
    if rotation is not None:
        head = load_frozen(build_head(plan.architecture, TURNS), fetch(rotation), rotation)
    return FrozenHeads(modules, head)


class CompatibleLosses:
    """What the frozen heads make of a category module; added to its own tasks' losses.

    Parameters
    ----------
    heads
        Moved to the device that trains.
    config
        Weights.
    device
        Where training is.
    """

    def __init__(self, heads: FrozenHeads, config: CompatibleConfig, device: torch.device) -> None:
        heads.to(device)
        self._heads = heads
        self._config = config
        self._device = device

    def __call__(
        self,
        category_module: nn.Module,
        features_NCHW: Tensor,
        batch: Batch,
        generator: torch.Generator,
    ) -> list[Tensor]:
        """Return the weighted losses of one batch.

        Parameters
        ----------
        category_module
            f, in training.
        features_NCHW
            f of the batch's images, computed already.
        batch
            Images and labels.
        generator
            Draws the turns.
        """
        losses = []
        for g in self._heads.task_modules.values():
            y_N = logits(g(features_NCHW))
            told = batch.labels_for(y_N).to(self._device)
            losses.append(self._config.task_weight * cross_entropy(y_N, told))
        if self._heads.rotation is not None:
            # Every image once more, turned (paper, section 4): half the batch is upright otherwise.
            x_NCHW, turns_N = turned(batch.x_NCHW, generator)
            x_NCHW = x_NCHW.to(self._device, memory_format=torch.channels_last)
            y_N4 = self._heads.rotation(category_module(x_NCHW))
            found = F.cross_entropy(y_N4, turns_N.to(self._device))
            losses.append(self._config.rotation_weight * found)
        return losses


class CompatibleRecipe:
    """`SupervisedRecipe` with the losses of frozen heads beside those of the lab's own tasks.

    With `batch_norm = "re-estimated"`, statistics are estimated anew at the end, on the training
    images as they are: what a running mean holds is of augmented images and of weights that were
    still moving.
    """

    name = "compatible"

    def __init__(self, config: TrainingConfig, device: torch.device, heads: FrozenHeads) -> None:
        losses = CompatibleLosses(heads, config.compatible, device)
        self._config = config
        self._device = device
        self._training = SupervisedRecipe(config, device, losses)

    def settings(self) -> dict[str, Setting]:
        """Return what the manifest says about the recipe."""
        chosen = self._config.compatible.model_dump(mode="json", exclude={"wait_seconds"})
        return self._training.settings() | {f"compatible.{k}": v for k, v in chosen.items()}

    def train(
        self,
        start: Teacher,
        data: LabData,
        folder: Path,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> Teacher:
        """Train on `data.training`; see `Recipe.train`.

        Raises
        ------
        DataError
            If BatchNorm statistics are to be estimated anew and there are too few images.
        """
        teacher = self._training.train(start, data, folder, on_progress, stop)
        if self._config.compatible.batch_norm == "re-estimated":
            check(stop)
            re_estimate_below(
                teacher.category_module,
                teacher.task_modules.values(),
                data.training.images_NCHW,
                self._device,
            )
        return teacher
