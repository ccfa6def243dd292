"""PASCAL VOC's layout: photographs, and masks that name the class of every pixel.

H/W height and width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rootstock.common.errors import DataError
from rootstock.common.files import storage_errors
from rootstock.common.image_files.decoding import UnreadableError, read_as_it_is
from rootstock.common.image_files.findings import Finding, FindingKind, examples, images, printable
from rootstock.common.image_files.reading import ImageReader
from rootstock.common.images import centre_square
from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data import crops
from rootstock.site_agent.data.crops import skippable

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
"""Index = value in the mask; `NO_LABEL` is VOC's "ignore" as well."""

_YEAR = Path("VOCdevkit", "VOC2012")
_PICTURES, _MASKS, _LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"


class VocDataset:
    """PASCAL VOC's layout with segmentation masks."""

    classes: Sequence[str] = VOC_CLASSES[1:]
    mirror = True

    def __init__(self, root: Path, config: DataConfig) -> None:
        self._base = voc_folder(root)
        self._list = self._base / _LISTS / f"{config.image_set or 'trainval'}.txt"
        counts = Counter(read_list(self._list))
        self._names = list(counts)
        self._twice = [name for name, count in counts.items() if count > 1]
        self.reader: ImageReader | None = ImageReader(config.grey_range)
        self._reader = self.reader
        self._crop = config.crop
        self._context = config.context
        self._boxes: dict[int, crops.Box] = {}
        self._pixels = np.zeros(256, np.int64)

    def labels(
        self, wanted: frozenset[str], on_unreadable: Callable[[UnreadableError], None]
    ) -> list[tuple[str, str]]:
        """Return (image id, class), the class being the only one of `wanted` in the image."""
        self._require_files(on_unreadable)
        values = [VOC_CLASSES.index(name) for name in wanted]
        rows = []
        self._pixels[:] = 0
        for index, name in enumerate(self._names):
            if not self._mask(index).exists() or not self._picture(index).exists():
                rows.append((name, ""))
                continue
            try:
                mask_HW = read_mask(self._mask(index))
            except UnreadableError as error:
                on_unreadable(error)
                rows.append((name, ""))
                continue
            self._pixels += np.bincount(mask_HW.ravel(), minlength=256)
            present = [value for value in values if (mask_HW == value).any()]
            if len(present) == 1:
                self._boxes[index] = crops.bounding_box(mask_HW == present[0])
                rows.append((name, VOC_CLASSES[present[0]]))
            else:
                rows.append((name, ""))
        return rows

    def image(self, index: int) -> Image.Image:
        """Read the square around the animal (crop = "box") or the centre square ("image")."""
        return self._square(index, self._whole(index), crops.MID_GREY)

    def mask(self, index: int, name: str) -> Image.Image:
        """Read the mask of the same square: 1 where `name` is, `NO_LABEL` where nobody said.

        What lies beyond the picture has no label.
        """
        mask_HW = read_mask(self._mask(index))
        own_HW = np.where(mask_HW == NO_LABEL, NO_LABEL, mask_HW == VOC_CLASSES.index(name))
        return self._square(index, Image.fromarray(own_HW.astype(np.uint8)), NO_LABEL)

    def findings(self) -> list[Finding]:
        """Return which names the list of images holds more than once."""
        if not self._twice:
            return []
        text = f"{printable(self._list)} names {images(len(self._twice))} more than once, as "
        return [
            Finding(
                kind=FindingKind.LISTED_TWICE,
                count=len(self._twice),
                text=text + examples(self._twice),
            )
        ]

    def values(self, name: str) -> str:
        """Say which values the masks hold, after `labels`, and which value stands for a class."""
        total = max(1, int(self._pixels.sum()))
        shares = ", ".join(
            f"{value} ({'no label' if value == NO_LABEL else VOC_CLASSES[value]}) in "
            f"{100 * self._pixels[value] / total:.2g}%"
            for value in np.flatnonzero(self._pixels)
        )
        return (
            f"the masks hold {shares or 'nothing'} of their pixels; VOC's masks write "
            f"{VOC_CLASSES.index(name)} for {name}, 0 for the background and {NO_LABEL} where "
            "nobody said: if yours have another coding, write them anew with these values"
        )

    def _picture(self, index: int) -> Path:
        return self._base / _PICTURES / f"{self._names[index]}.jpg"

    def _mask(self, index: int) -> Path:
        return self._base / _MASKS / f"{self._names[index]}.png"

    def _require_files(self, on_unreadable: Callable[[UnreadableError], None]) -> None:
        for what, folder, ending, path_of in (
            ("picture", _PICTURES, ".jpg", self._picture),
            ("mask", _MASKS, ".png", self._mask),
        ):
            paths = map(path_of, range(len(self._names)))
            missing = [path.name for path in paths if not path.exists()]
            if missing:
                on_unreadable(
                    skippable(
                        UnreadableError(
                            f"{printable(self._list)}: {len(missing)} of {len(self._names)} "
                            f"entries have no {what} in {printable(self._base / folder)}: "
                            f"{examples(missing)}; put NAME{ending} there or remove the entries"
                        )
                    )
                )

    def _whole(self, index: int) -> Image.Image:
        """Read a picture, which must be of its mask's size: they lie on each other."""
        path, mask = self._picture(index), self._mask(index)
        picture = crops.read(self._reader, path, f"{self._names[index]}.jpg")
        size = read_size(mask)
        if picture.size != size:
            raise UnreadableError(
                f"{printable(mask)}: has {size[0]}×{size[1]} pixels and its picture "
                f"{picture.width}×{picture.height}; "
                "replace it by a mask of the picture's size, as a viewer shows it, or set "
                "data.skip_unreadable = true"
            )
        return picture

    def _square(self, index: int, whole: Image.Image, beyond: crops.Fill) -> Image.Image:
        if self._crop == "image" or index not in self._boxes:
            return centre_square(whole)
        return crops.square_around(whole, self._boxes[index], self._context, beyond)


