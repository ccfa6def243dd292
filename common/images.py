"""Reads pictures as a net takes them: alike at every lab and wherever a net is applied.

N images, C channels, H/W height and width.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rootstock.common.errors import DataError
from rootstock.common.nets.spec import Shape
from rootstock.common.protocol import PIXEL_MEAN, PIXEL_STD

_BATCH = 256
"""Images at once where nothing is learned: some hundred megabytes of features at 64 pixels."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
SIDES = (("yes", 1.0), ("no", 0.0))
"""Folders of labelled images: what shows a category, and what does not."""
MAX_IMAGES = 2000
"""They are in memory at once."""


class UnreadableError(DataError):
    """A file is not an image that can be read."""


def read_picture(path: Path, mode: str | None) -> Image.Image:
    """Read an image file whole, and convert it to `mode` unless that is None.

    UnreadableError also says that it has more pixels than Pillow takes for safe (89 million).
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice the cap.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return image.convert(mode) if mode else image.copy()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UnreadableError(
            f"{path}: cannot be read as an image ({error}); replace or remove it"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"{path}: {error}; replace it by a smaller one") from error


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
