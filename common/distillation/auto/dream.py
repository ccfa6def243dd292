"""Images dreamed from a teacher net and shipped statistics: samples where a lab gives none.

A lab ships, with its weights, mean and variance of every convolution's output over its data. Images
are optimised until they have those moments, until the teacher is sure of its answers, half of them
"category", and until they are smooth (METHODS 1i; after Yin et al., 2020, "Dreaming to Distill").

Shapes: N images, C channels of a layer's output, H/W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.auto.synthetic import dead_leaves
from rootstock.common.distillation.dream_source import DreamSource, distance, moments
from rootstock.common.distillation.settings import DreamSettings
from rootstock.common.distillation.solvers.optimiser import Adam
from rootstock.common.errors import TransplantError
from rootstock.common.schedules import cosine


@dataclass(frozen=True)
class DreamRecord:
    """Losses of one step, before its update, or of the images as they are."""

    step: int
    loss: float
    class_loss: float
    """Cross-entropy of the teacher's output to the side that each image is to show."""
    statistics_loss: float
    """Mean over layers and channels of squared differences of mean and of deviation, each in units
    of the shipped variance."""
    smoothness: float


class Dream:
    """Images being dreamed.

    Parameters
    ----------
    source
        Modules and statistics.
    settings
        Numbers, weights, seed.

    Raises
    ------
    TransplantError
        If statistics do not fit their layers.
    """

    def __init__(self, source: DreamSource, settings: DreamSettings) -> None:
        self._source, self._settings = source, settings
        # On the CPU whatever the device, so that a seed means the same everywhere.
        self._generator = torch.Generator().manual_seed(settings.seed)
        device = next(source.category_module.parameters()).device
        # From dead leaves rather than noise: with edges to begin with, adapters did better on the
        # same steps (CIFAR-10, horse onto dog: 14.8 against 16.1% error, teacher 12.6).
        _, height, width = source.input_shape
        images = max(4, min(settings.images, settings.max_pixels // (height * width)))
        start = dead_leaves(images, source.input_shape, self._generator)
        self._images = nn.Parameter(start.to(device))
        self._optimiser = Adam({"images": self._images}, weight_decay=0.0)
        shown = max(1, min(images - 1, round(settings.share * images)))
        self._targets_N = (torch.arange(images, device=device) < shown).float()
        self._wanted = {
            name: tuple(moment.to(device) for moment in source.wanted(name))
            for name in source.layers()
        }
        self._step = 0
        self.measure()  # statistics that do not fit are an error now, not at the first step

    def images(self) -> Tensor:
        """Return the images (N, C, H, W) as they stand."""
        return self._images.detach()

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self._step >= self._settings.steps

    def step(self) -> DreamRecord:
        """Take one step.

        Raises
        ------
        TransplantError
            If all steps are taken, or the loss is not finite.
        """
        settings = self._settings
        if self.done:
            raise TransplantError(
                f"all {settings.steps} steps of the dream are taken; ask for more in the settings"
            )
        shift = torch.randint(
            -settings.jitter, settings.jitter + 1, (2,), generator=self._generator
        ).tolist()
        loss, record = self._losses(torch.roll(self._images, shift, (2, 3)), self._step + 1)
        if not math.isfinite(record.loss):
            raise TransplantError(
                f"the dream's loss is {record.loss} at step {record.step}; lower its learning rate"
            )
        (gradient,) = torch.autograd.grad(loss, [self._images])
        rate = settings.learning_rate * cosine(self._step, settings.steps)
        self._optimiser.update({"images": gradient}, rate)
        self._step += 1
        return record

    def measure(self) -> DreamRecord:
        """Return the losses of the images as they stand."""
        with torch.no_grad():
            return self._losses(self._images, self._step)[1]

    def require_converged(self) -> DreamRecord:
        """Return the losses of images that may be used.

        Raises
        ------
        TransplantError
            If the teacher is not sure of them, or they lack the shipped moments; says the numbers.
        """
        record, settings = self.measure(), self._settings
        for what, value, limit in (
            ("class", record.class_loss, settings.max_class_loss),
            ("statistics", record.statistics_loss, settings.max_statistics_loss),
        ):
            if not value <= limit:
                raise TransplantError(
                    f"the dream did not converge: its {what} loss is {value:.3g} after "
                    f"{record.step} steps, the limit is {limit:g}; take more steps, or a method "
                    "that does not dream"
                )
        return record

    def state(self) -> dict[str, Tensor]:
        """Return all that changes, as plain tensors; the rest follows from the constructor's."""
        return {
            "images": self._images.detach().clone(),
            **{f"optimiser/{k}": v.clone() for k, v in self._optimiser.state().items()},
            "step": torch.tensor(self._step, dtype=torch.int64),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Carry on from a state; return the same object.

        Raises
        ------
        TransplantError
            If the state belongs to other settings.
        """
        expected = {name: tensor.shape for name, tensor in self.state().items()}
        fits = {name: tensor.shape for name, tensor in state.items()} == expected
        if not fits or not 0 <= int(state["step"]) <= self._settings.steps:
            raise TransplantError(
                "the state was saved for another dream; start anew, or with the settings that it "
                "was saved with"
            )
        with torch.no_grad():
            self._images.copy_(state["images"])
        prefix = "optimiser/"
        self._optimiser.restore(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
        self._step = int(state["step"])
        self._generator.set_state(state["generator"].cpu())
        return self

    def _losses(self, images_NCHW: Tensor, step: int) -> tuple[Tensor, DreamRecord]:
        settings = self._settings
        with moments(self._source.layers()) as found:
            features_NCHW = self._source.category_module(images_NCHW)
            y_N = self._source.teacher_task(features_NCHW).flatten()
        if len(y_N) != len(self._targets_N):
            raise TransplantError(
                f"a dream needs one answer an image, and the task module gives "
                f"{len(y_N) // len(self._targets_N)}; use a method that does not dream"
            )
        class_loss = F.binary_cross_entropy_with_logits(y_N, self._targets_N)
        statistics_loss = torch.stack(
            [distance(name, found[name], wanted) for name, wanted in self._wanted.items()]
        ).mean()
        smoothness = sum(
            (images_NCHW.diff(dim=side).square().mean() for side in (2, 3)), torch.zeros(())
        )
        loss = (
            settings.confidence * class_loss
            + settings.statistics * statistics_loss
            + settings.smoothness * smoothness
        )
        parts = (loss, class_loss, statistics_loss, smoothness)
        return loss, DreamRecord(step, *(float(part.detach()) for part in parts))
