"""PASCAL VOC's layout: photographs, and masks that name the class of every pixel.

H/W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets

from rootstock.common.errors import DataError
from rootstock.common.images import UnreadableError, centre_square
from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data import crops
from rootstock.site_agent.data.crops import read

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
"""Index = value in the mask; `NO_LABEL` is VOC's "ignore" as well."""


class VocDataset:
    """PASCAL VOC's layout with segmentation masks, through torchvision's VOCSegmentation."""

    classes: Sequence[str] = VOC_CLASSES[1:]
    mirror = True

    def __init__(self, root: Path, config: DataConfig) -> None:
        try:
            self._dataset = datasets.VOCSegmentation(
                str(root), year="2012", image_set=config.image_set or "trainval", download=False
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(
                f"{root}: is no VOC folder ({error}); give the folder that holds VOCdevkit/VOC2012"
            ) from error
        self._crop = config.crop
        self._context = config.context
        self._boxes: dict[int, crops.Box] = {}

    def labels(
        self, wanted: frozenset[str], on_unreadable: Callable[[UnreadableError], None]
    ) -> list[tuple[str, str]]:
        """Return (image id, class), the class being the only one of `wanted` in the image."""
        values = [VOC_CLASSES.index(name) for name in wanted]
        rows = []
        for index, path in enumerate(self._dataset.masks):
            key = Path(path).stem
            try:
                mask_HW = read_mask(Path(path))
            except UnreadableError as error:
                on_unreadable(error)
                rows.append((key, ""))
                continue
            present = [value for value in values if (mask_HW == value).any()]
            if len(present) == 1:
                self._boxes[index] = crops.bounding_box(mask_HW == present[0])
                rows.append((key, VOC_CLASSES[present[0]]))
            else:
                rows.append((key, ""))
        return rows

    def image(self, index: int) -> Image.Image:
        """Read the square around the animal (crop = "box") or the centre square ("image")."""
        picture = read(Path(self._dataset.images[index]), "RGB")
        return self._square(index, picture, crops.MID_GREY)

    def mask(self, index: int, name: str) -> Image.Image:
        """Read the mask of the same square: 1 where `name` is, `NO_LABEL` where nobody said.

        What lies beyond the picture has no label.
        """
        path = Path(self._dataset.masks[index])
        mask_HW = read_mask(path)
        height, width = mask_HW.shape
        size = read(Path(self._dataset.images[index]), None).size
        if size != (width, height):
            raise UnreadableError(
                f"{path}: has {width}×{height} pixels and its picture {size[0]}×{size[1]}; "
                "replace it by a mask of the picture's size, or set data.skip_unreadable = true"
            )
        own_HW = np.where(mask_HW == NO_LABEL, NO_LABEL, mask_HW == VOC_CLASSES.index(name))
        return self._square(index, Image.fromarray(own_HW.astype(np.uint8)), NO_LABEL)

    def _square(self, index: int, whole: Image.Image, beyond: crops.Fill) -> Image.Image:
        if self._crop == "image" or index not in self._boxes:
            return centre_square(whole)
        return crops.square_around(whole, self._boxes[index], self._context, beyond)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read the classes (H, W) of an image's pixels."""
    image = read(path, None)
    if image.mode not in ("P", "L"):
        raise UnreadableError(
            f"{path}: is no mask but an image of mode {image.mode}; a mask has one channel, which "
            "holds each pixel's class: replace it, or set data.skip_unreadable = true"
        )
    mask_HW = np.asarray(image)
    strange = set(np.unique(mask_HW).tolist()) - {*range(len(VOC_CLASSES)), NO_LABEL}
    if strange:
        raise UnreadableError(
            f"{path}: is no mask: it holds {min(strange)}, and a mask holds classes, 0 to "
            f"{len(VOC_CLASSES) - 1}, or {NO_LABEL} for none; replace it, or set "
            "data.skip_unreadable = true"
        )
    return mask_HW
