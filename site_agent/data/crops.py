"""Photographs: read whole or refused by name, and squares out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rootstock.common.image_files.decoding import UnreadableError
from rootstock.common.image_files.reading import ImageReader

Box = tuple[int, int, int, int]
"""Left, top, right, bottom; right and bottom are outside."""

Fill = int | tuple[int, int, int]
MID_GREY = (128, 128, 128)
"""What is put beyond the picture's edge: the mean that inputs are normalised by, so 0."""


def read(reader: ImageReader, path: Path, name: str) -> Image.Image:
    """Read an image file as 8-bit RGB; its error names the setting that leaves images out."""
    try:
        return reader.read(path, name)
    except UnreadableError as error:
        raise skippable(error) from error


def skippable(error: UnreadableError) -> UnreadableError:
    """Return the error with the setting that leaves such images out."""
    return UnreadableError(f"{error}, or set data.skip_unreadable = true")


def bounding_box(mask_HW: NDArray[np.bool_]) -> Box:
    """Return the smallest box around the True pixels; there must be one."""
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def square_around(
    image: Image.Image, box: Box, context: float, beyond: Fill = MID_GREY
) -> Image.Image:
    """Cut a square around a box, with a margin of `context` times the box's longer side.

    The square is moved into the picture as far as it fits, so that it reaches beyond the picture,
    where it is filled with `beyond`, only where that is narrower than the square.
    """
    left, top, right, bottom = box
    side = max(1, round(max(right - left, bottom - top) * (1 + 2 * context)))
    x = _start((left + right - side) // 2, side, image.width)
    y = _start((top + bottom - side) // 2, side, image.height)
    square = Image.new(image.mode, (side, side), beyond)
    square.paste(image, (-x, -y))
    return square


def _start(start: int, side: int, length: int) -> int:
    if side >= length:
        return (length - side) // 2
    return min(max(start, 0), length - side)
