"""Transplanting on dreams: dream images, look whether they may be used, distil y_T on them.

Shapes: N images, C/H/W of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from common.distillation.back_distillation import BackDistillation, StepRecord
from common.distillation.dream import Dream
from common.distillation.transplant import (
    MethodSettings,
    Transplant,
    distilled,
    starting_adapter,
)
from common.errors import TransplantError
from common.nets.adapter import Adapter

_BATCH = 64
"""Images a pass through f: bounds memory."""


class DreamedDistillation:
    """A dream's steps, then distillation's on dreams, their mixtures, and samples if there are any.

    Step records of the dream have its class loss as task loss and its statistics loss as
    distillation loss.

    Parameters
    ----------
    transplant
        With a source to dream from.
    settings
        `dream` and `learning`; starts from the closed form unless told otherwise.

    Raises
    ------
    TransplantError
        If there is no source, or as `Dream` and `starting_adapter`.
    """

    def __init__(self, transplant: Transplant, settings: MethodSettings) -> None:
        if transplant.source is None:
            raise TransplantError(
                "method 'dream' needs the statistics that a lab ships and its category module; "
                "ask the lab to switch channel means and variances on"
            )
        self._transplant, self._settings = transplant, settings
        self._source = transplant.source
        self._dream = Dream(self._source, settings.dream)
        self._adapter = starting_adapter(
            transplant, settings.start or "closed-form", settings
        ).eval()
        self._distillation: BackDistillation | None = None

    @property
    def adapter(self) -> Adapter:
        """The adapter as it stands; the start, while the dream lasts."""
        return self._adapter

    @property
    def done(self) -> bool:
        """Whether all steps of both are taken."""
        return self._distillation is not None and self._distillation.done

    def step(self) -> StepRecord:
        """Take one step of the dream, or of the distillation.

        Raises
        ------
        TransplantError
            If the dream did not converge, a loss is not finite, or all steps are taken.
        """
        if self._distillation is not None:
            learned = self._distillation.step()
            return StepRecord(
                self._settings.dream.steps + learned.step,
                learned.loss,
                learned.task_loss,
                learned.distillation_loss,
            )
        dreamed = self._dream.step()
        if self._dream.done:
            self._distillation = self._begun()
        return StepRecord(dreamed.step, dreamed.loss, dreamed.class_loss, dreamed.statistics_loss)

    def state(self) -> dict[str, Tensor]:
        """Return all that changes, as plain tensors."""
        state = {f"dream/{k}": v for k, v in self._dream.state().items()}
        if self._distillation is not None:
            state |= {f"learning/{k}": v for k, v in self._distillation.state().items()}
        return state

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Carry on from a state; return the same object.

        Raises
        ------
        TransplantError
            If the state belongs to another dream, adapter or settings.
        """
        self._dream.restore(_under("dream/", state))
        learning = _under("learning/", state)
        if self._dream.done:
            self._distillation = self._begun().restore(learning)
        return self

    def _begun(self) -> BackDistillation:
        self._dream.require_converged()
        settings = self._settings.dream
        images_NCHW = self._dream.images()
        generator = torch.Generator().manual_seed(settings.seed)
        mixed_NCHW = mixtures(images_NCHW, round(settings.mixtures * len(images_NCHW)), generator)
        features = [self._features(images_NCHW), self._features(mixed_NCHW)]
        if self._transplant.samples is not None:
            features.append(self._transplant.samples.features_NCHW.to(images_NCHW.device))
        return distilled(self._transplant, torch.cat(features), self._adapter, self._settings)

    def _features(self, images_NCHW: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [
                self._source.category_module(images_NCHW[first : first + _BATCH])
                for first in range(0, max(1, len(images_NCHW)), _BATCH)
            ]
        return torch.cat(parts)


def mixtures(images_NCHW: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` weighted means of two images each, weights uniform (Zhang et al., 2018)."""
    device = images_NCHW.device
    pairs = torch.randint(len(images_NCHW), (2, count), generator=generator).to(device)
    weight = torch.rand(count, 1, 1, 1, generator=generator).to(images_NCHW)
    return weight * images_NCHW[pairs[0]] + (1 - weight) * images_NCHW[pairs[1]]


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
