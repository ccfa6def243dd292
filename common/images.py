"""Turns image files into what a net takes: alike at every lab and wherever a net is applied.

N images, C channels, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rootstock.common.errors import DataError
from rootstock.common.image_files.findings import printable
from rootstock.common.image_files.listing import list_images
from rootstock.common.image_files.reading import ImageReader
from rootstock.common.nets.spec import STANDARD_MEAN, STANDARD_STD, ImageForm
from rootstock.common.nets.training import at_once

_BATCH = 256
"""Images at once where nothing is learned."""

SIDES = (("yes", 1.0), ("no", 0.0))
"""Folders of labelled images: what shows a category, and what does not."""
MAX_IMAGES = 2000
"""They are in memory at once."""

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def centre_square(picture: Image.Image) -> Image.Image:
    """Return the largest square in the middle."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def central_part(square: Image.Image, share: float) -> Image.Image:
    """Return the middle of a square picture, of a share of its side."""
    side = max(1, round(share * square.width))
    start = (square.width - side) // 2
    return square.crop((start, start, start + side, start + side)) if start else square


def pixels(picture: Image.Image, form: ImageForm) -> Tensor:
    """Cut and resize a square picture to uint8 of C×H×W, C being 1 or 3."""
    channels, height, width = form.shape
    picture = central_part(picture, form.preprocessing.crop)
    picture = picture.convert("L" if channels == 1 else "RGB")
    picture = picture.resize((width, height), _RESAMPLING[form.preprocessing.interpolation])
    array = np.array(picture, dtype=np.uint8).reshape(height, width, -1)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def normalise(images_NCHW: Tensor) -> Tensor:
    """Turn uint8 images into nets' input, float32 of the same shape, in the standard units."""
    return images_NCHW.to(torch.float32).div_(255.0).sub_(STANDARD_MEAN).div_(STANDARD_STD)


def batches(
    images_NCHW: Tensor, device: torch.device, most: int = _BATCH, *, fewest: int = 1
) -> Iterator[Tensor]:
    """Yield uint8 images as a net takes them, so many at once at most, on a device.

    Fewer of large ones, but not fewer than `fewest`: see `common.nets.training.at_once`.
    """
    for part_NCHW in torch.split(images_NCHW, max(fewest, at_once(images_NCHW, most))):
        yield normalise(part_NCHW).to(device)


def read_unlabelled(
    folder: Path,
    form: ImageForm,
    reader: ImageReader,
    note: Callable[[str], None],
    *,
    most: int = MAX_IMAGES,
) -> Tensor:
    """Read all images below a folder, at any depth; `note` is called with what is doubtful.

    Returns (N, C, H, W), uint8, the centre squares in the order of their paths: 1 to `most`.
    """
    if not folder.is_dir():
        raise DataError(f"{printable(folder)}: is not a folder; give one that holds images")
    listing = list_images(folder)
    findings = list(listing.findings("the folder", folder))
    doubts = [finding.text for finding in findings if finding.doubtful]
    if not 0 < len(listing.paths) <= most:
        raise DataError(
            "; ".join([f"{printable(folder)}: holds {len(listing.paths)} images", *doubts])
            + f"; give 1 to {most}"
        )
    squares = [
        read_square(path, form, reader, str(path.relative_to(folder))) for path in listing.paths
    ]
    reader.require_contrast()
    for doubt in [*doubts, *(each.text for each in reader.findings() if each.doubtful)]:
        note(f"{printable(folder)}: {doubt}")
    return torch.stack(squares)


def read_square(
    path: Path, form: ImageForm, reader: ImageReader, name: str | None = None
) -> Tensor:
    """Read the centre square of an image file as uint8 of (C, H, W)."""
    return pixels(centre_square(reader.read(path, name)), form)
