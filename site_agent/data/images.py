"""A lab's images in memory, and minibatches of them: which, in what order, how changed.

N images or batch, C channels, H/W height and width (both S, the plan's input size).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rootstock.common.distillation.augmentation import augment, augment_labelled
from rootstock.common.distillation.problem import cross_entropy, pixel_labels
from rootstock.common.distillation.settings import AugmentConfig
from rootstock.common.errors import DataError, SchemaError
from rootstock.common.images import normalise


@dataclass(frozen=True)
class ImageSet:
    """Images of the category and of the rest."""

    images_NCHW: Tensor
    """uint8, 0 to 255."""
    labels_N: Tensor
    """float32, 1 the category, 0 the rest."""
    keys: tuple[str, ...]
    """The images' names in the dataset; one each, none twice."""
    masks_NHW: Tensor | None = None
    """uint8, 1 the category's pixels, 0 what is around it, `NO_LABEL` nobody's. Images of
    the rest have no label: a segmentation finds the category where it is, as in the paper. None
    where the dataset has no masks or no task asks for them."""

    def __len__(self) -> int:
        return len(self.keys)

    def subset(self, indices: list[int]) -> ImageSet:
        """Return the images at `indices`, in that order."""
        chosen = torch.tensor(indices, dtype=torch.int64)
        return ImageSet(
            self.images_NCHW[chosen],
            self.labels_N[chosen],
            tuple(self.keys[index] for index in indices),
            None if self.masks_NHW is None else self.masks_NHW[chosen],
        )

    def counts(self) -> tuple[int, int]:
        """Return how many images are of the category, and how many of the rest."""
        positive = int(self.labels_N.sum())
        return positive, len(self) - positive

    def labels_for(self, y: Tensor) -> Tensor:
        """Return the labels for answers y, (N) of a classification or (N, H, W) of a segmentation.

        They are float32 of y's shape: 1 the category, 0 the rest, NaN a pixel that nobody labelled.
        """
        masks_NHW = self.masks_NHW
        labels_NHW = None if masks_NHW is None else pixel_labels(masks_NHW)
        return labels_like(y, self.labels_N, labels_NHW)

    def digest(self) -> str:
        """Return a SHA-256 over names, labels and pixels: two sets with one digest are equal."""
        sha = hashlib.sha256()
        for key in self.keys:
            sha.update(key.encode(errors="surrogateescape") + b"\0")
        sha.update(self.labels_N.numpy().tobytes())
        for image_CHW in self.images_NCHW:
            sha.update(image_CHW.contiguous().numpy().tobytes())
        if self.masks_NHW is not None:
            sha.update(self.masks_NHW.contiguous().numpy().tobytes())
        return sha.hexdigest()


PartName = Literal["training", "holdout", "validation"]


@dataclass(frozen=True)
class LabData:
    """A lab's private images, in three parts that share none."""

    training: ImageSet
    """What the teacher net and refined adapters learn from. May be unbalanced."""
    holdout: ImageSet
    """Unseen by the teacher; refinement picks its start and its end on it. Balanced."""
    validation: ImageSet
    """Numbers are reported on it; nothing is chosen on it. Balanced."""
    mirror: bool
    """Whether a mirrored image still shows the same thing (a digit does not)."""

    def parts(self) -> dict[PartName, ImageSet]:
        """Return the three parts by name."""
        return {
            "training": self.training,
            "holdout": self.holdout,
            "validation": self.validation,
        }

    def digest(self) -> str:
        """Return a SHA-256 over all three parts."""
        digests = "".join(part.digest() for part in self.parts().values())
        return hashlib.sha256(digests.encode()).hexdigest()


def labels_like(y: Tensor, labels_N: Tensor, labels_NHW: Tensor | None) -> Tensor:
    """Return the labels that are for answers of y's kind: of images, or of pixels."""
    if y.ndim == 1:
        labels = labels_N
    elif labels_NHW is None:
        raise DataError(
            "a segmentation needs masks and these images have none; give data of kind 'voc', or "
            "leave the task out of the site's tasks"
        )
    else:
        labels = labels_NHW
    if y.shape != labels.shape:
        raise SchemaError(
            f"the task module answers with {by(y.shape)} and the lab's labels are "
            f"{by(labels.shape)}; join task modules that were trained on images of this size"
        )
    return labels


def by(shape: Iterable[int]) -> str:
    """Return a shape as people read it: 3×32×32."""
    return "×".join(map(str, shape))


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
