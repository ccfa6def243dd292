"""Square crops of PASCAL VOC's five mammals, and random crops to tell them from.

The paper learns "the binary classification of a single category from random images". Images of
other kinds are not at hand here, so random images are squares of any size from anywhere in the
images of the data set that hold little of an animal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rootstock.common.errors import DataError
from rootstock.site_agent.data import crops as squares
from rootstock.site_agent.data.voc import VOC_CLASSES

ANIMALS = ("cat", "cow", "dog", "horse", "sheep")
_VALUES = [VOC_CLASSES.index(name) for name in ANIMALS]
SIDE = 32
"""Pixels."""
CONTEXT = 0.1
"""Margin around an animal's box, as a share of its longer side."""
PHOTOGRAPH, AROUND = 224, 0.2
"""Side and margin of `photographs`."""
RANDOM_PER_IMAGE = 2
_MAX_ANIMAL = 0.1
"""Share of a random square that animals may cover."""
_TRIES = 20


def pictures(root: Path, part: str) -> Iterator[tuple[str, Image.Image, np.ndarray]]:
    """Yield every picture's name, the picture, not decoded yet, and its mask."""
    base = root / "VOCdevkit" / "VOC2012"
    listing = base / "ImageSets" / "Segmentation" / f"{part}.txt"
    if not listing.is_file():
        raise DataError(f"{listing} is missing; give --root the folder of voc2012-animals")
    for name in listing.read_text().split():
        mask_HW = np.asarray(Image.open(base / "SegmentationClass" / f"{name}.png"))
        yield name, Image.open(base / "JPEGImages" / f"{name}.jpg"), mask_HW


def crops(root: Path, part: str) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, S, S) uint8 and classes (N): an index into ANIMALS, −1 for random."""
    images: list[np.ndarray] = []
    classes: list[int] = []
    for name, image, mask_HW in pictures(root, part):
        picture = image.convert("RGB")
        if (shown := _only_animal(mask_HW)) is not None:
            images.append(_pixels(_square_around(picture, shown.box)))
            classes.append(shown.kind)
        animal_HW = np.isin(mask_HW, _VALUES)
        for crop in _random_squares(picture, animal_HW, name):
            images.append(_pixels(crop))
            classes.append(-1)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.tensor(classes)


def photographs(root: Path, part: str) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, S, S) uint8 of one animal each, and which: an index into ANIMALS.

    Larger than `crops`', cut as a lab's agent does, and there is no random one.
    """
    images: list[np.ndarray] = []
    classes: list[int] = []
    for _, image, mask_HW in pictures(root, part):
        if (shown := _only_animal(mask_HW)) is not None:
            square = squares.square_around(image.convert("RGB"), shown.box, AROUND)
            images.append(_pixels(square, PHOTOGRAPH))
            classes.append(shown.kind)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.tensor(classes)


class _Shown(NamedTuple):
    kind: int
    """An index into ANIMALS."""
    box: squares.Box


def _only_animal(mask_HW: np.ndarray) -> _Shown | None:
    """Return the animal that an image shows; None where it shows none, or two kinds."""
    present = [kind for kind, value in enumerate(_VALUES) if (mask_HW == value).any()]
    if len(present) != 1:
        return None
    return _Shown(present[0], squares.bounding_box(mask_HW == _VALUES[present[0]]))


def _square_around(picture: Image.Image, box: squares.Box) -> Image.Image:
    """Cut a square that ends where the picture does: padding would tell animals from the rest."""
    left, top, right, bottom = box
    side = round(max(right - left, bottom - top) * (1 + 2 * CONTEXT))
    side = min(side, picture.width, picture.height)
    x = min(max((left + right - side) // 2, 0), picture.width - side)
    y = min(max((top + bottom - side) // 2, 0), picture.height - side)
    return picture.crop((x, y, x + side, y + side))


def _random_squares(picture: Image.Image, animal_HW: np.ndarray, name: str) -> list[Image.Image]:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
    draw = np.random.default_rng(seed)
    height, width = animal_HW.shape
    found: list[Image.Image] = []
    for _ in range(_TRIES):
        side = int(draw.integers(min(height, width) // 4, min(height, width) + 1))
        top, left = (int(draw.integers(0, n - side + 1)) for n in (height, width))
        if animal_HW[top : top + side, left : left + side].mean() <= _MAX_ANIMAL:
            found.append(picture.crop((left, top, left + side, top + side)))
        if len(found) == RANDOM_PER_IMAGE:
            break
    return found


def _pixels(picture: Image.Image, side: int = SIDE) -> np.ndarray:
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
