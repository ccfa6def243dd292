"""Samples that the coordinator's operator has: images in folders, no lab's.

    FOLDER/<category>/yes/*.jpg     what shows it
    FOLDER/<category>/no/*.jpg      what does not

Which images are learned from and which judge what was learned follows from a hash of each file's
name, so that no image ever changes sides.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from torch import Tensor

from rootstock.common.distillation.problem import Samples
from rootstock.common.errors import DataError
from rootstock.common.image_files.findings import printable
from rootstock.common.image_files.listing import Listing, is_system, list_images
from rootstock.common.image_files.reading import ImageReader
from rootstock.common.images import MAX_IMAGES, SIDES, normalise, read_square
from rootstock.common.nets.spec import ImageForm

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
    return sorted(
        path.name
        for path in folder.iterdir()
        if not is_system(path.name) and (path / SIDES[0][0]).is_dir()
    )


def log_doubt(text: str) -> None:
    """Log what is doubtful about samples, where no operator waits for the answer."""
    structlog.get_logger("samples").warning("samples.doubtful", reason=text)


def read_own(
    folder: Path,
    category: str,
    form: ImageForm,
    reader: ImageReader,
    note: Callable[[str], None],
) -> OwnSamples:
    """Read a category's samples, at any depth, cut and resized to a form.

    `note` is called with what is doubtful. DataError if there are none of one side, too many, or
    one is no image.
    """
    images, labels, judging = [], [], []
    doubts: list[str] = []
    for side, label in SIDES:
        there = folder / category / side
        listing = list_images(there) if there.is_dir() else Listing()
        doubts += [each.text for each in listing.findings(f"'{side}'", there) if each.doubtful]
        if not listing.paths:
            raise DataError(
                "; ".join([f"{printable(there)}: holds no image", *doubts])
                + "; both sides need some"
            )
        for path in listing.paths:
            name = f"{side}/{path.relative_to(there).as_posix()}"
            images.append(read_square(path, form, reader, name))
            labels.append(label)
            judging.append(_share(name) < JUDGING)
    if len(images) > MAX_IMAGES:
        raise DataError(
            f"{printable(folder / category)}: has {len(images)} images, at most {MAX_IMAGES} are "
            "read; leave some out"
        )
    reader.require_contrast()
    for doubt in [*doubts, *(each.text for each in reader.findings() if each.doubtful)]:
        note(f"{printable(folder / category)}: {doubt}")
    return OwnSamples(normalise(torch.stack(images)), torch.tensor(labels), torch.tensor(judging))


def _share(name: str) -> float:
    """Return a number from 0 to 1 that follows from a name."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48
