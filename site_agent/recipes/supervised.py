"""Supervised training from the plan's initial weights: the category against the rest.

All tasks are learned at once, above one category module: a segmentation from the masks of the same
images.

N batch, C channels, H/W height and width.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rootstock.common.distillation.augmentation import augment, augment_labelled
from rootstock.common.distillation.problem import cross_entropy, logits, pixel_labels
from rootstock.common.distillation.settings import AugmentConfig
from rootstock.common.errors import DataError
from rootstock.common.images.decode import normalise
from rootstock.common.nets.spec import Setting
from rootstock.common.nets.training import cosine
from rootstock.site_agent.config import RECIPE_TABLES, TrainingConfig
from rootstock.site_agent.data.images import LabData, labels_like
from rootstock.site_agent.recipes import checkpoint
from rootstock.site_agent.recipes.interface import OnProgress, Teacher
from rootstock.site_agent.stopping import Stopped

CHECKPOINT = "checkpoint.safetensors"
_WARM_UP = 0.05
"""Share of the steps over which the learning rate rises: AdamW's first steps are its roughest."""


class Auxiliary(Protocol):
    """Further losses of a category module: see `rootstock.site_agent.recipes.compatible`."""

    def __call__(
        self,
        category_module: nn.Module,
        features_NCHW: Tensor,
        batch: Batch,
        generator: torch.Generator,
    ) -> list[Tensor]:
        """Return the losses of one batch, weighted."""
        ...


