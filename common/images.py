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
from rootstock.common.nets.spec import Shape
from rootstock.common.protocol import PIXEL_MEAN, PIXEL_STD

_BATCH = 256
"""Images at once where nothing is learned: some hundred megabytes of features at 64 pixels."""

SIDES = (("yes", 1.0), ("no", 0.0))
"""Folders of labelled images: what shows a category, and what does not."""
MAX_IMAGES = 2000
"""They are in memory at once."""


def centre_square(picture: Image.Image) -> Image.Image:
    """Return the largest square in the middle."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def pixels(picture: Image.Image, input_shape: Shape) -> Tensor:
    """Resize a square picture to uint8 of C×H×W, C being 1 or 3."""
    channels, height, width = input_shape
    picture = picture.convert("L" if channels == 1 else "RGB")
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    array = np.array(picture, dtype=np.uint8).reshape(height, width, -1)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def normalise(images_NCHW: Tensor) -> Tensor:
    """Turn uint8 images into a net's input, float32 of the same shape."""
    return images_NCHW.to(torch.float32).div_(255.0).sub_(PIXEL_MEAN).div_(PIXEL_STD)


def batches(images_NCHW: Tensor, device: torch.device, most: int = _BATCH) -> Iterator[Tensor]:
    """Yield uint8 images as a net takes them, so many at once at most, on a device."""
    for part_NCHW in torch.split(images_NCHW, most):
        yield normalise(part_NCHW).to(device)


def read_unlabelled(
    folder: Path,
    input_shape: Shape,
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
        read_square(path, input_shape, reader, str(path.relative_to(folder)))
        for path in listing.paths
    ]
    reader.require_contrast()
    for doubt in [*doubts, *(each.text for each in reader.findings() if each.doubtful)]:
        note(f"{printable(folder)}: {doubt}")
    return torch.stack(squares)


def read_square(
    path: Path, input_shape: Shape, reader: ImageReader, name: str | None = None
) -> Tensor:
    """Read the centre square of an image file as uint8 of (C, H, W)."""
    return pixels(centre_square(reader.read(path, name)), input_shape)
