"""Decodes an image file to 8-bit RGB, and says where that may change what it shows.

Pillow's `convert` alone turns 16-bit grey into white, shows what lies hidden below transparent
pixels and ignores what a file says of its own orientation and of its grey scale.

H/W height and width.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rootstock.common.errors import DataError
from rootstock.common.image_files.findings import printable

_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Pillow's names of the formats that are read, whatever the file's ending: no scripts (EPS)."""

GreyRange = tuple[float, float]
"""The grey values that become black and white."""

_BROKEN = (
    UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError,
    TypeError, OverflowError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow raises for files that are damaged."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation. `ImageOps.exif_transpose` also writes the EXIF anew, which damaged tags that
do not matter here make fail."""

_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 274, 258, 262, 339
_SIGNED = 2
"""TIFF's SampleFormat of signed integers."""


class UnreadableError(DataError):
    """A file is not an image that can be read."""


class GreyRangeError(DataError):
    """A picture's grey values have no known range: which is black and which white must be given."""

    def __init__(self, path: Path, what: str, low: float, high: float) -> None:
        super().__init__(path, what, low, high)
        self.path, self.what, self.low, self.high = path, what, low, high

    def __str__(self) -> str:
        return (
            f"{printable(self.path)}: holds {self.what}, {self.low:g} to {self.high:g}, and "
            "nothing says which are black and white"
        )


class Conversion(StrEnum):
    """What was done to a picture that may change its meaning; the text follows "N images"."""

    TURNED = "turned as their EXIF orientation says"
    DEEP_GREY = "of 9 to 16 bits of grey, scaled to 8 by the format's range"
    GREY_RANGE = "of more than 8 bits of grey, scaled to 8 by the range that is set"
    DEEP_COLOUR = "of 16 bits a channel, of which the high 8 are taken"
    INVERTED = "whose grey values count from white, inverted"
    ALPHA = "with transparent pixels, shown on white"
    CMYK = "in CMYK, converted to RGB without a colour profile"
    LAB = "in Lab, converted to RGB"
    FIRST_FRAME = "with several frames or pages, of which the first is taken"


@dataclass(frozen=True)
class Decoded:
    """A picture in 8-bit RGB."""

    image: Image.Image
    conversions: tuple[Conversion, ...]
    grey: GreyRange | None = None
    """Smallest and largest grey value of a picture of more than 8 bits of grey."""
    top: float = 0
    """The largest grey value that its format can hold."""


@dataclass(frozen=True)
class _File:
    """A file as Pillow loads it."""

    image: Image.Image
    deep: bool
    """Whether Pillow takes the high byte of 16 bits a channel."""
    tags: dict[int, Any]
    """TIFF's tags by number."""
    orientation: int
    """That is still to be applied."""
    turned: bool
    frames: bool


def decode(path: Path, grey_range: GreyRange | None = None) -> Decoded:
    """Read an image file whole as 8-bit RGB, as a viewer shows it; the first of several frames.

    8-bit pictures keep their very values. Grey of 16 bits, or of what else the format says, is
    scaled by the format's range (v >> 8); with `grey_range`, all grey of more than 8 bits by that.

    Raises UnreadableError for what is no image, is damaged, holds values that are no numbers or has
    more pixels than Pillow takes for safe (89 million); GreyRangeError for signed, 32-bit and float
    grey without a `grey_range`.
    """
    file = _load(path)
    done = [conversion for conversion, applies in (
        (Conversion.TURNED, file.turned), (Conversion.FIRST_FRAME, file.frames),
        (Conversion.DEEP_COLOUR, file.deep),
    ) if applies]  # fmt: skip
    grey = top = None
    values_HW = _deep_grey(file)
    if values_HW is None:
        image = _rgb(file.image, done)
    else:
        levels_HW, grey, top = _levels(path, file, values_HW, grey_range, done)
        image = Image.fromarray(levels_HW).convert("RGB")
    if file.orientation in _TURNS:
        image = image.transpose(_TURNS[file.orientation])
    return Decoded(image, tuple(done), grey, top or 0)


def read_as_it_is(path: Path) -> Image.Image:
    """Read an image file whole without any conversion: masks, whose values are classes."""
    return _load(path).image


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that the installed Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _load(path: Path) -> _File:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about tags, which people cannot mend
            # Pillow only warns up to twice the cap.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_formats()) as image:
                deep = any(";16" in _raw_mode(tile) for tile in image.tile)
                before = _orientation(image)
                image.load()
                after = _orientation(image)  # Pillow turns TIFF itself
                return _File(
                    image.copy(),
                    deep and image.mode in ("RGB", "RGBA", "LA", "CMYK"),
                    _tags(image),
                    after,
                    before in _TURNS,
                    _has_frames(image),
                )
    except PermissionError as error:
        raise UnreadableError(
            f"{printable(path)}: {os.strerror(error.errno or 0)}; give this user the right to read "
            "it, or move it away"
        ) from error
    except _BROKEN as error:
        raise UnreadableError(
            f"{printable(path)}: cannot be read as an image ({printable(error)}); replace or "
            "remove it"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"{printable(path)}: {error}; replace it by a smaller one") from error


def _raw_mode(tile: Any) -> str:
    arguments = tile[3]
    first = arguments if isinstance(arguments, str) else next(iter(arguments or ("",)))
    return str(first)


def _tags(image: Image.Image) -> dict[int, Any]:
    """Return the TIFF tags that matter here, none for other formats."""
    tags = getattr(image, "tag_v2", {})
    found = {}
    for number in (_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT):
        with suppress(*_BROKEN):
            found[number] = tags[number]
    return found


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, as it is, where there is none or the EXIF is damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:
        return 1


def _has_frames(image: Image.Image) -> bool:
    """Say whether there is more than one; what is damaged behind the first does not matter.

    MPO is what many phones write: behind the photograph stands a map of its brightness.
    """
    try:
        return image.format != "MPO" and bool(getattr(image, "n_frames", 1) > 1)
    except _BROKEN:
        return False


def _deep_grey(file: _File) -> NDArray[Any] | None:
    """Return the values (H, W) of grey that 8 bits do not hold, None for other pictures."""
    image, bits = file.image, _first(file.tags.get(_BITS), 0)
    signed = _first(file.tags.get(_SAMPLE_FORMAT), 1) == _SIGNED
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":
        values_HW = np.asarray(image)
        return values_HW.view(np.uint32) if bits == 32 and not signed else values_HW
    if image.mode == "F":
        return np.asarray(image)
    if image.mode == "L" and bits == 8 and signed:
        return np.asarray(image).view(np.int8)
    return None


def _top(file: _File, values_HW: NDArray[Any]) -> float | None:
    """Return the largest value of the format's range, which begins at 0; None if it has none."""
    if file.image.mode == "I" and not file.tags:
        return 65535.0  # PNG, PGM and JPEG 2000 of 9 to 16 bits, as Pillow gives them
    if values_HW.dtype != np.uint16:
        return None
    bits = int(_first(file.tags.get(_BITS), 16))
    return float((1 << (bits if 8 < bits < 16 else 16)) - 1)


def _levels(
    path: Path,
    file: _File,
    values_HW: NDArray[Any],
    grey_range: GreyRange | None,
    done: list[Conversion],
) -> tuple[NDArray[np.uint8], GreyRange, float | None]:
    """Scale grey values to 0 to 255; return also the smallest and largest of them, and the top."""
    if not np.isfinite(values_HW).all():
        raise UnreadableError(
            f"{printable(path)}: holds values that are no numbers (NaN or infinite); replace or "
            "remove it"
        )
    low, high = float(values_HW.min()), float(values_HW.max())
    top = _top(file, values_HW)
    if grey_range is None and top is None:
        raise GreyRangeError(path, _kind(values_HW), low, high)
    done.append(Conversion.DEEP_GREY if grey_range is None else Conversion.GREY_RANGE)
    levels_HW = scaled(values_HW, grey_range or (0.0, top or 0.0))
    if _first(file.tags.get(_PHOTOMETRIC), 1) == 0:  # WhiteIsZero, which Pillow undoes for 8 bits
        done.append(Conversion.INVERTED)
        levels_HW = 255 - levels_HW
    transparent = file.image.info.get("transparency")
    if isinstance(transparent, int) and (values_HW == transparent).any():
        done.append(Conversion.ALPHA)
        levels_HW[values_HW == transparent] = 255
    return levels_HW, (low, high), top


def scaled(values_HW: NDArray[Any], grey_range: GreyRange) -> NDArray[np.uint8]:
    """Return grey values as 256 equal levels from `low` (0) to `high` (255); clipped beyond.

    For (0, 65535) that is v >> 8, for (0, 4095) v >> 4.
    """
    low, high = grey_range
    step = 1 if np.issubdtype(values_HW.dtype, np.integer) else 0
    share_HW = (values_HW.astype(np.float64) - low) / (high - low + step)
    return np.clip(np.floor(share_HW * 256), 0, 255).astype(np.uint8)


def _kind(values_HW: NDArray[Any]) -> str:
    if not np.issubdtype(values_HW.dtype, np.integer):
        return "floating-point grey values"
    signed = "signed " if np.issubdtype(values_HW.dtype, np.signedinteger) else ""
    return f"{signed}{values_HW.dtype.itemsize * 8}-bit grey values"


def _first(value: Any, default: int) -> Any:
    """Return a TIFF tag's value, or the first of several: one for each channel."""
    if value is None:
        return default
    return value[0] if isinstance(value, tuple) else value


def _rgb(image: Image.Image, done: list[Conversion]) -> Image.Image:
    if image.mode == "CMYK":
        done.append(Conversion.CMYK)
    if image.mode == "LAB":
        done.append(Conversion.LAB)
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image.convert("RGB")
    whole = image.convert("RGBA")
    if whole.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    done.append(Conversion.ALPHA)
    white = Image.new("RGBA", whole.size, "white")
    white.alpha_composite(whole)
    return white.convert("RGB")
