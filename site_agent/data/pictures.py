"""Image files, read whole or refused by name."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from common.errors import DataError


class UnreadableError(DataError):
    """One file of the dataset cannot be read."""


def read(path: Path, mode: str | None) -> Image.Image:
    """Read an image file whole, and convert it to `mode` unless that is None.

    Raises
    ------
    UnreadableError
        If it is missing, cut short or not an image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image.convert(mode) if mode else image.copy()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UnreadableError(
            f"{path}: cannot be read as an image ({error}); replace or remove it, "
            "or set data.skip_unreadable = true"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableError(f"{path}: {error}; replace it by a smaller one") from error
