"""Samples that the coordinator's operator has: images in folders, no lab's.

    FOLDER/<category>/yes/*.jpg     what shows it
    FOLDER/<category>/no/*.jpg      what does not

Which images are learned from and which judge what was learned follows from a hash of each file's
name, so that no image ever changes sides.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rootstock.common.distillation.problem import Samples
from rootstock.common.errors import DataError
from rootstock.common.images import MAX_IMAGES, SIDES, SUFFIXES, normalise, read_square

JUDGING = 0.3
"""Share of the images that judge."""


@dataclass(frozen=True)
class OwnSamples:
    """Images of one category as a net takes them, and what they show: 1 or 0."""

    images_NCHW: Tensor
    labels_N: Tensor
    judging_N: Tensor
    """Whether an image judges (True) or is learned from (False)."""

    def part(self, features_NCHW: Tensor, *, judging: bool) -> Samples:
        """Return one part, with what a net makes of all the images."""
        chosen = self.judging_N if judging else ~self.judging_N
        return Samples(features_NCHW[chosen], self.labels_N[chosen])


def categories_in(folder: Path) -> list[str]:
    """Return the categories that a folder has samples of; DataError if it is none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one that holds CATEGORY/yes, CATEGORY/no")
    return sorted(path.name for path in folder.iterdir() if (path / SIDES[0][0]).is_dir())


def read_own(folder: Path, category: str, input_shape: tuple[int, int, int]) -> OwnSamples:
    """Read a category's samples as images of `input_shape` (C, H, W).

    DataError if there are none of one side, too many, or one is no image.
    """
    images, labels, judging = [], [], []
    for side, label in SIDES:
        there = folder / category / side
        files = sorted(there.iterdir()) if there.is_dir() else []
        paths = [path for path in files if path.suffix.lower() in SUFFIXES]
        if not paths:
            raise DataError(
                f"{there}: holds no image ({', '.join(sorted(SUFFIXES))}); both sides need some"
            )
        for path in paths:
            images.append(read_square(path, input_shape))
            labels.append(label)
            judging.append(_share(f"{side}/{path.name}") < JUDGING)
    if len(images) > MAX_IMAGES:
        raise DataError(
            f"{folder / category}: has {len(images)} images, at most {MAX_IMAGES} are read; "
            "leave some out"
        )
    return OwnSamples(normalise(torch.stack(images)), torch.tensor(labels), torch.tensor(judging))


def _share(name: str) -> float:
    """Return a number from 0 to 1 that follows from a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48
