"""Minibatches of a lab's training images: which, in what order, how changed.

N batch, C channels, H/W height and width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rootstock.common.distillation.augmentation import augment, augment_labelled
from rootstock.common.distillation.problem import cross_entropy, pixel_labels
from rootstock.common.distillation.settings import AugmentConfig
from rootstock.common.images import normalise
from rootstock.site_agent.data.images import LabData, labels_like


class Batch(NamedTuple):
    """Training images, normalised and augmented, and their labels."""

    x_NCHW: Tensor
    labels_N: Tensor
    labels_NHW: Tensor | None
    """Of pixels, moved with their images, if there are masks."""

    def loss(self, y: Tensor) -> Tensor:
        """Return the task loss of logits (N), or (N,H,W) of a segmentation, on their device."""
        labels = labels_like(y, self.labels_N, self.labels_NHW)
        return cross_entropy(y, labels.to(y.device))


def batch_of(
    data: LabData, indices: Tensor, config: AugmentConfig, generator: torch.Generator
) -> Batch:
    """Return the training images at `indices`, augmented."""
    images = data.training
    x_NCHW, labels_N = normalise(images.images_NCHW[indices]), images.labels_N[indices]
    if images.masks_NHW is None:
        x_NCHW = augment(x_NCHW, config, mirror=data.mirror, generator=generator)
        return Batch(x_NCHW, labels_N, None)
    labels_NHW = pixel_labels(images.masks_NHW[indices])
    x_NCHW, labels_NHW = augment_labelled(
        x_NCHW, labels_NHW, config, mirror=data.mirror, generator=generator
    )
    return Batch(x_NCHW, labels_N, labels_NHW)


def balanced_order(labels_N: Tensor, generator: torch.Generator) -> Tensor:
    """Return the shuffled indices of one epoch: both sides equally often, each image at least once.

    They are int64, twice as many as the larger side has images. Both labels, 1 and 0, must occur.
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
