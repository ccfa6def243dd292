"""A lab's images in memory.

N images, C channels, H/W height and width (both S, the plan's input size).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from rootstock.common.distillation.problem import pixel_labels
from rootstock.common.errors import DataError, SchemaError


@dataclass(frozen=True)
class ImageSet:
    """Images of the category and of the rest.

    Attributes
    ----------
    images_NCHW
        uint8, 0 to 255.
    labels_N
        float32, 1 the category, 0 the rest.
    keys
        The images' names in the dataset; one each, none twice.
    masks_NHW
        uint8, 1 the category's pixels, 0 what stands around it, `NO_LABEL` nobody's. Images of the
        rest have no label: a segmentation finds the category where it is, as in the paper. None
        where the dataset has no masks or no task asks for them.
    """

    images_NCHW: Tensor
    labels_N: Tensor
    keys: tuple[str, ...]
    masks_NHW: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of images."""
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
        """Return what a task module's answers are held against.

        Parameters
        ----------
        y
            (N) of a classification; (N, H, W) of a segmentation.

        Returns
        -------
        float32 of y's shape: 1 the category, 0 the rest, for a pixel that nobody labelled NaN.

        Raises
        ------
        DataError
            If pixels are asked about and the images have no masks.
        SchemaError
            If the answers' shape is not the images'.
        """
        masks_NHW = self.masks_NHW
        labels_NHW = None if masks_NHW is None else pixel_labels(masks_NHW)
        return labels_like(y, self.labels_N, labels_NHW)

    def digest(self) -> str:
        """Return a SHA-256 over names, labels and pixels: two sets with one digest are equal."""
        sha = hashlib.sha256()
        for key in self.keys:
            sha.update(key.encode() + b"\0")
        sha.update(self.labels_N.numpy().tobytes())
        for image_CHW in self.images_NCHW:
            sha.update(image_CHW.contiguous().numpy().tobytes())
        if self.masks_NHW is not None:
            sha.update(self.masks_NHW.contiguous().numpy().tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class LabData:
    """A lab's private images, in three parts that share none.

    Attributes
    ----------
    training
        What the teacher net and refined adapters learn from. May be unbalanced.
    holdout
        Unseen by the teacher; refinement picks its start and its end on it. Balanced.
    validation
        Numbers are reported on it; nothing is chosen on it. Balanced.
    mirror
        Whether a mirrored image still shows the same thing (a digit does not).
    """

    training: ImageSet
    holdout: ImageSet
    validation: ImageSet
    mirror: bool

    def digest(self) -> str:
        """Return a SHA-256 over all three parts."""
        parts = (self.training, self.holdout, self.validation)
        return hashlib.sha256("".join(part.digest() for part in parts).encode()).hexdigest()


def labels_like(y: Tensor, labels_N: Tensor, labels_NHW: Tensor | None) -> Tensor:
    """Return the labels that are for answers of y's kind; see `ImageSet.labels_for`."""
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
            f"the task module answers with {_by(y)} and the lab's labels are {_by(labels)}; join "
            "task modules that were trained on images of this size"
        )
    return labels


def _by(values: Tensor) -> str:
    return "×".join(map(str, values.shape))