class SupervisedRecipe:
    """Binary cross-entropy of every task, AdamW or SGD, cosine schedule, light augmentation.

    An epoch shows every training image of the larger side (category or rest) once and the
    smaller side's as often as it takes to balance, so that threshold 0 is fair. All randomness
    of an epoch follows from (seed, epoch), so a resumed run repeats nothing and skips nothing.
    Nothing is chosen on validation images: the last epoch's weights are the teacher's.

    Parameters
    ----------
    config
        Steps and rates.
    device
        Where to train.
    auxiliary
        Losses of the category module beside those of its tasks.
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
        flat: dict[str, Setting] = {}
        for key, value in self._config.model_dump(mode="json").items():
            # The manifest's architecture names the extractor.
            if key in ("recipe", "checkpoint_epochs", "extractor", *RECIPE_TABLES):
                continue
            if isinstance(value, dict):
                flat |= {f"{key}.{k}": v for k, v in value.items() if v is not None}
            else:
                flat[key] = value
        return flat

    def train(
        self,
        start: Teacher,
        data: LabData,
        folder: Path,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> Teacher:
        """Train on `data.training`; see `Recipe.train`."""
        modules = start.modules()
        for module in modules.values():
            # A third faster on a CPU; weights ship in the plain order again.
            module.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = self._optimiser(start)
        epochs(
            self._config,
            self._device,
            data,
            Kept(folder / CHECKPOINT, modules, {OPTIMISER: optimiser}),
            lambda indices, generator: self._step(start, optimiser, data, indices, generator),
            on_progress,
            stop,
        )
        ship_shape(modules)
        return start

    def _step(
        self,
        teacher: Teacher,
        optimiser: torch.optim.Optimizer,
        data: LabData,
        indices: Tensor,
        generator: torch.Generator,
    ) -> float:
        for module in teacher.modules().values():
            module.train()
        batch = batch_of(data, indices, self._config.augment, generator)
        features_NCHW = teacher.category_module(
            batch.x_NCHW.to(self._device, memory_format=torch.channels_last)
        )
        losses = []
        for g in teacher.task_modules.values():
            y_N = logits(g(features_NCHW))
            losses.append(cross_entropy(y_N, batch.labels_for(y_N).to(self._device)))
        if self._auxiliary is not None:
            losses += self._auxiliary(teacher.category_module, features_NCHW, batch, generator)
        loss = torch.stack(losses).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return float(loss.detach())

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


OPTIMISER = "optimiser"
"""What a checkpoint calls the one whose rate follows the schedule."""


class Kept(NamedTuple):
    """What a checkpoint holds, and where it is."""

    path: Path
    modules: Mapping[str, nn.Module]
    optimisers: checkpoint.Optimisers
    """`OPTIMISER` among them."""


def epochs(
    config: TrainingConfig,
    device: torch.device,
    data: LabData,
    kept: Kept,
    step: Callable[[Tensor, torch.Generator], float],
    on_progress: OnProgress,
    stop: threading.Event,
    done: Callable[[int], None] = lambda _: None,
) -> None:
    """Go on from the checkpoint, if there is one, to the last epoch.

    Parameters
    ----------
    config
        Epochs, batches, the rate at the schedule's height, the seed.
    device
        Where dropout draws.
    kept
        A group of the optimiser may have a "factor" that its rate is multiplied by.
    step
        Learns from the training images at the given indices, with the epoch's generator for what it
        draws on the CPU; returns the loss.
    done
        Told of an epoch, from 0, before what is kept is written.

    Raises
    ------
    DataError
        If there are fewer images than a batch.
    Stopped, StorageError
        See `Recipe.train`.
    """
    per_epoch = 2 * max(data.training.counts()) // config.batch_size
    if per_epoch == 0:
        raise DataError(
            f"{len(data.training)} training images do not make one batch of {config.batch_size}; "
            "add images or lower training.batch_size"
        )
    steps = config.epochs * per_epoch
    epoch = checkpoint.restore(*kept)
    cuda = [device] if device.type == "cuda" else []
    while epoch < config.epochs:
        generator = torch.Generator().manual_seed(_mix(config.seed, epoch))
        order = balanced_order(data.training.labels_N, generator)
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(_mix(config.seed, epoch) + 1)  # dropout's
            for batch in range(per_epoch):
                if stop.is_set():
                    raise Stopped
                number = epoch * per_epoch + batch
                for group in kept.optimisers[OPTIMISER].param_groups:
                    rate = config.learning_rate * group.get("factor", 1.0)
                    group["lr"] = rate * schedule(number, steps)
                indices = order[batch * config.batch_size : (batch + 1) * config.batch_size]
                loss = step(indices, generator)
                on_progress(number + 1, steps, f"epoch {epoch + 1}, loss {loss:.3f}")
        done(epoch)
        epoch += 1
        if epoch % config.checkpoint_epochs == 0 or epoch == config.epochs:
            checkpoint.save(*kept, epoch)


def ship_shape(modules: Mapping[str, nn.Module]) -> None:
    """Bring modules into the form in which they ship: plain order, frozen, evaluation mode."""
    for module in modules.values():
        module.to(memory_format=torch.contiguous_format)
        module.eval().requires_grad_(False)


def balanced_order(labels_N: Tensor, generator: torch.Generator) -> Tensor:
    """Return indices of one epoch: both sides equally often, each image at least once.

    Parameters
    ----------
    labels_N
        1 the category, 0 the rest; both occur.
    generator
        The only source of randomness.

    Returns
    -------
    Indices, int64, twice as many as the larger side has images, shuffled.
    """
    sides = [torch.nonzero(labels_N == label).flatten() for label in (0.0, 1.0)]
    length = max(len(side) for side in sides)
    chosen = []
    for side in sides:
        rounds = math.ceil(length / len(side))
        shuffled = [side[torch.randperm(len(side), generator=generator)] for _ in range(rounds)]
        chosen.append(torch.cat(shuffled)[:length])
    both = torch.cat(chosen)
    return both[torch.randperm(len(both), generator=generator)]


class Batch(NamedTuple):
    """Training images, normalised and changed, and what they are to be told as."""

    x_NCHW: Tensor
    labels_N: Tensor
    labels_NHW: Tensor | None
    """Of pixels, moved with their images, if there are masks."""

    def labels_for(self, y: Tensor) -> Tensor:
        """Return labels of y's shape; see `ImageSet.labels_for`."""
        return labels_like(y, self.labels_N, self.labels_NHW)


def batch_of(
    data: LabData, indices: Tensor, config: AugmentConfig, generator: torch.Generator
) -> Batch:
    """Return the training images at `indices`, changed."""
    images = data.training
    x_NCHW, labels_N = normalise(images.images_NCHW[indices]), images.labels_N[indices]
    if images.masks_NHW is None:
        x_NCHW = augment(x_NCHW, config, mirror=data.mirror, generator=generator)
        return Batch(x_NCHW, labels_N, None)
    x_NCHW, labels_NHW = augment_labelled(
        x_NCHW,
        pixel_labels(images.masks_NHW[indices]),
        config,
        mirror=data.mirror,
        generator=generator,
    )
    return Batch(x_NCHW, labels_N, labels_NHW)


def schedule(step: int, steps: int) -> float:
    """Return the learning rate's factor: a short rise, then half a cosine down to 0."""
    rise = max(1, round(_WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return cosine(step - rise, max(1, steps - rise))


def _mix(seed: int, epoch: int) -> int:
    """Return one seed out of two numbers, different for each pair in practice."""
    return (seed * 1_000_003 + epoch * 2) % (1 << 62)
