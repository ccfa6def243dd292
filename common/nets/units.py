"""The first layer of a net that was trained on images in units of its own.

N images, C channels, H/W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rootstock.common.errors import SchemaError
from rootstock.common.nets.spec import STANDARD_MEAN, STANDARD_STD, Preprocessing

NAME = "units"


class Units(nn.Module):
    """From the standard units to (value / 255 − mean) / std, the channels in the net's order.

    It has nothing to learn and no tensors in a file: the specification says it all, and
    `require_units` that it is for so many channels.
    """

    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, preprocessing: Preprocessing, channels: int) -> None:
        super().__init__()
        mean_C11, std_C11 = (
            torch.tensor(values).expand(channels).reshape(channels, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )
        self.register_buffer("scale_C11", STANDARD_STD / std_C11, persistent=False)
        self.register_buffer("shift_C11", (STANDARD_MEAN - mean_C11) / std_C11, persistent=False)
        self._turns = preprocessing.colours == "bgr"

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return images of the same shape."""
        if self._turns:
            x_NCHW = x_NCHW.flip(1)
        return x_NCHW * self.scale_C11 + self.shift_C11


def needs_units(preprocessing: Preprocessing) -> bool:
    """Return whether a net takes other units than the standard ones."""
    standard = Preprocessing()
    return any(
        getattr(preprocessing, name) != getattr(standard, name)
        for name in ("colours", "mean", "std")
    )


def require_units(preprocessing: Preprocessing, channels: int) -> None:
    """Refuse units that are not for so many channels (SchemaError)."""
    for name in ("mean", "std"):
        count = len(getattr(preprocessing, name))
        if count not in (1, channels):
            raise SchemaError(
                f"preprocessing.{name} has {count} numbers and the net takes {channels} channels; "
                f"give one number, or {channels}"
            )
    if preprocessing.colours == "bgr" and channels != 3:
        raise SchemaError(
            f'preprocessing.colours = "bgr" and the net takes {channels} channels, not 3; leave '
            "it out"
        )
