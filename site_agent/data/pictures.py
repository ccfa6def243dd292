"""A dataset's image files, read whole or refused by name."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from rootstock.common.images.decode import UnreadableError, read_picture


def read(path: Path, mode: str | None) -> Image.Image:
    """Read an image file whole, and convert it to `mode` unless that is None.

    Raises
    ------
    UnreadableError
        If it is missing, cut short or not an image.
    """
    try:
        return read_picture(path, mode)
    except UnreadableError as error:
        raise UnreadableError(f"{error}, or set data.skip_unreadable = true") from error
