"""Reads pictures in folders; labels, if there are any, are the folders' names.

N images, C channels, H/W height and width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from rootstock.common.errors import DataError
from rootstock.common.images.decode import centre_square, pixels, read_picture
from rootstock.common.nets.spec import Shape

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
SIDES = (("yes", 1.0), ("no", 0.0))
"""Folders of labelled images: what shows a category, and what does not."""
MAX_IMAGES = 2000
"""They are in memory at once."""


def read_unlabelled(folder: Path, input_shape: Shape, *, most: int = MAX_IMAGES) -> Tensor:
    """Read all images below a folder, at any depth; files of other suffixes are left alone.

    Returns (N, C, H, W), uint8, the centre squares in the order of their paths: 1 to `most`.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one that holds images")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not 0 < len(paths) <= most:
        raise DataError(
            f"{folder}: holds {len(paths)} images ({', '.join(sorted(SUFFIXES))}); give 1 to {most}"
        )
    return torch.stack([read_square(path, input_shape) for path in paths])


def read_square(path: Path, input_shape: Shape) -> Tensor:
    """Read the centre square of an image file as uint8 of (C, H, W)."""
    return pixels(centre_square(read_picture(path, "RGB")), input_shape)
