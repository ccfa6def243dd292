"""A small folder in VOC's layout: bright discs are cats, dark ones are dogs, each with its mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.data.voc import VOC_CLASSES

LEVELS = {"cat": 230, "dog": 20, "cow": 180}
SIZE = (60, 80)
"""H, W."""
RADIUS = 12


def write_voc(root: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Write so many images of each class; every disc has a rim of two pixels without a label."""
    base = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    draw = np.random.default_rng(seed)
    height, width = SIZE
    names = []
    for animal, count in counts.items():
        for number in range(count):
            name = f"{animal}_{number:04}"
            centre = draw.integers(RADIUS + 4, (height - RADIUS - 4, width - RADIUS - 4))
            rows, columns = np.ogrid[:height, :width]
            distance_HW = np.hypot(rows - centre[0], columns - centre[1])
            image_HWC = draw.integers(100, 150, (height, width, 3))
            image_HWC[distance_HW < RADIUS] = LEVELS[animal]
            mask_HW = np.zeros(SIZE, np.uint8)
            mask_HW[distance_HW < RADIUS + 1] = NO_LABEL
            mask_HW[distance_HW < RADIUS - 1] = VOC_CLASSES.index(animal)
            save(base, name, image_HWC.astype(np.uint8), mask_HW)
            names.append(name)
    (base / "ImageSets/Segmentation/trainval.txt").write_text("\n".join(names))
    return root


def save(base: Path, name: str, image_HWC: np.ndarray, mask_HW: np.ndarray) -> None:
    """Write an image and its mask."""
    Image.fromarray(image_HWC).save(base / "JPEGImages" / f"{name}.jpg", quality=95)
    Image.fromarray(mask_HW).save(mask_of(base, name))


def mask_of(base: Path, name: str) -> Path:
    """Return where an image's mask lies."""
    return base / "SegmentationClass" / f"{name}.png"
