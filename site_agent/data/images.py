"""A lab's images in memory.

N images, C channels, H/W height and width (both S, the plan's input size).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


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
    """

    images_NCHW: Tensor
    labels_N: Tensor
    keys: tuple[str, ...]

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
        )

    def counts(self) -> tuple[int, int]:
        """Return how many images are of the category, and how many of the rest."""
        positive = int(self.labels_N.sum())
        return positive, len(self) - positive

    def digest(self) -> str:
        """Return a SHA-256 over names, labels and pixels: two sets with one digest are equal."""
        sha = hashlib.sha256()
        for key in self.keys:
            sha.update(key.encode() + b"\0")
        sha.update(self.labels_N.numpy().tobytes())
        for image_CHW in self.images_NCHW:
            sha.update(image_CHW.contiguous().numpy().tobytes())
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
