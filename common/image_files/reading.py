"""Reads image files alike wherever images are read, and keeps count of what was done to them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from rootstock.common.errors import ConfigurationError, DataError
from rootstock.common.image_files.decoding import (
    Conversion,
    Decoded,
    GreyRange,
    GreyRangeError,
    decode,
)
from rootstock.common.image_files.findings import Finding, FindingKind, examples, images

_AS_MEANT = (Conversion.GREY_RANGE, Conversion.TURNED)
"""What the operator or the camera asked for is told and is no doubt."""

_LEAST_SHARE = 1 / 8
"""Of the format's range that grey values must span, or fewer than 32 of 256 levels are left."""

SITE_KEY = "data.grey_range = [{low}, {high}] in site.toml"
SAMPLES_KEY = "samples.grey_range = [{low}, {high}] in coordinator.toml"
OPTION = "--grey-range {low} {high}"
"""How a range is set: in files, and where a command reads images."""


class ImageReader:
    """Decodes image files one by one; afterwards it says what there is to say of all of them.

    `setting` is how a grey range is set here, one of the templates above: for errors.
    """

    def __init__(self, grey_range: GreyRange | None = None, setting: str = SITE_KEY) -> None:
        if grey_range is not None and not grey_range[0] < grey_range[1]:
            raise ConfigurationError(
                f"the grey range {list(grey_range)} is none; give black and white, the smaller "
                "number first"
            )
        self._range = grey_range
        self._setting = setting
        self._converted: dict[Conversion, list[str]] = {}
        self._one_level: list[str] = []
        self._low, self._high, self._top = math.inf, -math.inf, 0.0
        self._colour_low, self._colour_high = math.inf, -math.inf

    def read(self, path: Path, name: str | None = None) -> Image.Image:
        """Read an image as 8-bit RGB; findings call it by `name`.

        UnreadableError as `decode` raises it; DataError, with the setting to make, for grey values
        of no known range.
        """
        name = path.name if name is None else name
        try:
            decoded = decode(path, self._range)
        except GreyRangeError as error:
            setting = self._suggested(error.low, error.high)
            raise DataError(f"{error}; set {setting}, or the range that all images have") from error
        self._note(decoded, name)
        return decoded.image

    def findings(self) -> list[Finding]:
        """Return what there is to say of the images that were read."""
        found = [
            Finding(
                kind=FindingKind.CONVERTED,
                count=len(names),
                text=f"{images(len(names))} {conversion.value}, as {examples(sorted(names))}",
                doubtful=conversion not in _AS_MEANT,
            )
            for conversion, names in self._converted.items()
        ]
        if self._range is not None and (self._low < self._range[0] or self._high > self._range[1]):
            found.append(
                Finding(
                    kind=FindingKind.BEYOND_RANGE,
                    count=len(self._converted.get(Conversion.GREY_RANGE, [])),
                    text=f"grey values from {self._low:g} to {self._high:g} are clipped to the "
                    f"range that is set, {self._range[0]:g} to {self._range[1]:g}",
                )
            )
        if self._one_level:
            found.append(
                Finding(
                    kind=FindingKind.ONE_LEVEL,
                    count=len(self._one_level),
                    text=f"{images(len(self._one_level))} of one colour all over, as "
                    f"{examples(sorted(self._one_level))}",
                )
            )
        return found

    def contrast_error(self) -> str | None:
        """Return why the images that were read have too few grey levels left, if they have."""
        span = self._high - self._low
        if self._range is None and 0 <= span < _LEAST_SHARE * self._top:
            levels = math.ceil(256 * (span + 1) / (self._top + 1))
            return (
                f"the images' grey values, {self._low:g} to {self._high:g}, fill so little of the "
                f"format's range, 0 to {self._top:g}, that {levels} of 256 levels are left; set "
                f"{self._suggested(self._low, self._high)}, or "
                f"{self._setting.format(low=0, high=int(self._top))} to leave them as they are"
            )
        span = self._colour_high - self._colour_low
        if 0 <= span < _LEAST_SHARE * 255:
            return (
                f"the images of 16 bits a channel reach from {self._colour_low:g} to "
                f"{self._colour_high:g} of 255 once their high 8 bits are taken; save them with "
                "8 bits a channel, scaled to the whole range"
            )
        return None

    def require_contrast(self) -> None:
        """Raise DataError if the images that were read have too few grey levels left."""
        if (reason := self.contrast_error()) is not None:
            raise DataError(reason)

    def _note(self, decoded: Decoded, name: str) -> None:
        for conversion in decoded.conversions:
            self._converted.setdefault(conversion, []).append(name)
        counts = np.reshape(decoded.image.histogram(), (3, 256))
        extrema = [np.flatnonzero(band)[[0, -1]].tolist() for band in counts]
        if all(low == high for low, high in extrema):
            self._one_level.append(name)
        if decoded.grey is not None:
            self._low = min(self._low, decoded.grey[0])
            self._high = max(self._high, decoded.grey[1])
            self._top = max(self._top, decoded.top)
        if Conversion.DEEP_COLOUR in decoded.conversions:
            self._colour_low = min(self._colour_low, *(low for low, _ in extrema))
            self._colour_high = max(self._colour_high, *(high for _, high in extrema))

    def _suggested(self, low: float, high: float) -> str:
        """Return the setting for values from `low` to `high`: [0, 4095] for 0 to 3807."""
        if low >= 0 and high == int(high) and high - low >= high * _LEAST_SHARE:
            low, high = 0, (1 << int(high).bit_length()) - 1
        elif low >= 0 and high <= 1:
            low, high = 0, 1
        return self._setting.format(low=f"{low:g}", high=_number(high))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"
