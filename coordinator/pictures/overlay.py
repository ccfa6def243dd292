"""Draws a segmentation over its picture.

H/W height and width.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rootstock.common.files import write_bytes

COLOURS = (
    (214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 127, 14), (148, 103, 189),
    (23, 190, 207), (227, 119, 194), (188, 189, 34), (140, 86, 75), (127, 127, 127),
)  # fmt: skip
"""The first, second, … category's; an eleventh has the first's again."""

_OPACITY = 0.5
_SHORTEST_SIDE = 256


def draw_overlay(picture: Image.Image, labels_HW: NDArray[np.integer], path: Path) -> Path:
    """Write a picture as PNG, each category's pixels tinted in its colour.

    The picture is a square; one smaller than 256 pixels is enlarged. Labels are k for the k-th
    category, 0 for the rest, and are resized to the picture.
    """
    side = max(picture.width, _SHORTEST_SIDE)
    size = (side, side)
    # Nearest keeps labels labels.
    mask = Image.fromarray(labels_HW.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    labels = np.asarray(mask)
    shown = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)).astype(float)
    tint = np.asarray(COLOURS, dtype=float)[(labels - 1) % len(COLOURS)]
    blend = np.where((labels > 0)[..., None], (1 - _OPACITY) * shown + _OPACITY * tint, shown)
    buffer = io.BytesIO()
    Image.fromarray(blend.round().astype(np.uint8)).save(buffer, format="png")
    write_bytes(path, buffer.getvalue())
    return path
