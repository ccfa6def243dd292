"""The record of the images that a teacher net was made with, kept beside it at the lab.

It says which image served what, so that a lab whose folder changes later still measures on the
images that the teacher did not see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rootstock.common.documents import Document
from rootstock.common.errors import SchemaError
from rootstock.common.files import read_capped, write_bytes
from rootstock.site_agent.data import twins
from rootstock.site_agent.data.images import ImageSet, LabData, PartName

_MAX_BYTES = 1 << 28
"""Of a record: 40,000 images take 5 MB."""


class ImageRecord(Document):
    """One image that was used."""

    name: str
    """As `recorded_name` writes it."""
    digest: str
    """Of its pixels, and its mask if there is one, as the net takes them."""
    part: PartName


class DataRecord(Document):
    """All images that were there when a teacher net was trained."""

    format: Literal[1] = 1
    images: tuple[ImageRecord, ...]
    """Part after part, in the order of each."""
    left_out: tuple[str, ...] = ()
    """Names of images that were chosen and could not serve: unreadable ones and copies."""


def record_path(state: Path, run: str) -> Path:
    """Return where the record lies of the images that a run's teacher net was made with."""
    return state / "data" / f"{run[:16]}.json"


def recorded_name(name: str) -> str:
    """Return an image's name as a record has it: bytes that are not UTF-8 become escapes."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def record_of(data: LabData, chosen: list[str]) -> DataRecord:
    """Return the record of images that were read, of all those that were chosen to be."""
    images = [
        ImageRecord(name=recorded_name(key), digest=digest, part=part)
        for part, images in data.parts().items()
        for key, digest in zip(images.keys, digests(images), strict=True)
    ]
    used = {each.name for each in images}
    left_out = sorted({recorded_name(name) for name in chosen} - used)
    return DataRecord(images=tuple(images), left_out=tuple(left_out))


def digests(images: ImageSet) -> list[str]:
    """Return what identifies each image."""
    masks = [None] * len(images) if images.masks_NHW is None else list(images.masks_NHW)
    return [
        twins.digest(image_CHW, mask_HW)
        for image_CHW, mask_HW in zip(images.images_NCHW, masks, strict=True)
    ]


def write_record(path: Path, record: DataRecord) -> None:
    """Save a record durably."""
    write_bytes(path, record.canonical())


def read_record(path: Path) -> DataRecord | None:
    """Return a record, or None if there is none: a teacher of an older agent has none."""
    if not path.exists():
        return None
    data = read_capped(path, _MAX_BYTES, what="record of a lab's images")
    try:
        return DataRecord.parse(data, what=str(path))
    except SchemaError as error:
        raise SchemaError(
            f"{error}; remove the file, and the images are split as they are now"
        ) from error