def voc_folder(root: Path) -> Path:
    """Return VOC2012 in VOC's layout below `root`; DataError says where there is one instead."""
    base = root / _YEAR
    if all((base / part).is_dir() for part in (_PICTURES, _MASKS, _LISTS)):
        return base
    if base.is_dir():
        parts = [part for part in (_PICTURES, _MASKS, _LISTS) if not (base / part).is_dir()]
        raise DataError(
            f"{printable(base)}: is no VOC folder with masks: it has no {', no '.join(parts)}; put "
            f"pictures into {_PICTURES}, masks into {_MASKS} and lists of names into {_LISTS}"
        )
    raise DataError(
        f"{printable(root)}: is no VOC folder: it has no {_YEAR}; {_remedy(root.absolute())}"
    )


def _remedy(root: Path) -> str:
    """Say which folder to give instead, where one is near; or which to rename."""
    for parent in root.parents[:3]:
        if root.is_relative_to(parent / _YEAR.parts[0]) and (parent / _YEAR).is_dir():
            return f"data.path is too deep: set it to {printable(parent)}"
    for depth in range(4):
        for found in sorted(root.glob("/".join(["*"] * depth + [str(_YEAR)]))):
            return f"data.path is too high: set it to {printable(found.parents[1])}"
    for pattern in (_PICTURES, f"*/{_PICTURES}", f"*/*/{_PICTURES}", f"*/*/*/{_PICTURES}"):
        for found in sorted(root.glob(pattern)):
            there = found.parent
            return (
                f"there is {printable(there)} in VOC's layout: name it {_YEAR} below data.path, "
                f"as by: mkdir -p '{printable(root / _YEAR.parts[0])}' && ln -s "
                f"'{printable(there)}' '{printable(root / _YEAR)}'"
            )
    return f"give the folder that holds {_YEAR}"


def read_list(path: Path) -> list[str]:
    """Read the names in a list of images; one a line, blank lines and endings do not count."""
    try:
        with storage_errors(path):
            text = path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        there = sorted(each.stem for each in path.parent.glob("*.txt"))
        raise DataError(
            f"{printable(path)}: is missing; there are the lists {', '.join(there) or 'none'}: set "
            "data.image_set to one of train, val and trainval, and write that list"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{printable(path)}: is no UTF-8 text ({error}); save it as that"
        ) from error
    names = []
    for line in text.splitlines():
        name = line.strip()
        for ending in (".jpg", ".jpeg", ".png"):
            if name.lower().endswith(ending):
                name = name[: -len(ending)]
        if name:
            names.append(name)
    return names


def read_size(path: Path) -> tuple[int, int]:
    """Return the width and height of an image file."""
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise skippable(UnreadableError(f"{printable(path)}: cannot be read ({error})")) from error


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read the classes (H, W) of an image's pixels."""
    try:
        image = read_as_it_is(path)
    except UnreadableError as error:
        raise skippable(error) from error
    if image.mode not in ("P", "L"):
        raise UnreadableError(
            f"{printable(path)}: is no mask but an image of mode {image.mode}; a mask has one "
            "channel, which holds each pixel's class: replace it, or set "
            "data.skip_unreadable = true"
        )
    mask_HW = np.asarray(image)
    present = np.unique(mask_HW).tolist()
    strange = set(present) - {*range(len(VOC_CLASSES)), NO_LABEL}
    if strange:
        raise UnreadableError(
            f"{printable(path)}: is no mask: it holds {min(strange)}, and a mask holds classes, 0 "
            f"to {len(VOC_CLASSES) - 1}, or {NO_LABEL} for none; replace it, or set "
            "data.skip_unreadable = true"
        )
    _require_order(path, image, present)
    return mask_HW


def _require_order(path: Path, image: Image.Image, present: Sequence[int]) -> None:
    """Refuse a palette with VOC's colours in another order: its values are not VOC's classes."""
    if image.mode != "P":
        return
    palette = (image.getpalette("RGB") or []) + [0] * 768
    colours = {voc_colour(value): value for value in (*range(len(VOC_CLASSES)), NO_LABEL)}
    meant = {value: colours.get(tuple(palette[3 * value : 3 * value + 3])) for value in present}
    moved = {value: other for value, other in meant.items() if other != value}
    if moved and None not in meant.values():
        value, other = next(iter(moved.items()))
        name = "no label" if other == NO_LABEL else VOC_CLASSES[other or 0]
        raise UnreadableError(
            f"{printable(path)}: is no mask of VOC's: its value {value} has the colour of {other} "
            f"({name}), so the palette was put into another order; write VOC's values, or set "
            "data.skip_unreadable = true"
        )


def voc_colour(value: int) -> tuple[int, ...]:
    """Return the colour that VOC's palette has for a value of a mask."""
    bits = [(value >> shift) & 1 for shift in range(8)]
    return tuple(
        sum(
            bits[3 * place + channel] << (7 - place)
            for place in range(3)
            if 3 * place + channel < 8
        )
        for channel in range(3)
    )
